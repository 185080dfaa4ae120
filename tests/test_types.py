"""Every example of docs/types.md, as a column and inside each type that has others inside; and that the cheap way of reading
lines gives what the rules give."""

import json
import os
import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.config.ddl import parse_ddl, schema_json
from pipelines.ingest.parse import json as parsing
from pipelines.ingest.parse.rules import ParseRules
from pipelines.model.events import EventStream

DOCUMENT = Path(__file__).parent.parent / "docs" / "types.md"
EXAMPLES = re.findall(r"^\| `([A-Z][^|`]*)` \| `([^|`]*)` \| `?([^|`]*)`? \|$", DOCUMENT.read_text(encoding="utf-8"), re.M)
TYPES = list(dict.fromkeys(kind for kind, _, _ in EXAMPLES))
TIME = '"t":"2026-01-01T00:00:00Z"'
RULES = ParseRules(max_event_bytes=100_000, max_future_skew_us=300_000_000, earliest_us=946_684_800_000_000)


def stream_of(ddl: str) -> EventStream:
    schema = StructType.fromJson(schema_json(parse_ddl(f"id STRING NOT NULL, t TIMESTAMP NOT NULL, {ddl}")))
    return EventStream(name="x", role="outcome", id="id", event_time="t", keys=("id",), schema=schema, partition_by="date")


def parsed(spark: SparkSession, stream: EventStream, lines: Iterable[str]) -> list[Row]:
    now = F.lit("2026-06-01").cast("timestamp")
    raw = F.struct("value", now.alias("record_time"), now.alias("ingest_time"))
    frame = spark.createDataFrame([(line,) for line in lines], "value string").select(raw.alias("__raw"))
    return parsing.parse(frame, stream, RULES).withColumn("json", F.to_json("__event", {"ignoreNullFields": "true"})).collect()


INSIDE = {
    "column": ("{}", "{}"),
    "struct": ("STRUCT<x: {}>", '{{"x":{}}}'),
    "array": ("ARRAY<{}>", "[null,{}]"),
    "map": ("MAP<STRING, {}>", '{{"k l":{}}}'),
    "deep": ("ARRAY<STRUCT<m: MAP<STRING, {}>>>", '[{{"m":{{"k":{}}}}}]'),
}


@pytest.mark.parametrize("place", INSIDE)
def test_every_example_of_the_document_holds_at_every_depth(spark: SparkSession, place: str) -> None:
    assert len(EXAMPLES) > 80
    kind_in, value_in = INSIDE[place]
    stream = stream_of(", ".join(f"c{i} {kind_in.format(kind)}" for i, kind in enumerate(TYPES)))
    lines = [f'{{"id":"1",{TIME},"c{TYPES.index(kind)}":{value_in.format(sent)}}}' for kind, sent, _ in EXAMPLES]
    for (kind, sent, becomes), row in zip(EXAMPLES, parsed(spark, stream, lines), strict=True):
        column = f"c{TYPES.index(kind)}"
        if becomes == "wrong":
            reason = "unparseable_time" if (kind, place) == ("TIMESTAMP", "column") else "wrong_type"
            assert row["__reason"] == reason, (kind, sent, row)
            assert row["__detail"].startswith(column), row["__detail"]
        else:
            assert row["__reason"] is None, (kind, sent, row["__detail"])
            assert f'"{column}":{value_in.format(becomes)}' in row["json"], (kind, sent, row["json"])


def test_what_is_wrong_is_named_with_its_place_and_as_it_was_sent(spark: SparkSession) -> None:
    stream = stream_of("n INT, d DECIMAL(4,1), s STRUCT<a: ARRAY<INT>, m MAP<STRING, DATE>>, u TIMESTAMP")
    details = {
        '"n":-2.50': "n must be INT, got -2.50",
        '"n":1E-3': "n must be INT, got 1E-3",
        '"n":1e400': "n must be INT, got 1e400",
        '"d":12.345000': "d must be DECIMAL(4,1), got 12.345000",
        '"s":{"a":[1,null,2.5e0]}': "s.a[2] must be INT, got 2.5e0",
        '"s":{"m":{"x y":"2026"}}': 's.m["x y"] must be DATE (yyyy-MM-dd), got "2026"',
        '"s":{"a":{"b":1}}': 's.a must be ARRAY<INT>, got {"b":1}',
        '"u":"2026-01-01T00:00"': 'u must be TIMESTAMP (ISO-8601 with offset, or epoch milliseconds), got "2026-01-01T00:00"',
        '"n":NaN': "n: JSON has no NaN; send null, or leave the key out",
        '"d": -Infinity': "d: JSON has no -Infinity; send null, or leave the key out",
    }
    rows = parsed(spark, stream, [f'{{"id":"1",{TIME},{fields}}}' for fields in details])
    assert [row["__detail"] for row in rows] == list(details.values())


def test_what_is_in_no_column_is_rescued_whole(spark: SparkSession) -> None:
    stream = stream_of("s STRUCT<p: INT>, l ARRAY<STRUCT<p: INT>>, m MAP<STRING, STRUCT<p: INT>>")
    rescued = {
        '"s":{"p":1}': None,
        '"s":{"p":1,"z":2}': '{"s":{"p":1,"z":2}}',
        '"l":[{"p":1},{"z":null}]': '{"l":[{"p":1},{"z":null}]}',
        '"m":{"a":{"p":1,"z":[]}}': '{"m":{"a":{"p":1,"z":[]}}}',
        '"x":1,"x":{"a":1,"a":2}': '{"x":{"a":2}}',
        '"":1,"a b":"c","s":null': '{"":1,"a b":"c"}',
    }
    rows = parsed(spark, stream, [f'{{"id":"1",{TIME},{fields}}}' for fields in rescued])
    assert [row["__reason"] for row in rows] == [None] * len(rescued)
    assert [row["__rescued"] for row in rows] == list(rescued.values())


LITERALS = [
    *(
        '"a"',
        '""',
        '"5"',
        '"true"',
        '"-1"',
        '"{"',
        '"[1]"',
        '"null"',
        '"a\\"b"',
        '"\\u0061"',
        '"]"',
        '"}"',
        '"1e5"',
        '"2026-01-01"',
    ),
    *(
        "5",
        "-0",
        "-0.0",
        "1.0",
        "1e2",
        "1.5",
        "127",
        "128",
        "40000",
        "3000000000",
        "1e400",
        "9223372036854775808",
        "true",
        "false",
    ),
    *(
        "null",
        "{}",
        '{"k":"5"}',
        "[]",
        "[5]",
        '"2026-01-01T00:00:00Z"',
        "1767225600000",
        '"1767225600000"',
        "1767225600000.0",
        "NaN",
    ),
]
KEYS = ("id", "t", "k", "n", "g", "d", "f", "b", "u", "x", "\\u006b")


def test_the_cheap_way_gives_what_the_rules_give(spark: SparkSession) -> None:
    """Of random lines, with keys twice, escaped, unknown, and values of every kind for every type."""
    draw = random.Random(os.environ.get("REJOIN_SEED", "7"))
    stream = stream_of("k STRING, n INT, g BIGINT, d DOUBLE, f FLOAT, b BOOLEAN, u TIMESTAMP")
    lines = [
        f'{{"id":"1",{TIME}' + "".join(f',"{draw.choice(KEYS)}":{draw.choice(LITERALS)}' for _ in range(draw.randint(0, 4))) + "}"
        for _ in range(4000)
    ]
    found = [row.asDict(recursive=True) for row in parsed(spark, stream, lines)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parsing, "can_be_quick", lambda _: False)
        assert found == [row.asDict(recursive=True) for row in parsed(spark, stream, lines)]
    for line, row in zip(lines, found, strict=True):
        if row["__reason"] is None:
            sent = {key: value for key, value in json.loads(line).items() if value is not None}
            kept = json.loads(row["json"]) | json.loads(row["__rescued"] or "{}")
            assert sent.keys() == {key for key, value in kept.items() if value is not None}, line
