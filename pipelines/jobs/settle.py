"""Settle: once, or every `settle.every`."""

import time

from pipelines.config.model import Config
from pipelines.context import Context, open_context
from pipelines.jobs.serving import observed
from pipelines.lake.compaction import Compaction
from pipelines.lake.tables import Lake
from pipelines.settle.run import Earliest, Settle, SettleResult


def settle(lake: Lake, config: Config, *, everything: bool = False) -> SettleResult:
    """One run. With `everything` every landed outcome is settled, those above the horizon too."""
    with open_context(lake, config) as context, observed(context, "settle", once=True):
        return open_settle(context).run(everything=everything)


def open_settle(context: Context, earliest: Earliest | None = None) -> Settle:
    """For any number of runs in this process; `earliest` as `Settle` has it."""
    context.need(*(stream.name for stream in context.lake.streams.both), context.lake.attributed)
    return Settle(context=context, earliest=earliest)


def settle_forever(lake: Lake, config: Config) -> None:
    with open_context(lake, config) as context, observed(context, "settle"):
        lane = open_settle(context)
        compaction = Compaction(lake=lake, horizon=lambda: context.facts.horizon, every=config.tables.compact_every)
        while True:
            clock = time.monotonic()
            lane.run()
            compaction.tick()
            context.tick()
            time.sleep(max(0.0, config.settle.every.total_seconds() - (time.monotonic() - clock)))
