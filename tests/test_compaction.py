"""Small files of open dates put together, beside lanes that go on."""

import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipelines.lake.compaction import Compacted, Compaction, compact_open
from pipelines.lake.tables import Lake
from tests import oracle
from tests.builders import hourly_waves
from tests.replay import Replay

WAVES = hourly_waves(4)


def files(pipeline: Replay) -> dict[str, int]:
    return {table: pipeline.lake.size(table)[0] for table in ("impressions", "playbacks", pipeline.lake.attributed, "ledger")}


def through(pipeline: Replay, *waves: Any) -> None:
    for wave in waves:
        pipeline.wave(*wave)
        pipeline.join()
        pipeline.settle()


@pytest.mark.slow
def test_lanes_go_on_over_compaction(replay: Any) -> None:
    pipeline = replay()
    through(pipeline, *WAVES[:2])
    # Landed, and not read before their files are replaced.
    pipeline.wave(*WAVES[2])
    assert min(files(pipeline).values()) >= 2

    def rows() -> dict[str, list[str]]:
        return {table: sorted(map(str, pipeline.rows(table))) for table in pipeline.lake.tables}

    before = rows()
    done = compact_open(pipeline.lake, None)
    assert set(files(pipeline).values()) == {1}
    assert {done[table].added for table in files(pipeline)} == {1}
    assert rows() == before
    pipeline.join()
    through(pipeline, *WAVES[3:])
    pipeline.settle(everything=True)
    assert pipeline.reconcile().agrees
    assert pipeline.attributed() == oracle.of_waves(WAVES)
    assert pipeline.dropped() == 0
    pipeline.lose_checkpoint("join")
    pipeline.join()
    assert pipeline.attributed() == oracle.of_waves(WAVES)


@pytest.mark.slow
def test_compaction_and_lanes_may_meet(replay: Any) -> None:
    pipeline = replay()
    through(pipeline, WAVES[0])
    ended, failures = threading.Event(), []

    def compact() -> None:
        lake = Lake(pipeline.lake.spark.newSession(), pipeline.config)
        while not ended.is_set():
            try:
                compact_open(lake, None)
            except Exception as error:  # shown below
                failures.append(error)

    beside = threading.Thread(target=compact)
    beside.start()
    try:
        through(pipeline, *WAVES[1:3])
    finally:
        ended.set()
        beside.join()
    assert not failures
    commits = [commit.operation for commit in pipeline.lake.commits(pipeline.lake.attributed, 0)][::-1]
    assert {"OPTIMIZE", "MERGE"} <= set(commits[commits.index("OPTIMIZE") :])
    pipeline.settle(everything=True)
    assert pipeline.reconcile().agrees
    assert pipeline.attributed() == oracle.of_waves(WAVES[:3])


@pytest.mark.slow
def test_what_cannot_be_compacted_is_left(replay: Any) -> None:
    pipeline = replay()
    pipeline.reconfigure("partition_by=hour", f"lake={pipeline.root}/hourly")  # where no join has published a horizon
    for wave in hourly_waves(2):
        pipeline.wave(*wave)
        pipeline.wave(*wave)
    gone = next(Path(pipeline.lake.path("playbacks")).rglob("part-*.parquet"))
    gone.unlink()
    with capture_logs() as logs:
        done = compact_open(pipeline.lake, None)
    assert "playbacks" not in done
    assert [(line["log_level"], line["table"]) for line in logs] == [("warning", "playbacks")]
    assert gone.name in logs[0]["reason"]
    assert done["impressions"] == Compacted(removed=4, added=2)
    assert done["ledger"].added == 1


def test_it_is_done_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr("pipelines.lake.compaction.compact_open", lambda lake, horizon: done.append(horizon))
    clock = 100.0
    monkeypatch.setattr("pipelines.lake.compaction.time", SimpleNamespace(monotonic=lambda: clock))
    lake: Any = object()
    often, never = (
        Compaction(lake=lake, horizon=lambda: 7, every=timedelta(minutes=minutes), _last=100.0) for minutes in (30, 0)
    )
    for clock in (1000.0, 1899.0, 1900.0, 1901.0, 3700.0):  # noqa: B007
        often.tick()
        never.tick()
    assert done == [7, 7]
