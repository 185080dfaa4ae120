"""Lateness, idle streams, clocks: what the outside can produce, as rules with names."""

from datetime import timedelta
from typing import Any

import pytest

from tests import oracle
from tests.builders import play, shown

WINDOW = timedelta(hours=6)


def micros(at: str) -> int:
    return oracle.micros(play("x", at)["event_time"])


def horizon(pipeline: Any) -> int | None:
    known = [r["horizon"] for r in pipeline.rows("ledger", "query = 'join'") if r["horizon"] is not None]
    return max(known, default=None)


@pytest.mark.slow
def test_with_one_side_silent_the_horizon_moves_and_state_is_evicted(replay: Any) -> None:
    pipeline = replay("join.hot_window=5m", "join.watermark_delay=1m")
    playbacks = [play("p", "10:00", who="w1"), play("unmatched", "10:02", who="nobody")]
    pipeline.wave([shown("i", "10:00", who="w1")], playbacks)
    pipeline.join()
    impressions = [shown("i", "10:00", who="w1")]
    for hour in (11, 12):
        more = [shown(f"i{hour}-{m}", f"{hour}:{m:02d}", who=f"w{m}") for m in range(1, 60)]
        impressions += more
        pipeline.wave(more)
        pipeline.join()
        assert horizon(pipeline) == micros(f"{hour}:58")
    assert pipeline.answers() == {"p": ("i", "join"), "unmatched": (None, "join")}
    states = [r["state_rows"] for r in sorted(pipeline.rows("ledger", "query = 'join'"), key=lambda r: r["finished_at"])]
    assert states[-1] < 10

    # The silent side comes back: what lies at or below the raised watermark is late, and settled.
    back = [play("old", "11:30", who="w30"), play("new", "12:59:30", who="w59")]
    pipeline.wave([], back)
    late = {r["playback_id"]: r["late"] for r in pipeline.rows("playbacks")}
    assert late == {"p": False, "unmatched": False, "old": True, "new": False}
    pipeline.join()
    pipeline.settle()
    assert pipeline.answers()["old"] == ("i11-30", "settle")
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks + back, impressions, window=WINDOW)
    assert pipeline.dropped() == 0


@pytest.mark.slow
def test_a_side_that_never_spoke_does_not_stall_the_other(replay: Any) -> None:
    pipeline = replay("join.watermark_delay=1m")
    pipeline.wave([], [play("p", "10:00"), play("q", "10:30")])
    pipeline.join()
    assert horizon(pipeline) == micros("10:29")
    assert pipeline.answers() == {"p": (None, "join")}
    pipeline.wave([shown("i", "09:59")])
    pipeline.join()
    pipeline.settle()
    assert pipeline.answers() == {"p": ("i", "settle")}
    assert pipeline.reconcile().verdict == "agrees"


@pytest.mark.slow
def test_a_side_that_is_only_slow_is_not_idle(replay: Any) -> None:
    pipeline = replay("join.watermark_delay=1m", "join.idle_timeout=5m")
    pipeline.wave([shown("a", "10:00")], [play("p", "08:00")])
    pipeline.wave([shown("b", "12:00")], [play("q", "08:30")])
    pipeline.join()
    assert horizon(pipeline) == micros("08:29")
    assert [r["late"] for r in pipeline.rows("playbacks")] == [False, False]


def test_heartbeats_are_in_no_table(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([shown("a", "10:00")])
    pipeline.wave([shown("b", "12:00")])
    pipeline.join()
    assert horizon(pipeline) == micros("11:50")
    assert pipeline.rows("playbacks") == []
    assert sum(r["rows_in"] for r in pipeline.rows("ledger", "query = 'join'")) == 2


@pytest.mark.slow
def test_one_file_a_run_keeps_the_progress_of_each_stream(replay: Any) -> None:
    """With one file per drain, Spark alone stays at the least of what one run has seen of both."""
    pipeline = replay("join.watermark_delay=1m")
    for hour in range(10, 13):
        pipeline.wave([shown(f"i{hour}", f"{hour}:00")])
        pipeline.join()
        pipeline.wave([], [play(f"p{hour}", f"{hour}:10")])
        pipeline.join()
    # The impressions, silent in the last run and ten minutes behind, do not hold the playbacks back.
    assert horizon(pipeline) == micros("12:09")
    assert pipeline.dropped() == 0


@pytest.mark.slow
def test_days_late_lands_in_the_partition_of_its_day(replay: Any) -> None:
    pipeline = replay()
    impressions = [shown("then", "2026-01-07T09:00:00Z"), shown("now", "10:00")]
    playbacks = [play("now", "10:05"), play("three-days-late", "2026-01-07T10:00:00Z")]
    pipeline.wave(impressions, playbacks[:1])
    pipeline.join()
    pipeline.settle()
    pipeline.wave([], playbacks[1:])
    pipeline.join()
    pipeline.settle()
    row = pipeline.attributed()["three-days-late"]
    assert (row["event_date"], row["exposure_id"]) == ("2026-01-07", "then")
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


@pytest.mark.slow
def test_a_late_exposure_reaches_outcomes_that_land_after_it(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([shown("x", "11:00", who="bob")], [play("y", "11:00", who="bob")])
    pipeline.join()
    pipeline.settle()
    # Late, and better than what the join will find for a playback that is still to come.
    pipeline.wave([shown("late", "10:45")])
    pipeline.wave([shown("z", "11:40", who="bob")], [play("p", "11:05"), play("w", "11:40", who="bob")])
    pipeline.join()
    pipeline.settle()
    assert pipeline.answers()["p"] == ("late", "settle")


@pytest.mark.slow
def test_a_longer_delay_never_lowers_the_watermark(replay: Any, spark: Any) -> None:
    from tests.replay import Replay

    pipeline = replay("join.watermark_delay=1m")
    impressions = [shown("a", "10:00"), shown("b", "10:30")]
    playbacks = [play("p", "10:01"), play("q", "10:30"), play("behind", "10:20")]
    pipeline.wave(impressions, playbacks[:2])
    pipeline.join()
    patient = Replay.__new__(Replay)
    patient.__dict__.update(pipeline.__dict__)
    patient.config = pipeline.config.model_copy(
        update={"join": pipeline.config.join.model_copy(update={"watermark_delay": timedelta(hours=1)})}
    )
    patient.lake = type(pipeline.lake)(spark, patient.config)
    patient.wave([], playbacks[2:])
    late = {r["playback_id"]: r["late"] for r in patient.rows("playbacks")}
    assert late["behind"], "the horizon has passed it"
    patient.join()
    patient.settle(everything=True)
    assert patient.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
    assert patient.dropped() == 0
