"""Avro values: what decodes lands as the same JSON would; what does not is kept whole, with the reason."""

import base64
import contextlib
import io
import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.config.sources import ValueConfig
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import ParseRules
from pipelines.ingest.sources.avro import decoded
from pipelines.ingest.writer import accepted, quarantined
from pipelines.kafka.avro_values import NotAvroError, from_json, read_schema, to_json
from pipelines.model.errors import ConfigError
from pipelines.model.events import EventStream

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 4}


def schema(**fields: Any) -> str:
    return json.dumps({"type": "record", "name": "Event", "fields": [{"name": n, "type": t} for n, t in fields.items()]})


def encoded(text: str, event: dict[str, Any], *, framed: bool = False) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(text)), event)
    return (b"\0\0\0\0\7" if framed else b"") + stream.getvalue()


NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)

# type, value, its JSON
VALUES = [
    ("string", 'a "quoted" \\ ü \n', r'"a \"quoted\" \\ ü \n"'),
    ("long", 9223372036854775807, "9223372036854775807"),
    ("int", -5, "-5"),
    ("double", 0.1, "0.1"),
    ("double", 1e300, "1e+300"),
    ("double", float("nan"), '"nan"'),
    ("double", float("-inf"), '"-inf"'),
    ("boolean", True, "true"),
    (["null", "string"], None, "null"),
    (["null", "long", "string"], "x", '"x"'),
    (MILLIS, NOON, '"2026-01-01T12:00:00.123000+00:00"'),
    (MICROS, NOON, '"2026-01-01T12:00:00.123456+00:00"'),
    (["null", MICROS], datetime(1969, 12, 31, 23, tzinfo=timezone.utc), '"1969-12-31T23:00:00.000000+00:00"'),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, NOON.replace(tzinfo=None), '"2026-01-01T12:00:00.123456"'),
    ({"type": "int", "logicalType": "date"}, NOON.date(), '"2026-01-01"'),
    (DECIMAL, Decimal("12345678901234567890123456.7890"), "12345678901234567890123456.7890"),
    (DECIMAL, Decimal("-0.0001"), "-0.0001"),
    ("bytes", b"\xff\0", '"/wA="'),
    ({"type": "enum", "name": "E", "symbols": ["tv", "web"]}, "web", '"web"'),
    ({"type": "array", "items": "int"}, [1, 2], "[1,2]"),
    ({"type": "map", "values": ["null", "int"]}, {"a": 1, "b": None}, '{"a":1,"b":null}'),
    (
        {"type": "record", "name": "R", "fields": [{"name": "t", "type": MICROS}]},
        {"t": NOON},
        '{"t":"2026-01-01T12:00:00.123456+00:00"}',
    ),
]


@pytest.mark.parametrize(("kind", "value", "text"), VALUES)
def test_a_value_becomes_json_exactly(kind: Any, value: Any, text: str) -> None:
    assert to_json(encoded(schema(x=kind), {"x": value}), schema(x=kind)) == f'{{"x":{text}}}'


PAIR = schema(a="string", t=MICROS)
GOOD = encoded(PAIR, {"a": "abc", "t": NOON})
GARBAGE = [
    (b"", False, "EOFError"),
    (GOOD[:-1], False, "not a value of the schema"),
    (GOOD[:3], False, "not a value of the schema"),
    (GOOD + b"\0", False, "1 bytes too many"),
    (b"\xff\xfe\x00 garbage", False, "not a value of the schema"),
    (b'{"a": "json", "t": 1}', False, "not a value of the schema"),
    (b"\x06\xff\xfe\xfd\0", False, "UnicodeDecodeError"),
    (b"\x02a" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", False, "OverflowError"),
    (GOOD, True, "does not begin with the byte 0"),
    (b"\1\0\0\0\7" + GOOD, True, "does not begin with the byte 0"),
    (b"\0\0\0", True, "does not begin with the byte 0"),
    (b"\0\0\0\0\7" + GOOD[:-1], True, "not a value of the schema"),
    (b"\0\0\0\1\7" + GOOD, True, "has schema id 263; the schema's is 7"),
]


@pytest.mark.parametrize(("payload", "framed", "message"), GARBAGE)
def test_what_does_not_decode_says_why(payload: bytes, framed: bool, message: str) -> None:
    with pytest.raises(NotAvroError) as raised:
        to_json(payload, PAIR, [7] if framed else [])
    assert message in str(raised.value)


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_a_value_or_no_value(payload: bytes, framed: bool) -> None:
    with contextlib.suppress(NotAvroError):
        assert set(json.loads(to_json(payload, PAIR, [7] if framed else []))) == {"a", "t"}


@pytest.mark.parametrize("ids", [[], [300, 2]])
def test_a_generated_line_reads_back(ids: list[int]) -> None:
    text = schema(a="string", t=["null", MILLIS], n=["null", "int"])
    payload = from_json('{"a":"x","t":"2026-01-01T12:00:00.123Z","n":null}', text, ids)
    assert payload[:5] == b"\0\0\0\1\x2c" or not ids
    assert to_json(payload, text, ids) == '{"a":"x","t":"2026-01-01T12:00:00.123000+00:00","n":null}'
    for broken in ('{"a":"x"', "[]", '{"a":null,"t":null,"n":1}', '{"a":"x","t":"yesterday","n":1}'):
        with pytest.raises(NotAvroError):
            from_json(broken, text, ids)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); name a file"),
        (b"\xff", "cannot be read (not UTF-8)"),
        (b"{", "is not an Avro schema (JSONDecodeError"),
        (b'{"type": "recrd"}', "is not an Avro schema (UnknownType"),
        (b"5", "is not an Avro schema"),
        (b'"string"', "must be the schema of a record"),
        (b'["null", "string"]', "must be the schema of a record"),
    ],
)
def test_a_schema_file_that_is_none_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "x.avsc"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_schema(ValueConfig(format="avro", schema_file=str(file)), "streams.x.source")
    assert str(raised.value).startswith(f"streams.x.source.value.schema_file: {file} ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# The door --------------------------------------------------------------------------------------------------------------------

DDL = "id STRING NOT NULL, t TIMESTAMP NOT NULL, k STRING, n BIGINT, d DOUBLE, m DECIMAL(30,4), s STRUCT<p: INT>, l ARRAY<INT>"
EVENT = schema(
    id=["null", "string"],
    t=["null", MILLIS, "string"],
    k=["null", "string"],
    n=["null", "long", "string"],
    d=["null", "double"],
    m=["null", DECIMAL],
    s=["null", {"type": "record", "name": "S", "fields": [{"name": "p", "type": ["null", "int"]}]}],
    l=["null", {"type": "array", "items": "int"}],
    more=["null", "string"],
)
RULES = ParseRules(max_event_bytes=1000, max_future_skew_us=300_000_000, earliest_us=946_684_800_000_000)


@pytest.fixture(scope="module")
def stream() -> EventStream:
    ddl = StructType.fromDDL(DDL)
    assert isinstance(ddl, StructType)
    return EventStream(name="x", role="outcome", id="id", event_time="t", keys=("k",), schema=ddl, partition_by="date")


def through_the_door(
    spark: SparkSession, stream: EventStream, payloads: list[bytes | None], *, avro: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Bronze and quarantine, in order of offset."""
    records = spark.createDataFrame(list(enumerate(payloads)), "offset bigint, value binary")
    found = decoded(F.col("value"), EVENT)
    value = [found.getField("value").alias("value"), found.getField("problem").alias("problem"), F.col("value").alias("encoded")]
    when = F.lit("2026-06-01").cast("timestamp")
    raw = F.struct(
        *(value if avro else [F.col("value").cast("string").alias("value")]),
        F.lit("topic").alias("source"),
        F.lit(0).alias("source_partition"),
        F.col("offset").alias("source_offset"),
        *(when.alias(name) for name in ("source_time", "record_time", "ingest_time")),
    )
    parsed = parse(records.select(raw.alias("__raw")), stream, RULES).persist()
    try:
        sides = accepted(parsed, stream, None, 0), quarantined(parsed, stream, 0)
        bronze, quarantine = ([row.asDict(recursive=True) for row in side.orderBy("source_offset").collect()] for side in sides)
    finally:
        parsed.unpersist()
    return bronze, quarantine


def test_the_doors_rules_hold_for_avro_and_the_bytes_are_kept(spark: SparkSession, stream: EventStream) -> None:
    whole = {"id": "1", "t": NOON, "k": "v", "n": 2**62, "d": 0.5, "m": Decimal("1.2345"), "s": {"p": 1}, "l": [1], "more": "z"}
    nothing = dict.fromkeys(whole)
    cases: list[tuple[bytes | None, str | None]] = [
        (encoded(EVENT, whole), None),
        (encoded(EVENT, {**nothing, "id": "2", "t": NOON}), None),
        (None, "tombstone"),
        (b"garbage", "not_avro"),
        (b"", "not_avro"),
        (encoded(EVENT, whole)[:-2], "not_avro"),
        (encoded(EVENT, {**whole, "id": None}), "missing_required"),
        (encoded(EVENT, {**whole, "t": "yesterday"}), "unparseable_time"),
        (encoded(EVENT, {**whole, "t": NOON + timedelta(days=3650)}), "future_time"),
        (encoded(EVENT, {**whole, "t": datetime(1970, 1, 2, tzinfo=timezone.utc)}), "implausible_time"),
        (encoded(EVENT, {**whole, "n": "many"}), "wrong_type"),
        (encoded(EVENT, {**whole, "d": float("nan")}), "wrong_type"),
        (encoded(EVENT, {**whole, "k": "x" * 1000}), "oversize"),
    ]
    bronze, quarantine = through_the_door(spark, stream, [payload for payload, _ in cases], avro=True)
    reasons = {row["source_offset"]: row["reason"] for row in quarantine}
    assert [reasons.get(n) for n in range(len(cases))] == [reason for _, reason in cases]
    assert [row["id"] for row in bronze] == ["1", "2"]
    first = bronze[0]
    assert (first["n"], first["d"], first["m"], first["s"], first["l"]) == (2**62, 0.5, Decimal("1.2345"), {"p": 1}, [1])
    assert first["rescued"] == '{"more":"z"}'
    for row in quarantine:
        kept = None if row["payload"] is None else base64.b64decode(row["payload"])
        assert kept == cases[row["source_offset"]][0]


EVENTS = st.fixed_dictionaries(
    {
        "id": st.text(st.characters(codec="utf-8"), max_size=5),
        "t": st.datetimes(datetime(2001, 1, 1), datetime(2026, 5, 1)).map(
            lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000, tzinfo=timezone.utc)
        ),
        "k": st.none() | st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(["5", "true", "{}", "null"]),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "d": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "m": st.none() | st.decimals(-(10**20), 10**20, places=4),
        "s": st.none() | st.fixed_dictionaries({"p": st.none() | st.integers(-(2**31), 2**31 - 1)}),
        "l": st.none() | st.lists(st.integers(0, 9), max_size=3),
        "more": st.none() | st.text("ab", max_size=3),
    }
)


def as_json(event: dict[str, Any]) -> bytes:
    """The event as a JSON producer would write it; exact decimals, which `json` does not have, are put in as text."""
    plain = {**event, "t": event["t"].isoformat(), "m": None}
    amount = "null" if event["m"] is None else format(event["m"], "f")
    return json.dumps(plain).replace('"m": null', f'"m": {amount}').encode()


@pytest.mark.slow
def test_json_and_avro_of_the_same_events_give_the_same_rows(spark: SparkSession, stream: EventStream) -> None:
    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(EVENTS, min_size=60, max_size=60))
    def holds(events: list[dict[str, Any]]) -> None:
        ours = through_the_door(spark, stream, [encoded(EVENT, event) for event in events], avro=True)
        theirs = through_the_door(spark, stream, [as_json(event) for event in events], avro=False)
        assert ours[0] == theirs[0]
        assert [row["reason"] for row in ours[1]] == [row["reason"] for row in theirs[1]]

    holds()
