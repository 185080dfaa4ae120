"""A backlog read in bounded micro-batches: commits split, several commits at once, restarts between; nothing is dropped."""

from datetime import timedelta
from typing import Any

import pytest

from tests import oracle
from tests.builders import iso, play, shown

WINDOW = timedelta(hours=6)
BOUNDED = ("trigger.join_max_files=1", "join.watermark_delay=70m", "join.hot_window=10m")


def two_days(n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One wave: events of an hour before and after midnight, so that its commit has two files."""
    days = ("2026-01-09T23", "2026-01-10T00")
    minutes = range(5 * n, 5 * n + 5)
    impressions = [shown(f"i{n}-{d}-{m}", f"{d}:{m:02d}:00Z", who=f"w{m % 3}") for d in days for m in minutes]
    return impressions, [play(f"p{n}-{d}-{m}", f"{d}:{m:02d}:30Z", who=f"w{m % 3}") for d in days for m in minutes]


def batches(pipeline: Any) -> list[dict[str, Any]]:
    return sorted(pipeline.rows("ledger", "query = 'join' AND rows_in > 0"), key=lambda r: r["started_at"])


@pytest.mark.slow
def test_a_commit_split_over_micro_batches_loses_no_row(replay: Any) -> None:
    pipeline = replay(*BOUNDED)
    impressions: list[Any] = []
    playbacks: list[Any] = []
    for n in range(3):
        more = two_days(n)
        impressions += more[0]
        playbacks += more[1]
        pipeline.wave(*more)
    pipeline.join()
    assert len(batches(pipeline)) >= 6, "three commits of two files each"
    assert all(batch["rows_in"] <= 10 for batch in batches(pipeline))
    assert pipeline.dropped() == 0
    pipeline.settle()
    horizon = pipeline.settle().settled.horizon
    expected = oracle.attribute(playbacks, impressions, window=WINDOW)
    rows = pipeline.attributed()
    assert horizon == oracle.micros("2026-01-09T23:04:00Z")
    assert {i: r for i, r in rows.items() if r["event_time"] <= horizon} == {
        i: r for i, r in expected.items() if r["event_time"] <= horizon
    }
    pipeline.settle(everything=True)
    assert pipeline.attributed() == expected


@pytest.mark.slow
def test_a_long_backlog_is_handed_off_to_settle(replay: Any) -> None:
    """An outcome that the join has answered gets a nearer exposure in a backlog that the join never reads: settle must look."""
    pipeline = replay("join.watermark_delay=10m", "join.hot_window=30m", "trigger.settle_backlog_bytes=1GB")
    impressions = [shown("far", "10:00"), shown("other", "10:05", who="bob")]
    playbacks = [play("p", "10:20"), play("held", "10:24", who="cleo"), play("none", "10:21", who="")]
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    assert pipeline.answers()["p"] == ("far", "join")
    more = [shown("near", "10:15"), shown("hers", "10:22", who="cleo")], [play("q", "10:16"), play("late", "08:00")]
    rest = [shown("i1", "18:00", who="dan"), shown("i2", "18:29", who="dan")], [play("r", "18:25", who="dan")]
    for wave in (more, rest):
        pipeline.wave(*wave)
    pipeline.reconfigure("trigger.settle_backlog_bytes=1")
    pipeline.join()
    left = pipeline.rows("control", "kind = 'handoff'")
    assert [row["event_time"] for row in left] == [oracle.micros(iso("18:15"))]
    pipeline.settle()
    expected = oracle.attribute(playbacks + more[1] + rest[1], impressions + more[0] + rest[0], window=WINDOW)
    final = {id: row for id, row in expected.items() if row["event_time"] <= oracle.micros(iso("18:15"))}
    rows = pipeline.attributed()
    assert {id: row for id, row in rows.items() if id in final} == final
    assert pipeline.answers()["p"] == ("near", "settle")
    pipeline.settle(everything=True)
    assert pipeline.attributed() == expected
    assert pipeline.dropped() == 0
    pipeline.join()
    assert pipeline.rows("control", "kind = 'handoff'") == left, "no backlog is handed off twice"


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_heartbeats_of_a_run_that_died_reach_no_other(replay: Any, monkeypatch: Any) -> None:
    """They are written for rows that the run then does not get to read."""
    from pipelines.jobs import join as job

    pipeline = replay(*BOUNDED)
    impressions, playbacks = two_days(0)
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    more = [shown("x", "01:00")], [play("y", "01:01")]
    pipeline.wave(*more)
    with monkeypatch.context() as patched:
        patched.setattr(job, "triggered", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipeline.join()
    for n in range(1, 4):
        late = two_days(n)
        impressions, playbacks = impressions + late[0], playbacks + late[1]
        pipeline.wave(*late)
    pipeline.join()
    assert pipeline.dropped() == 0
    pipeline.settle(everything=True)
    expected = oracle.attribute(playbacks + more[1], impressions + more[0], window=WINDOW)
    assert pipeline.attributed() == expected


@pytest.mark.slow
def test_a_new_checkpoint_over_compacted_bronze_drops_nothing(replay: Any) -> None:
    """OPTIMIZE gives files another order than that of the commits."""
    pipeline = replay(*BOUNDED)
    impressions, playbacks = two_days(0)
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    pipeline.wave(*two_days(1))
    for table in ("impressions", "playbacks"):
        pipeline.lake.spark.sql(f"OPTIMIZE {pipeline.lake.identifier(table)}")
    pipeline.wave(*two_days(2))
    pipeline.lose_checkpoint("join")
    pipeline.join()
    for n in (1, 2):
        more = two_days(n)
        impressions, playbacks = impressions + more[0], playbacks + more[1]
    assert pipeline.dropped() == 0
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
