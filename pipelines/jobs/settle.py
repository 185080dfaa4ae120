"""Settle: once, or every `settle.every`."""

import time

from pipelines.config import Config
from pipelines.lake import Lake
from pipelines.settle.run import SettleResult, settle_once


def settle(lake: Lake, config: Config, *, everything: bool = False) -> SettleResult:
    """One run. With `everything` every landed outcome is settled, those above the horizon too."""
    prepare(lake)
    return settle_once(lake, config, everything=everything)


def prepare(lake: Lake) -> None:
    names = [stream.name for stream in lake.streams.both]
    lake.ensure(*names, lake.attributed, "ledger")


def settle_forever(lake: Lake, config: Config) -> None:
    prepare(lake)
    while True:
        clock = time.monotonic()
        settle_once(lake, config)
        time.sleep(max(0.0, config.settle.every.total_seconds() - (time.monotonic() - clock)))
