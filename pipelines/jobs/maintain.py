"""Maintain: compact partitions that are final, remove files that no version needs, keep logs as long as was configured."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.compaction import closed_event_dates_before, compact_closed
from pipelines.durations import format_duration
from pipelines.join.state import superseded
from pipelines.lake import Lake
from pipelines.session import set_within

# `pipelines.tablelog` tells from that whether older versions can still be read.
_IN_THE_LOG = {"spark.databricks.delta.vacuum.logging.enabled": "true"}


def maintain(lake: Lake) -> Iterator[str]:
    """Give tables that were made by another configuration, or an earlier version, the properties of new ones; OPTIMIZE what is
    closed (`pipelines.compaction`), then VACUUM; a line for each table.

    None of that changes a row, so readers and streams go on meanwhile.
    """
    closed_before = closed_event_dates_before(lake)
    for table in lake.all_tables:
        if not lake.exists(table):
            continue
        changed = "".join(f"; {name} set" for name in lake.set_properties(table))
        removed, added = compact_closed(lake, table, closed_before)
        with set_within(lake.spark, {**_as_many_tasks_as_a_shuffle(lake), **_IN_THE_LOG}):
            lake.spark.sql(f"VACUUM {lake.identifier(table)}")
        kept = format_duration(lake.file_retention(table))
        yield f"{table}: {removed} files into {added}; vacuumed, keeping {kept}{changed}"
    yield from _drop_superseded_checkpoints(lake)


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
