"""The classes of a comparison, on literal frames."""

import json
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, StructType

from pipelines.config.model import ColumnTolerance, Config
from pipelines.config.streams import streams_of
from pipelines.model.events import Streams
from pipelines.reconcile.compare.diff import HourSummary, compare, summarise
from tests.builders import play


@pytest.fixture(scope="module")
def streams(config: Config) -> Streams:
    return streams_of(config)


def row(id: str, at: str = "10:05", date: str = "2026-01-10", exposure: str | None = "i1", **more: Any) -> dict[str, Any]:
    """A row of the table; without what only the table has, one of batch."""
    seen = {"exposure_id": exposure, "exposure_time": exposure and "2026-01-10T10:00:00Z"}
    stamps = {"attributed_by": "join", "updated_at": "2026-01-12T00:00:00Z", "event_date": date}
    return {**play(id, at), **seen, "exposure_position": 1, **stamps, **more}


def frame(spark: SparkSession, rows: list[dict[str, Any]], schema: StructType) -> DataFrame:
    lines = spark.createDataFrame([(json.dumps(each),) for each in rows], "line string")
    return lines.select(F.from_json("line", schema).alias("e")).select("e.*")


def compared(
    spark: SparkSession,
    streams: Streams,
    batch: list[dict[str, Any]],
    table: list[dict[str, Any]],
    tolerances: dict[str, ColumnTolerance] | None = None,
) -> DataFrame:
    schema = StructType([*streams.candidate_schema.fields]).add("__versions", IntegerType())
    expected = frame(spark, [{"__versions": 1, **each} for each in batch], schema)
    return compare(expected, frame(spark, table, streams.attributed_schema), streams, tolerances)


# Per outcome: rows of batch, rows of the table, the classes of the comparison with the columns that differ.
CASES: list[tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, list[str]]]]] = [
    ([row("equal")], [row("equal")], [("matched", [])]),
    ([row("null", exposure=None)], [row("null", exposure=None)], [("matched", [])]),
    ([row("missing")], [], [("missing", [])]),
    ([], [row("extra")], [("extra", [])]),
    (
        [row("value")],
        [row("value", exposure="i2", exposure_position=None)],
        [("mismatched", ["exposure_id", "exposure_position"])],
    ),
    ([row("moved")], [row("moved", date="2026-01-11")], [("misplaced", [])]),
    ([row("time")], [row("time", at="2026-01-11T10:05:00Z", date="2026-01-11")], [("mismatched", ["event_time"])]),
    ([row("twice")], [row("twice"), row("twice")], [("duplicate", []), ("matched", [])]),
    # Of several rows the best one stays: in its partition, then with the fewest columns that differ.
    (
        [row("best")],
        [row("best", date="2026-01-11"), row("best", device="web")],
        [("duplicate", []), ("mismatched", ["device"])],
    ),
    (
        [row("conflict", __versions=2)],
        [row("conflict"), row("conflict", at="2026-01-11T10:05:00Z", date="2026-01-11")],
        [("conflicting_duplicate", ["event_time"]), ("matched", [])],
    ),
]


def test_classes(spark: SparkSession, streams: Streams) -> None:
    batch, table = ([each for case in CASES for each in case[side]] for side in (0, 1))
    found = compared(spark, streams, batch, table).select("outcome_id", "class", "columns").collect()
    ids = [(case[0] or case[1])[0]["playback_id"] for case in CASES]
    for id, (_, _, classes) in zip(ids, CASES, strict=True):
        assert sorted((each["class"], each["columns"]) for each in found if each["outcome_id"] == id) == classes, id


def test_tolerances_include_their_ends(spark: SparkSession, streams: Streams) -> None:
    batch = [row("p", exposure_position=10), row("q", exposure_position=10), row("r")]
    table = [row("p", exposure_position=11), row("q", exposure_position=12), row("r", exposure_position=None)]
    for tolerance, differing in ((ColumnTolerance(absolute=1), "qr"), (ColumnTolerance(relative=0.2), "r"), (None, "pqr")):
        tolerances = {"exposure_position": tolerance} if tolerance else None
        found = compared(spark, streams, batch, table, tolerances).where("class = 'mismatched'").collect()
        assert "".join(sorted(each["outcome_id"] for each in found)) == differing


def test_a_summary_by_hour(spark: SparkSession, streams: Streams) -> None:
    batch = [row("a"), row("b", exposure=None), row("c"), row("d", at="11:00")]
    table = [row("a"), row("b", exposure=None), row("c", device="web", seconds_watched=1), row("a")]
    assert summarise(compared(spark, streams, batch, table), streams) == [
        HourSummary(
            event_date="2026-01-10",
            hour=10,
            batch_rows=3,
            table_rows=4,
            unattributed=1,
            counts={"matched": 2, "mismatched": 1, "duplicate": 1},
            columns={"device": 1, "seconds_watched": 1},
        ),
        HourSummary(
            event_date="2026-01-10",
            hour=11,
            batch_rows=1,
            table_rows=0,
            unattributed=0,
            counts={"missing": 1},
            columns={},
        ),
    ]
