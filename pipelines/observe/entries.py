"""The ledger's recent entries as plain values, and the facts that it still holds for lakes without table `control`."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.control.facts import Fact, Facts
from pipelines.instants import EPOCH
from pipelines.observe.lag import BACKLOG, RECENT_US, Entry, Latest
from pipelines.observe.reader import Condition, TableReader, rows_of

DAYS = 30
"""How many days of runs, up to the last one, are looked at."""

_JSON = ("consumed", "durations_ms", "detail")
_COLUMNS = ("query", "batch", "started_at", "finished_at", "rows_in", "watermark", "horizon", "state_rows", *_JSON)


def last_days(reader: TableReader) -> list[Condition]:
    """A condition on the ledger: the last 30 days of runs."""
    newest = max(reader.dates("ledger", "run_date"), default="1970-01-31")
    return [("run_date", ">=", date.fromisoformat(newest) - timedelta(days=DAYS))]


def latest_and_recent(reader: TableReader, queries: Sequence[str]) -> tuple[Latest, dict[str, list[Entry]]]:
    """The latest entry of each query, None without one; and its recent ones (`pipelines.observe.lag`), the latest last."""
    days = last_days(reader)
    latest: dict[str, Entry | None] = dict.fromkeys(queries)
    recent: dict[str, list[Entry]] = {}
    for query in queries:
        of_query: Condition = ("query", "=", query)
        end = _greatest(reader, "finished_at", [*days, of_query])
        if end is not None:
            since = EPOCH + timedelta(microseconds=end - RECENT_US)
            wanted = [("run_date", ">=", since.date()), ("finished_at", ">=", since), of_query]
            entries = map(_decoded, rows_of(reader.scan("ledger", _COLUMNS, wanted)))
            recent[query] = sorted(entries, key=lambda entry: (entry["finished_at"], entry["batch"] or -1))
            latest[query] = recent[query][-1]
    return latest, recent


def read_facts(reader: TableReader, streams: Sequence[str], latest: Latest) -> Facts:
    """Horizon, settle position and accepted gaps, from the ledger."""
    horizon = _greatest(reader, "horizon", [*last_days(reader), ("query", "in", ["join", BACKLOG])])
    settled = latest.get("settle")
    facts = [] if horizon is None else [Fact(kind="horizon", event_time=horizon)]
    if settled is not None:
        facts.append(Fact(kind="settled", detail=settled["detail"]["settled"], at=settled["finished_at"]))
    gaps = {f"gap:{stream}": stream for stream in streams}
    for row in map(_decoded, rows_of(reader.scan("ledger", ["query", "finished_at", "detail"], [("query", "in", list(gaps))]))):
        facts.append(Fact(kind="gap", stream=gaps[row["query"]], detail=row["detail"], at=row["finished_at"]))
    return Facts(tuple(sorted(facts, key=lambda fact: fact.at)))


def _greatest(reader: TableReader, column: str, where: Sequence[Condition]) -> int | None:
    """The greatest of a column of times, in microseconds. Arrow's own timestamps import pandas: half a second."""
    found: int | None = pc.max(reader.scan("ledger", [column], where).read_all()[column].cast(pa.int64())).as_py()
    return found


def _decoded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.loads(value or "{}") if name in _JSON else value for name, value in row.items()}
