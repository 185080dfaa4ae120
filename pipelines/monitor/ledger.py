"""The ledger: what happened, one row per micro-batch of every query, append-only (DESIGN section 5).

For status, metrics and reports; no lane reads it. Times are UTC; durations are milliseconds; counts never include heartbeats.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from pipelines.lake.tables import Lake
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


class Observer(Protocol):
    """Is told of each entry as it is added, and of each turn of the lanes' loop."""

    def observe(self, entry: Entry) -> None: ...

    def turned(self) -> None: ...


class Ledger:
    """Gathers entries in the process and appends them once a minute and at a stop. Safe to use from several threads. No lane
    depends on it: an entry that is lost with its process is lost to status and reports alone."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.observers: list[Observer] = []
        self._lock = threading.Lock()
        self._gathered: list[Entry] = []
        self._flushed = time.monotonic()

    def add(self, *entries: Entry) -> None:
        with self._lock:
            self._gathered.extend(entries)
        for observer in self.observers:
            for entry in entries:
                observer.observe(entry)

    def tick(self) -> bool:
        """Append what has gathered where the last look is a minute ago; whether it was."""
        for observer in self.observers:
            observer.turned()
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


def _row_schema(names: Iterable[str]) -> StructType:
    text = ("query", "run_id", "consumed", "durations_ms", "detail")
    return StructType([StructField(n, StringType() if n in text else LongType()) for n in names])


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, Mapping) else value
