"""One reconciliation: mend bronze, pin, recompute, compare, explain, repair, verify again, and hold it all to expectations."""

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines import __version__
from pipelines.config import Config, KafkaSource
from pipelines.inforce import definition, rules_in_force
from pipelines.instants import now_us
from pipelines.lake import Lake
from pipelines.observe.lateness import Lateness, read_lateness
from pipelines.reconcile.causes import Cause, with_causes
from pipelines.reconcile.comparison import Comparison, Pins, Sides, pin
from pipelines.reconcile.diff import DIFFERENCES, DiffClass, HourSummary, added_up
from pipelines.reconcile.door import Account, StreamDoor, stream_door
from pipelines.reconcile.expectations import Check, load_suites, suites_directory, validate
from pipelines.reconcile.history import EarlierRun, as_told, earlier_runs, record_repairs
from pipelines.reconcile.losses import Losses, dates_of, gone_files, reading_around
from pipelines.reconcile.mend import Mended, losses_of, mend, unchecked_changes
from pipelines.reconcile.place import misplaced
from pipelines.reconcile.progress import Part, Progress, forget_progress
from pipelines.reconcile.reland import let_go
from pipelines.reconcile.repair import repair
from pipelines.reconcile.sampling import Sampled
from pipelines.reconcile.since import mended_since_all_agreed
from pipelines.reconcile.span import Range, Slice, by_hour
from pipelines.reconcile.summary import frames, parameters
from pipelines.reconcile.volume import HourVolume, volumes

# A lane may improve a row between comparison and repair; then that row is left alone, and the next round sees to it.
_MAX_REPAIRS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to reconcile: dates; hour by hour, so that a run which ended half-way goes on there; a `share` of the outcomes below
    1, by a hash of their ids. `fix`: repair what differs, and verify again."""

    span: Range
    hourly: bool = False
    share: float = 1.0
    fix: bool = False


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """The result of a run; `verdict` is `agrees`, `repaired` (agrees now) or `differs`. `unchecked_changes`: streams whose bronze
    somebody has changed, without the landing files that would prove it right; `unproven`: whether that refuses a repair;
    `table_files_gone`: data files of the attributed table that are not there."""

    run_id: str
    started_us: int
    finished_us: int
    range: Range
    hourly: bool
    sampled: Sampled | None
    streams: tuple[str, str]
    pins: Pins
    hours: list[HourSummary]
    account: Account
    doors: list[StreamDoor]
    volumes: list[HourVolume]
    checks: list[Check]
    repaired: int
    mended: Mended
    refused: bool
    unchecked_changes: int
    unproven: bool
    table_files_gone: int
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
        return "repaired" if self.repaired or self.mended.any else "agrees"


def reconcile(
    lake: Lake, config: Config, plan: Plan, *, run_id: str, reports: Path, say: Callable[[str], None] = lambda _: None
) -> Reconciliation:
    """Reconcile by the plan, or all dates where bronze was mended so that answers may be others; reads pinned versions only.
    Raises ConfigError for suites of expectations that cannot be used."""
    started = now_us()
    given = parameters(config)
    suites = load_suites(suites_directory(config.reconcile.expectations.suites), given)
    say("looking at the door")
    losses, doors = _look_at_doors(lake, config, plan.span)
    mended = Mended()
    if plan.fix and any(door.mendable for door in doors):
        say("mending bronze")
        mended = mend(lake, config, losses, doors)
    # By this run, or by one that ended half-way: what has come back may matter to any date.
    to_any = plan.fix and not plan.span.is_open and mended_since_all_agreed(lake)
    if to_any:
        plan = replace(plan, span=Range())
    if mended.any or to_any:
        losses, doors = _look_at_doors(lake, config, plan.span)
    # From bronze that lacks rows batch has the wrong answer: nothing is repaired by it.
    lacking = any(lost.rows or lost.gone for lost in losses.values()) or any(door.offsets.missing for door in doors)
    unchecked = unchecked_changes(lake, config, losses)
    unproven = unchecked > 0 and config.reconcile.expectations.unchecked_changes == "fail"
    refused = plan.fix and (lacking or unproven)
    table = Losses(gone=gone_files(lake, lake.attributed))
    # Rows of other dates are read too, but these are judged and repaired when somebody asks for them.
    ours = [path for path in table.gone if plan.span.has_any(dates_of([path]))]
    losses = {**losses, lake.attributed: table}
    if ours and plan.fix and not refused:
        say("letting go of the table's lost data files")
        with reading_around(lake, table.gone):
            let_go(lake, lake.attributed, dates_of(ours))
        mended, ours = mended + Mended(data_files=len(ours)), []
    with reading_around(lake, [path for lost in losses.values() for path in lost.gone]):
        to_do = replace(plan, fix=plan.fix and not refused)
        progress = Progress.of(reports, lake, config, asdict(to_do)) if plan.hourly else None
        started = progress.started_us or started if progress else started
        pins, parts = _compare_all(lake, config, to_do, run_id, progress, losses, say)
        total = _together(parts, config.reconcile.sample)
        result = Reconciliation(
            run_id=run_id,
            started_us=started,
            finished_us=started,
            range=plan.span,
            hourly=plan.hourly,
            sampled=Sampled.of(plan.share, total.hours) if plan.share < 1 else None,
            streams=(lake.streams.exposure.name, lake.streams.outcome.name),
            pins=pins,
            hours=total.hours,
            account=Account(hours=tuple(total.books), conflicting=total.conflicting),
            doors=doors,
            volumes=volumes(lake, plan.span, pins.bound, config.reconcile.expectations.volume),
            checks=[],
            repaired=total.repaired,
            mended=mended,
            refused=refused,
            unchecked_changes=unchecked,
            unproven=unproven,
            table_files_gone=len(ours),
            before_repair=total.before if total.repaired else {},
            causes=total.causes,
            sample=total.sample,
            lateness=read_lateness(lake, config),
            configuration={**definition(config), **config.reconcile.model_dump(mode="json")},
            versions=_versions(lake),
            earlier=earlier_runs(lake),
        )
    forget_progress(reports)
    say("checking expectations")
    checks = validate(frames(result), suites, given, reports / "data-docs")
    return replace(result, checks=checks, finished_us=now_us())


def _look_at_doors(lake: Lake, config: Config, span: Range) -> tuple[dict[str, Losses], list[StreamDoor]]:
    outcome, exposure = lake.streams.outcome, lake.streams.exposure
    # As far back as batch reads.
    matter = {outcome.name: span, exposure.name: span.reaching_back(rules_in_force(lake, config).longest)}
    losses = losses_of(lake, config, matter)
    doors = []
    for stream in (outcome, exposure):
        lost, source = losses[stream.name], config.streams[stream.name].source
        with reading_around(lake, lost.gone):
            kafka = source if isinstance(source, KafkaSource) else None
            wrong = misplaced(lake, stream, matter[stream.name])
            doors.append(stream_door(lake, stream, span, lost, kafka, misplaced=wrong))
    return losses, doors


def _compare_all(
    lake: Lake,
    config: Config,
    plan: Plan,
    run_id: str,
    progress: Progress | None,
    losses: Mapping[str, Losses],
    say: Callable[[str], None],
) -> tuple[Pins, list[Part]]:
    # Where something may have been repaired since, what is left is read as it is now.
    kept = progress.pins if progress and not plan.fix else None
    pins = first = kept or pin(lake)
    sides = Sides(lake, config, pins, plan.share)
    try:
        everything = Slice(span=plan.span)
        slices = list(by_hour(plan.span, sides.hours(everything))) if plan.hourly else [everything]
        if progress:
            progress.begin(pins)
        parts = []
        for number, part in enumerate(slices):
            done = progress and progress.get(part)
            if not done:
                say(f"comparing {part}, {number + 1} of {len(slices)}" if plan.hourly else "computing the batch answer")
                done, sides = _settle(lake, config, plan, sides, part, run_id, losses, say)
                if progress:
                    progress.add(part, done)
            parts.append(done)
    finally:
        sides.close()
    return first if plan.hourly else sides.pins, parts


def _settle(
    lake: Lake,
    config: Config,
    plan: Plan,
    sides: Sides,
    part: Slice,
    run_id: str,
    losses: Mapping[str, Losses],
    say: Callable[[str], None],
) -> tuple[Part, Sides]:
    """Compare a slice; explain and, if asked to, repair what differs, until it agrees. With the sides as they are then."""
    comparison = sides.compare(part)
    before = {c.value: sum(hour.counts.get(c.value, 0) for hour in comparison.hours) for c in DIFFERENCES}
    story: tuple[dict[str, int], list[dict[str, str]]] | None = None
    repaired = rounds = 0
    while comparison.differs:
        say("explaining what differs")
        explained = _explained(lake, config, sides, comparison, losses).persist()
        try:
            story = story or (_causes(explained), _sample(explained, config.reconcile.sample))
            if not plan.fix or rounds == _MAX_REPAIRS:
                break
            say("repairing")
            record_repairs(lake, run_id, explained)
            repaired += repair(lake, comparison.compared)
        finally:
            explained.unpersist()
        rounds += 1
        say("verifying again")
        comparison.close()
        sides.close()
        sides = Sides(lake, config, pin(lake), plan.share)
        comparison = sides.compare(part)
    comparison.close()
    causes, sample = story or ({}, [])
    done = Part(
        hours=comparison.hours,
        books=comparison.books,
        conflicting=comparison.conflicting,
        before=before,
        causes=causes,
        sample=sample,
        repaired=repaired,
    )
    return done, sides


def _explained(lake: Lake, config: Config, sides: Sides, comparison: Comparison, losses: Mapping[str, Losses]) -> DataFrame:
    # Few rows, cut off from the plan that found them, which every proof would have in it otherwise.
    differing = comparison.compared.where(F.col("class") != DiffClass.MATCHED.value).localCheckpoint()
    return with_causes(lake, differing, sides.pinned, rules_in_force(lake, config), losses)


def _causes(explained: DataFrame) -> dict[str, int]:
    counted = explained.where("counts").groupBy("cause").count().orderBy(F.desc("count"), "cause").collect()
    return {row["cause"]: row["count"] for row in counted}


def _sample(explained: DataFrame, limit: int) -> list[dict[str, str]]:
    # What nobody can explain comes first: it is what somebody has to look at.
    known = (F.col("cause") != Cause.UNKNOWN.value).asc()
    shown = explained.orderBy(known, "class", "event_time", "outcome_id").limit(limit).select(*as_told())
    return [row.asDict() for row in shown.collect()]


def _together(parts: Sequence[Part], sample: int) -> Part:
    """One part out of all."""
    causes: Counter[str] = Counter()
    for part in parts:
        causes.update(part.causes)
    shown = sorted((row for part in parts for row in part.sample), key=lambda row: row["cause"] != Cause.UNKNOWN.value)
    return Part(
        hours=added_up([hour for part in parts for hour in part.hours]),
        books=[book for part in parts for book in part.books],
        conflicting=sum(part.conflicting for part in parts),
        before={c.value: sum(part.before[c.value] for part in parts) for c in DIFFERENCES},
        causes=dict(causes.most_common()),
        sample=shown[:sample],
        repaired=sum(part.repaired for part in parts),
    )


def _versions(lake: Lake) -> dict[str, str]:
    return {
        "rejoin": __version__,
        "Spark": lake.spark.version,
        "Delta": version("delta-spark"),
        "Great Expectations": version("great-expectations"),
        "Python": platform.python_version(),
    }
