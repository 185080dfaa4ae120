"""Run: ingest, join and settle in one application, sharing one session and one context."""

import time
from collections.abc import Callable

from pipelines.config.model import Config
from pipelines.context import open_context
from pipelines.ingest.landings import Landings
from pipelines.jobs.driving import in_rounds, wait
from pipelines.jobs.ingest import failures_explained, ingest_in, start_ingest
from pipelines.jobs.join import Ingest, join_in, start_join
from pipelines.jobs.reporting import UNSAID, Say
from pipelines.jobs.serving import observed
from pipelines.jobs.settle import open_settle
from pipelines.lake.compaction import Compaction
from pipelines.lake.tables import Lake
from pipelines.session import behind_connect
from pipelines.settle.run import SettleResult


def run_once(
    lake: Lake, config: Config, *, everything: bool = False, stage: Callable[[str], object] = lambda _: None, say: Say = UNSAID
) -> SettleResult:
    """To the end of what is there, one stage after the other; what settle did. `everything` as for settle; `stage` is told of
    each stage as it begins."""
    with open_context(lake, config) as context, observed(context, "ingest", "join", "settle", once=True, say=say):
        stage("ingest")
        ingest_in(context, once=True, say=say)
        stage("join")
        join_in(context, once=True)
        stage("settle")
        return open_settle(context).run(everything=everything)


def run_all(lake: Lake, config: Config, *, say: Say = UNSAID) -> None:
    """Until stopped. The streaming queries run in Spark's own threads; settle runs between looks at their progress."""
    with open_context(lake, config) as context, observed(context, "ingest", "join", "settle", say=say):
        compaction = Compaction(lake=lake, horizon=lambda: context.facts.horizon, every=config.tables.compact_every)
        if behind_connect(lake.spark):
            settle = open_settle(context)

            def drain() -> None:
                ingest_in(context, once=True, say=say)
                join_in(context, once=True)
                settle.run()
                compaction.tick()
                context.tick()

            in_rounds(config.trigger.every, drain)
        landings = Landings()
        ingest = start_ingest(context, once=False, landings=landings, say=say)
        writers = {writer.stream.name: writer for writer in ingest.writers}
        join = start_join(context, ingest=Ingest(writers=writers, landings=landings))
        settle = open_settle(context, lambda stream, batches: writers[stream].earliest_of(batches))
        due = time.monotonic() + config.settle.every.total_seconds()

        def tick() -> None:
            nonlocal due
            ingest.tick()
            join.tick()
            if time.monotonic() >= due:
                settle.run()
                due = time.monotonic() + config.settle.every.total_seconds()
            compaction.tick()

        try:
            with failures_explained(context):
                wait([*ingest.queries, join.query], tick, release=landings.release)
        finally:
            ingest.close()
            join.close()
