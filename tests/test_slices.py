"""A reconciliation by hour, of a range, or of a sample says the same as one of everything, as far as it goes."""

from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

import pytest

from pipelines.config import VolumeConfig
from pipelines.instants import EPOCH, to_micros
from pipelines.jobs.reconcile import run_reconcile
from pipelines.reconcile.comparison import pin
from pipelines.reconcile.progress import Progress, forget_progress
from pipelines.reconcile.report import to_text
from pipelines.reconcile.run import Plan
from pipelines.reconcile.sampling import Sampled
from pipelines.reconcile.span import Range
from pipelines.reconcile.volume import _judged
from tests import oracle
from tests.builders import play, shown
from tests.replay import Frozen, Replay, differences

IMPRESSIONS = [shown(f"i{n}", f"{8 + n:02d}:00") for n in range(4)]
PLAYBACKS = [play(f"p{n}", f"{8 + n:02d}:20") for n in range(4)]
NEXT = [play("n", "2026-01-11T00:30:00Z")]
TRUTH = oracle.attribute(PLAYBACKS + NEXT, IMPRESSIONS, window=timedelta(hours=6))
FAULTS = (
    "UPDATE {t} SET playback_id = 'made-up', event_date = DATE'2026-01-11' WHERE playback_id = 'p0'",
    # A time that is off is one row that is wrong, not one that is missing and another one too many.
    "UPDATE {t} SET event_time = event_time + INTERVAL 1 HOUR WHERE playback_id = 'p1'",
    "UPDATE {t} SET event_time = event_time + INTERVAL 1 DAY, event_date = DATE'2026-01-11' WHERE playback_id = 'p2'",
)
FOUND = {"missing": 1, "mismatched": 2, "extra": 1}


@pytest.fixture(scope="module")
def settled(first_replay: Replay) -> Frozen:
    first_replay.wave(IMPRESSIONS, PLAYBACKS + NEXT)
    first_replay.join()
    first_replay.settle(everything=True)
    return first_replay.freeze()


@pytest.fixture
def faulty(settled: Frozen) -> Replay:
    pipeline = settled.thawed()
    for fault in FAULTS:
        pipeline.lake.spark.sql(fault.format(t=pipeline.lake.identifier("attributed_playbacks")))
    return pipeline


@pytest.mark.slow
def test_by_hour_finds_and_repairs_the_same_and_goes_on_where_it_ended(faulty: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = faulty.reconcile()
    assert differences(whole) == FOUND
    add, added = Progress.add, 0

    def killed(self: Progress, *args: Any) -> None:
        nonlocal added
        added += 1
        add(self, *args)
        if added == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        faulty.reconcile(hourly=True, fix=True)
    said: list[str] = []
    repaired, _ = run_reconcile(faulty.lake, faulty.config, Range(), fix=True, hourly=True, say=said.append)
    compared = [text for text in said if text.startswith("comparing")]
    # Hours of 8 to 11, of half past midnight, and of the row that was moved by a day; two of them are done.
    assert (compared[0], len(compared)) == ("comparing 2026-01-10 10h, 3 of 6", 4)
    assert (repaired.verdict, differences(repaired), repaired.causes) == ("repaired", {}, whole.causes)
    assert {name: count for name, count in repaired.before_repair.items() if count} == FOUND
    assert faulty.attributed() == TRUTH
    told = {row["outcome_id"]: row for row in faulty.rows("reconciliation_diffs", "repaired")}
    assert set(told) == {"p0", "p1", "p2", "made-up"}
    assert {row["cause"] for row in told.values()} == {"table_changed"}
    assert not (faulty.root / "lake/_rejoin/reports/in-progress.json").exists()
    clean = faulty.reconcile()
    assert (clean.verdict, clean.hours, clean.account) == ("agrees", repaired.hours, repaired.account)


def test_what_somebody_changed_since_is_not_taken_for_compared(settled: Frozen) -> None:
    pipeline = settled.thawed()
    reports, plan = pipeline.root / "reports", asdict(Plan(span=Range(), hourly=True))

    def progress() -> Progress:
        return Progress.of(reports, pipeline.lake, pipeline.config, plan)

    progress().begin(pin(pipeline.lake))
    assert progress().pins == pin(pipeline.lake)
    assert progress().started_us is not None
    pipeline.lake.spark.sql(FAULTS[0].format(t=pipeline.lake.identifier("attributed_playbacks")))
    assert progress().pins is None
    progress().begin(pin(pipeline.lake))
    forget_progress(reports)
    assert progress().started_us is None


@pytest.mark.slow
def test_a_date_whose_rows_have_been_given_other_times(faulty: Replay) -> None:
    day = Range(first=date(2026, 1, 10), last=date(2026, 1, 10))
    repaired = faulty.reconcile(day, fix=True)
    assert repaired.verdict == "repaired"
    assert {name: count for name, count in repaired.before_repair.items() if count} == FOUND
    assert {id: row for id, row in faulty.attributed().items() if id != "made-up"} == TRUTH
    assert faulty.reconcile(fix=True).agrees
    assert faulty.attributed() == TRUTH


@pytest.mark.slow
def test_a_sample_says_how_sure_it_is(settled: Frozen) -> None:
    pipeline = settled.thawed()
    half = pipeline.reconcile(share=0.5)
    assert half.sampled is not None
    assert 0 < half.counts["matched"] == half.sampled.outcomes < 5
    assert half.agrees
    assert "50 % of the outcomes by a hash of their ids; with 95 % confidence at most" in to_text(half)
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('attributed_playbacks')}")
    gone = pipeline.reconcile(share=0.5)
    assert gone.counts["missing"] == half.sampled.outcomes
    assert (gone.sampled and gone.sampled.at_most, gone.verdict) == (1.0, "differs")


def test_the_bound_of_a_sample_is_the_exact_one() -> None:
    none = Sampled.of(0.1, [])
    assert none.at_most == 1.0
    hours = [type("Hour", (), {"batch_rows": 3000, "table_rows": 3000, "differences": 0})()]
    # The rule of three: nothing among n, so at most about 3 of n.
    assert Sampled.of(0.1, hours).at_most == pytest.approx(1 - 0.05 ** (1 / 3000))


def counts(*days: int, hour: int = 5) -> dict[tuple[date, int], tuple[int, int, int]]:
    first = date(2026, 1, 1)
    return {(first + timedelta(days=n), hour): (rows, 0, 0) for n, rows in enumerate(days) if rows}


@pytest.mark.parametrize(
    ("days", "share"),
    [
        ((1000, 1000, 1000, 500), 0.5),
        ((900, 1000, 5000, 1000, 0), 0.0),
        ((1000, 1000, 1000), None),  # too few days before
        ((10, 10, 10, 10), None),  # too few rows to say
        ((1000, 1, 1, 1, 1, 1, 1, 1, 1000), None),  # what was usual longer ago than that does not count
    ],
)
def test_volume_is_held_against_the_same_hour_of_earlier_days(days: tuple[int, ...], share: float | None) -> None:
    last = date(2026, 1, len(days))
    # Another hour of the last day tells that there was a day.
    found = counts(*days) | {(last, 7): (1, 0, 0)}
    over = ((last - EPOCH.date()).days + 1) * 86_400_000_000
    judged = {(each.event_date, each.hour): each.volume for each in _judged("s", found, Range(), over, VolumeConfig())}
    assert judged[str(last), 5] == share


def test_a_date_that_is_not_over_is_not_judged() -> None:
    over = to_micros(EPOCH.replace(year=2026, month=1, day=4, hour=23, minute=59))
    judged = list(_judged("s", counts(100, 100, 100, 3), Range(), over, VolumeConfig()))
    assert (judged[-1].event_date, judged[-1].hour) == ("2026-01-03", 23)
