"""One run of settle: pin, select, look up, write rows and bookkeeping in one commit."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce

from pyspark.sql import DataFrame

from pipelines.bookkeeping import Settled, last_settled
from pipelines.config import Config
from pipelines.instants import now_us
from pipelines.lake import Lake
from pipelines.observe.ledger import Entry, Ledger
from pipelines.settle.lookup import event_hours, lake_candidates, spans, within
from pipelines.settle.selection import Window, open_outcomes, touched_outcomes
from pipelines.sink import AttributedSink, SinkResult


@dataclass(frozen=True, kw_only=True)
class SettleResult:
    """What a run did: outcomes looked up by cause (an outcome may have several), rows inserted and changed."""

    settled: Settled
    causes: Mapping[str, int]
    written: SinkResult


def settle_once(lake: Lake, config: Config, *, everything: bool = False) -> SettleResult:
    """Settle what landed or became final since the last run; with `everything`, outcomes above the horizon too.

    Safe beside a running join, and at any point to kill and repeat: the sink only ever improves a row, and the bookkeeping
    is committed with the rows. The horizon is read before the versions are pinned, so every on-time row at or below it is
    in the pinned bronze and its joined row in the table.
    """
    started, clock = now_us(), time.monotonic()
    streams, ledger = lake.streams, Ledger(lake)
    previous = last_settled(lake)
    horizon = ledger.horizon()
    now = Settled(
        run=previous.run + 1,
        exposure_version=lake.version(streams.exposure.name),
        outcome_version=lake.version(streams.outcome.name),
        horizon=horizon,
        all=everything,
    )
    window = Window(previous=previous.horizon, horizon=horizon, limit=None if everything else horizon)
    causes: dict[str, int] = {}
    written = SinkResult(0, 0, 0.0)
    if everything or horizon is not None:
        selected = _select(lake, config, previous, now, window).persist()
        try:
            causes = {r["__cause"]: r["count"] for r in selected.groupBy("__cause").count().collect()}
            if causes:
                written = _settle(lake, config, selected, now)
        finally:
            selected.unpersist()
    entry = Entry(
        query="settle",
        batch=now.run,
        started_at=started,
        consumed={streams.exposure.name: now.exposure_version, streams.outcome.name: now.outcome_version},
        rows_in=sum(causes.values()),
        rows_out=written.inserted + written.updated,
        horizon=horizon,
        durations_ms={"total": round((time.monotonic() - clock) * 1000), "write": round(written.seconds * 1000)},
        detail={
            "settled": asdict(now),
            "attributed_version": lake.version(lake.attributed),
            "causes": causes,
            "inserted": written.inserted,
            "updated": written.updated,
        },
    )
    ledger.write([entry])
    return SettleResult(settled=now, causes=causes, written=written)


def _select(lake: Lake, config: Config, previous: Settled, now: Settled, window: Window) -> DataFrame:
    """The outcomes to look up, with their causes; each part reads only the dates that it needs."""
    streams, hot, attribution = lake.streams, config.join.hot_window, config.join.attribution_window
    outcome, exposure = streams.outcome, streams.exposure
    attributed = lake.read(lake.attributed)
    outcomes = lake.read(outcome.name, now.outcome_version)

    newly = outcomes.where(window.dates()).where(window.newly(outcome.event_time))
    late = lake.read(exposure.name, now.exposure_version).where("late").where(window.dates(back=attribution))
    selected = [
        open_outcomes(newly, attributed.where(window.dates()), streams, window, hot),
        touched_outcomes(newly, late, streams, attribution),
    ]
    if window.previous is not None:
        # What landed since the last run at or below its horizon is late, whatever it says of itself: should the join ever have
        # dropped a row, it is here that it comes back.
        landed = lake.landed_between(outcome.name, previous.outcome_version, now.outcome_version)
        behind = landed.where(window.already(outcome.event_time))
        hours = event_hours(behind, outcome.event_time)
        if hours:
            rows = attributed.where(within(outcome.event_time, spans(hours)))
            selected.append(open_outcomes(behind, rows, streams, window, hot))
        landed = lake.landed_between(exposure.name, previous.exposure_version, now.exposure_version)
        behind = landed.where(window.already(exposure.event_time))
        hours = event_hours(behind, exposure.event_time)
        if hours:
            reach = within(outcome.event_time, spans(hours, after=attribution))
            final = outcomes.where(reach).where(window.already(outcome.event_time))
            selected.append(touched_outcomes(final, behind, streams, attribution))
    return reduce(DataFrame.unionByName, selected)


def _settle(lake: Lake, config: Config, selected: DataFrame, now: Settled) -> SinkResult:
    streams, window = lake.streams, config.join.attribution_window
    reach = spans(event_hours(selected, streams.outcome.event_time), before=window)
    exposures = lake.read(streams.exposure.name, now.exposure_version)
    pruned = exposures.where(within(streams.exposure.event_time, reach))
    candidates = lake_candidates(selected.drop("__cause"), pruned, streams, window)
    return AttributedSink(lake).write(candidates, lane="settle", metadata=now.as_metadata())
