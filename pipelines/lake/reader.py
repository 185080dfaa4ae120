"""Read tables as Arrow: those of a local lake through delta-rs, without a JVM; others through Spark.

Both readers answer the same. Times are UTC with microseconds. Row order is not guaranteed.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.streams import table_names
from pipelines.model.errors import RejoinError, first_line
from pipelines.model.paths import is_local

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.lake.tables import Lake

# Of an error of delta-rs, or of Spark: what it came through, and how it says that there is no such column.
_LAYERS = re.compile(
    r"^(?:Generic \w* ?error: |(?:C Data interface|Arrow|Error during planning)(?: error)?: |(?:\S+ )*?caused by )+"
)
_ARROW_ERROR = re.compile(r'ArrowError\((\w+)(?:\("([^"]*)"\))?')
_NO_COLUMN = re.compile(r"No field named (\S+)\.(?: |$)|\[UNRESOLVED_COLUMN\S*\].* with name (\S+) cannot be resolved")

Condition = tuple[str, str, Any]
"""A column, one of `=`, `<=`, `>=`, `in`, and a value of the column's type (`in`: a list of them); null never satisfies one."""
Where = str | Sequence[Condition]
"""Conditions that all hold; or one of the user's, in the engine's SQL."""

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
        where: Where = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """The rows that satisfy all conditions, or a condition of the user's (`--where`) in the engine's SQL.

        `limit` says that the caller reads no more rows than that; more may come. Raises RejoinError, also while rows are read,
        where the condition cannot be evaluated, or a file cannot be read.
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
    return local_reader(config, *tables) or SparkReader(lake())


def local_reader(config: Config, *tables: str) -> "LocalReader | None":
    """As `open_reader`, and None where that needs Spark."""
    location = "" if config.lake_is_catalog else resolve(config.lake, "lake").rstrip("/")
    if not location or not is_local(location):
        return None
    local = LocalReader(str(Path(location).absolute()))
    return local if all(local.can_read(table) for table in tables or table_names(config)) else None


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
        where: Where = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        predicate = f"({where})" if isinstance(where, str) else " AND ".join(map(_sql, where)) or None
        opened = self._open(table)
        with _told(self, table, where), _unheard() if isinstance(where, str) else nullcontext():
            found = opened.scan(columns=None if columns is None else list(columns), predicate=predicate)
            rows = pa.RecordBatchReader.from_stream(found)
        return pa.RecordBatchReader.from_batches(rows.schema, self._read(rows, table, where))

    def _read(self, rows: pa.RecordBatchReader, table: str, where: Where) -> Iterator[pa.RecordBatch]:
        with _told(self, table, where):
            yield from rows

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
        where: Where = (),
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        from pyspark.sql import functions as F

        self.lake.require(table)
        rows = self.lake.read(table)
        with _told(self, table, where, first_line):
            if isinstance(where, str):
                rows = rows.where(where)
            else:
                for name, operator, value in where:
                    column = F.col(f"`{name}`")
                    tests = {"=": column.__eq__, ">=": column.__ge__, "<=": column.__le__, "in": column.isin}
                    rows = rows.where(tests[operator](value))
            rows = rows if columns is None else rows.select(*(f"`{name}`" for name in columns))
            return (rows if limit is None else rows.limit(limit)).toArrow().to_reader()

    def dates(self, table: str, column: str = "event_date") -> list[str]:
        return sorted(str(row[0]) for row in self.lake.read(table).select(column).distinct().collect())

    def appended_after(self, table: str, version: int) -> tuple[int, int]:
        return _appended(commit.metrics for commit in self.lake.commits(table, version))

    def columns(self, table: str) -> list[str]:
        return self.lake.columns(table)

    def count(self, table: str) -> int:
        return self.lake.read(table).count()


@contextmanager
def _told(reader: TableReader, table: str, where: Where, said: Callable[[BaseException], str] = str) -> Iterator[None]:
    """Within, an engine's error becomes a RejoinError of one line. delta-rs panics at what it has not implemented, such as a
    subquery, which is no Exception."""
    try:
        yield
    except (RejoinError, GeneratorExit, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = _reason(said(error)) if isinstance(error, Exception) else "delta-rs does not have all of SQL, e.g. no subquery"
        if reason.startswith("no column "):
            reason += f"; there are {', '.join(reader.columns(table))}"
        raise RejoinError(f"{f'--where {where}: ' if isinstance(where, str) else ''}{table}: {reason}") from error


@contextmanager
def _unheard() -> Iterator[None]:
    """Within, nothing reaches stderr: a panic of delta-rs is printed before it is raised."""
    saved = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _reason(said: str) -> str:
    """What an engine says, without the layers that it came through and the stack that it may append.

    >>> _reason("Generic DeltaTable error: Schema error: No field named nope.\\nValid fields are a, b.")
    'no column nope'
    >>> _reason("Generic error: sql parser error: Expected: ), found: EOF")
    'sql parser error: Expected: ), found: EOF'
    """
    text = _LAYERS.sub("", " ".join(said.partition("backtrace:")[0].split()))
    if column := _NO_COLUMN.search(text):
        return f"no column {(column[1] or column[2]).replace('`', '')}"
    if arrow := _ARROW_ERROR.search(text):
        return arrow[2] or arrow[1]
    return text


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
