"""The ledger's recent entries, as plain values."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.reader import Condition, TableReader, rows_of
from pipelines.model.time import EPOCH
from pipelines.monitor.lag import RECENT_US, Entry

DAYS = 7
"""How many days of runs, up to the last one, are looked at."""

_JSON = ("consumed", "durations_ms", "detail")
_COLUMNS = ("query", "batch", "started_at", "finished_at", "rows_in", "watermark", "horizon", "state_rows", *_JSON)


def last_days(reader: TableReader) -> list[Condition]:
    """A condition on the ledger: the last 7 days of runs."""
    newest = max(reader.dates("ledger", "run_date"), default="1970-01-31")
    return [("run_date", ">=", date.fromisoformat(newest) - timedelta(days=DAYS))]


def latest_and_recent(reader: TableReader, queries: Sequence[str]) -> tuple[dict[str, Entry | None], dict[str, list[Entry]]]:
    """The latest entry of each query, None without one; and its recent ones (`pipelines.monitor.lag`), the latest last."""
    days = last_days(reader)
    latest: dict[str, Entry | None] = dict.fromkeys(queries)
    recent: dict[str, list[Entry]] = {}
    for query in queries:
        of_query: Condition = ("query", "=", query)
        # Arrow's own timestamps would import pandas: half a second.
        ends = reader.scan("ledger", ["finished_at"], [*days, of_query]).read_all()["finished_at"].cast(pa.int64())
        end = pc.max(ends).as_py()
        if end is not None:
            since = EPOCH + timedelta(microseconds=end - RECENT_US)
            wanted = [("run_date", ">=", since.date()), ("finished_at", ">=", since), of_query]
            entries = map(_decoded, rows_of(reader.scan("ledger", _COLUMNS, wanted)))
            recent[query] = sorted(entries, key=lambda entry: (entry["finished_at"], entry["batch"] or -1))
            latest[query] = recent[query][-1]
    return latest, recent


def last_reconciliation(reader: TableReader) -> dict[str, Any] | None:
    """Verdict, end (microseconds) and report of the last one; None before the first."""
    if not reader.exists("reconciliations"):
        return None
    runs = rows_of(reader.scan("reconciliations", ["verdict", "finished_at", "report"]))
    return max(runs, key=lambda run: int(run["finished_at"]), default=None)


def _decoded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.loads(value or "{}") if name in _JSON else value for name, value in row.items()}
