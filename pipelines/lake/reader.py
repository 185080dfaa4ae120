"""Read tables as Arrow: those of a local lake through delta-rs, without a JVM; others through Spark.

Both readers answer the same. Times are UTC with microseconds. Row order is not guaranteed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.streams import table_names
from pipelines.model.errors import RejoinError
from pipelines.model.paths import is_local

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.lake.tables import Lake

Condition = tuple[str, str, Any]
"""A column, one of `=`, `<=`, `>=`, `in`, and a value of the column's type (`in`: a list of them); null never satisfies one."""

# What delta-rs 1.6 reads of what our tables may have; it refuses others (type widening).
_READ_BY_DELTA_RS = {"deletionVectors"}


class TableReader(Protocol):
    """A lake to look at."""

    @property
    def location(self) -> str: ...

    def exists(self, table: str) -> bool: ...

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: str | Sequence[Condition] = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """The rows that satisfy all conditions, or a condition of the user's in the engine's SQL, which may raise RejoinError.

        `limit` says that the caller reads no more rows than that; more may come.
        """

    def dates(self, table: str, column: str = "event_date") -> list[str]:
        """The dates of a table's partitions, ascending; without reading rows."""

    def appended_after(self, table: str, version: int) -> tuple[int, int]:
        """Files and bytes that commits after a version have added."""

    def columns(self, table: str) -> list[str]: ...

    def count(self, table: str) -> int:
        """The rows of a table without deletion vectors, by its log."""


def open_reader(config: Config, lake: Callable[[], "Lake"], *tables: str) -> TableReader:
    """The reader for `tables` of a lake (all, if none is named). `lake` starts Spark: for a catalog, a URI, or a table feature
    that delta-rs does not read."""
    location = "" if config.lake_is_catalog else resolve(config.lake, "lake").rstrip("/")
    if location and is_local(location):
        local = LocalReader(str(Path(location).absolute()))
        if all(local.can_read(table) for table in tables or table_names(config)):
            return local
    return SparkReader(lake())


def require(reader: TableReader, *tables: str) -> None:
    """Raise RejoinError for the first of the tables that does not exist."""
    for table in tables:
        if not reader.exists(table):
            raise RejoinError(f"{table}: no such table yet; run `rejoin ingest` and `rejoin join` first")


def rows_of(batches: pa.RecordBatchReader | pa.Table) -> list[dict[str, Any]]:
    """Rows as Python values; timestamps as microseconds since the epoch, maps as mappings."""
    table = batches if isinstance(batches, pa.Table) else batches.read_all()
    for at, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(at, column.name, table[column.name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
    return [dict(row) for row in table.to_pylist(maps_as_pydicts="strict")]


class LocalReader:
    """Tables of a local directory. Each is read as of the version that was the latest at its first use."""

    def __init__(self, root: str) -> None:
        self.location = root
        self._tables: dict[str, DeltaTable | None] = {}

    def exists(self, table: str) -> bool:
        return self._find(table) is not None

    def can_read(self, table: str) -> bool:
        found = self._find(table)
        return found is None or set(found.protocol().reader_features or ()) <= _READ_BY_DELTA_RS

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: str | Sequence[Condition] = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        from deltalake.exceptions import DeltaError

        predicate = f"({where})" if isinstance(where, str) else " AND ".join(map(_sql, where)) or None
        try:
            found = self._open(table).scan(columns=None if columns is None else list(columns), predicate=predicate)
            return pa.RecordBatchReader.from_stream(found)
        except DeltaError as error:
            raise RejoinError(f"{table}: {' '.join(str(error).split())}") from None

    def dates(self, table: str, column: str = "event_date") -> list[str]:
        return sorted({partition[column] for partition in self._open(table).partitions()})

    def appended_after(self, table: str, version: int) -> tuple[int, int]:
        found = self._open(table)
        commits = found.history(limit=found.version() - version) if found.version() > version else []
        return _appended(commit.get("operationMetrics") for commit in commits)

    def columns(self, table: str) -> list[str]:
        return [field.name for field in self._open(table).schema().fields]

    def count(self, table: str) -> int:
        return self._open(table).count()

    def _open(self, table: str) -> "DeltaTable":
        found = self._find(table)
        if found is None:
            raise RejoinError(f"{self.location}/{table}: no such table yet")
        return found

    def _find(self, table: str) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if table not in self._tables:
            try:
                self._tables[table] = DeltaTable(f"{self.location}/{table}")
            except TableNotFoundError:
                self._tables[table] = None
        return self._tables[table]


class SparkReader:
    """Tables of a catalog, or wherever else Spark reads them."""

    def __init__(self, lake: "Lake") -> None:
        self.lake = lake

    @property
    def location(self) -> str:
        return self.lake.root

    def exists(self, table: str) -> bool:
        return self.lake.exists(table)

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: str | Sequence[Condition] = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        from pyspark.errors import AnalysisException, ParseException
        from pyspark.sql import functions as F

        self.lake.require(table)
        rows = self.lake.read(table)
        try:
            if isinstance(where, str):
                rows = rows.where(where)
            else:
                for name, operator, value in where:
                    column = F.col(f"`{name}`")
                    tests = {"=": column.__eq__, ">=": column.__ge__, "<=": column.__le__, "in": column.isin}
                    rows = rows.where(tests[operator](value))
            rows = rows if columns is None else rows.select(*(f"`{name}`" for name in columns))
            return (rows if limit is None else rows.limit(limit)).toArrow().to_reader()
        except (AnalysisException, ParseException) as error:
            raise RejoinError(f"{table}: {str(error).strip().splitlines()[0]}") from None

    def dates(self, table: str, column: str = "event_date") -> list[str]:
        return sorted(str(row[0]) for row in self.lake.read(table).select(column).distinct().collect())

    def appended_after(self, table: str, version: int) -> tuple[int, int]:
        return _appended(commit.metrics for commit in self.lake.commits(table, version))

    def columns(self, table: str) -> list[str]:
        return self.lake.columns(table)

    def count(self, table: str) -> int:
        return self.lake.read(table).count()


def _appended(metrics: Iterable[Mapping[str, str] | None]) -> tuple[int, int]:
    known = [each or {} for each in metrics]
    return sum(int(m.get("numFiles", 0)) for m in known), sum(int(m.get("numOutputBytes", 0)) for m in known)


def _sql(condition: Condition) -> str:
    name, operator, value = condition
    if operator == "in":
        return f"`{name}` IN ({', '.join(map(_literal, value)) or 'NULL'})"
    return f"`{name}` {operator} {_literal(value)}"


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat()}'"
    if isinstance(value, str | date):
        return "'" + str(value).replace("'", "''") + "'"
    return str(value)
