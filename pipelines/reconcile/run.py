"""One reconciliation: pin, recompute, compare, check, repair, verify again.

What the table answers for is what settle's last run had seen (DESIGN section 2). So bronze is pinned at the versions of that
run, and outcomes are compared up to its horizon; or all of them where it settled all and nothing has landed since.
"""

import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines import __version__
from pipelines.bookkeeping import Settled, last_settled
from pipelines.config import Config, KafkaSource
from pipelines.durations import micros
from pipelines.inforce import definition, rules_in_force
from pipelines.instants import now_us
from pipelines.lake import Lake, at
from pipelines.observe.lateness import Lateness, read_lateness
from pipelines.reconcile.batch import attribute, outcome_events
from pipelines.reconcile.causes import Cause, Pinned, with_causes
from pipelines.reconcile.copies import take_out_copies
from pipelines.reconcile.diff import DIFFERENCES, DiffClass, HourSummary, compare, summarise
from pipelines.reconcile.door import Account, StreamDoor, account, stream_door
from pipelines.reconcile.expectations import Bound, Check, validate
from pipelines.reconcile.history import EarlierRun, earlier_runs
from pipelines.reconcile.repair import repair

# A lane may improve a row between comparison and repair; then that row is left alone, and the next round sees to it.
_MAX_REPAIRS = 3

# The bound before the join has published any horizon: earlier than every event.
NOTHING_FINAL = -(2**53)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Event dates (UTC), both inclusive; None is open."""

    first: date | None = None
    last: date | None = None

    def holds(self, column: Column) -> Column:
        """Whether a date column lies in the range."""
        bounds = [column >= F.lit(self.first)] if self.first else []
        bounds += [column <= F.lit(self.last)] if self.last else []
        return reduce(lambda a, b: a & b, bounds, F.lit(True))

    @property
    def is_open(self) -> bool:
        """Whether it holds every date."""
        return self.first is None and self.last is None

    def __str__(self) -> str:
        if self.is_open:
            return "all dates"
        return f"{self.first or '...'} to {self.last or '...'}" if self.first != self.last else str(self.first)


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What was read: table versions, the bound of event time (microseconds, inclusive; None: every outcome), and whether settle
    has ever run."""

    exposure_version: int
    outcome_version: int
    attributed_version: int
    bound: int | None
    settled: bool


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """The result of a run; `verdict` is `agrees`, `repaired` (agrees now) or `differs`."""

    run_id: str
    started_us: int
    finished_us: int
    range: Range
    streams: tuple[str, str]
    pins: Pins
    hours: list[HourSummary]
    account: Account
    doors: list[StreamDoor]
    checks: list[Check]
    repaired: int
    copies_removed: int
    before_repair: dict[str, int]
    causes: dict[str, int]
    sample: list[dict[str, str]]
    lateness: Lateness
    configuration: dict[str, Any]
    versions: dict[str, str]
    earlier: list[EarlierRun]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by class over all hours, every class named."""
        return {c.value: sum(hour.counts.get(c.value, 0) for hour in self.hours) for c in DiffClass}

    @property
    def differences(self) -> int:
        return sum(hour.differences for hour in self.hours)

    @property
    def unattributed(self) -> int:
        """Outcomes that the table has without an exposure."""
        return sum(hour.unattributed for hour in self.hours)

    @property
    def agrees(self) -> bool:
        return not any(check.failed for check in self.checks)

    @property
    def verdict(self) -> str:
        if not self.agrees:
            return "differs"
        return "repaired" if self.repaired or self.copies_removed else "agrees"


def reconcile(
    lake: Lake, config: Config, span: Range, *, fix: bool, reports: Path, say: Callable[[str], None] = lambda _: None
) -> Reconciliation:
    """Reconcile the outcomes of `span`; with `fix`, repair what differs and verify again. Reads pinned versions only."""
    started = now_us()
    say("computing the batch answer")
    run = _compare(lake, config, span)
    first, repaired, repairs, copies = run, 0, 0, 0
    try:
        say("explaining what differs")
        causes, sample = _explained(lake, config, run)
        while fix and repairs < _MAX_REPAIRS and run.repairable:
            say("repairing")
            copies += sum(take_out_copies(lake, stream) for stream in lake.streams.both)
            repaired += repair(lake, run.compared)
            repairs += 1
            say("verifying again")
            again = _compare(lake, config, span)
            if run is not first:
                run.compared.unpersist()
            run = again
        say("checking expectations")
        result = Reconciliation(
            run_id=datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6],
            started_us=started,
            finished_us=started,
            range=span,
            streams=(lake.streams.exposure.name, lake.streams.outcome.name),
            pins=run.pins,
            hours=run.hours,
            account=run.account,
            doors=run.doors,
            checks=[],
            repaired=repaired,
            copies_removed=copies,
            before_repair=_total(first.hours) if repaired else {},
            causes=causes,
            sample=sample,
            lateness=read_lateness(lake, config),
            configuration={**definition(config), **config.reconcile.model_dump(mode="json")},
            versions=_versions(lake),
            earlier=earlier_runs(lake),
        )
        checks = validate(_summary(result), _bounds(config), reports / "data-docs")
        return replace(result, checks=checks, finished_us=now_us())
    finally:
        first.compared.unpersist()
        run.compared.unpersist()


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    pins: Pins
    compared: DataFrame
    bronze: tuple[DataFrame, DataFrame]
    hours: list[HourSummary]
    account: Account
    doors: list[StreamDoor]

    @property
    def repairable(self) -> bool:
        """Whether rows differ, or stand in bronze more than once."""
        return any(h.differences for h in self.hours) or any(d.files_ingested_twice or d.offsets.twice for d in self.doors)


def _compare(lake: Lake, config: Config, span: Range) -> _Comparison:
    streams, rules = lake.streams, rules_in_force(lake, config)
    outcome, exposure = streams.outcome, streams.exposure
    pins = _pin(lake)
    bronze_outcomes = lake.read(outcome.name, pins.outcome_version)
    bronze_exposures = lake.read(exposure.name, pins.exposure_version)
    table = lake.read(lake.attributed, pins.attributed_version)

    # Which event of an id counts is decided among all of them; only then the dates are cut.
    time = F.col(outcome.event_time)
    final = F.lit(True) if pins.bound is None else time <= at(pins.bound)
    every_event = outcome_events(bronze_outcomes, streams)
    events = every_event.where(span.holds(F.to_date(time))).persist()
    exposures = bronze_exposures.where(_may_be_chosen(span, rules.longest))
    expected = attribute(events.where(final), exposures, streams, rules)
    # A row belongs to the comparison by its partition or by its event time: it may have been moved.
    ours = (span.holds(F.col("event_date")) | span.holds(F.to_date(time))) & final
    actual = _explained_later(lake, pins, table.where(ours))
    tolerances = config.reconcile.tolerances.columns
    compared = compare(expected, actual, streams, tolerances).withColumn("counts", F.lit(True))
    if not span.is_open:
        # A row whose id has its event on a date that was not asked for: that event, all exposures for it, and all rows of
        # the id, so that it is known for what it is, and repaired without harm to them.
        strangers = actual.select(outcome.id).join(events, outcome.id, "left_anti").distinct().persist()
        if strangers.count():
            elsewhere = every_event.join(strangers, outcome.id, "left_semi")
            rows = table.join(strangers, outcome.id, "left_semi").select(*table.columns)
            known = compare(attribute(elsewhere, bronze_exposures, streams, rules), rows, streams, tolerances)
            ids = strangers.select(F.col(outcome.id).alias("outcome_id"))
            others = compared.join(ids, "outcome_id", "left_anti").select(*compared.columns)
            # A row of another date that is right is there for the repair of its id, and counts for nothing here.
            known = known.withColumn("counts", F.col("class") != DiffClass.MATCHED.value)
            compared = others.unionByName(known)
    compared = compared.persist()
    judged = compared.where("counts")
    hours = summarise(judged)
    books = account(events, actual, streams, final)
    events.unpersist()
    doors = [
        stream_door(
            lake,
            stream,
            lake.read(stream.name).where(span.holds(F.col("event_date"))),
            from_kafka=isinstance(config.streams[stream.name].source, KafkaSource),
        )
        for stream in (outcome, exposure)
    ]
    return _Comparison(
        pins=pins,
        compared=compared,
        bronze=(bronze_outcomes, bronze_exposures),
        hours=hours,
        account=books,
        doors=doors,
    )


def _explained(lake: Lake, config: Config, run: _Comparison) -> tuple[dict[str, int], list[dict[str, str]]]:
    """How many rows differ for which cause, and a sample of them."""
    if not any(hour.differences for hour in run.hours):
        return {}, []
    differing = run.compared.where(F.col("class") != DiffClass.MATCHED.value)
    outcomes, exposures = run.bronze
    pinned = Pinned(
        outcomes=outcomes, exposures=exposures, attributed_version=run.pins.attributed_version, settled=run.pins.settled
    )
    explained = with_causes(lake, differing, pinned, rules_in_force(lake, config)).persist()
    try:
        counted = explained.where("counts").groupBy("cause").count().orderBy(F.desc("count"), "cause").collect()
        return {row["cause"]: row["count"] for row in counted}, _sample(explained, config.reconcile.sample)
    finally:
        explained.unpersist()


def _pin(lake: Lake) -> Pins:
    # The table first: what settle had seen is then read as of that version, so the two belong together.
    attributed = lake.version(lake.attributed)
    settled = last_settled(lake, attributed)
    exposure, outcome = lake.streams.exposure.name, lake.streams.outcome.name
    newest = (lake.version(exposure), lake.version(outcome))
    if settled == Settled():
        # Nothing has been settled: hold the table to all that has landed, which it does not claim to answer for yet.
        return Pins(
            exposure_version=newest[0], outcome_version=newest[1], attributed_version=attributed, bound=None, settled=False
        )
    # Compacting bronze, or taking copies out of it, gives it a version, and nothing to settle.
    if not (lake.has_grown(exposure, settled.exposure_version) or lake.has_grown(outcome, settled.outcome_version)):
        settled = replace(settled, exposure_version=newest[0], outcome_version=newest[1])
    everything = settled.all and newest == (settled.exposure_version, settled.outcome_version)
    return Pins(
        exposure_version=settled.exposure_version,
        outcome_version=settled.outcome_version,
        attributed_version=attributed,
        bound=None if everything else NOTHING_FINAL if settled.horizon is None else settled.horizon,
        settled=True,
    )


def _explained_later(lake: Lake, pins: Pins, table: DataFrame) -> DataFrame:
    """Leave out rows of outcomes that landed after the pin: they are not extra, only not ours to judge yet."""
    outcome = lake.streams.outcome
    newest = lake.version(outcome.name)
    if newest <= pins.outcome_version:
        return table
    later = lake.landed_between(outcome.name, pins.outcome_version, newest).select(outcome.id)
    before = lake.read(outcome.name, pins.outcome_version).select(outcome.id)
    return table.join(later.join(before, outcome.id, "left_anti").distinct(), outcome.id, "left_anti").select(*table.columns)


def _may_be_chosen(span: Range, window: timedelta) -> Column:
    """Exposures that an outcome of the dates can match: from the window before the first day to the end of the last."""
    days = -(-micros(window) // 86_400_000_000)
    reach = replace(span, first=span.first - timedelta(days=days) if span.first else None)
    return reach.holds(F.col("event_date"))


def _versions(lake: Lake) -> dict[str, str]:
    return {
        "rejoin": __version__,
        "Spark": lake.spark.version,
        "Delta": version("delta-spark"),
        "Great Expectations": version("great-expectations"),
        "Python": platform.python_version(),
    }


def _total(hours: list[HourSummary]) -> dict[str, int]:
    return {c.value: sum(h.counts.get(c.value, 0) for h in hours) for c in DIFFERENCES}


def _summary(run: Reconciliation) -> dict[str, float]:
    books = run.account
    return {
        "landed": books.landed,
        "unbalanced": books.unbalanced,
        "table_rows": sum(hour.table_rows for hour in run.hours),
        "differences": run.differences,
        "quarantine_rate": max(door.quarantine_rate for door in run.doors),
        "files_ingested_twice": sum(door.files_ingested_twice for door in run.doors),
        "offsets_missing": sum(door.offsets.missing for door in run.doors),
        "offsets_ingested_twice": sum(door.offsets.twice for door in run.doors),
    }


def _bounds(config: Config) -> list[Bound]:
    limits, tolerances = config.reconcile.expectations, config.reconcile.tolerances
    rate = limits.quarantine_rate
    bounds = [
        # An empty side never passes as equal.
        Bound(column="landed", least=limits.min_outcomes),
        Bound(column="table_rows", least=limits.min_outcomes),
        Bound(column="differences", greatest=tolerances.max_differences),
        Bound(column="unbalanced", greatest=tolerances.max_differences),
        Bound(column="files_ingested_twice", greatest=0),
        Bound(column="offsets_missing", greatest=0),
        Bound(column="offsets_ingested_twice", greatest=0),
    ]
    if rate.warn is not None:
        bounds.append(Bound(column="quarantine_rate", greatest=rate.warn, severity="warning"))
    if rate.fail is not None:
        bounds.append(Bound(column="quarantine_rate", greatest=rate.fail))
    return bounds


def _sample(explained: DataFrame, limit: int) -> list[dict[str, str]]:
    # What nobody can explain comes first: it is what somebody has to look at.
    known = (F.col("cause") != Cause.UNKNOWN.value).asc()
    shown = (
        explained.orderBy(known, "class", "event_time", "outcome_id")
        .limit(limit)
        .select(
            "class",
            "cause",
            "detail",
            F.col("outcome_id").cast("string").alias("outcome_id"),
            F.unix_micros("event_time").alias("event_time"),
            F.concat_ws(",", "columns").alias("columns"),
            F.to_json("stream_row").alias("stream_row"),
            F.to_json("batch_row").alias("batch_row"),
        )
    )
    return [row.asDict() for row in shown.collect()]
