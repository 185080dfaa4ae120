"""The ledger: what happened, one row per micro-batch of every query, append-only (DESIGN section 5).

For status, metrics and reports; no lane reads it. Times are UTC; durations are milliseconds; counts never include heartbeats.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from pipelines.lake.tables import Lake, at
from pipelines.model.schemas import LEDGER_SCHEMA
from pipelines.model.time import now_us

_EVERY_SECONDS = 60.0
_TIMES = ("started_at", "finished_at", "watermark", "horizon")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the ledger. Times are microseconds since the epoch; None where a figure does not apply to the query."""

    query: str
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    batch: int | None = None
    started_at: int | None = None
    finished_at: int = field(default_factory=now_us)
    consumed: Mapping[str, Any] = field(default_factory=dict)
    rows_in: int | None = None
    rows_out: int | None = None
    rows_late: int | None = None
    rows_quarantined: int | None = None
    rows_dropped_by_watermark: int | None = None
    watermark: int | None = None
    horizon: int | None = None
    state_rows: int | None = None
    state_bytes: int | None = None
    durations_ms: Mapping[str, int] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """Gathers entries in the process and appends them once a minute and at a stop; reads what is there. Safe to use from several
    threads. No lane depends on it: an entry that is lost with its process is lost to status and reports alone."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lock = threading.Lock()
        self._gathered: list[Entry] = []
        self._flushed = time.monotonic()

    def add(self, *entries: Entry) -> None:
        with self._lock:
            self._gathered.extend(entries)

    def tick(self) -> bool:
        """Append what has gathered where the last look is a minute ago; whether it was."""
        due = time.monotonic() - self._flushed >= _EVERY_SECONDS
        if due:
            self.flush()
        return due

    def flush(self) -> None:
        """Append what has gathered, in one commit."""
        with self._lock:
            entries, self._gathered = self._gathered, []
            self._flushed = time.monotonic()
        if not entries:
            return
        self.lake.ensure("ledger")
        names = [f.name for f in LEDGER_SCHEMA if f.name != "run_date"]
        rows = [tuple(_plain(getattr(entry, name)) for name in names) for entry in entries]
        frame = self.lake.spark.createDataFrame(rows, _row_schema(names))
        for name in _TIMES:
            frame = frame.withColumn(name, F.timestamp_micros(name))
        frame = frame.withColumn("run_date", F.to_date("finished_at")).coalesce(1)
        self.lake.append("ledger", frame.select(*LEDGER_SCHEMA.names))

    def entries(self, query: str, where: str = "true") -> list[dict[str, Any]]:
        """The entries of `query` that satisfy a SQL condition, as `last` gives them, the latest last."""
        rows = self.lake.read("ledger").where(F.col("query") == query).where(where)
        return _entries(rows, "finished_at", "run_id")

    def since(self, times: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
        """The entries of each query that finished after its time (microseconds), as `last` gives them, the latest last."""
        if not times:
            return {}
        wanted = [
            (F.col("query") == query) & (F.col("finished_at") > at(time)) & (F.col("run_date") >= F.to_date(at(time)))
            for query, time in times.items()
        ]
        found = _entries(self.lake.read("ledger").where(reduce(or_, wanted)), "finished_at", "batch")
        return {query: [entry for entry in found if entry["query"] == query] for query in times}

    def latest(self, queries: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """The latest entry of each query, as `last` gives it; None where it has none. One look for all."""
        entry, order = F.struct("*").alias("entry"), F.struct("finished_at", "batch").alias("order")
        rows = self.lake.read("ledger").where(F.col("query").isin(*queries)).select("query", entry, order)
        found = _entries(rows.groupBy("query").agg(F.max_by("entry", "order").alias("entry")).select("entry.*"))
        return {query: next((each for each in found if each["query"] == query), None) for query in queries}

    def last(self, query: str, run_id: str | None = None) -> dict[str, Any] | None:
        """The latest entry of `query` (of one checkpoint, if given), as a mapping; JSON decoded, times in microseconds."""
        rows = self.lake.read("ledger").where(F.col("query") == query)
        if run_id is not None:
            rows = rows.where(F.col("run_id") == run_id)
        found = _entries(rows.orderBy(F.desc("finished_at"), F.desc("batch")).limit(1))
        return found[0] if found else None


def _row_schema(names: Iterable[str]) -> StructType:
    text = ("query", "run_id", "consumed", "durations_ms", "detail")
    return StructType([StructField(n, StringType() if n in text else LongType()) for n in names])


def _entries(rows: DataFrame, *order: str) -> list[dict[str, Any]]:
    """Decoded; in the order of these columns, nulls first: they are few, and a sort in Spark would cost jobs of its own."""
    for name in _TIMES:
        rows = rows.withColumn(name, F.unix_micros(name))
    found = [_decoded(row.asDict()) for row in rows.collect()]
    return sorted(found, key=lambda entry: [(entry[name] is not None, entry[name]) for name in order])


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, Mapping) else value


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in ("consumed", "durations_ms", "detail") and v else v for k, v in row.items()}
