"""Commits of a table: those by which reconcile mends it, as it marks them, and those that no lane of Rejoin makes."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from pipelines.errors import LakeError
from pipelines.instants import iso
from pipelines.lake import Lake, is_overtaken
from pipelines.sink import user_metadata
from pipelines.tablelog import MENDED, NO_DATA_CHANGE, RELANDED


@dataclass(frozen=True, kw_only=True)
class ForeignCommit:
    """A commit that no lane makes; `told`: its version, operation, time and user."""

    version: int
    told: str


@contextmanager
def mending(
    lake: Lake, table: str, told: Mapping[str, Any], *, dates: Collection[str] = (), changes_answers: bool
) -> Iterator[None]:
    """Commits made within say that they mend a table. With `changes_answers` the answer may be another by them: nothing is held
    against an earlier version any more. Raises LakeError where events land on the `dates` that are read and written too fast for
    any such commit."""
    try:
        with user_metadata(lake.spark, {MENDED: told, **({RELANDED: True} if changes_answers else {})}):
            yield
    except Exception as error:  # the class differs between classic Spark and Connect
        if not is_overtaken(error):
            raise
        raise LakeError(
            f"{table}: {', '.join(sorted(dates)) or 'rows'} cannot be mended while events land there all the time; stop "
            "`rejoin ingest` for the repair, or repair when the date is over"
        ) from error


def on_dates(dates: Collection[str], prefix: str = "") -> str:
    """SQL that a commit reads and writes the partitions of these event dates only, so that appends elsewhere do not overtake
    it."""
    listed = ", ".join(f"DATE'{date}'" for date in sorted(dates))
    return f"{prefix}event_date IN ({listed})"


def dates_written_anew(lake: Lake, table: str) -> set[date]:
    """The event dates that reconcile has written anew (`mending`), as far back as the log tells."""
    mended = lake.history(table, 0).where(F.col("userMetadata").contains(MENDED)).select("userMetadata").collect()
    told = (json.loads(row["userMetadata"])[MENDED] for row in mended)
    return {date.fromisoformat(day) for each in told for day in each.get("dates", ())}


def foreign_commits(
    lake: Lake, table: str, *, after: int = 0, through: int, appends: bool, limit: int | None = None
) -> list[ForeignCommit]:
    """The commits in versions `after` (exclusive) to `through` (inclusive) that no lane of Rejoin makes, the latest first: lanes
    MERGE into the attributed table, and append to bronze (`appends`)."""
    if through <= after:
        return []
    history = lake.history(table, max(after, 0), through)
    own = F.col("operation").isin(*NO_DATA_CHANGE, "CREATE TABLE")
    mode = F.col("operationParameters").getItem("mode")
    if appends:
        own = own | F.coalesce(F.col("operation").isin("WRITE", "STREAMING UPDATE") & (mode == "Append"), F.lit(False))
    else:
        own = own | (F.col("operation") == "MERGE")
    own = own | F.coalesce(F.col("userMetadata").contains(MENDED), F.lit(False))
    rows = history.where(~own).select("version", "operation", "userName", F.unix_micros("timestamp").alias("at"))
    rows = rows.orderBy(F.desc("version"))
    return [
        ForeignCommit(
            version=r["version"], told=f"version {r['version']}, {r['operation']} at {iso(r['at'])}{_by(r['userName'])}"
        )
        for r in (rows if limit is None else rows.limit(limit)).collect()
    ]


def _by(user: str | None) -> str:
    return f" by {user}" if user else ""
