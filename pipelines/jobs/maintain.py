"""Maintain: compact partitions that are final, remove files that no version needs, keep logs as long as was configured."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from pipelines.durations import format_duration
from pipelines.join.state import superseded
from pipelines.lake import Lake
from pipelines.observe.ledger import Ledger
from pipelines.session import set_within

# `pipelines.tablelog` tells from that whether older versions can still be read.
_IN_THE_LOG = {"spark.databricks.delta.vacuum.logging.enabled": "true"}


def maintain(lake: Lake) -> Iterator[str]:
    """Give tables that were made by another configuration, or an earlier version, the properties of new ones; OPTIMIZE partitions
    before the horizon's date (all of the ledger's before today), then VACUUM; a line for each table.

    None of that changes a row, so readers and streams go on meanwhile.
    """
    closed = _closed_before(lake)
    for table in lake.tables:
        if not lake.exists(table):
            continue
        changed = _changed(lake, table)
        name, column = lake.identifier(table), _partition_column(lake, table)
        removed = added = 0
        if closed or column != "event_date":
            until = closed if column == "event_date" else f"{datetime.now(timezone.utc):%Y-%m-%d}"
            metrics = lake.spark.sql(f"OPTIMIZE {name} WHERE {column} < DATE'{until}'").collect()[0]["metrics"]
            removed, added = metrics["numFilesRemoved"], metrics["numFilesAdded"]
        with set_within(lake.spark, {**_as_many_tasks_as_a_shuffle(lake), **_IN_THE_LOG}):
            lake.spark.sql(f"VACUUM {name}")
        kept = format_duration(lake.file_retention(table))
        yield f"{table}: {removed} files into {added}; vacuumed, keeping {kept}{changed}"
    if lake.exists("heartbeats") and (changed := _changed(lake, "heartbeats")):
        yield f"heartbeats{changed.replace(';', ':', 1)}"
    yield from _drop_superseded_checkpoints(lake)


def _changed(lake: Lake, table: str) -> str:
    return "".join(f"; {name} set" for name in lake.set_properties(table))


def _as_many_tasks_as_a_shuffle(lake: Lake) -> dict[str, str]:
    """VACUUM lists a table's directories in 10,000 tasks, however few there are: half a minute a table on two cores."""
    partitions = lake.spark.conf.get("spark.sql.shuffle.partitions") or ""
    return {"spark.sql.sources.parallelPartitionDiscovery.parallelism": partitions} if partitions.isdigit() else {}


def _drop_superseded_checkpoints(lake: Lake) -> Iterator[str]:
    """The join's checkpoints of configurations that are no longer in force, where they are on a local disk."""
    old = [Path(path) for path in superseded(lake)] if lake.exists("ledger") and "://" not in lake.checkpoints else []
    for path in old:
        if path.is_dir():
            shutil.rmtree(path)
            yield f"checkpoint {path.name}: removed, the join goes on from another"


def _closed_before(lake: Lake) -> str | None:
    """The date of the horizon: earlier event dates get late rows only."""
    horizon = Ledger(lake).horizon() if lake.exists("ledger") else None
    return None if horizon is None else f"{datetime.fromtimestamp(horizon / 1e6, tz=timezone.utc):%Y-%m-%d}"


def _partition_column(lake: Lake, table: str) -> str:
    if table in (lake.attributed, *(stream.name for stream in lake.streams.both)):
        return "event_date"
    return "ingest_date" if table == "quarantine" else "run_date"
