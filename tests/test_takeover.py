"""A lake that version 0.1 wrote is taken over at the first start, once."""

import shutil
import tarfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.control.rule import registered_rule
from pipelines.control.store import read_facts
from pipelines.model.errors import LakeError
from tests import oracle
from tests.builders import play, shown
from tests.replay import Replay

ARCHIVE = Path(__file__).parent / "data" / "lake-of-0.1.tar.gz"
# Its checkpoints and tables have the paths of its landing files.
ROOT = Path("/tmp/rejoin-lake-of-0.1")  # noqa: S108

IMPRESSIONS = [
    shown("a", "10:00"),
    shown("b", "10:20"),
    shown("x", "11:00", who="bob"),
    shown("c", "10:40"),
    shown("d", "11:20"),
    shown("e", "12:30"),
    shown("f", "13:00", who="bob"),
    shown("g", "13:10"),
]
PLAYBACKS = [
    play("p1", "10:05"),
    play("p2", "10:45"),
    play("y", "11:00", who="cleo"),
    play("p3", "10:50"),
    play("p4", "11:25"),
    play("p5", "13:15"),
    play("p6", "12:40"),
]


@pytest.fixture
def old(spark: SparkSession) -> Iterator[Replay]:
    """Settled to 12:25 by 0.1; g, p5 and p6 have landed since."""
    shutil.rmtree(ROOT, ignore_errors=True)
    pipeline = Replay(spark, ROOT, ["join.watermark_delay=5m", "join.hot_window=10m"])
    pipeline._files = 100  # other names than those of 0.1's
    shutil.rmtree(ROOT)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(ROOT.parent, filter="data")
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]  # of an earlier test
    yield pipeline
    shutil.rmtree(ROOT, ignore_errors=True)


def test_lanes_go_on_where_0_1_has_stopped(old: Replay) -> None:
    files = len(list((ROOT / "landing").rglob("*.jsonl")))
    assert len(old.rows("impressions")) + len(old.rows("quarantine")) == 9
    more = [shown("h", "14:00"), shown("late", "12:35")], [play("p7", "14:01"), play("p8", "13:20")]
    old.wave(*more)
    facts = read_facts(old.lake)
    assert facts.horizon == oracle.micros(play("x", "12:55")["event_time"])
    assert facts.settled.run == 2
    assert facts.floor("playbacks") == facts.horizon
    assert len(list((ROOT / "landing").rglob("*.jsonl"))) == files + 2
    # Nothing landed twice, and what was behind the watermark of 0.1 is late.
    assert len(old.rows("impressions")) == 10
    late = {r["impression_id"]: r["late"] for r in old.rows("impressions", "impression_id IN ('h', 'late')")}
    assert late == {"h": False, "late": True}
    old.join()
    old.settle()
    old.settle(everything=True)
    expected = oracle.attribute(PLAYBACKS + more[1], IMPRESSIONS + more[0], window=timedelta(hours=6))
    assert old.attributed() == expected
    assert [path.name.startswith("20") for path in (Path(old.lake.checkpoint("join"))).iterdir()] == [True]
    known = registered_rule(old.lake)
    assert known is not None
    assert (known.since, known.rule.window) == (None, timedelta(hours=6))


def test_what_0_1_refused_is_refused(old: Replay) -> None:
    old.reconfigure("join.attribution_window=3h")
    old.ingest()
    with pytest.raises(LakeError, match=r"join.attribution_window: 6h -> 3h: .*run `rejoin backfill --from D`"):
        old.join()
    old.reconfigure("join.attribution_window=6h", "streams.playbacks.id=device")
    with pytest.raises(LakeError, match=r"streams.playbacks.id: was playback_id when this lake was made, now device"):
        old.ingest()
