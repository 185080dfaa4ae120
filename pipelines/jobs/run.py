"""Run: ingest, join and settle in one application, sharing one session."""

import time

from pipelines.config import Config
from pipelines.jobs.driving import wait
from pipelines.jobs.ingest import failures_explained, start_ingest
from pipelines.jobs.join import start_join
from pipelines.jobs.settle import prepare
from pipelines.lake import Lake
from pipelines.settle.run import settle_once


def run_all(lake: Lake, config: Config) -> None:
    """Until stopped. The streaming queries run in Spark's own threads; settle runs between looks at their progress."""
    prepare(lake)
    door = start_ingest(lake, config, once=False)
    lane = start_join(lake, config)
    due = time.monotonic() + config.settle.every.total_seconds()

    def tick() -> None:
        nonlocal due
        door.watch.tick()
        lane.tick()
        if time.monotonic() >= due:
            settle_once(lake, config)
            due = time.monotonic() + config.settle.every.total_seconds()

    try:
        with failures_explained(lake, config):
            wait([*door.queries, lane.query], tick)
    finally:
        lane.publish()
