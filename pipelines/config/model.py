"""The configuration as typed, frozen models that are validated on load (DESIGN section 6).

Paths are relative to the directory that the command runs in. Defaults live here and nowhere else. `pipelines.config.load` reads
them from YAML. The string below a key is what docs/configuration.md says of it (`make reference`).
"""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    AwareDatetime,
    ByteSize,
    Field,
    field_validator,
    model_validator,
)

from pipelines.config.ddl import Column, parse_ddl
from pipelines.config.sources import Duration, FilesSource, Model, SourceConfig
from pipelines.model.durations import format_duration
from pipelines.model.names import ATTRIBUTION_COLUMNS, BRONZE_COLUMNS, INTERNAL_TABLES, PARTITION_COLUMNS, Role
from pipelines.model.paths import is_local

Partitioning = Literal["date", "hour"]


class StreamConfig(Model):
    """One stream of events; its name becomes that of its bronze table."""

    role: Role
    """`outcome`: what is attributed (a playback, an order); `exposure`: what it is attributed to (an impression, an ad view)."""
    id: str
    """The column that identifies an event."""
    event_time: str
    """The TIMESTAMP column that says when it happened."""
    ddl: str = Field(alias="schema")
    """The columns, as a Spark DDL string; `NOT NULL` ones must be given. docs/types.md says what each type takes."""
    source: SourceConfig
    """`{format: files, ...}` or `{format: kafka, ...}`."""
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By column, further names under which events may carry it, in order of preference: for a field that was renamed."""
    partition_by: Partitioning | None = None
    """Of this stream's tables, where it differs from the general `partition_by`."""

    @field_validator("source", mode="before")
    @classmethod
    def _files_unless_said(cls, source: Any) -> Any:
        return {"format": "files", **source} if isinstance(source, dict) else source

    @field_validator("ddl")
    @classmethod
    def _schema_parses(cls, ddl: str) -> str:
        parse_ddl(ddl)
        return ddl

    @property
    def columns(self) -> tuple[Column, ...]:
        return parse_ddl(self.ddl)

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)


class JoinConfig(Model):
    """What matches, and for how long (DESIGN section 2 and 3)."""

    keys: tuple[str, ...] = Field(min_length=1)
    """Columns that must be equal, and not null, in both streams."""
    attribution_window: Duration = timedelta(hours=6)
    """How long before an outcome an exposure may lie, inclusive."""
    hot_window: Duration = timedelta(minutes=30)
    """How much of the attribution window the stream keeps as state; the rest is looked up in the lake. From 0 to
    `attribution_window`; the result is the same, only state, latency and cost differ."""
    watermark_delay: Duration = timedelta(minutes=10)
    """How far behind its stream's greatest event time an event may come and still be on time; what is later is settled."""
    idle_timeout: Duration = timedelta(minutes=5)
    """After how long without an event a stream no longer holds the other one back."""
    max_future_skew: Duration = timedelta(minutes=5)
    """How far ahead of its record or of ingest an event time may lie; what is further ahead goes to quarantine."""
    carry: tuple[str, ...] = ()
    """Columns of the exposure that the result has, as `exposure_<column>`. Their order breaks ties."""

    @model_validator(mode="after")
    def _windows_agree(self) -> "JoinConfig":
        if self.attribution_window <= timedelta(0):
            raise ValueError("attribution_window: must be longer than 0")
        if self.hot_window > self.attribution_window:
            raise ValueError(
                f"hot_window: {format_duration(self.hot_window)} is longer than attribution_window "
                f"({format_duration(self.attribution_window)}); allowed: 0 to attribution_window"
            )
        if self.idle_timeout <= timedelta(0):
            raise ValueError("idle_timeout: must be longer than 0")
        for name in ("keys", "carry"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}: names a column twice")
        return self


class IngestConfig(Model):
    """Limits of one event."""

    max_event_bytes: int = Field(default=1024 * 1024, gt=0)
    """Bytes of one event; a longer one goes to quarantine."""
    earliest_event_time: AwareDatetime = datetime(2000, 1, 1, tzinfo=timezone.utc)
    """An event time before it is a mistaken unit (seconds for milliseconds) or a clock that was never set."""


class TriggerConfig(Model):
    """When micro-batches start, and how much one may read."""

    every: Duration = timedelta(seconds=10)
    """Between the starts of two micro-batches of ingest. 0: at once."""
    max_files: int = Field(default=1000, gt=0)
    """Landing files that a micro-batch of ingest reads at most."""
    join_max_files: int = Field(default=1000, gt=0)
    """Bronze files of a stream that a micro-batch of the join reads at most; `join --once` reads a backlog within both limits
    whole."""
    join_max_bytes: ByteSize = Field(default=ByteSize(32 * 1024**2), gt=0)
    """The same in bytes; one file is read in any case."""
    settle_backlog_bytes: ByteSize | None = ByteSize(32 * 1024**2)
    """With more of a stream's bronze unread at its start, the join leaves the backlog to settle; null: never."""


class StateStoreConfig(Model):
    """Where the join keeps its hot window."""

    provider: Literal["rocksdb", "memory"] = "rocksdb"
    """`rocksdb` (off heap, on disk) or `memory` (faster, on the heap)."""


class SettleConfig(Model):
    """What settles late, unmatched and missing outcomes."""

    every: Duration = timedelta(minutes=1)
    """Between the starts of two runs of settle."""


class TableConfig(Model):
    """How long the tables keep what. Where settle has paused for longer than one of the retentions, reconcile waits for it."""

    vacuum_retention: Duration = timedelta(days=7)
    """How long files that are no longer in a table are kept; at least 1d, and never longer than the log."""
    log_retention: Duration = timedelta(days=30)
    """How long the logs of bronze and of the attributed table are kept, in whole days: so long reconcile knows what somebody has
    changed."""
    compact_every: Duration = timedelta(minutes=30)
    """How often small files of dates that are still written to are compacted, by a settle that runs until it is stopped; 0:
    never."""

    @model_validator(mode="after")
    def _vacuum_leaves_what_is_being_written(self) -> "TableConfig":
        if self.vacuum_retention < timedelta(days=1):
            raise ValueError(
                f"vacuum_retention: {format_duration(self.vacuum_retention)} is less than 1d; VACUUM would take files that a "
                "transaction has yet to commit, or that a reconciliation is reading"
            )
        return self


class Threshold(Model):
    """Bounds of a share, from 0 to 1."""

    warn: float | None = Field(default=None, ge=0)
    """Above it the report says so; null: never."""
    fail: float | None = Field(default=None, ge=0)
    """Above it the run does not agree; null: never."""


class ExpectationsConfig(Model):
    """Bounds of the nightly Great Expectations checkpoint."""

    quarantine_rate: Threshold = Threshold(warn=0.05, fail=0.5)
    """The share of a stream's lines that were quarantined."""
    min_outcomes: int = Field(default=1, ge=0)
    """Outcomes that a run must find at least: an empty side never passes as equal."""
    suites: str | None = None
    """A directory of one's own suites; null: those in conf/expectations."""


class ColumnTolerance(Model):
    """How far a column of the table may be from batch's and still be equal, ends inclusive; of two, the greater counts."""

    absolute: float | None = Field(default=None, gt=0)
    """By an amount."""
    relative: float | None = Field(default=None, gt=0)
    """By a share of batch's value."""
    time: Duration | None = None
    """Of a timestamp, by a duration."""


class TolerancesConfig(Model):
    """What the two may differ by and still agree; by default nothing."""

    max_differences: int = Field(default=0, ge=0)
    """Rows that may differ."""
    columns: dict[str, ColumnTolerance] = Field(default_factory=dict)
    """By column of the attributed table."""


class ReconcileConfig(Model):
    """The nightly comparison with a batch computation (docs/nightly.md)."""

    tolerances: TolerancesConfig = TolerancesConfig()
    expectations: ExpectationsConfig = ExpectationsConfig()
    sample: int = Field(default=1000, ge=0)
    """Differing outcomes of a run that `reconciliation_diffs` keeps."""
    reports: str | None = None
    """Where reports go; null: below the lake."""


class MetricsConfig(Model):
    """Metrics for Prometheus and a health probe, served by `run` and by lanes that run until stopped (docs/metrics.md)."""

    port: int | None = Field(default=None, ge=0, lt=65536)
    """Where `/metrics` and `/healthz` are served; null: nowhere. Each process needs its own; 0: any that is free, named on
    stderr."""
    address: str = "127.0.0.1"
    """The address that it listens on: loopback, unless others may see it (`0.0.0.0`: all)."""


class LogsConfig(Model):
    """What is logged on stderr (docs/logs.md)."""

    format: Literal["text", "json"] = "text"
    """`json`: one object a line, with a line for each micro-batch."""
    level: Literal["info", "warning", "error"] = "info"
    """The least level that is logged."""


class LineageConfig(Model):
    """OpenLineage events of the lanes, sent where OpenLineage's own configuration says (docs/logs.md)."""

    namespace: str | None = Field(default=None, min_length=1)
    """The namespace of the jobs; null: no events."""


class SparkConfig(Model):
    """The local session; where spark-submit or Databricks has made it, `shuffle_partitions` alone counts."""

    master: str = "local[*]"
    """As for `spark-submit --master`."""
    driver_memory: str = "3g"
    """The heap of the JVM; RocksDB's memory comes on top."""
    shuffle_partitions: int | None = Field(default=None, gt=0)
    """Null: one a core, from 2 to 16; in a session that somebody else has made and not set it in, 16."""
    ui: bool = False
    """Whether Spark's own page is served, on loopback."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Further settings of Spark, which override Rejoin's."""


class Config(Model):
    """The whole configuration."""

    lake: str
    """Where the tables are: a directory, or a `catalog.schema`."""
    checkpoints: str | None = None
    """A directory for checkpoints; null: below the lake. Required where `lake` is a `catalog.schema`."""
    streams: dict[str, StreamConfig]
    """By name, the two streams: one `outcome`, one `exposure`."""
    partition_by: Partitioning = "date"
    """`hour` adds `event_hour` to the partition columns. It cannot change once a lake is made."""
    join: JoinConfig
    ingest: IngestConfig = IngestConfig()
    trigger: TriggerConfig = TriggerConfig()
    state_store: StateStoreConfig = StateStoreConfig()
    settle: SettleConfig = SettleConfig()
    tables: TableConfig = TableConfig()
    reconcile: ReconcileConfig = ReconcileConfig()
    metrics: MetricsConfig = MetricsConfig()
    logs: LogsConfig = LogsConfig()
    lineage: LineageConfig = LineageConfig()
    spark: SparkConfig = SparkConfig()
    _file: Path | None = None

    @property
    def file(self) -> Path | None:
        """Where it was read from."""
        return self._file

    @model_validator(mode="after")
    def _streams_and_join_agree(self) -> "Config":
        _check_roles(self.streams)
        for name, stream in self.streams.items():
            _check_stream(name, stream)
            _check_aliases(f"streams.{name}", stream)
        _check_join(self)
        _check_lake(self)
        _check_places(self)
        _check_tolerances(self)
        return self

    def stream_name(self, role: Role) -> str:
        return next(name for name, stream in self.streams.items() if stream.role == role)

    @property
    def exposure(self) -> StreamConfig:
        return self.streams[self.stream_name("exposure")]

    @property
    def outcome(self) -> StreamConfig:
        return self.streams[self.stream_name("outcome")]

    @property
    def lake_is_catalog(self) -> bool:
        """Whether `lake` reads `catalog.schema` rather than a directory."""
        return re.fullmatch(r"[A-Za-z_]\w*\.[A-Za-z_]\w*", self.lake) is not None


def _check_roles(streams: dict[str, StreamConfig]) -> None:
    roles = sorted(stream.role for stream in streams.values())
    if roles != ["exposure", "outcome"]:
        raise ValueError(f"streams: exactly one exposure and one outcome stream are needed, not {roles}")
    attributed = f"attributed_{next(n for n, s in streams.items() if s.role == 'outcome')}"
    for name in streams:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):
            raise ValueError(f"streams.{name[:110]}: becomes a table's name: a letter, then at most 99 of A-Z, a-z, 0-9 and _")
        if name.lower() in (*INTERNAL_TABLES, attributed.lower()):
            raise ValueError(f"streams.{name}: the lake has a table of that name already; choose another")
    if len({name.lower() for name in streams}) != len(streams):
        raise ValueError("streams: the two names differ in case only; choose others")


def _check_stream(name: str, stream: StreamConfig) -> None:
    where, names = f"streams.{name}", ", ".join(c.name for c in stream.columns)
    for key in ("id", "event_time"):
        if stream.column(getattr(stream, key)) is None:
            raise ValueError(f"{where}.{key}: column {getattr(stream, key)} is not in the schema ({names})")
    time = stream.column(stream.event_time)
    if time and not time.is_timestamp:
        raise ValueError(f"{where}.schema: column {time.name} is the event time, so it must be TIMESTAMP, not {time.type}")
    identity = stream.column(stream.id)
    if identity and not identity.is_orderable:
        raise ValueError(f"{where}.schema: column {identity.name} is the id, but {identity.type} values have no order")
    reserved = {*BRONZE_COLUMNS, *PARTITION_COLUMNS}
    if stream.role == "outcome":
        reserved |= set(ATTRIBUTION_COLUMNS)
    for column in stream.columns:
        if column.name.lower() in reserved:
            raise ValueError(f"{where}.schema: column {column.name} is one that Rejoin itself adds; rename it in the events")


def _check_aliases(where: str, stream: StreamConfig) -> None:
    taken = {c.name.lower(): f"column {c.name}" for c in stream.columns}
    for column, aliases in stream.aliases.items():
        if stream.column(column) is None:
            names = ", ".join(c.name for c in stream.columns)
            raise ValueError(f"{where}.aliases.{column}: not a column of the schema ({names})")
        for alias in aliases:
            if alias.lower() in taken:
                raise ValueError(f"{where}.aliases.{column}: {alias} is {taken[alias.lower()]} already (compared without case)")
            taken[alias.lower()] = f"an alias of {column}"


def _check_join(config: Config) -> None:
    exposure_name, outcome_name = config.stream_name("exposure"), config.stream_name("outcome")
    exposure, outcome = config.exposure, config.outcome
    for key in config.join.keys:
        left, right = outcome.column(key), exposure.column(key)
        for name, column in ((outcome_name, left), (exposure_name, right)):
            if column is None:
                raise ValueError(f"join.keys: column {key} is not in the schema of streams.{name}")
            if not column.is_orderable:
                raise ValueError(f"join.keys: column {key} of streams.{name} is {column.type}, which cannot be compared")
        if left and right and not left.comparable_with(right):
            raise ValueError(
                f"join.keys: column {key} is {left.type} in streams.{outcome_name} but {right.type} in "
                f"streams.{exposure_name}; give both the same type"
            )
    outcome_columns = {c.name.lower() for c in outcome.columns}
    for carried in config.join.carry:
        column = exposure.column(carried)
        if column is None:
            names = ", ".join(c.name for c in exposure.columns)
            raise ValueError(f"join.carry: column {carried} is not in the schema of streams.{exposure_name} ({names})")
        if not column.is_orderable:
            raise ValueError(f"join.carry: column {carried} is {column.type}; ties are broken by it, and it has no order")
        result = f"exposure_{carried}".lower()
        if result in ATTRIBUTION_COLUMNS or result in outcome_columns:
            raise ValueError(f"join.carry: {carried} would become column {result}, which the attributed table has already")


def _check_lake(config: Config) -> None:
    if config.lake_is_catalog and not config.checkpoints:
        raise ValueError(f"checkpoints: needed where lake is a catalog.schema ({config.lake}); give a directory")


def _check_places(config: Config) -> None:
    """A landing directory is read whole, so nothing of ours may lie in it, nor the other stream's."""
    landing = {
        f"streams.{name}.source.path": stream.source.path
        for name, stream in config.streams.items()
        if isinstance(stream.source, FilesSource)
    }
    places = {"checkpoints": config.checkpoints or None, **landing} | ({} if config.lake_is_catalog else {"lake": config.lake})
    for key, path in places.items():
        if path is not None and not path.strip():
            raise ValueError(f"{key}: is empty; give a directory")
        for where, directory in landing.items():
            if key != where and path is not None and _lies_in(path, directory):
                raise ValueError(f"{key}: {path} lies in {where} ({directory}), all of which is read as events; choose another")


def _lies_in(path: str, directory: str) -> bool:
    """Whether a path is a directory or lies in it; unknown, and so False, where one is a reference."""
    if "${" in path or "${" in directory:
        return False
    if is_local(path) != is_local(directory):
        return False
    if is_local(path):
        return Path(path).resolve().is_relative_to(Path(directory).resolve())
    return f"{path.rstrip('/')}/".startswith(f"{directory.rstrip('/')}/")


def _check_tolerances(config: Config) -> None:
    carried = {f"exposure_{name}": config.exposure.column(name) for name in config.join.carry}
    exposure = {
        "exposure_id": config.exposure.column(config.exposure.id),
        "exposure_time": config.exposure.column(config.exposure.event_time),
    }
    known = {**{column.name: column for column in config.outcome.columns}, **exposure, **carried}
    for name, tolerance in config.reconcile.tolerances.columns.items():
        where, column = f"reconcile.tolerances.columns.{name}", known.get(name)
        if column is None:
            raise ValueError(f"{where}: not a column that is compared ({', '.join(known)})")
        if tolerance.time is not None and not column.is_timestamp:
            raise ValueError(f"{where}.time: the column is {column.type}; a duration is for a TIMESTAMP")
        if (tolerance.absolute or tolerance.relative) and not column.is_number:
            raise ValueError(f"{where}: the column is {column.type}; absolute and relative are for numbers")
