"""The three ways to an answer - the join, the look-up, the batch - against one oracle, on frames."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.config.model import Config
from pipelines.config.streams import streams_of
from pipelines.join.stream_join import hot_candidates
from pipelines.model.errors import UnboundedStateError
from pipelines.model.events import Streams
from pipelines.model.rule import Rule
from pipelines.reconcile.compare.batch import attribute, canonical_json, outcome_events
from pipelines.settle.lookup import HOUR_US, lake_candidates, spans
from pipelines.sink import resolve
from tests import oracle
from tests.builders import iso, play, shown

WINDOW = timedelta(hours=6)
KEYS, CARRY = ("profile_id", "title_id"), ("row_id", "position", "device", "model_version")
RULE = Rule(keys=KEYS, window=WINDOW, carry=CARRY)


@pytest.fixture(scope="module")
def streams(spark: SparkSession, config: Config) -> Streams:
    return streams_of(config)


def frame(spark: SparkSession, events: list[dict[str, Any]], schema: Any) -> DataFrame:
    lines = spark.createDataFrame([(json.dumps(event),) for event in events], "line string")
    return lines.select(F.from_json("line", schema).alias("e")).select("e.*")


def frames(spark: SparkSession, streams: Streams, outcomes: Any, exposures: Any) -> tuple[DataFrame, DataFrame]:
    return frame(spark, outcomes, streams.outcome.schema), frame(spark, exposures, streams.exposure.schema)


CASES = [
    # what it shows, playback, impressions, the answer
    ("the last one wins", play("p", "12:00"), [shown("a", "11:00"), shown("b", "11:30")], "b"),
    ("both ends are inclusive: now", play("p", "12:00"), [shown("a", "12:00")], "a"),
    ("both ends are inclusive: the far end", play("p", "12:00"), [shown("a", "06:00")], "a"),
    ("a millisecond too old", play("p", "12:00"), [shown("a", "05:59:59.999")], None),
    ("a millisecond too young", play("p", "12:00"), [shown("a", "12:00:00.001")], None),
    ("a tie goes to the greatest id", play("p", "12:00"), [shown("b", "11:00"), shown("a", "11:00")], "b"),
    ("another key", play("p", "12:00"), [shown("a", "11:00", what="heat")], None),
    ("a null key of the outcome", play("p", "12:00", who=None), [shown("a", "11:00", who=None)], None),
    ("a null key of the exposure", play("p", "12:00"), [shown("a", "11:00", who=None), shown("b", "10:00")], "b"),
    ("nothing at all", play("p", "12:00"), [], None),
]


def test_matching_rules(spark: SparkSession, streams: Streams) -> None:
    """All cases at once, each under titles of its own."""

    def apart(case: str, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "title_id": f"{event['title_id']}: {case}"}

    outcomes = [{**apart(case, outcome), "playback_id": case} for case, outcome, *_ in CASES]
    playbacks, impressions = frames(spark, streams, outcomes, [apart(case, e) for case, _, shown, _ in CASES for e in shown])
    ways = {
        "join": resolve(hot_candidates(playbacks, impressions, streams, WINDOW), streams),
        "look-up": resolve(lake_candidates(playbacks, impressions, streams, WINDOW), streams),
        "batch": attribute(outcome_events(playbacks, streams), impressions, streams, RULE),
    }
    answers = sorted((case, answer) for case, *_, answer in CASES)
    for way, found in ways.items():
        assert sorted((row["playback_id"], row["exposure_id"]) for row in found.collect()) == answers, way


def test_ties_of_time_and_id_go_to_the_greatest_carried_values_nulls_smallest(spark: SparkSession, streams: Streams) -> None:
    exposures = [shown("a", "11:00", position=p, device=d) for p, d in ((None, "tv"), (2, None), (2, "phone"), (1, "web"))]
    playbacks, impressions = frames(spark, streams, [play("p", "12:00")], exposures)
    looked_up = resolve(lake_candidates(playbacks, impressions, streams, WINDOW), streams).drop("event_date")
    batch = attribute(outcome_events(playbacks, streams), impressions, streams, RULE).drop("__versions")
    assert [(r["exposure_position"], r["exposure_device"]) for r in looked_up.collect()] == [(2, "phone")]
    assert_df_equality(looked_up, batch, ignore_nullable=True)


def test_of_conflicting_outcomes_the_earliest_then_the_smallest_json_is_the_event(spark: SparkSession, streams: Streams) -> None:
    conflicting = [
        play("p", "12:00", device="web"),
        play("p", "12:00", device="phone"),
        play("p", "12:30", device="car"),
        play("q", "12:00", seconds_watched=None),
        play("q", "12:00", seconds_watched=9),
        play("q", "12:00", seconds_watched=10),
    ]
    playbacks, impressions = frames(spark, streams, conflicting, [])
    expected = oracle.attribute(conflicting, [], window=WINDOW)
    for found in (
        attribute(outcome_events(playbacks, streams), impressions, streams, RULE),
        resolve(lake_candidates(playbacks, impressions, streams, WINDOW), streams),
    ):
        rows = {r["playback_id"]: (r["device"], r["seconds_watched"]) for r in found.collect()}
        assert rows == {id: (e["device"], e["seconds_watched"]) for id, e in expected.items()}
        assert rows == {"p": ("phone", 60), "q": ("tv", 10)}


def test_batch_ranks_nested_events_as_the_lanes_do(spark: SparkSession, config: Config) -> None:
    nested = (
        "playback_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, z STRUCT<b: INT, a: ARRAY<STRUCT<d: DOUBLE, c: STRING>>>"
    )
    stream = replace(streams_of(config).outcome, schema=StructType.fromDDL(f"{nested}, m MAP<STRING, INT>"))
    lines = [
        {"playback_id": "p", "event_time": "2026-01-10T10:00:00.000001Z", "z": {"b": 1, "a": [{"d": 1.0, "c": "x"}, None]}},
        {"playback_id": "q", "event_time": "2026-01-10T10:00:00Z", "z": None, "m": {"y": 1, "x": None}},
    ]
    rows = frame(spark, lines, stream.schema)
    found = rows.select(F.expr(f"{stream.event_rank()}.json").alias("lanes"), canonical_json(stream).alias("batch")).collect()
    assert [row["batch"] for row in found] == [row["lanes"] for row in found]
    assert found[1]["batch"] == '{"event_time":"2026-01-10T10:00:00.000000Z","m":{"x":null,"y":1},"playback_id":"q","z":null}'


def test_a_stream_without_watermark_is_refused(spark: SparkSession, streams: Streams) -> None:
    rate = spark.readStream.format("rate").load()
    columns = [F.lit(None).cast(f.dataType).alias(f.name) for f in streams.outcome.schema if f.name != "event_time"]
    outcomes = rate.select(*columns, F.col("timestamp").alias("event_time"))
    exposures = frame(spark, [], streams.exposure.schema)
    with pytest.raises(UnboundedStateError, match="stream playbacks has no watermark on event_time"):
        hot_candidates(outcomes, exposures, streams, WINDOW)
    hot_candidates(outcomes.withWatermark("event_time", "1 minute"), exposures, streams, WINDOW)


def test_spans_cover_the_window_before_each_hour_and_join_where_they_meet() -> None:
    hour, window = HOUR_US, timedelta(hours=2)
    assert spans([10 * hour], before=window) == [(8 * hour, 11 * hour - 1)]
    assert spans([10 * hour, 11 * hour], before=window) == [(8 * hour, 12 * hour - 1)]
    assert spans([10 * hour, 13 * hour], before=window) == [(8 * hour, 14 * hour - 1)]
    assert spans([10 * hour, 20 * hour], before=window) == [(8 * hour, 11 * hour - 1), (18 * hour, 21 * hour - 1)]
    assert spans([]) == []


def test_many_separate_hours_make_few_spans_of_which_the_widest_gaps_are_left_out() -> None:
    days = [day * 24 * HOUR_US for day in range(3000)]
    found = spans([*days, days[-1] + 24 * 365 * HOUR_US])
    assert len(found) == 32
    assert found[-1] == (days[-1] + 24 * 365 * HOUR_US, days[-1] + 24 * 365 * HOUR_US + HOUR_US - 1)
    assert all(any(start <= hour < end for start, end in found) for hour in days)


# Few keys and few instants, so that ties, edges and collisions are common.
MINUTES = st.sampled_from(["06:00", "06:00:00.001", "11:29:59.999", "11:30", "11:59", "12:00", "12:00:00.001"])
WHO = st.sampled_from(["ann", "bob", None])
PLAYS = st.lists(st.builds(play, st.sampled_from("pqrs"), MINUTES, WHO, device=st.sampled_from(["tv", "web", None])), max_size=8)
SHOWN = st.lists(st.builds(shown, st.sampled_from("abcd"), MINUTES, WHO, position=st.sampled_from([1, 2, 10, None])), max_size=12)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(outcomes=PLAYS, exposures=SHOWN)
def test_look_up_and_batch_agree_with_the_oracle(
    spark: SparkSession, streams: Streams, outcomes: list[Any], exposures: list[Any]
) -> None:
    playbacks, impressions = frames(spark, streams, outcomes, exposures)
    expected = {
        id: (row["event_time"], row["device"], row["exposure_id"], row["exposure_time"], row["exposure_position"])
        for id, row in oracle.attribute(outcomes, exposures, window=WINDOW).items()
    }
    batch = attribute(outcome_events(playbacks, streams), impressions, streams, RULE)
    looked_up = resolve(lake_candidates(playbacks, impressions, streams, WINDOW), streams)
    for found in (batch, looked_up):
        times = found.withColumn("at", F.unix_micros("event_time")).withColumn("seen", F.unix_micros("exposure_time"))
        rows = {
            r["playback_id"]: (r["at"], r["device"], r["exposure_id"], r["seen"], r["exposure_position"]) for r in times.collect()
        }
        assert rows == expected


def test_builders_speak_utc() -> None:
    assert iso("12:30") == "2026-01-10T12:30:00Z"
