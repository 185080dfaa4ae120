"""Lateness made visible: what the ledger, `status` and the report say of late events, final dates and the hot window."""

import json
from datetime import timedelta
from typing import Any

import pytest

from pipelines.lake.reader import SparkReader
from pipelines.model.histogram import Histogram
from pipelines.monitor.lateness import lateness_lines, lateness_of
from pipelines.reconcile.report import to_dict, to_html
from tests import oracle
from tests.builders import play, shown

WINDOW = timedelta(hours=6)


@pytest.mark.slow
def test_late_events_after_a_date_was_final_are_counted_and_drawn(replay: Any) -> None:
    pipeline = replay("join.watermark_delay=10m", "join.hot_window=30m")
    fifth, sixth = "2026-01-05T", "2026-01-06T"
    impressions = [shown("i1", f"{fifth}08:00:00Z"), shown("i2", f"{sixth}08:00:00Z")]
    playbacks = [
        play("hot", f"{fifth}08:05:00Z"),
        play("tail", f"{fifth}10:00:00Z"),
        play("none", f"{fifth}08:05:00Z", who="nobody"),
        play("next", f"{sixth}09:00:00Z"),
    ]
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    pipeline.settle()
    # Two days late: an exposure that is better for both playbacks of ann, and a playback.
    late = [shown("i3", f"{fifth}08:04:00Z")], [play("late", f"{fifth}09:00:00Z")]
    pipeline.wave(*late)
    pipeline.join()
    pipeline.settle()
    expected = oracle.attribute(playbacks + late[1], impressions + late[0], window=WINDOW)
    assert {p: r["exposure_id"] for p, r in expected.items() if p != "next"} == {
        "hot": "i3",
        "tail": "i3",
        "late": "i3",
        "none": None,
    }

    found = lateness_of(SparkReader(pipeline.lake), pipeline.config)
    assert [(s.stream, s.accepted, s.late) for s in found.streams] == [("impressions", 3, 1), ("playbacks", 5, 1)]
    assert [s.behind for s in found.streams] == [Histogram.of({"0s": 2, "1d": 1}), Histogram.of({"0s": 4, "1d": 1})]
    assert (found.final, found.unattributed) == (3, 1)
    assert found.delays == Histogram.of({"5m": 1, "2h": 1})
    assert {c.cause: (c.looked_up, c.changed) for c in found.causes} == {
        "late": (1, 1),
        "tail": (2, 1),
        "touched": (3, 3),
    }
    (first,) = found.dates
    assert (first.date, first.rows, first.looked_up_after, first.changed_after) == ("2026-01-05", 4, 3, 3)
    assert first.final_since is not None
    assert first.changed_at is not None
    assert first.changed_at > first.final_since
    assert [(w.coverage, w.window) for w in found.hot_windows] == [(c, timedelta(hours=2)) for c in (0.9, 0.95, 0.99)]
    assert found.delays.share_within(timedelta(minutes=30)) == 0.5

    status = pipeline.status()
    assert status.healthy
    assert "2026-01-05" in status.to_text()
    data = json.loads(status.to_json())
    told = data["lateness"]["dates"][0]
    assert (told["date"], told["changed_after"]) == ("2026-01-05", 3)
    assert_throughput_is_shown(data, status.to_text())
    lines = "\n".join(lateness_lines(found))
    assert "30m covers 50.0% of the attributed outcomes" in lines
    assert "then 3 looked up, 3 changed" in lines

    result = pipeline.reconcile()
    page = to_html(result)
    assert page.count("<svg") == 5
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert to_dict(result)["lateness"]["hot_window"]["is"] == "30m"


def assert_throughput_is_shown(data: dict[str, Any], text: str) -> None:
    rates = {rate["query"]: rate for rate in data["rates"]}
    assert {query: rate["rows"] for query, rate in rates.items()} == {
        "ingest:impressions": 3,
        "ingest:playbacks": 5,
        "join": 8,
        "settle": 6,
    }
    for query, rate in rates.items():
        assert 0 < rate["utilisation"] <= 1, query
        assert sum(rate["phases_s"].values()) == pytest.approx(rate["busy_s"], abs=0.02), query
        assert rate["micro_batch_s"]["last"] > 0, query
    assert {"bronze"} <= set(rates["ingest:impressions"]["phases_s"])
    assert {"resolve", "merge", "addBatch", "walCommit"} <= set(rates["join"]["phases_s"])
    assert {"bookkeeping", "select", "look_up", "write", "figures"} <= set(rates["settle"]["phases_s"])
    behind = data["behind"]
    assert behind["newest_event_time"] == "2026-01-06T09:00:00.000Z"
    assert behind["horizon_lag_s"] == 4200, "the delay, behind the slower stream"
    assert behind["unread_by_join"] == {name: {"files": 0, "bytes": 0} for name in ("impressions", "playbacks")}
    assert behind["left_to_settle"] is None
    assert data["bound_by"]
    assert "bound by" in text
    assert "unread       nothing" in text
    assert max(len(line) for line in text.partition("lateness (")[0].splitlines()) <= 100


@pytest.mark.slow
def test_rows_dropped_by_a_broken_watermark_raise_an_alarm_and_are_settled(replay: Any, monkeypatch: Any) -> None:
    """By construction the join drops nothing. Here its watermark is broken on purpose: it runs ahead of ingest's."""
    from pyspark.sql import functions as F

    from pipelines.join import watermarks

    def ahead(bronze: Any, _: Any, stream: Any) -> Any:
        own = bronze.select(*(F.col(f.name) for f in stream.schema))
        return own.withWatermark(stream.event_time, "0 seconds")

    monkeypatch.setattr(watermarks, "with_door_watermark", ahead)
    pipeline = replay("join.watermark_delay=30m", "trigger.join_max_files=1")
    impressions, playbacks = [shown("a", "10:00"), shown("x", "11:00", who="bob")], [play("p", "10:30"), play("y", "11:00")]
    pipeline.wave(impressions, playbacks)
    # On time at ingest (11:00 - 30m), and behind the join's watermark (11:00) when its second micro-batch reads them.
    more = [shown("b", "10:55"), shown("x2", "12:30", who="bob")], [play("q", "10:58"), play("y2", "12:30", who="bob")]
    pipeline.wave(*more)
    pipeline.join()
    assert pipeline.dropped() > 0
    pipeline.settle()
    assert [r["event_time"] for r in pipeline.rows("control", "kind = 'distrust'")] == [oracle.micros(more[1][1]["event_time"])]
    status = pipeline.status()
    assert any("dropped" in finding.problem for finding in status.findings)
    expected = oracle.attribute(playbacks + more[1], impressions + more[0], window=WINDOW)
    # The join's answer for y lacks b; q was dropped itself.
    assert {p: pipeline.answers()[p][0] for p in "pqy"} == {p: expected[p]["exposure_id"] for p in "pqy"}
    pipeline.settle(everything=True)
    assert pipeline.attributed() == expected


@pytest.mark.slow
def test_settle_all_answers_outcomes_whose_rows_were_taken_away(replay: Any) -> None:
    pipeline = replay()
    impressions, playbacks = [shown("a", "10:00"), shown("b", "11:30")], [play("p", "10:05"), play("q", "11:35")]
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    pipeline.settle(everything=True)
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('attributed_playbacks')}")
    assert pipeline.settle().causes == {}
    assert pipeline.settle(everything=True).written.inserted == 2
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
