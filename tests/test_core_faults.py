"""Faults that kills and damage once brought about, each driven from outside."""

import shutil
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import open_context
from pipelines.control.facts import Settled
from pipelines.control.position import settled_position
from pipelines.control.store import read_facts
from pipelines.ingest.idle import IdleWatch
from pipelines.jobs.ingest import start_ingest
from tests import oracle
from tests.builders import play, shown

WINDOW = timedelta(hours=6)


class KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def no_close(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a process would still write on its way out is lost, as by a kill."""

    def patch() -> pytest.MonkeyPatch:
        from pipelines.context import Context

        monkeypatch.setattr(Context, "close", lambda self: None)
        return monkeypatch

    return patch


@pytest.mark.slow
def test_settles_position_is_found_however_many_commits_follow(replay: Any, no_close: Any) -> None:
    pipeline = replay()
    pipeline.wave([shown("i0", "10:00")], [play("p", "12:00")])
    pipeline.settle(everything=True)
    pipeline.wave([shown("iL", "11:00")])
    patch = no_close()
    with patch.context() as dies:
        dies.setattr("pipelines.settle.run.lookup_stats", _die)
        with pytest.raises(KilledError):
            pipeline.settle(everything=True)
    patch.undo()
    assert pipeline.answers() == {"p": ("iL", "settle")}
    table = pipeline.lake.identifier("attributed_playbacks")
    for n in range(40):
        pipeline.lake.spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('rejoin.test' = '{n}')")
    facts = read_facts(pipeline.lake)
    found = settled_position(pipeline.lake, facts)
    assert (facts.settled.run, found.settled.run, found.certain) == (0, 1, True)
    assert pipeline.reconcile(fix=True).verdict == "agrees"
    assert pipeline.answers() == {"p": ("iL", "settle")}


def _die(*_: Any, **__: Any) -> Any:
    raise KilledError


@pytest.mark.parametrize("files", [1, 1000])
def test_a_checkpoint_that_was_put_back_lands_nothing_twice(replay: Any, files: int) -> None:
    """Whatever number of files a micro-batch takes then; and what is new lands."""
    pipeline = replay("trigger.max_files=1000")
    checkpoint, copy = Path(pipeline.lake.checkpoint("ingest-playbacks")), pipeline.root / "copy"
    pipeline.wave([], [play("a", "10:00")])
    shutil.copytree(checkpoint, copy)
    for name, at in zip("bcd", ("10:01", "10:02", "10:03"), strict=True):
        pipeline.land("playbacks", [play(name, at), f"nonsense {name}"])
    pipeline.ingest()
    shutil.rmtree(checkpoint)
    shutil.copytree(copy, checkpoint)
    pipeline.reconfigure(f"trigger.max_files={files}")
    pipeline.land("playbacks", [play("e", "10:04")])
    pipeline.ingest()
    pipeline.wave([], [play("f", "10:05")])
    assert sorted(r["playback_id"] for r in pipeline.rows("playbacks")) == list("abcdef")
    assert len(pipeline.rows("quarantine")) == 3
    batches = [r["ingest_batch"] for r in sorted(pipeline.rows("playbacks"), key=lambda r: r["playback_id"])]
    assert batches == sorted(batches), "numbers of batches never fall"


@pytest.mark.slow
def test_recovery_ends_once_the_checkpoint_has_passed_what_the_source_held(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([], [play("a", "10:00")])
    pipeline.wave([], [play("b", "10:01")])
    pipeline.lose_checkpoint("ingest-playbacks")
    pipeline.wave([], [play("c", "10:02")])
    for name in "de":
        pipeline.wave([], [play(name, "10:03")])
    states = [fact.detail for fact in read_facts(pipeline.lake).of_kind("ingest", "playbacks")]
    assert [state["recovering"] for state in states] == [False]
    assert [commit.ours("rejoin.ingest")["recovering"] for commit in pipeline.lake.commits("playbacks", 0)] == [False] * 5
    assert sorted(r["playback_id"] for r in pipeline.rows("playbacks")) == list("abcde")


def test_a_stream_whose_micro_batch_takes_long_is_not_idle(replay: Any) -> None:
    pipeline = replay("join.idle_timeout=1s", "trigger.every=100ms")
    pipeline.wave([shown("a", "10:00")], [play("p", "10:00")])
    pipeline.wave([shown("b", "11:00")])
    with open_context(pipeline.lake, pipeline.config) as context:
        lane = start_ingest(context, once=True)
        writer = next(each for each in lane.writers if each.stream.name == "playbacks")
        before, watch = writer.watermark, IdleWatch(control=context.control, config=pipeline.config, writers=lane.writers)
        landing, landed = threading.Event(), threading.Event()

        def land() -> None:
            with writer.lock:
                landing.set()
                time.sleep(2)
                writer.accepted_at = time.monotonic()
            landed.set()

        threading.Thread(target=land).start()
        landing.wait()
        time.sleep(1.2)
        clock = time.monotonic()
        watch.tick()
        assert time.monotonic() - clock < 0.5, "a tick waits for no micro-batch"
        landed.wait()
        time.sleep(0.2)
        watch.tick()
        assert writer.watermark == before
        time.sleep(1.1)
        watch.tick()
        assert writer.watermark == oracle.micros(play("x", "10:50")["event_time"])
        for query in lane.queries:
            query.stop()


def test_the_ledger_says_of_a_replayed_micro_batch_what_bronze_says(replay: Any, no_close: Any) -> None:
    pipeline = replay("join.watermark_delay=10m")
    pipeline.wave([shown("a", "10:00")])
    patch = no_close()
    with patch.context() as dies:
        # After bronze's commit, before anything else: two of these met 09:50.
        dies.setattr("pipelines.ingest.writer.BronzeWriter._note", _die)
        with pytest.raises(Exception, match="KilledError|stopped"):
            pipeline.wave([shown("late", "09:50"), shown("on-time", "09:55"), shown("ahead", "11:00")])
    patch.undo()
    pipeline.wave([shown("b", "11:01")])
    bronze = {r["impression_id"]: r["late"] for r in pipeline.rows("impressions")}
    assert bronze == {"a": False, "late": True, "on-time": False, "ahead": False, "b": False}
    entries = pipeline.rows("ledger", "query = 'ingest:impressions'")
    assert sum(r["rows_late"] for r in entries) <= 1
    assert sum(r["rows_out"] for r in entries) <= 5
    assert max(r["door_watermark"] or 0 for r in pipeline.rows("impressions")) == oracle.micros(play("x", "10:50")["event_time"])


@pytest.mark.slow
def test_settle_looks_up_outcomes_of_very_many_separate_hours(replay: Any) -> None:
    pipeline = replay("state_store.provider=memory")
    # A file of each table for each: one playback a week over six years.
    days = [str(date(2020, 1, 1) + timedelta(weeks=week)) for week in range(300)]
    impressions = [shown(f"i{day}", f"{day}T10:00:00Z", who=f"w{n % 50}") for n, day in enumerate(days)]
    playbacks = [play(f"p{day}", f"{day}T12:00:00Z", who=f"w{n % 50}") for n, day in enumerate(days)]
    pipeline.wave([shown("now", "12:00")], [play("now", "12:00")])
    pipeline.wave(impressions, playbacks)
    result = pipeline.settle(everything=True)
    assert result.written.inserted == len(days) + 1
    expected = oracle.attribute([*playbacks, play("now", "12:00")], [*impressions, shown("now", "12:00")], window=WINDOW)
    assert pipeline.attributed() == expected


@pytest.mark.slow
def test_a_ledger_that_was_deleted_harms_nothing(replay: Any) -> None:
    pipeline = replay()
    impressions, playbacks = [shown("a", "10:00"), shown("b", "11:30")], [play("p", "10:05"), play("q", "11:35")]
    pipeline.wave(impressions[:1], playbacks[:1])
    pipeline.join()
    pipeline.settle()
    shutil.rmtree(pipeline.lake.path("ledger"))
    pipeline.lake = type(pipeline.lake)(pipeline.lake.spark, pipeline.config)
    pipeline.lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    pipeline.wave(impressions[1:], playbacks[1:])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
    assert len(pipeline.rows("playbacks")) == 2


def test_facts_that_never_fall_do_not() -> None:
    from pipelines.control.facts import Fact, Facts

    facts = Facts()
    for value in (5, 9, 7):
        facts = facts.with_fact(Fact(kind="horizon", event_time=value)).with_fact(
            Fact(kind="settled", detail={"run": value, "horizon": value})
        )
    assert (facts.horizon, facts.settled) == (9, Settled(run=9, horizon=9))
    assert len(facts.rows) == 2
    facts = facts.with_fact(Fact(kind="idle", stream="a", event_time=12)).with_fact(Fact(kind="handoff", event_time=11))
    assert (facts.horizon, facts.floor("a"), facts.floor("b"), facts.distrusted_to) == (11, 12, 11, 11)
