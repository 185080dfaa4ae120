"""One line in: an accepted event, or a reason."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import ParseRules
from pipelines.model.events import EventStream

TIME = '"t":"2026-01-01T00:00:00Z"'
LIMIT = 1000

# line -> reason (None: accepted), part of the detail
LINES: list[tuple[str, str | None, str]] = [
    ('{"id":"1",%s}' % TIME, None, ""),
    ('  {"id": "1", %s}  \r' % TIME, None, ""),
    ('{"id":"1","t":1700000000000}', None, ""),
    ('{"id":"1","t":"1700000000000"}', None, ""),
    ('{"id":"1","k":null,%s}' % TIME, None, ""),
    ('{"id":" ","k":"","n":null,%s}' % TIME, None, ""),
    ('{"id":"7","k":"5",%s}' % TIME, None, ""),
    ('{"id":"1","k":"{\\"a\\":1}",%s}' % TIME, None, ""),
    ('{"id":"true",%s}' % TIME, None, ""),
    ('{"id" : "9",%s}' % TIME, None, ""),
    ('{"id":"1","d":5,%s}' % TIME, None, ""),
    ('{"id":"1","s":{"p":1},"l":[1,2],%s}' % TIME, None, ""),
    ('{"id":"1","value":"v","source_":1,%s}' % TIME, None, ""),
    ("nonsense", "not_json", "not one JSON object"),
    ("[\n", "not_json", "jq -c '.[]' FILE"),
    ("{", "not_json", "jq -c . FILE"),
    ('{"id":"1",', "not_json", ""),
    ("[]", "not_json", ""),
    ("null", "not_json", ""),
    ('"text"', "not_json", ""),
    ("5", "not_json", ""),
    ('[{"id":"1",%s}]' % TIME, "not_json", ""),
    ('{"id":"1",%s}{"id":"2",%s}' % (TIME, TIME), "not_json", ""),
    ('{"id":"1",%s},{"id":"2",%s}' % (TIME, TIME), "not_json", ""),
    ('{"id":"1",%s} trailing' % TIME, "not_json", ""),
    ('{"id":"1",%s}]}' % TIME, "not_json", ""),
    ('{"id":"1",%s}]}{"id":"2",%s}' % (TIME, TIME), "not_json", ""),
    ('{"id":"1",%s}],"x":[1' % TIME, "not_json", ""),
    ('{"id":"1",%s}],"e":[{"id":"2",%s}' % (TIME, TIME), "not_json", ""),
    ('{"id":"]","x":"]}",%s}' % TIME, None, ""),
    ('{"id":5,"x":1,"x":2,%s}' % TIME, "wrong_type", "id must be STRING, got 5"),
    ('{"id":"1","d":1e400,"x":1,"x":2,%s}' % TIME, "wrong_type", "d must be DOUBLE"),
    ('{"id":"1","k":5,"k":6,%s}' % TIME, "wrong_type", "k must be STRING, got 6"),
    ('{"id":"1","k":"5","k":6,%s}' % TIME, "wrong_type", "k must be STRING, got 6"),
    ('{"id":"1","k":6,"k":"5",%s}' % TIME, None, ""),
    ('{"id":"1","k":5,"x":{"k":"5"},%s}' % TIME, "wrong_type", "k must be STRING, got 5"),
    ('{"id":"1","k" : 5,"x":{"k":"5"},%s}' % TIME, "wrong_type", "k must be STRING, got 5"),
    ('{"id":"1","d":NaN,%s}' % TIME, "not_json", "d: JSON has no NaN"),
    ("{'id':'1',%s}" % TIME, "not_json", ""),
    ('{"id":"\\ud83d\\uDE00 \\\\ud800",%s}' % TIME, None, ""),
    ('{"id":"\\ud800",%s}' % TIME, "not_json", "without its other half"),
    ('{"id":"1","more":"\\ude00",%s}' % TIME, "not_json", "without its other half"),
    ('{"id":"1","d":1e400,%s}' % TIME, "wrong_type", "d must be DOUBLE"),
    ('{"id":5,%s}' % TIME, "wrong_type", "id must be STRING, got 5"),
    ('{"id":"1","k":true,%s}' % TIME, "wrong_type", "k must be STRING, got true"),
    ('{"id":"1","k":-1e400,%s}' % TIME, "wrong_type", "k must be STRING, got -1e400"),
    ('{"id":"1","k":{"a":1},%s}' % TIME, "wrong_type", 'k must be STRING, got {"a":1}'),
    ('{"id":"5","k":5,%s}' % TIME, "wrong_type", "k must be STRING, got 5"),
    ('{"id":"1","n":"3",%s}' % TIME, "wrong_type", 'n must be INT, got "3"'),
    ('{"id":"1","n":3.5,%s}' % TIME, "wrong_type", "n must be INT"),
    ('{"id":"1","n":3000000000,%s}' % TIME, "wrong_type", "n must be INT"),
    ('{"id":"1","d":"x",%s}' % TIME, "wrong_type", "d must be DOUBLE"),
    ('{"id":"1","b":"true",%s}' % TIME, "wrong_type", "b must be BOOLEAN"),
    ('{"id":"1","s":3,%s}' % TIME, "wrong_type", "s must be STRUCT"),
    ('{"id":"1","s":{"p":"q"},%s}' % TIME, "wrong_type", 's.p must be INT, got "q"'),
    ('{"id":"1","l":[1,"x"],%s}' % TIME, "wrong_type", 'l[1] must be INT, got "x"'),
    ("{%s}" % TIME, "missing_required", "id is absent"),
    ('{"id":null,%s}' % TIME, "missing_required", "id is null"),
    ('{"id":"",%s}' % TIME, "missing_required", "id is empty"),
    ('{"id":"1"}', "missing_required", "t is absent"),
    ('{"id":"1","t":null}', "missing_required", "t is null"),
    ("{}", "missing_required", "id is absent"),
    ('{"id":"1","t":"yesterday"}', "unparseable_time", "t must be TIMESTAMP (ISO-8601 with offset"),
    ('{"id":"1","t":"2026-01-01T00:00:00"}', "unparseable_time", ""),
    ('{"id":"1","t":"2026-13-01T00:00:00Z"}', "unparseable_time", ""),
    ('{"id":"1","t":"2026-02-30T00:00:00Z"}', "unparseable_time", ""),
    ('{"id":"1","t":1.5}', "unparseable_time", ""),
    ('{"id":"1","t":true}', "unparseable_time", ""),
    ('{"id":"1","t":""}', "unparseable_time", ""),
    ('{"id":"1","t":99999999999999999999}', "unparseable_time", ""),
    ('{"id":"1","t":"2099-01-01T00:00:00Z"}', "future_time", "s ahead of its ingest"),
    ('{"id":"1","t":4102444800000}', "future_time", ""),
    ('{"id":"1","t":1736942400000000}', "unparseable_time", ""),
    ('{"id":"1","t":173694240000000}', "future_time", ""),
    ('{"id":"1","t":1736942400}', "implausible_time", "seconds for milliseconds?"),
    ('{"id":"1","t":"1999-12-31T23:59:59Z"}', "implausible_time", ""),
    ('{"id":"1","t":-1}', "implausible_time", ""),
    ('{"id":"1","k":"%s",%s}' % ("x" * LIMIT, TIME), "oversize", f"at most {LIMIT} are accepted"),
]


@pytest.fixture(scope="module")
def stream(spark: SparkSession) -> EventStream:
    ddl = "id STRING NOT NULL, t TIMESTAMP, k STRING, n INT, d DOUBLE, b BOOLEAN, s STRUCT<p: INT>, l ARRAY<INT>, value STRING"
    schema = StructType.fromDDL(ddl)
    assert isinstance(schema, StructType)
    return EventStream(name="x", role="outcome", id="id", event_time="t", keys=("k",), schema=schema, partition_by="date")


def parsed(spark: SparkSession, stream: EventStream, lines: list[str]) -> list[dict[str, Any]]:
    now = F.lit("2026-06-01").cast("timestamp")
    raw = F.struct("value", now.alias("record_time"), now.alias("ingest_time"))
    frame = spark.createDataFrame([(line,) for line in lines], "value string").select(raw.alias("__raw"))
    rules = ParseRules(max_event_bytes=LIMIT, max_future_skew_us=300_000_000, earliest_us=946_684_800_000_000)
    rows = parse(frame, stream, rules).withColumn("us", F.unix_micros("__event.t"))
    return [row.asDict(recursive=True) for row in rows.collect()]


def test_every_line_is_accepted_or_has_its_reason(spark: SparkSession, stream: EventStream) -> None:
    rows = parsed(spark, stream, [line for line, _, _ in LINES])
    found = [(row["__raw"]["value"], row["__reason"]) for row in rows]
    assert found == [(line, reason) for line, reason, _ in LINES]
    for row, (line, _, detail) in zip(rows, LINES, strict=True):
        assert detail in (row["__detail"] or ""), line


TIMES = [
    ("2026-01-01T00:00:00Z", 0),
    ("2026-01-01t00:00:00z", 0),
    ("2026-01-01 00:00Z", 0),
    ("2026-01-01T05:30:00.123456789+05:30", 123456),
    ("2026-01-01T00:00:00,5+0000", 500000),
    ("2025-12-31T16:00:00-08", 0),
    (1767225600000, 0),
    (1767225600001, 1000),
]


def test_times_are_read_exactly(spark: SparkSession, stream: EventStream) -> None:
    rows = parsed(spark, stream, [json.dumps({"id": "1", "t": time}) for time, _ in TIMES])
    assert [row["us"] - 1767225600_000_000 for row in rows] == [offset for _, offset in TIMES]


def test_fields_outside_the_schema_are_rescued(spark: SparkSession, stream: EventStream) -> None:
    line = '{"id":"1","z":{"b":[1,2.5,null],"a":"x"},"a":true,%s}' % TIME
    plain = '{"id":"1",%s}' % TIME
    twice = '{"id":"1","x":{"a":1,"a":2},"y":3,%s}' % TIME
    rows = parsed(spark, stream, [line, plain, twice])
    assert rows[0]["__rescued"] == '{"a":true,"z":{"a":"x","b":[1,2.5,null]}}'
    assert rows[1]["__rescued"] is None
    assert rows[2]["__rescued"] == '{"x":{"a":2},"y":3}'


@pytest.fixture(scope="module")
def plain_stream(spark: SparkSession) -> EventStream:
    """Of types whose lines can be told to hold nothing else by counting their quotes."""
    schema = StructType.fromDDL("id STRING NOT NULL, t TIMESTAMP, u TIMESTAMP, k STRING, n INT, d DOUBLE, b BOOLEAN")
    assert isinstance(schema, StructType)
    return EventStream(name="x", role="outcome", id="id", event_time="t", keys=("k",), schema=schema, partition_by="date")


def test_no_field_hides_behind_another(spark: SparkSession, plain_stream: EventStream) -> None:
    """A value that needs fewer quotes than its column's type would leave room for a field that is not in the schema."""
    times = ['"2026-01-01T00:00:00Z"', "1767225600000", '"1767225600000"', '"2026-01-01 00:00Z"']
    more = [
        "",
        ',"u":1767225600000',
        ',"u":null',
        ',"k":null',
        ',"k":"true"',
        ',"k":"a\\"b"',
        ',"n":1,"d":-0.5,"b":false',
        ',"id":"1"',
    ]
    beyond = ["", ',"x":1', ',"x":null', ',"x":"y"', ',"x":{"k":"1"}', ',"x":[1,"2"]', ',"\\u0078":1', ',"K":"a"', ',"x":1,"y":2']
    lines = [f'{{"id":"1","t":{time}{m}{b}}}' for time in times for m in more for b in beyond]
    for line, row in zip(lines, parsed(spark, plain_stream, lines), strict=True):
        others = {key: value for key, value in json.loads(line).items() if key not in plain_stream.schema.names}
        assert row["__reason"] is None, line
        assert json.loads(row["__rescued"] or "{}") == others, line


def test_a_number_for_a_text_does_not_hide_a_field(spark: SparkSession, plain_stream: EventStream) -> None:
    lines = [
        '{"id":"1","k":5,"x":1,%s}' % TIME,
        '{"id":"1","k":true,"x":1,%s}' % TIME,
        '{"id":"1","k":-1e5,"x":{"k":"1"},%s}' % TIME,
    ]
    rows = parsed(spark, plain_stream, lines)
    assert [row["__reason"] for row in rows] == ["wrong_type"] * 3


def test_a_renamed_field_is_read_under_its_other_names(spark: SparkSession, stream: EventStream) -> None:
    renamed = replace(stream, aliases={"k": ("key", "old_key"), "t": ("at",), "n": ("number",)})
    lines = {
        '{"id":"1","key":"a",%s}' % TIME: ("a", None, None),
        '{"id":"1","old_key":"c","key":null,"at":1767225600000}': ("c", None, None),
        # What is not taken is not lost.
        '{"id":"1","k":"a","key":"b","old_key":"c",%s}' % TIME: ("a", '{"key":"b","old_key":"c"}', None),
        '{"id":"1","old_key":"c","key":"b",%s}' % TIME: ("b", '{"old_key":"c"}', None),
        '{"id":"1","key":"5",%s}' % TIME: ("5", None, None),
        '{"id":"1","key":5,%s}' % TIME: (None, None, "k must be STRING, got 5"),
        '{"id":"1","number":"3",%s}' % TIME: (None, None, 'n must be INT, got "3"'),
        '{"id":"1","at":"soon"}': (None, None, 't must be TIMESTAMP (ISO-8601 with offset, or epoch milliseconds), got "soon"'),
        '{"id":"1"}': (None, None, "t is absent"),
    }
    rows = parsed(spark, renamed, list(lines))
    for row, (line, (key, rescued, detail)) in zip(rows, lines.items(), strict=True):
        if detail:
            assert (row["__detail"] or "").startswith(detail), line
        else:
            assert (row["__reason"], row["__event"]["k"], row["__rescued"], row["us"]) == (
                None,
                key,
                rescued,
                1767225600_000_000,
            ), line


@pytest.mark.parametrize(
    ("record", "at", "detail"),
    [
        ("2026-06-01T11:00:00Z", "2026-06-01T11:06:00Z", "t is 360 s ahead of its record"),
        ("2026-06-01T11:00:00Z", "2026-06-01T11:05:00Z", None),
        # A record's time that cannot be says nothing: seconds for milliseconds, 1970, a clock ahead of ours.
        ("1970-01-21T14:15:00Z", "2026-06-01T11:59:00Z", None),
        ("2027-06-01T12:00:00Z", "2026-06-01T12:04:00Z", None),
        ("2026-06-01T12:50:00Z", "2026-06-01T12:50:00Z", "t is 3000 s ahead of its ingest"),
    ],
)
def test_an_event_is_held_against_its_record_where_that_can_be(
    spark: SparkSession, stream: EventStream, record: str, at: str, detail: str | None
) -> None:
    times = F.lit(record).cast("timestamp"), F.lit("2026-06-01T12:00:00Z").cast("timestamp")
    raw = F.struct("value", times[0].alias("record_time"), times[1].alias("ingest_time")).alias("__raw")
    frame = spark.createDataFrame([(json.dumps({"id": "1", "t": at}),)], "value string").select(raw)
    rules = ParseRules(max_event_bytes=LIMIT, max_future_skew_us=300_000_000, earliest_us=946_684_800_000_000)
    assert parse(frame, stream, rules).collect()[0]["__detail"] == detail
