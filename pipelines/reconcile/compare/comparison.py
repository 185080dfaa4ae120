"""One comparison: batch's answer for the outcomes of some dates, from pinned bronze, against the rows of the pinned table."""

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.streams import rule_of
from pipelines.ingest.state import landed_rows, landed_since
from pipelines.lake.tables import Lake, at
from pipelines.reconcile.audit.books import Books, balance
from pipelines.reconcile.compare.batch import attribute, outcome_events
from pipelines.reconcile.compare.diff import DIFFERENCES, DiffClass, HourSummary, compare, summarise
from pipelines.reconcile.compare.pins import Pins, read_pinned
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Both bronze tables and the output table at their pins, all dates of each."""

    pins: Pins
    outcomes: DataFrame
    exposures: DataFrame
    table: DataFrame

    @classmethod
    def of(cls, lake: Lake, pins: Pins) -> "Sides":
        return cls(
            pins=pins,
            outcomes=read_pinned(lake, lake.streams.outcome.name, pins.outcome_version),
            exposures=read_pinned(lake, lake.streams.exposure.name, pins.exposure_version),
            table=lake.read(lake.attributed, pins.attributed_version),
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`compared` (see `diff.compare`) with `counts`: whether a row counts for these dates. Held until `close`."""

    sides: Sides
    compared: DataFrame
    hours: list[HourSummary]
    books: Books
    _held: tuple[DataFrame, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Differing rows by class, every class named."""
        return {c.value: sum(hour.counts.get(c.value, 0) for hour in self.hours) for c in DIFFERENCES}

    @property
    def differs(self) -> bool:
        return any(hour.differences for hour in self.hours)

    def close(self) -> None:
        for frame in self._held:
            frame.unpersist()


def compare_dates(lake: Lake, config: Config, sides: Sides, span: Range, judged_from: date | None) -> Comparison:
    """Compare the outcomes of the dates at or below the bound, by their event time or by the partition that their row lies in:
    it may have been moved. Dates before `judged_from` are left out: their rows may be of an earlier rule."""
    outcome, span = lake.streams.outcome, span.since(judged_from)
    work = _Work(lake, config, sides, judged_from)
    time = F.col(outcome.event_time)
    events = work.events(span).persist()
    final = work.final(time)
    exposures = sides.exposures.where(span.reaching_back(work.rule.window).holds(F.col("event_date")))
    expected = attribute(events.where(final), exposures, lake.streams, work.rule, count=events.count())
    rows = span.holds(F.to_date(time)) | span.holds(F.col("event_date"))
    actual = work.known_events(sides.table.where(rows & final))
    if sides.pins.bound is not None:
        actual = actual.unionByName(work.moved_beyond(events.where(final)))
    actual = actual.persist()
    compared = work.judged(expected, actual).withColumn("counts", F.lit(True)).persist()
    held = [compared]
    if not span.is_open or sides.pins.bound is not None:
        strangers = actual.select(outcome.id).join(events, outcome.id, "left_anti").distinct().persist()
        compared = work.completed(compared, strangers, expected).persist()
        held += [strangers, compared]
    hours = summarise(compared.where("counts"), lake.streams)
    books = balance(events, actual, lake.streams, final)
    for frame in (actual, events):
        frame.unpersist()
    return Comparison(sides=sides, compared=compared, hours=hours, books=books, _held=(*held, *work.held))


class _Work:
    """The steps of one comparison."""

    def __init__(self, lake: Lake, config: Config, sides: Sides, judged_from: date | None) -> None:
        self.lake, self.sides, self.judged_from = lake, sides, judged_from
        self.rule, self.tolerances = rule_of(config), config.reconcile.tolerances.columns
        outcome = lake.streams.outcome
        self.id, self.time = outcome.id, outcome.event_time
        # Most ids have one event; which of several counts is decided among all of them, whatever the dates.
        several = sides.outcomes.groupBy(self.id).agg(F.count("*").alias("__n")).where("__n > 1").select(self.id)
        self._several = several.persist()
        chosen = outcome_events(sides.outcomes.join(self._several, self.id, "left_semi"), lake.streams)
        self._chosen = chosen.persist()
        self.held = (self._several, self._chosen)

    def final(self, time: Column) -> Column:
        bound = self.sides.pins.bound
        return F.lit(True) if bound is None else time <= at(bound)

    def judged(self, expected: DataFrame, actual: DataFrame) -> DataFrame:
        return compare(expected, actual, self.lake.streams, self.tolerances)

    def events(self, span: Range) -> DataFrame:
        """One row for each outcome id whose event is of the dates, with `__versions` (see `outcome_events`)."""
        inside = span.holds(F.to_date(self.time))
        own = [f.name for f in self.lake.streams.outcome.schema]
        one = self.sides.outcomes.where(inside).join(self._several, self.id, "left_anti")
        several = self._chosen.where(inside).select(*own, "__versions")
        return one.select(*own, F.lit(1).alias("__versions")).unionByName(several)

    def known_events(self, rows: DataFrame) -> DataFrame:
        """Leave out rows of outcomes that landed after the pin: they are not extra, but judged by the next run."""
        name, pinned = self.lake.streams.outcome.name, self.sides.pins.outcome_version
        landed = landed_since(self.lake, name, pinned)
        if landed.version <= pinned:
            return rows
        later = landed_rows(self.lake, name, landed).select(self.id)
        unknown = later.join(self.sides.outcomes.select(self.id), self.id, "left_anti").distinct()
        return rows.join(unknown, self.id, "left_anti").select(*rows.columns)

    def moved_beyond(self, final: DataFrame) -> DataFrame:
        """The rows above the bound of outcomes whose event is `final`, unless they are of another event of that id: such a one
        is judged when it is final itself."""
        behind = self.sides.table.where(~self.final(F.col(self.time))).join(final.select(self.id), self.id, "left_semi")
        bronze = self.lake.read(self.lake.streams.outcome.name)
        events = bronze.where(~self.final(F.col(self.time))).select(self.id, self.time)
        return behind.join(events, [self.id, self.time], "left_anti").select(*self.sides.table.columns)

    def completed(self, compared: DataFrame, strangers: DataFrame, expected: DataFrame) -> DataFrame:
        """Add what lies outside of the dates of outcomes that are missing, or whose row is a stranger here.

        An outcome without a row here may have one on another date: then it was changed, and is not missing. A row here may be of
        an id whose event is on another date: that event and all rows of the id are compared, so that its repair harms neither.
        """
        missing = compared.where(F.col("class") == DiffClass.MISSING.value).select(F.col("outcome_id").alias(self.id))
        outside = missing.unionByName(strangers)
        if outside.isEmpty():
            return compared
        rows = self.sides.table.join(outside, self.id, "left_semi").select(*self.sides.table.columns)
        elsewhere = outcome_events(self.sides.outcomes.join(strangers, self.id, "left_semi"), self.lake.streams)
        answers = attribute(elsewhere, self.sides.exposures, self.lake.streams, self.rule)
        answers = answers.unionByName(expected.join(missing, self.id, "left_semi").select(*expected.columns))
        known = self.judged(answers, self.known_events(rows))
        if self.judged_from is not None:
            home = F.to_date(F.col("batch_row").getField(self.time))
            early = known.where(home < F.lit(self.judged_from)).select("outcome_id")
            known = known.join(early, "outcome_id", "left_anti").select(*known.columns)
        # A row of another date that is right is there for the repair of its id, and counts for nothing here.
        known = known.withColumn("counts", F.col("class") != DiffClass.MATCHED.value)
        ids = outside.select(F.col(self.id).alias("outcome_id"))
        return compared.join(ids, "outcome_id", "left_anti").select(*compared.columns).unionByName(known)
