"""Data files of a Delta table that its log names and that are gone, and rewriting event dates without them, in one commit."""

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from datetime import date
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame

from pipelines.lake.retry import conflict_retries, is_overtaken
from pipelines.lake.tables import Lake
from pipelines.model.errors import LakeError
from pipelines.session import set_within

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_IGNORE_MISSING = "spark.sql.files.ignoreMissingFiles"
_COUNT_BY_LOG = "spark.databricks.delta.optimizeMetadataQuery.enabled"


def gone_files(lake: Lake, table: str) -> tuple[str, ...]:
    """List the data files of a table's latest version that are not where its log has them; paths as the log has them, decoded."""
    depth = len(lake.partitions(table)) + 1
    needed = {_within_table(unquote(path), depth): unquote(path) for path in lake.read(table).inputFiles()}
    if not needed:
        return ()
    listed = lake.listed(lake.location(table), "*.parquet").collect()
    there = {_within_table(unquote(row["path"]), depth) for row in listed}
    return tuple(sorted(path for name, path in needed.items() if name not in there))


def _within_table(path: str, depth: int) -> str:
    """A data file's partitions and name, in whatever directory the table is."""
    return "/".join(path.split("/")[-depth:])


def dates_of(files: Collection[str]) -> set[date]:
    """The event dates (partitions) of data files."""
    parts = (part for name in files for part in PurePosixPath(name).parts)
    return {date.fromisoformat(part.split("=", 1)[1]) for part in parts if part.startswith("event_date=")}


def reading_around(lake: Lake, gone: Collection[str]) -> AbstractContextManager[None]:
    """Within, tables are read without the missing data files, if any are known to be `gone`. A setting of the session."""
    return set_within(lake.spark, {_IGNORE_MISSING: "true"} if gone else {})


def unreadable_rows(lake: Lake, table: str, gone: Collection[str]) -> int:
    """The rows that the log counts in the table and that its data files no longer have."""
    if not gone:
        return 0
    counts = []
    with reading_around(lake, gone):
        for by_log in ("true", "false"):
            with set_within(lake.spark, {_COUNT_BY_LOG: by_log}):
                counts.append(lake.read(table).count())
    return max(0, counts[0] - counts[1])


def commit_as(lake: Lake, key: str, details: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Within, commits carry `details` as user metadata under a key (`pipelines.lake.history`). A setting of the session."""
    return set_within(lake.spark, {USER_METADATA: json.dumps({key: details}, sort_keys=True)})


def on_dates(dates: Collection[date], prefix: str = "") -> str:
    """SQL that restricts a commit to the partitions of these event dates, so that appends elsewhere do not conflict with it."""
    listed = ", ".join(f"DATE'{each}'" for each in sorted(dates))
    return f"{prefix}event_date IN ({listed})"


def rewrite_dates(
    lake: Lake, table: str, dates: Collection[date], rows: Callable[[DataFrame], DataFrame] = lambda kept: kept
) -> None:
    """Replace event dates by `rows` of what can be read of them, in one commit; its log no longer names files that are gone.

    `rows` may be called several times. Raises LakeError where events land on these dates too fast for any such commit.
    """
    where = on_dates(dates)
    try:
        with set_within(lake.spark, {_IGNORE_MISSING: "true"}):
            for attempt in conflict_retries():
                with attempt:
                    # Read within the transaction that replaces it: an append meanwhile is a conflict, and not lost.
                    kept = rows(lake.read(table).where(where))
                    lake.save(kept.write.format("delta").mode("overwrite").option("replaceWhere", where), table)
    except Exception as error:  # the class differs between classic Spark and Connect
        if not is_overtaken(error):
            raise
        raise LakeError(
            f"{table}: {', '.join(map(str, sorted(dates)))} cannot be rewritten while events land there all the time; stop "
            "`rejoin ingest` meanwhile, or try again when the date is over"
        ) from error
