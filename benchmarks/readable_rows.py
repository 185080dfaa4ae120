"""When the rows of a Delta table became readable.

The log of the table is read as JSON and its files by DuckDB: neither Spark nor Rejoin takes part in the measurement.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import duckdb


class ReadableRows:
    """The rows with an exposure of an attributed table: `read` looks at the log entries that are new since its last call."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.found: dict[str, float] = {}
        self._seen: set[str] = set()

    def read(self) -> dict[str, float]:
        """By playback, the modification time (seconds) of the first log entry that adds a file with its row."""
        for entry in sorted((self.table / "_delta_log").glob("*.json")):
            if entry.name in self._seen:
                continue
            self._seen.add(entry.name)
            actions = [json.loads(line) for line in entry.read_text().splitlines()]
            files = [self.table / unquote(action["add"]["path"]) for action in actions if "add" in action]
            names = [str(file) for file in files if file.is_file()]
            if names:
                at = entry.stat().st_mtime
                query = "SELECT playback_id FROM read_parquet(?) WHERE exposure_id IS NOT NULL"
                for (key,) in duckdb.execute(query, [names]).fetchall():
                    self.found.setdefault(key, at)
        return self.found


def percentiles(delays: list[float]) -> dict[str, float]:
    """Median, 90 %, 99 % and maximum of two or more delays, in seconds."""
    cuts = statistics.quantiles(delays, n=100)
    return {
        "median": round(cuts[49], 2),
        "p90": round(cuts[89], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(delays), 2),
    }


def all_readable(keys: set[str], rows: ReadableRows) -> Callable[[], bool]:
    return lambda: keys <= rows.read().keys()
