"""What the writer of a stream knows of it, and where a start finds that again.

The state that a micro-batch met is in the metadata of its bronze commit (key `rejoin.ingest`); the state after the last one is
put into `control`, once a minute and at a stop. The newer of the two counts. After a kill it is the commit's, and what the
commit itself added is read back from its rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.control.facts import Fact, Facts
from pipelines.lake.history import INGEST, Commit
from pipelines.lake.tables import Lake
from pipelines.model.durations import micros
from pipelines.model.events import EventStream

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class WriterState:
    """Times are microseconds since the epoch.

    `micro_batch` is the last one that has landed, by its number in the query's checkpoint, of that `lineage`; `batch` is its
    `ingest_batch`, which never falls, whatever becomes of the checkpoint. `watermark` is what it met, `delay` the
    `watermark_delay` then; `max_event_time` the greatest accepted event time. `recovering`: micro-batches may still meet what
    has landed before. `landing`: the landing directories that the stream was read from, the present one last (see
    `pipelines.model.paths.location_of`); none for a topic. `unreadable`: whether there are landing files that could not be read.
    `stopped`: whether this is how an ingest left it that was stopped, or had drained what was there.
    """

    micro_batch: int
    batch: int
    watermark: int | None = None
    max_event_time: int | None = None
    delay: int = 0
    recovering: bool = False
    lineage: str | None = None
    topic: str | None = None
    topic_id: str | None = None
    landing: Sequence[str] = ()
    unreadable: bool = False
    stopped: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WriterState":
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "landing": list(self.landing)}  # as JSON has it

    def as_fact(self, stream: str) -> Fact:
        return Fact(kind="ingest", stream=stream, detail=self.as_dict())

    def next_watermark(self, floor: int | None) -> int | None:
        """What the next commit meets: every event that is on time in it is later. `floor` is what the stream's watermark was
        raised to otherwise."""
        reached = None if self.max_event_time is None else self.max_event_time - self.delay
        return max((mark for mark in (reached, self.watermark, floor) if mark is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class StreamProgress:
    """How far a stream has come in bronze: `state` after its last commit (None before the first), the `floor` that its watermark
    was raised to, the `watermark` that the next commit meets, and the `version` of the last commit by which events landed."""

    state: WriterState | None
    floor: int | None
    watermark: int | None
    version: int


def newest_ingested(commits: Iterable[Commit]) -> tuple[int, WriterState | None]:
    """Of a bronze table's commits, the newest first: the version of the last one by which a micro-batch landed (-1 where none
    has), and the state that it met (None where it was written by 0.1)."""
    for commit in commits:
        found = commit.ours(INGEST)
        if found is not None:
            return commit.version, WriterState.from_dict(found)
        if commit.appends and not commit.metadata:
            return commit.version, None
    return -1, None


@dataclass(frozen=True, kw_only=True)
class Landed:
    """What landed in a stream's bronze up to `version`, since version `after`: ingest `batches`; `otherwise`: rows of other
    commits."""

    after: int
    version: int
    batches: frozenset[int]
    otherwise: bool


def landed_since(lake: Lake, table: str, after: int) -> Landed:
    """What the table's log tells of its commits after a version."""
    version, batches, otherwise, oldest = -1, set[int](), False, None
    for commit in lake.newest_commits(table):
        version, oldest = max(version, commit.version), commit.version
        if commit.version <= after:
            break
        found = commit.ours(INGEST)
        if found is not None:
            batches.add(found["batch"])
        else:
            otherwise = otherwise or not (commit.changes_no_data or commit.operation == "CREATE TABLE")
    # A log that was cleaned does not tell all.
    untold = oldest is not None and oldest > max(after, 0)
    return Landed(after=after, version=version, batches=frozenset(batches), otherwise=otherwise or untold)


def landed_rows(lake: Lake, table: str, landed: Landed) -> DataFrame:
    """The rows that landed, and some more where not all of them came by ingest."""
    if landed.otherwise:
        return lake.landed_between(table, landed.after, landed.version)
    rows, batches = lake.read(table, landed.version), landed.batches
    return rows.where(F.col("ingest_batch").between(min(batches), max(batches)) if batches else F.lit(False))


def read_progress(
    lake: Lake, stream: EventStream, facts: Facts, delay: timedelta, commits: Iterable[Commit] | None = None
) -> StreamProgress:
    """Read it from the newest `commits` of bronze (the table must exist) and from `facts`. An ingest that runs with another
    `watermark_delay` than `delay` decides lateness by its own: the longer one counts."""
    fact = facts.last("ingest", stream.name)
    known = None if fact is None else WriterState.from_dict(fact.detail)
    version, newest = newest_ingested(lake.newest_commits(stream.name) if commits is None else commits)
    if newest is not None and (known is None or known.batch < newest.batch):
        known = _completed(lake, stream, newest)
    elif fact is not None and fact.version is not None and known is not None:
        known = _completed_of_0_1(lake, stream, known, fact.at)
    state = None if known is None else replace(known, delay=max(known.delay, micros(delay)))
    floor = facts.floor(stream.name)
    watermark = floor if state is None else state.next_watermark(floor)
    return StreamProgress(state=state, floor=floor, watermark=watermark, version=version)


def _completed(lake: Lake, stream: EventStream, met: WriterState) -> WriterState:
    """The state after a commit, from the state that it met and its rows."""
    own = lake.read(stream.name).where(F.col("ingest_batch") == met.batch)
    newest = own.select(F.unix_micros(F.max(stream.event_time))).collect()[0][0]
    reached = (at for at in (newest, met.max_event_time) if at is not None)
    # What became of its files the commit does not say.
    return replace(met, max_event_time=max(reached, default=None), unreadable=True)


def _completed_of_0_1(lake: Lake, stream: EventStream, known: WriterState, at: int) -> WriterState:
    """The state that the ledger of 0.1 had, with what had landed after that was written. Reads the newest partition."""
    bronze = lake.read(stream.name)
    day = bronze.select(F.max("event_date")).collect()[0][0]
    if day is None:
        return known
    newest = bronze.where(F.col("event_date") == F.lit(day)).select(F.unix_micros(F.max(stream.event_time))).collect()[0][0]
    recent = bronze.where(F.unix_micros("ingest_time") >= at - _HOUR_US)
    met, batch = recent.select(F.unix_micros(F.max("door_watermark")), F.max("ingest_batch")).collect()[0]
    batch = max(known.batch, -1 if batch is None else batch)
    marks = [mark for mark in (known.watermark, met) if mark is not None]
    return replace(known, micro_batch=batch, batch=batch, max_event_time=newest, watermark=max(marks, default=None))
