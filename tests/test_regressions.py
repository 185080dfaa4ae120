"""Cases that once ended in another table, each by the name of its rule."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.lake.tables import Lake
from pipelines.reconcile.span import Range
from tests import oracle
from tests.builders import play, shown
from tests.conftest import FOR_FEW_ROWS

pytestmark = pytest.mark.slow

WINDOW = timedelta(hours=6)


def with_join(pipeline: Any, **changes: Any) -> Any:
    """The same pipeline started again with other windows."""
    join = pipeline.config.join.model_copy(update=changes)
    pipeline.config = pipeline.config.model_copy(update={"join": join})
    pipeline.lake = Lake(pipeline.lake.spark, pipeline.config)
    return pipeline


def test_settle_all_does_not_trust_a_hot_match_that_the_join_may_still_better(replay: Any) -> None:
    pipeline = replay()
    impressions, playbacks = [shown("a", "11:50"), shown("b", "11:55")], [play("p", "12:00")]
    pipeline.wave(impressions[:1], playbacks)
    pipeline.join()
    pipeline.wave(impressions[1:])
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


def test_a_wider_hot_window_does_not_trust_what_settle_wrote_under_a_narrower_one(replay: Any) -> None:
    pipeline = replay("join.hot_window=5m")
    impressions, playbacks = [shown("a", "11:35"), shown("b", "11:40")], [play("p", "12:00"), play("q", "12:30")]
    pipeline.wave(impressions[:1], playbacks[:1])
    pipeline.settle(everything=True)
    assert pipeline.answers()["p"] == ("a", "settle")
    # On time, as its stream has not come further than 11:35.
    pipeline.wave(impressions[1:])
    pipeline.join()
    with_join(pipeline, hot_window=timedelta(minutes=30))
    pipeline.wave([shown("z", "12:30", who="zoe")], playbacks[1:])
    pipeline.join()
    pipeline.settle()
    # By whichever lane: a wider window gives the join a new checkpoint, which sees both again.
    assert pipeline.answers()["p"][0] == "b"


def test_conflicts_within_a_date_are_one_row_also_in_hourly_partitions(replay: Any, tmp_path: Path, spark: Any) -> None:
    from tests.replay import Replay

    pipeline = Replay(spark, tmp_path / "hourly", ["streams.playbacks.partition_by=hour"])
    conflict = [play("p", "11:01", device="web"), play("p", "10:59", device="tv")]
    pipeline.wave([shown("a", "10:58")], conflict[:1])
    pipeline.settle(everything=True)
    pipeline.wave([], conflict[1:])
    pipeline.settle(everything=True)
    rows = pipeline.attributed()
    assert {id: (row["device"], row["event_hour"]) for id, row in rows.items()} == {"p": ("tv", 10)}
    assert pipeline.reconcile().verdict == "agrees"


def test_repair_of_one_date_leaves_the_event_of_another_date_alone(replay: Any) -> None:
    pipeline = replay()
    playbacks = [play("p", "2026-01-10T23:50:00Z"), play("p", "2026-01-11T00:10:00Z"), play("q", "2026-01-11T00:20:00Z")]
    impressions = [shown("a", "2026-01-10T23:40:00Z")]
    pipeline.wave(impressions, playbacks)
    pipeline.settle(everything=True)
    eleventh = Range(first=date(2026, 1, 11), last=date(2026, 1, 11))
    found = pipeline.reconcile(eleventh)
    assert (found.counts["conflicting_duplicate"], found.differences) == (1, 1)
    assert pipeline.reconcile(eleventh, fix=True).verdict == "repaired"
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


def test_repair_does_not_undo_what_a_lane_wrote_meanwhile(replay: Any, monkeypatch: Any) -> None:
    from pipelines.reconcile import run

    pipeline = replay()
    impressions, playbacks = [shown("a", "11:00"), shown("late", "11:55")], [play("p", "12:00")]
    pipeline.wave(impressions[:1], playbacks)
    pipeline.settle(everything=True)
    table = pipeline.lake.identifier("attributed_playbacks")
    pipeline.lake.spark.sql(f"DELETE FROM {table}")
    repair = run.repair

    def interrupted(lake: Any, compared: Any, run_id: str) -> int:
        monkeypatch.setattr(run, "repair", repair)
        pipeline.wave(impressions[1:])
        pipeline.settle(everything=True)
        return repair(lake, compared, run_id)

    monkeypatch.setattr(run, "repair", interrupted)
    assert pipeline.reconcile(fix=True).verdict == "repaired"
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


def test_a_checkpoint_half_deleted_or_put_back_lands_every_file_once(replay: Any) -> None:
    pipeline = replay()
    checkpoint = Path(pipeline.lake.checkpoint("ingest-playbacks"))
    pipeline.wave([], [play("a", "10:00")])
    shutil.copytree(checkpoint, pipeline.root / "yesterday")
    pipeline.wave([], [play("b", "10:01")])
    for part in ("offsets", "commits", "sources"):
        shutil.rmtree(checkpoint / part)
    pipeline.wave([], [play("c", "10:02"), "nonsense"])
    shutil.rmtree(checkpoint)
    shutil.copytree(pipeline.root / "yesterday", checkpoint)
    pipeline.wave([], [play("d", "10:03")])
    pipeline.wave([], [play("e", "10:04")])
    assert sorted(r["playback_id"] for r in pipeline.rows("playbacks")) == ["a", "b", "c", "d", "e"]
    assert len(pipeline.rows("quarantine")) == 1


def test_what_was_judged_once_is_not_judged_again(replay: Any) -> None:
    pipeline = replay("join.max_future_skew=5m")
    pipeline.wave([], [play("ahead", "2999-01-01T00:00:00Z"), play("p", "10:00")])
    pipeline.land("playbacks", [play("alone", "2999-01-01T00:00:00Z")])
    pipeline.ingest()
    pipeline.lose_checkpoint("ingest-playbacks")
    # A thousand years later, as it were.
    with_join(pipeline, max_future_skew=timedelta(days=365_000 * 2))
    pipeline.ingest()
    assert [r["playback_id"] for r in pipeline.rows("playbacks")] == ["p"]
    assert len(pipeline.rows("quarantine")) == 2


@pytest.fixture
def compiled(spark: SparkSession) -> Iterator[None]:
    """Generated code, as users run it: the other tests' interpreter lets through what it does not."""
    as_users_run_it = {"spark.sql.codegen.wholeStage": "true", "spark.sql.codegen.factoryMode": "CODEGEN_ONLY"}
    for name, value in as_users_run_it.items():
        spark.conf.set(name, value)
    yield
    for name in as_users_run_it:
        spark.conf.set(name, FOR_FEW_ROWS[name])


def test_a_micro_batch_of_heartbeats_only_evicts_outcomes_without_a_key(replay: Any, compiled: None) -> None:
    # Spark takes a side without rows out of the plan; what is left must not make of the key a column that is never null.
    pipeline = replay()
    pipeline.wave([shown("i1", "12:00")], [play("p1", "12:00", who=None), play("p2", "12:01")])
    pipeline.join()
    pipeline.wave([shown("i2", "15:00")])
    pipeline.join()
    pipeline.join()
    assert pipeline.answers() == {"p1": (None, "join"), "p2": ("i1", "join")}
