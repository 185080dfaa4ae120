"""Settle: once, or every `settle.every`."""

import time

from pipelines.compaction import Compaction
from pipelines.config import Config
from pipelines.inforce import put_in_force, require_in_force
from pipelines.lake import Lake
from pipelines.settle.run import SettleResult, settle_once


def settle(lake: Lake, config: Config, *, everything: bool = False) -> SettleResult:
    """One run. With `everything` every landed outcome is settled, those above the horizon too."""
    prepare(lake, config)
    return settle_once(lake, config, everything=everything)


def prepare(lake: Lake, config: Config) -> None:
    put_in_force(lake, config, *(stream.name for stream in lake.streams.both), lake.attributed)
    lake.as_tables_have()


def settle_forever(lake: Lake, config: Config) -> None:
    prepare(lake, config)
    compaction = Compaction(lake=lake, every=config.tables.compact_every)
    while True:
        clock = time.monotonic()
        require_in_force(lake, config)
        settle_once(lake, config)
        compaction.tick()
        time.sleep(max(0.0, config.settle.every.total_seconds() - (time.monotonic() - clock)))
