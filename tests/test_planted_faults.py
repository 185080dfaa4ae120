"""Faults of every kind at once, each in an outcome of its own: counted exactly in its class, whole and by date; and the
repair of any of these ends in the independent answer."""

import random
import shutil
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from pipelines.reconcile import run
from pipelines.reconcile.compare.pins import pin
from pipelines.reconcile.report import to_text
from pipelines.reconcile.span import Range
from tests import oracle
from tests.builders import play, shown
from tests.replay import Frozen, Replay, differences

pytestmark = pytest.mark.slow
HOURS = range(3, 6)
IMPRESSIONS = [shown(f"i{n}", f"2026-01-1{day}T0{n}:00:00Z") for day in (0, 1) for n in HOURS]
IDS = [f"p{n}-{day}-{k}" for day in (0, 1) for n in HOURS for k in (1, 2, 3, 4)]
PLAYBACKS = [play(id, f"2026-01-1{id[3]}T0{id[1]}:{id[5]}0:00Z") for id in IDS]
TRUTH = oracle.attribute(PLAYBACKS, IMPRESSIONS, window=timedelta(hours=6))

# Each with what it is to be found as. {own}: the condition of its outcome; {other}: the id of one that has no fault.
FAULTS = [
    ("DELETE FROM {t} WHERE {own}", {"missing": 1}),
    ("UPDATE {t} SET exposure_id = 'i-none' WHERE {own}", {"mismatched": 1}),
    ("UPDATE {t} SET exposure_position = exposure_position + 1 WHERE {own}", {"mismatched": 1}),
    ("UPDATE {t} SET event_date = event_date + INTERVAL 1 DAY WHERE {own}", {"misplaced": 1}),
    ("UPDATE {t} SET event_time = event_time + INTERVAL 2 HOUR WHERE {own}", {"mismatched": 1}),
    (
        "UPDATE {t} SET event_time = event_time + INTERVAL 1 DAY, event_date = event_date + INTERVAL 1 DAY WHERE {own}",
        {"mismatched": 1},
    ),
    ("INSERT INTO {t} SELECT * FROM {t} WHERE {own}", {"duplicate": 1}),
    ("INSERT INTO {t} SELECT {moved} FROM {t} WHERE {own}", {"duplicate": 1}),
    ("UPDATE {t} SET playback_id = 'made-up' WHERE {own}", {"missing": 1, "extra": 1}),
    ("UPDATE {t} SET playback_id = '{other}' WHERE {own}", {"missing": 1, "duplicate": 1}),
]


@pytest.fixture(scope="module")
def settled(first_replay: Replay) -> Frozen:
    first_replay.wave(IMPRESSIONS, PLAYBACKS)
    first_replay.join()
    first_replay.settle(everything=True)
    return first_replay.freeze()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 12))])
def test_faults_of_every_kind_at_once(settled: Frozen, seed: int) -> None:
    pipeline, chosen = settled.thawed(), random.Random(seed).sample(IDS, 2 * len(FAULTS))
    table = pipeline.lake.identifier("attributed_playbacks")
    moved = ", ".join(
        f"{name} + INTERVAL 3 HOUR" if name == "event_time" else name for name in pipeline.read("attributed_playbacks").columns
    )
    planted: Counter[str] = Counter()
    for n, (fault, found_as) in enumerate(FAULTS):
        own = f"playback_id = '{chosen[n]}'"
        pipeline.lake.spark.sql(fault.format(t=table, own=own, other=chosen[len(FAULTS) + n], moved=moved))
        planted.update(found_as)
    whole = pipeline.reconcile()
    assert differences(whole) == planted
    assert whole.causes == {"table_changed": sum(planted.values())}
    # One date after the other finds all of it.
    for day in (10, 11):
        assert pipeline.reconcile(Range(first=date(2026, 1, day), last=date(2026, 1, day)), fix=True).verdict == "repaired"
    assert {id: row for id, row in pipeline.attributed().items() if id != "made-up"} == TRUTH
    assert pipeline.reconcile(fix=True).agrees
    assert pipeline.attributed() == TRUTH


def test_rows_that_were_moved_beyond_what_is_final(settled: Frozen) -> None:
    pipeline = settled.thawed()
    # The horizon lies between these two.
    pipeline.wave([shown("late", "2026-01-12T02:00:00Z")], [play("late", "2026-01-12T02:30:00Z")])
    pipeline.join()
    pipeline.settle()
    before = pipeline.attributed()
    bound = pin(pipeline.lake).bound
    assert bound is not None
    assert bound > max(row["event_time"] for id, row in before.items() if id != "late")
    table = pipeline.lake.identifier("attributed_playbacks")
    pipeline.lake.spark.sql(f"UPDATE {table} SET event_time = event_time + INTERVAL 1 DAY WHERE playback_id = '{IDS[0]}'")
    pipeline.lake.spark.sql(f"INSERT INTO {table} SELECT * FROM {table} WHERE playback_id = '{IDS[1]}'")
    pipeline.lake.spark.sql(
        f"UPDATE {table} SET event_time = TIMESTAMP'2026-02-01', event_date = DATE'2026-02-01' WHERE playback_id = '{IDS[2]}'"
    )
    copy = "event_time + INTERVAL 40 DAYS AS event_time", "event_date + INTERVAL 40 DAYS AS event_date"
    others = [name for name in pipeline.read("attributed_playbacks").columns if name not in ("event_time", "event_date")]
    names = ", ".join([*others, "event_time", "event_date"])
    values = ", ".join([*others, *copy])
    pipeline.lake.spark.sql(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE playback_id = '{IDS[3]}'")
    found = pipeline.reconcile()
    # Moved in time, but not to another partition, the first is misplaced as well: its class, for a row has one.
    assert differences(found) == {"misplaced": 1, "mismatched": 1, "duplicate": 2}
    repaired = pipeline.reconcile(fix=True)
    assert repaired.verdict == "repaired"
    assert {name: count for name, count in repaired.before_repair.items() if count} == differences(found)
    assert pipeline.attributed() == before


def test_data_files_of_the_table_that_are_gone(settled: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, day = settled.thawed(), Range(first=date(2026, 1, 11))
    shutil.rmtree(Path(pipeline.lake.path("attributed_playbacks")) / "event_date=2026-01-11")
    found = pipeline.reconcile()
    assert (differences(found), found.causes) == ({"missing": 12}, {"table_lost": 12})
    assert found.table_files_gone >= 1
    assert "data files of the output table are gone: run `rejoin reconcile --repair`" in to_text(found)
    # A repair that is killed in between has dropped them already; the cause of the missing rows is still known.
    with monkeypatch.context() as patched:
        patched.setattr(run, "compare_dates", _killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.reconcile(day, fix=True)
    repaired = pipeline.reconcile(day, fix=True)
    assert (repaired.verdict, repaired.repaired, repaired.table_files_gone) == ("repaired", 12, 0)
    assert repaired.causes == {"table_lost": 12}
    assert pipeline.attributed() == TRUTH


def _killed(*_: object) -> None:
    raise KeyboardInterrupt
