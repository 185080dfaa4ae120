"""The stages together, on files, as rules with names."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.ingest.recovery import not_quarantined_before
from pipelines.ingest.writer import quarantined
from tests import oracle
from tests.builders import play, shown

WINDOW = timedelta(hours=6)


def micros(at: str) -> int:
    return oracle.micros(play("x", at)["event_time"])


def test_from_lines_to_rows(replay: Any) -> None:
    """The whole way once: hot match, tail match, search, null key, late both ways, duplicate; equal to the oracle."""
    pipeline = replay()
    first = [shown("a", "10:00"), shown("b", "10:20"), shown("c", "06:00", who="bob"), shown("y", "10:40", who="zoe")]
    plays = [play("hot", "10:30"), play("tail", "11:30"), play("far", "11:45", who="bob"), play("nobody", "11:50", who=None)]
    pipeline.wave(first, plays)
    pipeline.join()
    pipeline.settle()
    later = [shown("late", "10:25"), shown("d", "13:00"), first[0]]
    more = [play("late", "10:26"), play("search", "13:01", what="heat"), plays[0], play("last", "13:02")]
    pipeline.wave(later, more)
    pipeline.join()
    pipeline.settle()
    assert pipeline.answers()["hot"] == ("late", "settle")
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(plays + more, first + later, window=WINDOW)
    assert pipeline.dropped() == 0
    assert pipeline.reconcile().verdict == "agrees"


def test_lateness_is_decided_once_against_earlier_commits(replay: Any) -> None:
    pipeline = replay("join.watermark_delay=10m")
    # In one commit nothing is late, however far apart.
    pipeline.wave([shown("a", "10:00"), shown("b", "05:00")])
    edge = [shown("at-the-watermark", "09:50"), shown("just-above", "09:50:00.001"), shown("new-max", "12:00")]
    pipeline.wave(edge)
    pipeline.wave([shown("now-late", "11:50"), shown("on-time", "11:51")])
    rows = {r["impression_id"]: (r["late"], r["door_watermark"]) for r in pipeline.rows("impressions")}
    assert rows == {
        "a": (False, None),
        "b": (False, None),
        "at-the-watermark": (True, micros("09:50")),
        "just-above": (False, micros("09:50")),
        "new-max": (False, micros("09:50")),
        "now-late": (True, micros("11:50")),
        "on-time": (False, micros("11:50")),
    }


def test_bad_lines_are_quarantined_with_their_payload_and_the_rest_goes_on(replay: Any) -> None:
    pipeline = replay()
    bad = ["nonsense", '{"playback_id": 5}', json.dumps(play("x", "2999-01-01T00:00:00Z"))]
    pipeline.wave([], [play("p", "12:00"), *bad, play("q", "12:00", mood="good")])
    rows = pipeline.rows("quarantine")
    assert {(r["stream"], r["reason"], r["payload"]) for r in rows} == {
        ("playbacks", "not_json", bad[0]),
        ("playbacks", "wrong_type", bad[1]),
        ("playbacks", "future_time", bad[2]),
    }
    landed = {r["playback_id"]: r["rescued"] for r in pipeline.rows("playbacks")}
    assert landed == {"p": None, "q": '{"mood":"good"}'}
    assert all(r["source"].endswith("/landing/playbacks/file-0001.jsonl") for r in rows)


def test_only_event_files_are_read_and_blank_lines_are_no_events(replay: Any) -> None:
    pipeline = replay()
    pipeline.land("playbacks", [play("p", "12:00"), "", "   ", "\r", " \t\r"])
    for name in ("_hidden.jsonl", "notes.txt", "half.jsonl.tmp"):
        pipeline.land("playbacks", [play("never", "12:00")], name=name)
    pipeline.ingest()
    assert [r["playback_id"] for r in pipeline.rows("playbacks")] == ["p"]
    assert pipeline.rows("quarantine") == []
    # A line separator is none of JSON's blanks, so it is no event, and kept.
    pipeline.wave([], ["\u2028"])
    assert [r["payload"] for r in pipeline.rows("quarantine")] == ["\u2028"]


def test_a_lost_ingest_checkpoint_lands_no_file_twice(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([shown("a", "10:00")], [play("p", "10:01"), "nonsense"])
    pipeline.wave([shown("b", "11:00")], ["only nonsense"])
    for query in ("ingest-impressions", "ingest-playbacks"):
        pipeline.lose_checkpoint(query)
    pipeline.wave([shown("c", "12:00")], [play("q", "12:01")])
    assert sorted(r["impression_id"] for r in pipeline.rows("impressions")) == ["a", "b", "c"]
    assert sorted(r["playback_id"] for r in pipeline.rows("playbacks")) == ["p", "q"]
    assert sorted(r["payload"] for r in pipeline.rows("quarantine")) == ["nonsense", "only nonsense"]


@pytest.mark.slow
def test_a_lost_join_checkpoint_changes_nothing(replay: Any) -> None:
    pipeline = replay()
    impressions = [shown("a", "10:00"), shown("b", "11:00"), shown("c", "11:58")]
    playbacks = [play("p", "10:05"), play("q", "11:50"), play("r", "12:00")]
    pipeline.wave(impressions[:2], playbacks[:2])
    pipeline.join()
    pipeline.lose_checkpoint("join")
    pipeline.wave(impressions[2:], playbacks[2:])
    pipeline.join()
    pipeline.lose_checkpoint("join")
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
    horizons = [r["horizon"] for r in sorted(pipeline.rows("ledger", "query = 'join'"), key=lambda r: r["finished_at"])]
    known = [h for h in horizons if h is not None]
    assert known == sorted(known)
    assert pipeline.dropped() == 0


@pytest.mark.slow
def test_the_join_keeps_the_hot_window_only(replay: Any) -> None:
    pipeline = replay("join.hot_window=5m", "join.watermark_delay=1m")
    for hour in range(10, 14):
        pipeline.wave(
            [shown(f"i{hour}-{m}", f"{hour}:{m:02d}", who=f"w{m}") for m in range(60)],
            [play(f"p{hour}-{m}", f"{hour}:{m:02d}", who=f"v{m}") for m in range(60)],
        )
        pipeline.join()
    entries = sorted(pipeline.rows("ledger", "query = 'join'"), key=lambda r: (r["started_at"], r["batch"]))
    # A micro-batch holds its own hour; what stays after eviction is the hot window and the delay of both sides.
    assert max(r["state_rows"] for r in entries) < 160
    assert entries[-1]["state_rows"] < 20
    assert entries[-1]["horizon"] == micros("13:58")
    assert pipeline.dropped() == 0


@pytest.mark.slow
@pytest.mark.parametrize("hot", ["0", pytest.param("6h", marks=pytest.mark.soak)])
def test_the_hot_window_does_not_change_the_result(replay: Any, hot: str) -> None:
    pipeline = replay(f"join.hot_window={hot}", "state_store.provider=memory")
    impressions = [shown("a", "06:00"), shown("b", "09:00"), shown("c", "12:00")]
    playbacks = [play("tie", "12:00"), play("edge", "12:00", who="bob"), play("p", "11:00"), play("q", "14:59")]
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


@pytest.mark.slow
def test_without_all_what_lies_at_or_below_the_horizon_is_final(replay: Any) -> None:
    pipeline = replay()
    impressions = [shown("a", "08:00"), shown("b", "12:00")]
    playbacks = [play("tail", "11:00"), play("pending", "11:55"), play("end", "12:00")]
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    result = pipeline.settle()
    assert result.settled.horizon == micros("11:50")
    assert pipeline.answers()["tail"] == ("a", "settle")
    assert "pending" not in pipeline.answers()
    report = pipeline.reconcile()
    assert (report.verdict, report.books.as_dict()["pending"]) == ("agrees", 2)


@pytest.mark.slow
def test_stages_in_any_order_and_skipped(replay: Any) -> None:
    pipeline = replay()
    impressions = [shown(f"i{n}", f"{8 + n:02d}:00") for n in range(4)]
    playbacks = [play(f"p{n}", f"{8 + n:02d}:20") for n in range(4)]
    pipeline.settle(everything=True)
    pipeline.wave(impressions[:1], playbacks[:1])
    pipeline.settle(everything=True)
    pipeline.wave(impressions[1:2], playbacks[1:2])
    pipeline.wave(impressions[2:3], playbacks[2:3])
    pipeline.join()
    pipeline.wave(impressions[3:], playbacks[3:])
    pipeline.settle()
    pipeline.join()
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


@pytest.mark.slow
def test_settle_with_nothing_new_looks_nothing_up(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([shown("a", "10:00")], [play("p", "10:05"), play("q", "12:00")])
    pipeline.join()
    pipeline.settle()
    again = pipeline.settle()
    assert (again.causes, again.written.inserted, again.written.updated) == ({}, 0, 0)


def test_a_foreign_schema_in_the_lake_is_refused(replay: Any) -> None:
    from pipelines.lake.tables import Lake
    from pipelines.model.errors import LakeError

    pipeline = replay()
    other = pipeline.config.model_copy(
        update={
            "streams": {
                **pipeline.config.streams,
                "playbacks": pipeline.config.streams["playbacks"].model_copy(
                    update={"ddl": "playback_id STRING, event_time TIMESTAMP, profile_id STRING, title_id STRING, device DOUBLE"}
                ),
            }
        }
    )
    with pytest.raises(LakeError, match="table playbacks: column device is STRING, but the configuration says DOUBLE"):
        Lake(pipeline.lake.spark, other).ensure("playbacks")


def test_a_record_that_was_sent_again_is_another_record(replay: Any, spark: SparkSession) -> None:
    """Quarantined by a clock that was ahead; sent once more when the event was in time."""
    pipeline = replay()
    line = json.dumps(play("p", "12:00"))
    value = "value string, source string, source_partition int, source_offset bigint, source_time timestamp"

    def records(*places: tuple[int, int]) -> DataFrame:
        at = datetime(2026, 1, 10, 12, tzinfo=timezone.utc)
        rows = [(line, "topic", partition, offset, at) for partition, offset in places]
        times = [F.lit("2026-01-10 12:00").cast("timestamp").alias(name) for name in ("record_time", "ingest_time")]
        raw = F.struct("*", *times)
        return spark.createDataFrame(rows, value).select(raw.alias("__raw"))

    pipeline.lake.ensure("quarantine")
    stream, rules = pipeline.lake.streams.outcome, rules_of(pipeline.config)
    early = parse(records((0, 4)), stream, rules).withColumn("__reason", F.lit("future"))
    pipeline.lake.append("quarantine", quarantined(early, stream, 0))
    now = parse(records((0, 4), (0, 5), (1, 4)), stream, rules)
    left = not_quarantined_before(pipeline.lake.read("quarantine"), now)
    places = left.select("__raw.source_partition", "__raw.source_offset").collect()
    assert sorted(map(tuple, places)) == [(0, 5), (1, 4)]
