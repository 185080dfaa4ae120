"""Small files put together. A micro-batch leaves a file in each table that it writes, and who reads a date opens all of them: the
join's MERGE those of its outcomes' dates, settle the ledger's.

OPTIMIZE changes no row. Streams pass over its commits, and older versions keep their files until VACUUM. A MERGE that it
overtakes is tried again by the sink.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import structlog

from pipelines.lake.retry import conflict_retries, is_overtaken
from pipelines.lake.tables import Lake
from pipelines.model.errors import first_line, is_interrupted
from pipelines.session import set_within

# Of dates that are still written to, files from 16 MiB on are left as they are (unless many of their rows have been replaced), so
# that no byte is written again each time. By night, closed dates are put together for good.
_OF_OPEN_DATES = {
    "spark.databricks.delta.optimize.minFileSize": str(16 * 2**20),
    "spark.databricks.delta.optimize.maxFileSize": str(128 * 2**20),
}

log = structlog.get_logger()


class Compacted(NamedTuple):
    removed: int
    added: int


@dataclass(kw_only=True)
class Compaction:
    """Compacts what is open every so often, between other work; never where that is 0."""

    lake: Lake
    horizon: Callable[[], int | None]
    every: timedelta
    _last: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        if self.every and time.monotonic() - self._last >= self.every.total_seconds():
            self._last = time.monotonic()
            compact_open(self.lake, self.horizon())


def compact_open(lake: Lake, horizon: int | None) -> dict[str, Compacted]:
    """Compact the partitions that are not `compact_closed`'s; by table, those that exist. A table that does not let itself be
    compacted is left as it is, with a warning: what reads it is slower, and no lane ends for that. So is one in which another
    writer was first, until the next time."""
    closed_before, done = closed_event_dates_before(horizon), {}
    for table in filter(lake.exists, lake.tables):
        column, bound = _bound(lake, table, closed_before)
        try:
            with set_within(lake.spark, _OF_OPEN_DATES):
                done[table] = _optimize(lake, table, f"WHERE {column} >= DATE'{bound}'" if column and bound else "")
        except Exception as error:  # the class differs between classic Spark and Connect
            if is_interrupted(error):
                raise
            if not is_overtaken(error):
                log.warning("small files cannot be put together", table=table, reason=first_line(error))
    return done


def compact_closed(lake: Lake, table: str, closed_before: str | None) -> Compacted:
    """Compact the partitions of a table that get late rows only: event dates before `closed_before`, other dates before today
    (UTC). All of a table without partitions."""
    column, bound = _bound(lake, table, closed_before)
    if column and bound is None:
        return Compacted(0, 0)
    for attempt in conflict_retries():
        with attempt:
            done = _optimize(lake, table, f"WHERE {column} < DATE'{bound}'" if column else "")
    return done


def closed_event_dates_before(horizon: int | None) -> str | None:
    """The date of the horizon (microseconds): earlier event dates get late rows only. None before there is one."""
    return None if horizon is None else f"{datetime.fromtimestamp(horizon / 1e6, tz=timezone.utc):%Y-%m-%d}"


def _bound(lake: Lake, table: str, closed_before: str | None) -> tuple[str | None, str | None]:
    """The date that a table is partitioned by, and the first one that is open."""
    column = next(iter(lake.partitions(table)), None)
    return column, closed_before if column == "event_date" else f"{datetime.now(timezone.utc):%Y-%m-%d}"


def _optimize(lake: Lake, table: str, where: str) -> Compacted:
    metrics = lake.spark.sql(f"OPTIMIZE {lake.identifier(table)} {where}").collect()[0]["metrics"]
    return Compacted(metrics["numFilesRemoved"], metrics["numFilesAdded"])
