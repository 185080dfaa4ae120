"""The Delta tables of one lake: their names, creation, and how to read and write them.

Nothing here decides what a row means; it is the I/O edge for tables. Every table is created on first use; one that exists with
other columns than this configuration needs is altered where `pipelines.lake.evolution` says how, and refused otherwise.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import timedelta
from functools import cached_property
from itertools import takewhile
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from pipelines.config.model import Config
from pipelines.config.streams import checkpoints_of, root_of, rule_of, streams_of, table_names
from pipelines.lake.evolution import alterations
from pipelines.lake.history import Commit, local_commits
from pipelines.lake.retry import conflict_retries, creation_retries, is_creation, is_gone
from pipelines.model.errors import LakeError
from pipelines.model.events import Streams
from pipelines.model.paths import is_local, literal
from pipelines.model.rule import PROPERTY, RegisteredRule
from pipelines.model.schemas import TableSpec, table_specs
from pipelines.model.sql import quoted


class Lake:
    """One lake, read and written through one session. Cheap to make; remembers only which tables it has found in order."""

    def __init__(self, spark: SparkSession, config: Config) -> None:
        self.spark = spark
        self.config = config
        self._ensured: set[str] = set()
        self._names: dict[str, list[str]] = {}
        self.root, self.checkpoints = root_of(config), checkpoints_of(config)

    @cached_property
    def streams(self) -> Streams:
        """The two streams, as configured."""
        return streams_of(self.config)

    @property
    def attributed(self) -> str:
        return self.streams.attributed_name

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that users see, in the order in which data reaches them."""
        return table_names(self.config)

    def with_session(self, spark: SparkSession) -> "Lake":
        """The same lake through another session; what is known of it is shared."""
        other = copy(self)
        other.spark = spark
        return other

    def identifier(self, table: str) -> str:
        """How SQL names the table."""
        if self.config.lake_is_catalog:
            return f"{self.root}.{table}"
        return f"delta.`{self.path(table)}`"

    def path(self, table: str) -> str:
        return f"{self.root}/{table}"

    def checkpoint(self, query: str) -> str:
        return f"{self.checkpoints}/{query}"

    # Creation ----------------------------------------------------------------------------------------------------------

    def ensure(self, *tables: str) -> None:
        """Create the tables that are not there, and alter those that need it. Raises LakeError, before any is touched, where one
        (of the lake, not of `tables` only) has columns that cannot become what this configuration needs."""
        if set(tables) <= self._ensured:
            return
        try:
            for attempt in creation_retries():
                with attempt:
                    self._ensure_once(tables)
        except AnalysisException as error:
            place = next((path for path in map(self.path, tables) if f"`{path}`" in str(error)), None)
            if place is None or not is_creation(error):
                raise
            raise LakeError(
                f"{place}: is not empty, and no Delta table; it may be what a start that was killed has left: remove it, or use "
                "another lake"
            ) from error
        self._ensured.update(tables)

    def _ensure_once(self, tables: Sequence[str]) -> None:
        """As `ensure`; fails where another process is at the same. What it has made is not made again by the next try."""
        changes = self.judge(*tables)

        def make(table: str) -> None:
            if changes[table] is None:
                self._create(table, self._spec(table))
            for clause in changes[table] or ():
                self._alter(table, clause)

        # Most of what a commit to a new table costs is waiting, or code that runs for the first time.
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(make, dict.fromkeys(tables)))

    def judge(self, *tables: str) -> dict[str, list[str] | None]:
        """What each of the tables, and of those that depend on the configuration, lacks to be what that says: clauses of ALTER
        TABLE, or None where it does not exist. Raises LakeError for one that cannot become that."""
        names = dict.fromkeys([*(stream.name for stream in self.streams.both), self.attributed, *tables])
        with ThreadPoolExecutor(max_workers=4) as pool:
            found = dict(zip(names, pool.map(self._columns, names), strict=True))
        return {n: None if c is None else alterations(n, self._spec(n).schema, c) for n, c in found.items()}

    def require(self, *tables: str) -> None:
        """Raise LakeError for the first of the tables that does not exist."""
        for table in tables:
            if not self.exists(table):
                raise LakeError(f"{self.identifier(table)}: no such table yet; run `rejoin ingest` and `rejoin join` first")

    def require_as_configured(self, *tables: str) -> None:
        """Raise LakeError where a lane has yet to give the tables (all, if none is named) the columns of this configuration."""
        behind = [table for table, clauses in self.judge(*tables).items() if clauses and (not tables or table in tables)]
        if behind:
            raise LakeError(
                f"{self.identifier(behind[0])}: does not have the columns of this configuration yet; start a lane with it, "
                "e.g. `rejoin settle --once`"
            )

    def partitions(self, table: str) -> tuple[str, ...]:
        """The columns that a table is partitioned by."""
        return self._spec(table).partitions

    def _spec(self, table: str) -> TableSpec:
        spec = self._specs.get(table)
        if spec is None:
            raise LakeError(f"{table}: no such table; the lake has {', '.join(self.tables)}")
        return spec

    @cached_property
    def _specs(self) -> dict[str, TableSpec]:
        return table_specs(self.streams)

    def _alter(self, table: str, clause: str) -> None:
        name = self.identifier(table)
        try:
            if " TYPE " in clause:
                self.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
            self.spark.sql(f"ALTER TABLE {name} {clause}")
        except Exception:
            # Another lane may have been first.
            columns = self._columns(table)
            if columns is None or clause in alterations(table, self._spec(table).schema, columns):
                raise

    def exists(self, table: str) -> bool:
        return self._columns(table) is not None

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns; none where it does not exist. Asked once."""
        if table not in self._names:
            found = self._columns(table)
            self._names[table] = [] if found is None else found.names
        return self._names[table]

    def has_table(self, identifier: str) -> bool:
        """Whether there is a table of this name in SQL."""
        return self._schema_of(identifier) is not None

    def _columns(self, table: str) -> StructType | None:
        return self._schema_of(self.identifier(table))

    def _schema_of(self, identifier: str) -> StructType | None:
        try:
            return self.spark.sql(f"SELECT * FROM {identifier}").schema
        except AnalysisException as error:
            missing = ("TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND", "DELTA_MISSING_DELTA_TABLE")
            said = f"{error.getCondition() or ''} {error}"
            if any(name in said for name in missing) or "is not a Delta table" in said:
                return None
            raise

    def _create(self, table: str, spec: TableSpec) -> None:
        columns = ", ".join(
            f"`{f.name}` {f.dataType.simpleString()}{'' if f.nullable else ' NOT NULL'}" for f in spec.schema.fields
        )
        partitioned = f"PARTITIONED BY ({', '.join(spec.partitions)})" if spec.partitions else ""
        # Constraints as properties, so that a table is there whole or not at all, in one commit.
        properties = self._properties(spec) | {f"delta.constraints.{name}": predicate for name, predicate in spec.checks}
        if table == self.attributed:
            properties[PROPERTY] = RegisteredRule(rule=rule_of(self.config)).as_json()
        name, listed = self.identifier(table), _listed(properties)
        # Not IF NOT EXISTS: that says nothing where another process was first, perhaps with other columns.
        self.spark.sql(f"CREATE TABLE {name} ({columns}) USING delta {partitioned} TBLPROPERTIES ({listed})")

    def _properties(self, spec: TableSpec) -> dict[str, str]:
        return {
            "delta.logRetentionDuration": _interval(self._log_retention(spec)),
            "delta.deletedFileRetentionDuration": _interval(self._file_retention(spec)),
            "delta.checkpointInterval": "100",
            **dict(spec.properties),
        }

    def file_retention(self, table: str) -> timedelta:
        """For how long VACUUM keeps files that are no longer in the table."""
        return self._file_retention(self._spec(table))

    def _file_retention(self, spec: TableSpec) -> timedelta:
        # Delta wants the log to be kept for as long.
        return min(self.config.tables.vacuum_retention, self._log_retention(spec))

    def _log_retention(self, spec: TableSpec) -> timedelta:
        return timedelta(days=spec.log_days or max(1, self.config.tables.log_retention // timedelta(days=1)))

    def set_properties(self, table: str) -> list[str]:
        """Give a table the properties that it would be created with today; the names of those that were others."""
        wanted, have = self._properties(self._spec(table)), self.table_properties(table)
        differing = {name: value for name, value in wanted.items() if have.get(name) != value}
        for attempt in conflict_retries():
            with attempt:
                self.set_table_properties(table, differing)
        return list(differing)

    def table_properties(self, table: str) -> dict[str, str]:
        """The properties of a table, as they are now."""
        return {row["key"]: row["value"] for row in self.spark.sql(f"SHOW TBLPROPERTIES {self.identifier(table)}").collect()}

    def set_table_properties(self, table: str, properties: Mapping[str, str]) -> None:
        if properties:
            self.spark.sql(f"ALTER TABLE {self.identifier(table)} SET TBLPROPERTIES ({_listed(properties)})")

    # Reading -----------------------------------------------------------------------------------------------------------

    def read(self, table: str, version: int | None = None) -> DataFrame:
        """The table now, or as of `version`; a version from before a change of its columns in those that it should have now."""
        if version is None:
            return self.spark.sql(f"SELECT * FROM {self.identifier(table)}")
        rows = self.spark.sql(f"SELECT * FROM {self.identifier(table)} VERSION AS OF {version}")
        have = {f.name: f.dataType for f in rows.schema}
        differing = [f for f in self._spec(table).schema if have.get(f.name) != f.dataType]
        given = {f.name: (F.col(f.name) if f.name in have else F.lit(None)).cast(f.dataType) for f in differing}
        return rows.withColumns(given) if given else rows  # Spark Connect takes no empty mapping

    def stream(self, table: str, **options: str) -> DataFrame:
        reader = self.spark.readStream.format("delta").options(**options)
        return reader.table(self.identifier(table)) if self.config.lake_is_catalog else reader.load(self.path(table))

    def version(self, table: str) -> int:
        """The table's latest version; -1 where there is no table."""
        try:
            return self._commits(table, 1)[0].version
        except AnalysisException:
            if self.exists(table):
                raise
            return -1

    def newest_commits(self, table: str) -> Iterator[Commit]:
        """The table's commits, the newest first, as far back as its log tells; reads more of the log as the caller goes on."""
        most, before = 32, None
        while True:
            found = self._commits(table, most)
            for commit in found:
                if before is None or commit.version < before:
                    yield commit
                    before = commit.version
            if len(found) < most:
                return
            most *= 8

    def _commits(self, table: str, most: int) -> list[Commit]:
        """The newest commits, the newest first. Of a local table delta-rs reads the log, in milliseconds; where it does not know
        a feature of the table, and elsewhere, DESCRIBE HISTORY does, in three Spark jobs."""
        if not self.config.lake_is_catalog and is_local(self.root):
            found = local_commits(self.path(table), most)
            if found is not None:
                return found
        rows = self.spark.sql(f"DESCRIBE HISTORY {self.identifier(table)} LIMIT {most}").select(*Commit.columns()).collect()
        return sorted((Commit(*row) for row in rows), key=lambda commit: commit.version, reverse=True)

    def commits(self, table: str, after: int) -> list[Commit]:
        """The commits after a version, the newest first, as far back as the log tells."""
        return list(takewhile(lambda commit: commit.version > after, self.newest_commits(table)))

    def size(self, table: str) -> tuple[int, int]:
        """Files and bytes of the latest version."""
        detail = self._detail(table)
        return int(detail["numFiles"]), int(detail["sizeInBytes"])

    def listed(self, directory: str, names: str) -> DataFrame:
        """The files below a directory that match a glob pattern and are not empty: `path`, as a URI, and when `modified` last."""
        reader = self.spark.read.format("binaryFile").option("recursiveFileLookup", "true").option("pathGlobFilter", names)
        # One that is taken away meanwhile is not there.
        files = reader.option("ignoreMissingFiles", "true").load(literal(directory))
        return files.select(F.col("_metadata.file_path").alias("path"), F.col("modificationTime").alias("modified"))

    def location(self, table: str) -> str:
        """The directory of the table's files, also of one in a catalog."""
        return str(self._detail(table)["location"])

    def _detail(self, table: str) -> Row:
        return self.spark.sql(f"DESCRIBE DETAIL {self.identifier(table)}").collect()[0]

    def landed_between(self, table: str, after: int, through: int) -> DataFrame:
        """The rows appended in versions `after` (exclusive) to `through` (inclusive).

        Where the change feed does not tell, for files were vacuumed or a column's type changed in between, all rows as of
        `through`: more work for the caller, never fewer rows.
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
            if is_gone(error) or "DELTA_CHANGE_DATA_FEED_INCOMPATIBLE" in str(error):
                return snapshot
            raise

    # Writing -----------------------------------------------------------------------------------------------------------

    def append(
        self,
        table: str,
        rows: DataFrame,
        *,
        transaction: tuple[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Append in one commit, which carries `metadata` as JSON. With `transaction` (application id, version), a version that
        was committed is not again."""
        writer = rows.write.format("delta").mode("append")
        if metadata is not None:
            writer = writer.option("userMetadata", json.dumps(metadata, sort_keys=True))
        if transaction:
            writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        for attempt in conflict_retries():
            with attempt:
                self.save(writer, table)

    def replace(self, table: str, rows: DataFrame, where: str, *, metadata: Mapping[str, Any]) -> None:
        """Replace what satisfies a SQL condition on partitions by `rows`, in one commit that carries `metadata`. Columns that the
        table has beside those of `rows` are null."""
        writer = rows.write.format("delta").mode("overwrite").option("replaceWhere", where)
        self.save(writer.option("userMetadata", json.dumps(metadata, sort_keys=True)), table)

    def save(self, writer: DataFrameWriter, table: str) -> None:
        """Where a Delta writer writes."""
        if self.config.lake_is_catalog:
            writer.saveAsTable(self.identifier(table))
        else:
            writer.save(self.path(table))


def at(when_micros: int) -> Column:
    """A timestamp literal from microseconds since the epoch, exact and independent of Python's time zone."""
    return F.timestamp_micros(F.lit(when_micros))


def _listed(properties: Mapping[str, str]) -> str:
    """As SQL has a list of properties."""
    return ", ".join(f"{quoted(name)} = {quoted(value)}" for name, value in properties.items())


def _interval(length: timedelta) -> str:
    """As Delta's table properties have it."""
    days, rest = divmod(length, timedelta(days=1))
    return f"interval {length // timedelta(seconds=1)} seconds" if rest else f"interval {days} days"


def column_list(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}`{name}`" for name in names)
