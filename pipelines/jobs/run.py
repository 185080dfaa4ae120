"""Run: ingest, join and settle in one application, sharing one session."""

import time

from pipelines.compaction import Compaction
from pipelines.config import Config
from pipelines.jobs.driving import wait
from pipelines.jobs.ingest import failures_explained, ingest, start_ingest
from pipelines.jobs.join import join, start_join
from pipelines.jobs.settle import prepare, settle
from pipelines.lake import Lake
from pipelines.settle.run import SettleResult, settle_once


def run_once(lake: Lake, config: Config, *, everything: bool = False) -> SettleResult:
    """To the end of what is there, one stage after the other; what settle did. `everything` as for settle."""
    ingest(lake, config, once=True)
    join(lake, config, once=True)
    return settle(lake, config, everything=everything)


def run_all(lake: Lake, config: Config) -> None:
    """Until stopped. The streaming queries run in Spark's own threads; settle runs between looks at their progress."""
    prepare(lake, config)
    door = start_ingest(lake, config, once=False)
    lane = start_join(lake, config)
    compaction = Compaction(lake=lake, every=config.tables.compact_every)
    due = time.monotonic() + config.settle.every.total_seconds()

    def tick() -> None:
        nonlocal due
        door.watch.tick()
        lane.tick()
        if time.monotonic() >= due:
            settle_once(lake, config)
            due = time.monotonic() + config.settle.every.total_seconds()
        compaction.tick()

    try:
        with failures_explained(lake, config):
            wait([*door.queries, lane.query], tick)
    finally:
        lane.publish()
