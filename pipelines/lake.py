"""The Delta tables of one lake: their names, creation, constraints, and how to read them (DESIGN section 5).

Nothing here decides what a row means; it is the I/O edge for tables. Every table is created on first use, and one that
exists with other columns than this configuration needs is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    DateType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from pipelines.config import Config
from pipelines.errors import LakeError
from pipelines.events import EventStream, Streams
from pipelines.references import resolve

QUARANTINE_SCHEMA = StructType(
    [
        StructField("stream", StringType(), False),
        StructField("reason", StringType(), False),
        StructField("detail", StringType()),
        StructField("payload", StringType()),
        StructField("ingest_time", TimestampType(), False),
        StructField("ingest_batch", LongType(), False),
        StructField("source", StringType()),
        StructField("source_partition", IntegerType()),
        StructField("source_offset", LongType()),
        StructField("source_time", TimestampType()),
        StructField("ingest_date", DateType(), False),
    ]
)

LEDGER_SCHEMA = StructType(
    [
        StructField("run_date", DateType(), False),
        StructField("query", StringType(), False),
        StructField("run_id", StringType(), False),
        StructField("batch", LongType()),
        StructField("started_at", TimestampType()),
        StructField("finished_at", TimestampType(), False),
        StructField("consumed", StringType()),
        StructField("rows_in", LongType()),
        StructField("rows_out", LongType()),
        StructField("rows_late", LongType()),
        StructField("rows_quarantined", LongType()),
        StructField("rows_dropped_by_watermark", LongType()),
        StructField("watermark", TimestampType()),
        StructField("horizon", TimestampType()),
        StructField("state_rows", LongType()),
        StructField("state_bytes", LongType()),
        StructField("durations_ms", StringType()),
        StructField("detail", StringType()),
    ]
)

HEARTBEATS_SCHEMA = StructType(
    [
        StructField("stream", StringType(), False),
        StructField("kind", StringType(), False),
        StructField("event_time", TimestampType(), False),
        StructField("bronze_version", LongType(), False),
        StructField("created_at", TimestampType(), False),
    ]
)

RECONCILIATIONS_SCHEMA = StructType(
    [
        StructField("run_date", DateType(), False),
        StructField("run_id", StringType(), False),
        StructField("started_at", TimestampType(), False),
        StructField("finished_at", TimestampType(), False),
        StructField("from_date", DateType()),
        StructField("to_date", DateType()),
        StructField("verdict", StringType(), False),
        StructField("repaired", LongType()),
        StructField("report", StringType()),
        StructField("summary", StringType(), False),
    ]
)

DIFFS_SCHEMA = StructType(
    [
        StructField("run_date", DateType(), False),
        StructField("run_id", StringType(), False),
        StructField("class", StringType(), False),
        StructField("outcome_id", StringType()),
        StructField("event_time", TimestampType()),
        StructField("columns", StringType()),
        StructField("stream_row", StringType()),
        StructField("batch_row", StringType()),
    ]
)

ISO_MILLIS = "yyyy-MM-dd'T'HH:mm:ss.SSSXXX"
# Columns that tables made by an earlier version may lack.
_ADDED_SINCE = ("source_time",)
LANES = ("join", "settle", "repair")


@dataclass(frozen=True)
class _Table:
    schema: StructType
    partitions: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    checks: tuple[tuple[str, str], ...] = ()


class Lake:
    """One lake, read and written through one session. Cheap to make; remembers only which tables it has found in order."""

    def __init__(self, spark: SparkSession, config: Config) -> None:
        self.spark = spark
        self.config = config
        self._ensured: set[str] = set()
        self._ids: dict[str, str] = {}
        self.root = config.lake if config.lake_is_catalog else _location(resolve(config.lake, "lake"))
        if config.checkpoints:
            self.checkpoints = _location(resolve(config.checkpoints, "checkpoints"))
        else:
            self.checkpoints = f"{self.root}/_rejoin/checkpoints"

    @cached_property
    def streams(self) -> Streams:
        return Streams.of(self.config)

    @property
    def attributed(self) -> str:
        return self.streams.attributed_name

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that users see, in the order in which data reaches them."""
        both = tuple(stream.name for stream in self.streams.both)
        return (*both, "quarantine", self.attributed, "ledger", "reconciliations", "reconciliation_diffs")

    def with_session(self, spark: SparkSession) -> "Lake":
        return Lake(spark, self.config)

    def identifier(self, table: str) -> str:
        """How SQL names the table."""
        if self.config.lake_is_catalog:
            return f"{self.root}.{'rejoin_heartbeats' if table == 'heartbeats' else table}"
        return f"delta.`{self.path(table)}`"

    def path(self, table: str) -> str:
        return f"{self.root}/_rejoin/heartbeats" if table == "heartbeats" else f"{self.root}/{table}"

    def checkpoint(self, query: str) -> str:
        return f"{self.checkpoints}/{query}"

    # Creation ----------------------------------------------------------------------------------------------------------

    def ensure(self, *tables: str) -> None:
        """Create the tables that are not there; refuse (LakeError) those with other columns than needed."""
        for table in tables:
            if table in self._ensured:
                continue
            spec = self._spec(table)
            columns = self._columns(table)
            if columns is None:
                self._create(table, spec)
            else:
                _require_columns(table, spec.schema, self._add_columns(table, spec, columns))
            self._ensured.add(table)

    def exists(self, table: str) -> bool:
        return self._columns(table) is not None

    def require(self, *tables: str) -> None:
        """Raise LakeError for the first of the tables that does not exist."""
        for table in tables:
            if not self.exists(table):
                raise LakeError(f"{self.identifier(table)}: no such table yet; run `rejoin ingest` and `rejoin join` first")

    def _columns(self, table: str) -> StructType | None:
        try:
            return self.read(table).schema
        except AnalysisException as error:
            missing = ("TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND", "DELTA_MISSING_DELTA_TABLE")
            said = f"{error.getCondition() or ''} {error}"
            if any(name in said for name in missing) or "is not a Delta table" in said:
                return None
            raise

    def _add_columns(self, table: str, spec: _Table, columns: StructType) -> StructType:
        """Give a table of an earlier version the columns that Rejoin itself has added since; its columns now."""
        known = set(columns.names)
        added = [f for f in spec.schema if f.name in _ADDED_SINCE and f.name not in known]
        if not added:
            return columns
        listed = ", ".join(f"`{f.name}` {f.dataType.simpleString()}" for f in added)
        self.spark.sql(f"ALTER TABLE {self.identifier(table)} ADD COLUMNS ({listed})")
        return StructType([*columns.fields, *added])

    def _create(self, table: str, spec: _Table) -> None:
        columns = ", ".join(
            f"`{f.name}` {f.dataType.simpleString()}{'' if f.nullable else ' NOT NULL'}" for f in spec.schema.fields
        )
        partitioned = f"PARTITIONED BY ({', '.join(spec.partitions)})" if spec.partitions else ""
        log_days = max(1, self.config.tables.log_retention // timedelta(days=1))
        properties = {"delta.logRetentionDuration": f"interval {log_days} days", **dict(spec.properties)}
        listed = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
        name = self.identifier(table)
        self.spark.sql(f"CREATE TABLE IF NOT EXISTS {name} ({columns}) USING delta {partitioned} TBLPROPERTIES ({listed})")
        for constraint, predicate in spec.checks:
            self.spark.sql(f"ALTER TABLE {name} ADD CONSTRAINT {constraint} CHECK ({predicate})")

    def _spec(self, table: str) -> _Table:
        streams = self.streams
        for stream in streams.both:
            if table == stream.name:
                return _Table(
                    stream.bronze_schema,
                    stream.partition_columns,
                    (
                        # settle reads what landed between two versions
                        ("delta.enableChangeDataFeed", "true"),
                        ("delta.dataSkippingStatsColumns", f"{stream.event_time},ingest_time,ingest_batch,source_offset"),
                    ),
                    (("rejoin_batch", "ingest_batch >= 0"),),
                )
        if table == self.attributed:
            outcome = streams.outcome
            lanes = ", ".join(f"'{lane}'" for lane in LANES)
            return _Table(
                streams.attributed_schema,
                outcome.partition_columns,
                (
                    ("delta.enableDeletionVectors", "true"),
                    ("delta.dataSkippingStatsColumns", f"{outcome.id},{outcome.event_time},exposure_time,updated_at"),
                ),
                (("rejoin_lane", f"attributed_by IN ({lanes})"),),
            )
        specs = {
            "quarantine": _Table(QUARANTINE_SCHEMA, ("ingest_date",)),
            "ledger": _Table(LEDGER_SCHEMA, ("run_date",)),
            "heartbeats": _Table(HEARTBEATS_SCHEMA),
            "reconciliations": _Table(RECONCILIATIONS_SCHEMA, ("run_date",)),
            "reconciliation_diffs": _Table(DIFFS_SCHEMA, ("run_date",)),
        }
        if table not in specs:
            raise LakeError(f"{table}: no such table; the lake has {', '.join(self.tables)}")
        return specs[table]

    # Reading -----------------------------------------------------------------------------------------------------------

    def read(self, table: str, version: int | None = None) -> DataFrame:
        """The table now, or as of `version`."""
        pinned = "" if version is None else f" VERSION AS OF {version}"
        return self.spark.sql(f"SELECT * FROM {self.identifier(table)}{pinned}")

    def stream(self, table: str, **options: str) -> DataFrame:
        reader = self.spark.readStream.format("delta").options(**options)
        return reader.table(self.identifier(table)) if self.config.lake_is_catalog else reader.load(self.path(table))

    def version(self, table: str) -> int:
        """The table's latest version; -1 where there is no table."""
        try:
            return int(self.spark.sql(f"DESCRIBE HISTORY {self.identifier(table)} LIMIT 1").collect()[0]["version"])
        except AnalysisException:
            if self.exists(table):
                raise
            return -1

    def table_id(self, table: str) -> str:
        """What the table's log, and the offsets of streams over it, call it."""
        if table not in self._ids:
            self._ids[table] = str(self._detail(table)["id"])
        return self._ids[table]

    def size(self, table: str) -> tuple[int, int]:
        """Files and bytes of the latest version."""
        detail = self._detail(table)
        return int(detail["numFiles"]), int(detail["sizeInBytes"])

    def _detail(self, table: str) -> Row:
        return self.spark.sql(f"DESCRIBE DETAIL {self.identifier(table)}").collect()[0]

    def landed_between(self, table: str, after: int, through: int) -> DataFrame:
        """The rows appended in versions `after` (exclusive) to `through` (inclusive).

        Where the log no longer reaches back that far, all rows as of `through`: more work for the caller, never fewer rows.
        """
        snapshot = self.read(table, through)
        if after < 0:
            return snapshot
        if after >= through:
            return snapshot.where(F.lit(False))
        reader = self.spark.read.format("delta").option("readChangeFeed", "true")
        reader = reader.option("startingVersion", after + 1).option("endingVersion", through)
        try:
            changes = reader.table(self.identifier(table)) if self.config.lake_is_catalog else reader.load(self.path(table))
            landed = changes.where("_change_type = 'insert'").select(*snapshot.columns)
            landed.count()  # opens every file: here, and not somewhere later, it shows that one has been vacuumed
            return landed
        except Exception as error:  # the class differs between classic Spark and Connect
            if _is_gone(error):
                return snapshot
            raise

    def max_event_time(self, stream: EventStream, version: int | None = None) -> int | None:
        """The greatest event time in bronze, in microseconds since the epoch; None where bronze is empty, or the version gone.

        Reads partition values first, then one partition: cheap however long bronze is.
        """
        try:
            return self._max_event_time(stream, self.read(stream.name, version))
        except Exception as error:  # as above
            if version is not None and _is_gone(error):
                return None
            raise

    def _max_event_time(self, stream: EventStream, bronze: DataFrame) -> int | None:
        date = bronze.select(F.max("event_date").cast("string")).collect()[0][0]
        if date is None:
            return None
        newest = bronze.where(F.col("event_date") == F.to_date(F.lit(date)))
        return int(newest.select(F.unix_micros(F.max(stream.event_time))).collect()[0][0])

    # Writing -----------------------------------------------------------------------------------------------------------

    def append(self, table: str, rows: DataFrame, *, transaction: tuple[str, int] | None = None) -> None:
        """Append in one commit. With `transaction` (application id, version), a version that was committed is not again."""
        writer = rows.write.format("delta").mode("append")
        if transaction:
            writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        if self.config.lake_is_catalog:
            writer.saveAsTable(self.identifier(table))
        else:
            writer.save(self.path(table))


def _is_gone(error: Exception) -> bool:
    """Whether a version of a table, or a file of it, is no longer there: log clean-up, or VACUUM."""
    words = (
        "DELTA_MISSING_CHANGE_DATA",
        "DELTA_LOG_FILE_NOT_FOUND",
        "DELTA_UNSUPPORTED_TIME_TRAVEL_BEYOND",
        "DELTA_VERSION_NOT_FOUND",
        "DELTA_CANNOT_RECONSTRUCT",
        "FAILED_READ_FILE",
        "FileNotFound",
        "FILE_NOT_EXIST",
    )
    return any(word in str(error) for word in words)


def at(when_micros: int) -> Column:
    """A timestamp literal from microseconds since the epoch, exact and independent of Python's time zone."""
    return F.timestamp_micros(F.lit(when_micros))


def as_text_times(rows: DataFrame) -> DataFrame:
    """Every timestamp column as ISO-8601 UTC with milliseconds: how people and files get them."""
    times = [f.name for f in rows.schema if isinstance(f.dataType, TimestampType)]
    return rows.withColumns({name: F.date_format(f"`{name}`", ISO_MILLIS) for name in times})


def column_list(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}`{name}`" for name in names)


def _location(path: str) -> str:
    """Absolute where it is a local path; a URI stays as it is."""
    return path.rstrip("/") if "://" in path or path.startswith("dbfs:") else str(Path(path).absolute())


def _require_columns(table: str, needed: StructType, found: StructType) -> None:
    have = {f.name.lower(): f.dataType for f in found}
    for field in needed:
        if field.name.lower() not in have:
            raise LakeError(
                f"table {table}: has no column {field.name}, which this configuration needs; use another lake, or restore it"
            )
        if have[field.name.lower()].simpleString() != field.dataType.simpleString():
            raise LakeError(
                f"table {table}: column {field.name} is {have[field.name.lower()].simpleString()}, but the configuration "
                f"says {field.dataType.simpleString()}; use another lake, or change the schema back"
            )
