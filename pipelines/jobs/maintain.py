"""Maintain: compact partitions that are final, remove files that no version needs, keep logs as long as was configured."""

from collections.abc import Iterator

from pipelines.control.store import prune, read_facts
from pipelines.lake.compaction import closed_event_dates_before, compact_closed
from pipelines.lake.tables import Lake
from pipelines.model.durations import format_duration
from pipelines.session import set_within

# `pipelines.lake.history` tells from that whether older versions can still be read.
_IN_THE_LOG = {"spark.databricks.delta.vacuum.logging.enabled": "true"}


def maintain(lake: Lake) -> Iterator[str]:
    """Give tables that were made by another configuration, or an earlier version, the properties of new ones; OPTIMIZE what is
    closed (`pipelines.lake.compaction`), then VACUUM; a line for each table.

    None of that changes a row, so readers and streams go on meanwhile.
    """
    facts = read_facts(lake)
    closed_before = closed_event_dates_before(facts.horizon)
    if facts.rows:
        prune(lake, facts)
    for table in lake.tables:
        if not lake.exists(table):
            continue
        changed = "".join(f"; {name} set" for name in lake.set_properties(table))
        removed, added = compact_closed(lake, table, closed_before)
        with set_within(lake.spark, {**_as_many_tasks_as_a_shuffle(lake), **_IN_THE_LOG}):
            lake.spark.sql(f"VACUUM {lake.identifier(table)}")
        kept = format_duration(lake.file_retention(table))
        yield f"{table}: {removed} files into {added}; vacuumed, keeping {kept}{changed}"


def _as_many_tasks_as_a_shuffle(lake: Lake) -> dict[str, str]:
    """VACUUM lists a table's directories in 10,000 tasks, however few there are: half a minute a table on two cores."""
    partitions = lake.spark.conf.get("spark.sql.shuffle.partitions") or ""
    return {"spark.sql.sources.parallelPartitionDiscovery.parallelism": partitions} if partitions.isdigit() else {}
