"""One run of settle: pin, select, look up, write rows and bookkeeping in one commit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.bookkeeping import Settled, last_settled
from pipelines.config import Config
from pipelines.durations import micros
from pipelines.inforce import Rules, rules_in_force
from pipelines.instants import now_us
from pipelines.join.state import narrowest_hot_window
from pipelines.lake import Lake, at
from pipelines.observe.ledger import Entry, Ledger
from pipelines.observe.phases import Laps
from pipelines.settle.figures import Final, Looked, became_final, looked_up
from pipelines.settle.lookup import HOUR_US, event_hours, lake_candidates, spans, within
from pipelines.settle.selection import Window, open_outcomes, touched_outcomes, unanswered
from pipelines.sink import AttributedSink, SinkResult, first_events


@dataclass(frozen=True, kw_only=True)
class SettleResult:
    """What a run did: outcomes looked up by cause (an outcome may have several), rows inserted and changed."""

    settled: Settled
    looked: Looked
    final: Final
    written: SinkResult

    @property
    def causes(self) -> Mapping[str, int]:
        return self.looked.causes


def settle_once(lake: Lake, config: Config, *, everything: bool = False) -> SettleResult:
    """Settle what landed or became final since the last run; with `everything`, outcomes above the horizon too.

    Safe beside a running join, and at any point to kill and repeat: the sink only ever improves a row, and the bookkeeping
    is committed with the rows. The horizon is read before the versions are pinned, so every on-time row at or below it is
    in the pinned bronze and its joined row in the table.
    """
    started, laps = now_us(), Laps()
    streams = lake.streams
    previous = last_settled(lake)
    horizon, dropped, passed_over = Ledger(lake).joined()
    now = Settled(
        run=previous.run + 1,
        exposure_version=lake.version(streams.exposure.name),
        outcome_version=lake.version(streams.outcome.name),
        horizon=horizon,
        all=everything,
        dropped=dropped,
    )
    limit = None if everything else horizon
    window = Window(previous=previous.horizon, horizon=horizon, limit=limit, passed_over=passed_over)
    laps.lap("bookkeeping")
    looked, written = Looked(), SinkResult(0, 0, 0.0)
    if (everything or horizon is not None) and not _nothing_new(previous, now):
        looked, written = _look_up(lake, config, previous, now, window, started, laps)
    final = _final(lake, previous, now)
    laps.lap("figures")
    Ledger(lake).write([_entry(lake, now, looked, final, written, started, laps)])
    return SettleResult(settled=now, looked=looked, final=final, written=written)


def _nothing_new(previous: Settled, now: Settled) -> bool:
    """Whether no event has landed, and none has become final, since the last run; who asks for all gets all looked at."""
    seen = ("exposure_version", "outcome_version", "horizon", "dropped")
    return not now.all and all(getattr(previous, name) == getattr(now, name) for name in seen)


def _look_up(
    lake: Lake, config: Config, previous: Settled, now: Settled, window: Window, stamp: int, laps: Laps
) -> tuple[Looked, SinkResult]:
    streams, rules = lake.streams, rules_in_force(lake, config)
    selected = _select(lake, config, rules, previous, now, window).persist()
    try:
        hours = event_hours(selected, streams.outcome.event_time)
        laps.lap("select")
        if not hours:
            return Looked(), SinkResult(0, 0, 0.0)
        written = _settle(lake, rules, selected, hours, now, stamp)
        laps.lap("look_up", {"write": written.merge_seconds})
        rows = lake.read(lake.attributed).where(within(streams.outcome.event_time, spans(hours)))
        return looked_up(selected, rows, streams, stamp, previous.horizon), written
    finally:
        selected.unpersist()


def _final(lake: Lake, previous: Settled, now: Settled) -> Final:
    if now.horizon is None or now.horizon == previous.horizon:
        return Final()
    passed = Window(previous=previous.horizon, horizon=now.horizon, limit=now.horizon)
    event_time = lake.streams.outcome.event_time
    return became_final(lake.read(lake.attributed).where(passed.dates()).where(passed.newly(event_time)), lake.streams)


def _entry(lake: Lake, now: Settled, looked: Looked, final: Final, written: SinkResult, started: int, laps: Laps) -> Entry:
    return Entry(
        query="settle",
        batch=now.run,
        started_at=started,
        consumed={lake.streams.exposure.name: now.exposure_version, lake.streams.outcome.name: now.outcome_version},
        rows_in=sum(looked.causes.values()),
        rows_out=written.inserted + written.updated,
        horizon=now.horizon,
        durations_ms=laps.durations_ms(),
        detail={
            "settled": asdict(now),
            "attributed_version": lake.version(lake.attributed),
            "inserted": written.inserted,
            "updated": written.updated,
            **asdict(looked),
            "final": asdict(final),
        },
    )


def _select(lake: Lake, config: Config, rules: Rules, previous: Settled, now: Settled, window: Window) -> DataFrame:
    """The outcomes to look up, with their causes; each part reads only the dates that it needs."""
    streams, attribution = lake.streams, rules.longest
    last = Ledger(lake).last("settle")
    # The join may have run with another hot window than ours.
    hot = narrowest_hot_window(lake, last["started_at"] if last else None, config.join.hot_window)
    outcome, exposure = streams.outcome, streams.exposure
    joined = rules.current.holds(F.col(outcome.event_time))
    joined = joined & window.read(outcome.event_time)
    # Pinned, and so not read again for what is kept of it once this run has written there.
    attributed = lake.read(lake.attributed, lake.version(lake.attributed))
    outcomes = lake.read(outcome.name, now.outcome_version)

    newly = outcomes.where(window.dates()).where(window.newly(outcome.event_time))
    # An outcome whose row lies elsewhere in its date (another event of its id) is taken for missing: one look-up more, no harm.
    rows = attributed.where(window.dates()).where(window.newly(outcome.event_time))
    exposures = lake.read(exposure.name, now.exposure_version)
    late = (
        exposures.where(window.dates(back=attribution)).where(window.newly(exposure.event_time, back=attribution)).where("late")
    )
    selected = [
        open_outcomes(newly, rows, streams, window, hot, joined),
        touched_outcomes(newly, late, streams, rules),
    ]
    if now.all:
        selected.append(unanswered(outcomes, attributed, streams))
    if now.dropped:
        # As if they had come late: those newly dropped touch what was final, and all of them what becomes final.
        fresh = now.dropped > previous.dropped
        settled_before = None if fresh or previous.horizon is None else previous.horizon - micros(attribution)
        lost = _dropped_exposures(lake, now, settled_before)
        recent = lost.where(window.newly(exposure.event_time, back=attribution))
        selected.append(touched_outcomes(newly, recent, streams, rules))
        if fresh:
            reach = within(outcome.event_time, spans(event_hours(lost, exposure.event_time), after=attribution))
            final = outcomes.where(reach).where(window.already(outcome.event_time))
            selected.append(touched_outcomes(final, lost, streams, rules))
    if window.previous is not None:
        # What landed since the last run at or below its horizon is late, whatever it says of itself: should the join ever have
        # dropped a row, it is here that it comes back.
        landed = lake.landed_between(outcome.name, previous.outcome_version, now.outcome_version)
        behind = landed.where(window.already(outcome.event_time))
        hours = event_hours(behind, outcome.event_time)
        if hours:
            rows = attributed.where(within(outcome.event_time, spans(hours)))
            selected.append(open_outcomes(behind, rows, streams, window, hot, joined))
        landed = lake.landed_between(exposure.name, previous.exposure_version, now.exposure_version)
        behind = landed.where(window.already(exposure.event_time))
        hours = event_hours(behind, exposure.event_time)
        if hours:
            reach = within(outcome.event_time, spans(hours, after=attribution))
            final = outcomes.where(reach).where(window.already(outcome.event_time))
            selected.append(touched_outcomes(final, behind, streams, rules))
    return reduce(DataFrame.unionByName, selected)


def _dropped_exposures(lake: Lake, now: Settled, since: int | None) -> DataFrame:
    """The exposures that the join may have dropped: those at or below the watermark of a micro-batch with an alarm, landed after
    what it had read before. Alarms whose watermark is at or below `since` (microseconds) count no more.

    Never to happen; made good all the same, as if they had come late.
    """
    exposure = lake.streams.exposure
    parts = [lake.read(exposure.name, now.exposure_version).where(F.lit(False))]
    for entry in Ledger(lake).drops():
        watermark = entry["watermark"]
        if watermark is None or (since is not None and watermark <= since):
            continue
        # An entry of an earlier version does not tell what was read, so all of bronze may be concerned.
        after = (entry["detail"] or {}).get("read_after", {}).get(exposure.name, -1)
        landed = lake.landed_between(exposure.name, after, now.exposure_version)
        parts.append(landed.where(F.col(exposure.event_time) <= at(watermark)))
    return reduce(DataFrame.unionByName, parts)


def _settle(lake: Lake, rules: Rules, selected: DataFrame, hours: dict[int, int], now: Settled, stamp: int) -> SinkResult:
    streams, those = lake.streams, rules.between(min(hours), max(hours) + HOUR_US)
    exposures = lake.read(streams.exposure.name, now.exposure_version)
    pruned = exposures.where(within(streams.exposure.event_time, spans(hours, before=those.longest)))
    asked = first_events(selected.drop("__cause"), streams).persist()
    try:
        candidates = lake_candidates(asked, pruned, streams, those, sum(hours.values()))
        return AttributedSink(lake).write(candidates, lane="settle", metadata=now.as_metadata(), stamp=stamp, first_events=True)
    finally:
        asked.unpersist()
