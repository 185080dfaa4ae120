"""One run of settle: pin, select, look up, write rows and position in one commit."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.context import Context
from pipelines.control.facts import Fact, Settled
from pipelines.control.position import KEY, settled_position
from pipelines.ingest.state import Landed, landed_rows, landed_since
from pipelines.model.time import now_us
from pipelines.monitor.ledger import Entry
from pipelines.monitor.phases import Laps
from pipelines.settle.figures import Final, LookupStats, became_final, lookup_stats
from pipelines.settle.lookup import event_hours, hour_of, lake_candidates, within
from pipelines.settle.selection import Window, outcomes_to_look_up, touched_outcomes, unanswered
from pipelines.sink import AttributedSink, SinkResult, first_events

Earliest = Callable[[str, Collection[int]], int | None]
"""Of some ingest batches of a stream, the least event time that landed (microseconds); None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class SettleResult:
    """What a run did: outcomes looked up by cause (an outcome may have several), rows inserted and changed."""

    settled: Settled
    stats: LookupStats
    final: Final
    written: SinkResult

    @property
    def causes(self) -> Mapping[str, int]:
        return self.stats.causes


@dataclass(kw_only=True)
class Settle:
    """The runs of one process. Keeps its position in memory; `earliest` knows what an ingest in the same process has landed:
    where nothing landed at or below the horizon, a run need not look back."""

    context: Context
    earliest: Earliest | None = None
    _settled: Settled | None = None

    def run(self, *, everything: bool = False) -> SettleResult:
        """Settle what landed or became final since the last run; with `everything`, outcomes above the horizon too.

        Safe beside a running join, and at any point to kill and repeat: the sink only ever improves a row, and the position is
        committed with the rows. The horizon is read before the versions are pinned, so every on-time row at or below it is in
        the pinned bronze and its joined row in the table.
        """
        started, laps, lake = now_us(), Laps(), self.context.lake
        # Where ingest runs in another process, so may the join.
        facts = self.context.facts if self.earliest else self.context.control.refresh()
        position = None if self._settled else settled_position(lake, facts)
        previous = self._settled or (position.settled if position else Settled())
        attributed = position.version if position else lake.version(lake.attributed)
        landed = {
            stream.name: landed_since(lake, stream.name, version)
            for stream, version in zip(lake.streams.both, (previous.exposure_version, previous.outcome_version), strict=True)
        }
        now = Settled(
            run=previous.run + 1,
            exposure_version=landed[lake.streams.exposure.name].version,
            outcome_version=landed[lake.streams.outcome.name].version,
            horizon=facts.horizon,
            all=everything,
        )
        laps.lap("bookkeeping")
        below = frozenset(name for name, each in landed.items() if self._may_be_below(name, each, previous.horizon))
        one = _Run(
            context=self.context,
            previous=previous,
            now=now,
            attributed=attributed,
            landed=landed,
            below=below,
            stamp=started,
        )
        stats, written = one.look_up(laps) if one.is_due else (LookupStats(), SinkResult(0, 0, 0.0))
        final = one.final()
        laps.lap("figures")
        self._settled = now
        self.context.control.put(Fact(kind="settled", version=attributed, detail=asdict(now)))
        self.context.ledger.add(_entry(self.context, now, stats, final, written, started, laps))
        return SettleResult(settled=now, stats=stats, final=final, written=written)

    def _may_be_below(self, stream: str, landed: Landed, horizon: int | None) -> bool:
        """Whether an event may have landed since the last run at or below its horizon."""
        if horizon is None or not (landed.batches or landed.otherwise):
            return False
        earliest = None if landed.otherwise or self.earliest is None else self.earliest(stream, landed.batches)
        return earliest is None or earliest <= horizon


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run: from what the previous one had seen to what this one sees, over the output table at version `attributed`. By
    stream, what `landed` since; `below`: the streams of which some of that may be at or below the previous horizon."""

    context: Context
    previous: Settled
    now: Settled
    attributed: int
    landed: Mapping[str, Landed]
    below: frozenset[str]
    stamp: int

    @property
    def is_due(self) -> bool:
        """Whether an event has landed, or become final, since the last run; who asks for all gets all looked at."""
        seen = ("exposure_version", "outcome_version", "horizon")
        same = all(getattr(self.previous, name) == getattr(self.now, name) for name in seen)
        return self.now.all or (self.now.horizon is not None and not same)

    @property
    def window(self) -> Window:
        limit = None if self.now.all else self.now.horizon
        untrusted = self.context.facts.distrusted_to
        return Window(previous=self.previous.horizon, horizon=self.now.horizon, limit=limit, untrusted=untrusted)

    def look_up(self, laps: Laps) -> tuple[LookupStats, SinkResult]:
        lake, streams = self.context.lake, self.context.lake.streams
        selected = self._select().persist()
        try:
            hours = event_hours(selected, streams.outcome.event_time)
            laps.lap("select")
            if not hours:
                return LookupStats(), SinkResult(0, 0, 0.0)
            written = self._write(selected, hours)
            laps.lap("look_up", {"write": written.merge_seconds})
            rows = lake.read(lake.attributed).where(within(streams.outcome.event_time, hours))
            return lookup_stats(selected, rows, streams, self.stamp, self.previous.horizon), written
        finally:
            selected.unpersist()

    def final(self) -> Final:
        """What became final in this run."""
        if self.now.horizon is None or self.now.horizon == self.previous.horizon:
            return Final()
        lake = self.context.lake
        passed = Window(previous=self.previous.horizon, horizon=self.now.horizon, limit=self.now.horizon)
        event_time = lake.streams.outcome.event_time
        return became_final(lake.read(lake.attributed).where(passed.dates()).where(passed.newly(event_time)), lake.streams)

    def _select(self) -> DataFrame:
        """The outcomes to look up, with their causes; each part reads only the dates that it needs."""
        lake, window, join = self.context.lake, self.window, self.context.config.join
        streams, attribution = lake.streams, join.attribution_window
        last = self.context.facts.last("settled")
        # The join may have run with another hot window than ours.
        hot = self.context.facts.narrowest_hot_window(last.at if last else None, join.hot_window)
        outcome, exposure = streams.outcome, streams.exposure
        # Pinned, and so not read again for what is kept of it once this run has written there.
        attributed = lake.read(lake.attributed, self.attributed)
        outcomes = lake.read(outcome.name, self.now.outcome_version)
        exposures = lake.read(exposure.name, self.now.exposure_version)

        newly = outcomes.where(window.dates()).where(window.newly(outcome.event_time))
        # An outcome whose row lies elsewhere in its date (another event of its id) is taken for missing: one look-up more.
        rows = attributed.where(window.dates()).where(window.newly(outcome.event_time))
        back = window.dates(back=attribution) & window.newly(exposure.event_time, back=attribution)
        selected = [
            outcomes_to_look_up(newly, rows, streams, window, hot),
            touched_outcomes(newly, exposures.where(back).where("late"), streams, attribution),
        ]
        if self.now.all:
            selected.append(unanswered(outcomes, attributed, streams))
        behind, hours = self._below()
        if hours.get(outcome.name):
            rows = attributed.where(within(outcome.event_time, hours[outcome.name]))
            selected.append(outcomes_to_look_up(behind[outcome.name], rows, streams, window, hot))
        if hours.get(exposure.name):
            reach = within(outcome.event_time, hours[exposure.name], after=attribution)
            final = outcomes.where(reach).where(window.already(outcome.event_time))
            selected.append(touched_outcomes(final, behind[exposure.name], streams, attribution))
        return reduce(DataFrame.unionByName, selected)

    def _below(self) -> tuple[dict[str, DataFrame], dict[str, list[int]]]:
        """By stream, what landed since the last run at or below its horizon, and the hours of event time that it is in."""
        lake, window = self.context.lake, self.window
        behind = {
            stream.name: landed_rows(lake, stream.name, self.landed[stream.name]).where(window.already(stream.event_time))
            for stream in lake.streams.both
            if stream.name in self.below
        }
        if not behind:
            return {}, {}
        parts = [
            rows.select(F.lit(name).alias("stream"), hour_of(lake.streams.named(name).event_time).alias("hour"))
            for name, rows in behind.items()
        ]
        hours: dict[str, list[int]] = {}
        for row in reduce(DataFrame.unionByName, parts).distinct().collect():
            hours.setdefault(row["stream"], []).append(row["hour"])
        return behind, hours

    def _write(self, selected: DataFrame, hours: Mapping[int, int]) -> SinkResult:
        lake, streams = self.context.lake, self.context.lake.streams
        attribution = self.context.config.join.attribution_window
        exposures = lake.read(streams.exposure.name, self.now.exposure_version)
        pruned = exposures.where(within(streams.exposure.event_time, hours, before=attribution))
        asked = first_events(selected.drop("__cause"), streams).persist()
        try:
            candidates = lake_candidates(asked, pruned, streams, attribution, sum(hours.values()))
            metadata = {KEY: asdict(self.now)}
            return AttributedSink(lake).write(candidates, lane="settle", metadata=metadata, stamp=self.stamp, first_events=True)
        finally:
            asked.unpersist()


def _entry(
    context: Context, now: Settled, stats: LookupStats, final: Final, written: SinkResult, started: int, laps: Laps
) -> Entry:
    streams = context.lake.streams
    return Entry(
        query="settle",
        batch=now.run,
        started_at=started,
        consumed={streams.exposure.name: now.exposure_version, streams.outcome.name: now.outcome_version},
        rows_in=sum(stats.causes.values()),
        rows_out=written.inserted + written.updated,
        horizon=now.horizon,
        durations_ms=laps.durations_ms(),
        detail={
            "settled": asdict(now),
            "inserted": written.inserted,
            "updated": written.updated,
            **asdict(stats),
            "final": asdict(final),
        },
    )
