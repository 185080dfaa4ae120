"""The configuration as typed, frozen models that are validated on load (DESIGN section 6).

Paths are relative to the directory that the command runs in. Defaults live here and nowhere else. `pipelines.config.load` reads
them from YAML.
"""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from pipelines.config.ddl import Column, parse_ddl
from pipelines.config.kafka_options import check_as_written
from pipelines.model.durations import format_duration, parse_duration
from pipelines.model.names import ATTRIBUTION_COLUMNS, BRONZE_COLUMNS, INTERNAL_TABLES, PARTITION_COLUMNS, Role
from pipelines.model.paths import is_local

Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Partitioning = Literal["date", "hour"]
SchemaId = Annotated[int, Field(ge=0, lt=2**32, strict=True)]

# The files of a landing directory that hold events: how their names end, and the same as a pattern.
FILE_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
FILE_NAMES = f"*.{{{','.join(suffix.removeprefix('.') for suffix in FILE_SUFFIXES)}}}"


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class FilesSource(Model):
    """Newline-delimited JSON files that appear, whole, in a directory."""

    format: Literal["files"] = "files"
    path: str


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


class ValueConfig(Model):
    """What the values of a topic's records are: JSON, or Avro by the schema in a file; `confluent` framing has a schema id
    ahead of it, which must be (one of) `schema_id`: the bytes of another schema may decode to values that nobody wrote."""

    format: Literal["json", "avro"] = "json"
    schema_file: str | None = None
    framing: Literal["none", "confluent"] = "none"
    schema_id: Annotated[tuple[SchemaId, ...], BeforeValidator(_one_or_more)] = ()

    @model_validator(mode="after")
    def _schema_is_for_avro(self) -> "ValueConfig":
        if self.format == "avro" and self.schema_file is None:
            raise ValueError("schema_file: missing; avro needs the file of a schema (.avsc)")
        if self.format == "json" and (self.schema_file is not None or self.framing != "none"):
            raise ValueError("format: json takes neither schema_file nor framing; allowed with them: avro")
        if self.framing == "confluent" and not self.schema_id:
            raise ValueError("schema_id: missing; give the registry's id of the schema in schema_file (or a list of ids)")
        if self.framing == "none" and self.schema_id:
            raise ValueError("schema_id: stands in the frame of a value, so it needs framing: confluent")
        return self


class KafkaSource(Model):
    """A Kafka topic of events. `options` are Kafka client settings without the prefix `kafka.`; see
    `pipelines.config.kafka_options`. A micro-batch reads `max_offsets_per_trigger` records at most, over all partitions, so that
    a backlog comes in bounded pieces (null: whole)."""

    format: Literal["kafka"]
    bootstrap_servers: str
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    starting_offsets: Literal["earliest", "latest"] = "earliest"
    max_offsets_per_trigger: int | None = Field(default=1_000_000, gt=0)
    min_offsets_per_trigger: int | None = Field(default=None, gt=0)
    max_trigger_delay: Duration = timedelta(minutes=15)
    options: dict[str, str] = {}
    value: ValueConfig = ValueConfig()

    @model_validator(mode="after")
    def _options_are_known(self) -> "KafkaSource":
        try:
            check_as_written(self.options)
        except ValueError as error:
            raise ValueError(f"options.{error}") from None
        least, most = self.min_offsets_per_trigger, self.max_offsets_per_trigger
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_offsets_per_trigger: {least} is more than max_offsets_per_trigger ({most})")
        return self


SourceConfig = Annotated[FilesSource | KafkaSource, Field(discriminator="format")]


class StreamConfig(Model):
    """One stream of events: what it is called, what identifies an event, when it happened. `aliases` are further names under
    which events may carry a column, in order of preference: for a field that has been renamed."""

    role: Role
    id: str
    event_time: str
    ddl: str = Field(alias="schema")
    source: SourceConfig
    aliases: dict[str, tuple[str, ...]] = {}
    partition_by: Partitioning | None = None

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
    attribution_window: Duration = timedelta(hours=6)
    hot_window: Duration = timedelta(minutes=30)
    watermark_delay: Duration = timedelta(minutes=10)
    idle_timeout: Duration = timedelta(minutes=5)
    max_future_skew: Duration = timedelta(minutes=5)
    carry: tuple[str, ...] = ()

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
    """Limits at the door. An event time before `earliest_event_time` is a unit mistaken (seconds for milliseconds) or a clock
    that was never set."""

    max_event_bytes: int = Field(default=1024 * 1024, gt=0)
    earliest_event_time: AwareDatetime = datetime(2000, 1, 1, tzinfo=timezone.utc)


class TriggerConfig(Model):
    """When micro-batches start, and how much one may read: landing files at ingest; files and bytes of bronze, for each
    stream, at the join. The join's are soft: a micro-batch takes one file at least, and a backlog within them whole. With more
    than `settle_backlog_bytes` of a stream's bronze unread at its start (null: however much) the join leaves the backlog to
    settle."""

    every: Duration = timedelta(seconds=10)
    max_files: int = Field(default=1000, gt=0)
    join_max_files: int = Field(default=1000, gt=0)
    join_max_bytes: ByteSize = Field(default=ByteSize(32 * 1024**2), gt=0)
    settle_backlog_bytes: ByteSize | None = ByteSize(32 * 1024**2)


class StateStoreConfig(Model):
    """Where the join keeps its hot window: `rocksdb` (off heap, on disk) or `memory` (faster, on the heap)."""

    provider: Literal["rocksdb", "memory"] = "rocksdb"


class SettleConfig(Model):
    every: Duration = timedelta(minutes=1)


class TableConfig(Model):
    """How long the tables keep what: `vacuum_retention` files that are no longer in a table, Delta's own safe week unless told
    otherwise, and never longer than the log is kept; `log_retention`, in whole days, the log of bronze and of the attributed
    table: so long reconcile knows what somebody has changed. Where settle has paused for longer than one of them, reconcile has
    to wait for it. Every `compact_every` (0: never) small files of dates that are still written to are put together, by a settle
    that runs until it is stopped."""

    vacuum_retention: Duration = timedelta(days=7)
    log_retention: Duration = timedelta(days=30)
    compact_every: Duration = timedelta(minutes=30)

    @model_validator(mode="after")
    def _vacuum_leaves_what_is_being_written(self) -> "TableConfig":
        if self.vacuum_retention < timedelta(days=1):
            raise ValueError(
                f"vacuum_retention: {format_duration(self.vacuum_retention)} is less than 1d; VACUUM would take files that a "
                "transaction has yet to commit, or that a reconciliation is reading"
            )
        return self


class Threshold(Model):
    """Above `warn` the report says so; above `fail` the run does not agree. None never does."""

    warn: float | None = Field(default=None, ge=0)
    fail: float | None = Field(default=None, ge=0)


class ExpectationsConfig(Model):
    """Bounds of the nightly Great Expectations checkpoint; `suites` is a directory of one's own suites."""

    quarantine_rate: Threshold = Threshold(warn=0.05, fail=0.5)
    min_outcomes: int = Field(default=1, ge=0)
    suites: str | None = None


class ColumnTolerance(Model):
    """How far a column of the table may be from batch's and still be equal, ends inclusive: by an amount, by a share of batch's
    value (the greater of the two), or, for a timestamp, by a duration."""

    absolute: float | None = Field(default=None, gt=0)
    relative: float | None = Field(default=None, gt=0)
    time: Duration | None = None


class TolerancesConfig(Model):
    """How many rows may differ and the two still agree; how far columns may differ and still be equal. By default not at all."""

    max_differences: int = Field(default=0, ge=0)
    columns: dict[str, ColumnTolerance] = {}


class ReconcileConfig(Model):
    tolerances: TolerancesConfig = TolerancesConfig()
    expectations: ExpectationsConfig = ExpectationsConfig()
    sample: int = Field(default=1000, ge=0, description="differing outcomes kept in reconciliation_diffs, per run")
    reports: str | None = None


class SparkConfig(Model):
    """The local session; ignored where spark-submit or Databricks has decided already."""

    master: str = "local[*]"
    driver_memory: str = "3g"
    shuffle_partitions: int | None = Field(default=None, gt=0)
    ui: bool = False
    conf: dict[str, str] = {}


class Config(Model):
    """The whole configuration. `partition_by` holds for the streams that do not say otherwise themselves."""

    lake: str
    checkpoints: str | None = None
    streams: dict[str, StreamConfig]
    partition_by: Partitioning = "date"
    join: JoinConfig
    ingest: IngestConfig = IngestConfig()
    trigger: TriggerConfig = TriggerConfig()
    state_store: StateStoreConfig = StateStoreConfig()
    settle: SettleConfig = SettleConfig()
    tables: TableConfig = TableConfig()
    reconcile: ReconcileConfig = ReconcileConfig()
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
