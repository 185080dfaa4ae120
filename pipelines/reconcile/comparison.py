"""One comparison: batch's answer for a slice of outcomes, from pinned bronze, against the rows of the pinned table.

What the table answers for is what settle's last run had seen (DESIGN section 2). So bronze is pinned at the versions of that
run, and outcomes are compared up to its horizon; or all of them where it settled all and nothing has landed since.
"""

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.bookkeeping import Settled, last_settled
from pipelines.config import Config
from pipelines.errors import LakeError
from pipelines.events import EventStream
from pipelines.inforce import rules_in_force
from pipelines.lake import Lake, at, is_gone
from pipelines.reconcile.batch import attribute, outcome_events
from pipelines.reconcile.causes import Pinned
from pipelines.reconcile.content import content
from pipelines.reconcile.diff import DiffClass, HourSummary, compare, summarise
from pipelines.reconcile.door import HourBooks, account
from pipelines.reconcile.span import Slice, sampled
from pipelines.tablelog import Commit, files_taken, last_relanded

# The bound before the join has published any horizon: earlier than every event.
NOTHING_FINAL = -(2**53)


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What is read: table versions, the bound of event time (microseconds, inclusive; None: every outcome), and whether settle
    has ever run."""

    exposure_version: int
    outcome_version: int
    attributed_version: int
    bound: int | None
    settled: bool


def pin(lake: Lake) -> Pins:
    """What settle had seen; or bronze as it was when reconcile last made it whole, for earlier versions lack rows. What landed
    between these two was judged then: settle will come to the same. Raises LakeError where settle has not run for longer than
    the log of bronze is kept."""
    # The table first: what settle had seen is then read as of that version, so the two belong together.
    attributed = lake.version(lake.attributed)
    settled = last_settled(lake, attributed)
    exposure, outcome = lake.streams.exposure.name, lake.streams.outcome.name
    if settled == Settled():
        # Nothing has been settled: hold the table to all that has landed, which it does not claim to answer for yet.
        return Pins(
            exposure_version=lake.version(exposure),
            outcome_version=lake.version(outcome),
            attributed_version=attributed,
            bound=None,
            settled=False,
        )
    since = (_Since.of(lake, exposure, settled.exposure_version), _Since.of(lake, outcome, settled.outcome_version))
    newest = (since[0].newest, since[1].newest)
    # Compacting bronze, or taking copies out of it, gives it a version, and nothing to settle.
    pinned = (since[0].judged, since[1].judged) if any(each.grown for each in since) else newest
    for each, version in zip(since, pinned, strict=True):
        if files_taken([commit for commit in each.commits if commit.version > version]):
            raise _no_longer_there(each.table, version)
    everything = settled.all and not any(
        _has_new_events(lake, stream, seen, now)
        for stream, seen, now in zip((lake.streams.exposure, lake.streams.outcome), pinned, newest, strict=True)
    )
    return Pins(
        exposure_version=pinned[0],
        outcome_version=pinned[1],
        attributed_version=attributed,
        bound=None if everything else NOTHING_FINAL if settled.horizon is None else settled.horizon,
        settled=True,
    )


@dataclass(frozen=True, kw_only=True)
class _Since:
    """What the log of a bronze table tells of the commits since the version that settle had seen. `judged`: the version to hold
    the table to, where there are events that are new."""

    table: str
    newest: int
    judged: int
    commits: list[Commit]

    @classmethod
    def of(cls, lake: Lake, table: str, seen: int) -> "_Since":
        newest = lake.version(table)
        commits = lake.commits(table, seen, newest) if newest > seen else []
        return cls(table=table, newest=newest, judged=last_relanded(commits, seen), commits=commits)

    @property
    def grown(self) -> bool:
        """Whether rows may have been appended; where the log no longer tells, they may."""
        nothing_new = [commit for commit in self.commits if commit.version > self.judged and commit.brings_nothing]
        return len(nothing_new) < self.newest - self.judged


def _no_longer_there(table: str, version: int) -> LakeError:
    return LakeError(
        f"{table}: settle has last seen version {version}, and that can be read no longer (its log was cleaned, or its files "
        "vacuumed); run `rejoin settle --once`, then reconcile again (tables.log_retention and tables.vacuum_retention must be "
        "longer than settle pauses)"
    )


def _has_new_events(lake: Lake, stream: EventStream, seen: int, now: int) -> bool:
    """Whether bronze has events of which a version that was seen has none alike: copies, and rows taken out, are nothing new."""
    if now <= seen:
        return False
    known, landed = _pinned(lake, stream.name, seen), lake.landed_between(stream.name, seen, now)
    if not set(stream.schema.names) <= set(known.columns):
        return True  # a column that has come since: nobody can tell
    dates = [row[0] for row in landed.select("event_date").distinct().collect()]
    what = content(stream).alias("__what")
    alike = known.where(F.col("event_date").isin(dates)).select(what)
    return not landed.select(what).join(alike, "__what", "left_anti").isEmpty()


def _pinned(lake: Lake, table: str, version: int) -> DataFrame:
    try:
        return lake.read(table, version)
    except Exception as error:  # the class differs between classic Spark and Connect
        if is_gone(error):
            raise _no_longer_there(table, version) from error
        raise


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`compared` (see `diff.compare`) with `counts`: whether a row counts for this slice. It is held in memory or on disk until
    `close`."""

    compared: DataFrame
    hours: list[HourSummary]
    books: list[HourBooks]
    conflicting: int
    _held: tuple[DataFrame, ...]

    @property
    def differs(self) -> bool:
        return any(hour.differences for hour in self.hours)

    def close(self) -> None:
        for frame in self._held:
            frame.unpersist()


class Sides:
    """Both sides at their pins, of all dates (of the sample of ids, with a `share` below 1). What several slices use is held
    until `close`."""

    def __init__(self, lake: Lake, config: Config, pins: Pins, share: float = 1.0) -> None:
        self.lake, self.config, self.pins = lake, config, pins
        self._streams, self._rules = lake.streams, rules_in_force(lake, config)
        outcome = self._streams.outcome
        chosen = F.lit(True) if share >= 1 else sampled(F.col(outcome.id), share)
        self._outcomes = _pinned(lake, outcome.name, pins.outcome_version).where(chosen)
        self._exposures = _pinned(lake, self._streams.exposure.name, pins.exposure_version)
        # Other keys may hold for outcomes of before a change.
        if share < 1 and len(self._rules.all) == 1:
            keys = self._outcomes.where(outcome.has_keys()).select(*outcome.keys_aside()).distinct()
            self._exposures = self._exposures.join(keys, self._streams.exposure.same_keys(), "left_semi")
        self._table = lake.read(lake.attributed, pins.attributed_version).where(chosen)
        # Most ids have one event; which of several counts is decided among all of them, whatever the slice.
        several = self._outcomes.groupBy(outcome.id).agg(F.count("*").alias("__n")).where("__n > 1").select(outcome.id)
        self._several = several.persist()
        self._chosen = outcome_events(self._outcomes.join(self._several, outcome.id, "left_semi"), self._streams).persist()

    def close(self) -> None:
        self._chosen.unpersist()
        self._several.unpersist()

    @property
    def pinned(self) -> Pinned:
        return Pinned(
            outcomes=self._outcomes,
            exposures=self._exposures,
            attributed_version=self.pins.attributed_version,
            settled=self.pins.settled,
        )

    def hours(self, everything: Slice) -> list[tuple[date, int]]:
        """The hours of event time (UTC) that either side has anything in."""
        time = F.col(self._streams.outcome.event_time)
        hour = F.to_date(time).alias("date"), F.hour(time).alias("hour")
        both = [side.where(everything.holds(time)).select(*hour) for side in (self._outcomes, self._table)]
        found = both[0].unionByName(both[1]).distinct().orderBy("date", "hour")
        return [(row["date"], row["hour"]) for row in found.collect()]

    def compare(self, part: Slice) -> Comparison:
        outcome, streams = self._streams.outcome, self._streams
        time = F.col(outcome.event_time)
        events = self._events(part).persist()
        exposures = self._exposures.where(part.may_be_chosen(self._rules.longest))
        expected = attribute(events.where(self._final(time)), exposures, streams, self._rules, count=events.count())
        # A row belongs to the comparison by its partition or by its event time: it may have been moved.
        actual = self._explained_later(self._table.where(part.rows(time) & self._final(time)))
        if self.pins.bound is not None:
            actual = actual.unionByName(self._moved_beyond(events.where(self._final(time))))
        actual = actual.persist()
        compared = self._judged(expected, actual).withColumn("counts", F.lit(True)).persist()
        held = [compared]
        if not part.is_everything or self.pins.bound is not None:
            strangers = actual.select(outcome.id).join(events, outcome.id, "left_anti").distinct().persist()
            completed = self._completed(part, compared, strangers, expected)
            if completed is not compared:
                compared = completed.persist()
            held += [strangers, compared]
        hours = summarise(compared.where("counts"))
        books, conflicting = account(events, actual, streams, self._final(time))
        actual.unpersist()
        events.unpersist()
        return Comparison(compared=compared, hours=hours, books=books, conflicting=conflicting, _held=tuple(held))

    def _completed(self, part: Slice, compared: DataFrame, strangers: DataFrame, expected: DataFrame) -> DataFrame:
        """A comparison with what of its outcomes lies outside of the slice; itself, where nothing does.

        An outcome without a row here may have one on another date: then it has been changed there, and is not missing. A row
        here may be of an id that has its event on another date: that event, all exposures for it, and all rows of the id are
        compared, so that it is known for what it is, and repaired without harm to them.
        """
        id = self._streams.outcome.id
        missing = compared.where(F.col("class") == DiffClass.MISSING.value).select(F.col("outcome_id").alias(id))
        outside = missing.unionByName(strangers)
        if outside.isEmpty():
            return compared
        rows = self._table.join(outside, id, "left_semi").select(*self._table.columns)
        elsewhere = outcome_events(self._outcomes.join(strangers, id, "left_semi"), self._streams)
        answers = attribute(elsewhere, self._exposures, self._streams, self._rules)
        answers = answers.unionByName(expected.join(missing, id, "left_semi").select(*expected.columns))
        time = self._streams.outcome.event_time
        home, here = F.col("batch_row").getField(time), F.col("stream_row").getField(time)
        known = self._judged(answers, self._explained_later(rows))
        # An event of another slice of the range is compared there, with all rows of its id if it has none there: but a row too
        # many that lies here is not seen from there.
        elsewhere_too = F.col("batch_row").isNotNull() & part.span.holds(F.to_date(home)) & ~part.holds(home)
        at_home = F.max(F.date_trunc("hour", home) == F.date_trunc("hour", here)).over(Window.partitionBy("outcome_id"))
        known = known.withColumn("__other", elsewhere_too).withColumn("__at_home", F.coalesce(at_home, F.lit(False)))
        known = known.where(~F.col("__other") | F.col("__at_home"))
        # A row of another date that is right is there for the repair of its id, and counts for nothing here.
        counts = (F.col("class") != DiffClass.MATCHED.value) & (~F.col("__other") | part.holds(here))
        known = known.withColumn("counts", F.coalesce(counts, F.lit(False))).drop("__other", "__at_home")
        ids = outside.select(F.col(id).alias("outcome_id"))
        return compared.join(ids, "outcome_id", "left_anti").select(*compared.columns).unionByName(known)

    def _moved_beyond(self, final: DataFrame) -> DataFrame:
        """The rows behind the bound of outcomes whose event is `final`, unless they are of another event of that id: such a one
        is judged when it is final itself."""
        id, time = self._streams.outcome.id, self._streams.outcome.event_time
        behind = self._table.where(~self._final(F.col(time))).join(final.select(id), id, "left_semi")
        events = self.lake.read(self._streams.outcome.name).where(~self._final(F.col(time))).select(id, time)
        return behind.join(events, [id, time], "left_anti").select(*self._table.columns)

    def _judged(self, expected: DataFrame, actual: DataFrame) -> DataFrame:
        return compare(expected, actual, self._streams, self.config.reconcile.tolerances.columns)

    def _final(self, time: Column) -> Column:
        return F.lit(True) if self.pins.bound is None else time <= at(self.pins.bound)

    def _events(self, part: Slice) -> DataFrame:
        """One row for each outcome id whose event is of the slice, with `__versions` (see `outcome_events`)."""
        outcome = self._streams.outcome
        inside = part.holds(F.col(outcome.event_time))
        one = self._outcomes.where(inside).join(self._several, outcome.id, "left_anti")
        own = [f.name for f in outcome.schema]
        return one.select(*own, F.lit(1).alias("__versions")).unionByName(self._chosen.where(inside).select(*own, "__versions"))

    def _explained_later(self, rows: DataFrame) -> DataFrame:
        """Leave out rows of outcomes that landed after the pin: they are not extra, only not ours to judge yet."""
        outcome, pinned = self._streams.outcome, self.pins.outcome_version
        newest = self.lake.version(outcome.name)
        if newest <= pinned:
            return rows
        later = self.lake.landed_between(outcome.name, pinned, newest).select(outcome.id)
        unknown = later.join(self._outcomes.select(outcome.id), outcome.id, "left_anti").distinct()
        return rows.join(unknown, outcome.id, "left_anti").select(*rows.columns)
