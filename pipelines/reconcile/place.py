"""Rows of bronze that stand in a partition that is not their event time's, and bringing them back.

Nobody finds an event there: the join and batch read the partitions in which an event can matter.
"""

from pyspark.sql import functions as F

from pipelines.events import EventStream
from pipelines.lake import Lake, conflict_retries
from pipelines.reconcile.commits import mending, on_dates
from pipelines.reconcile.span import Range


def misplaced(lake: Lake, stream: EventStream, span: Range) -> int:
    """How many rows of bronze are of the dates by their event time or by their partition, and stand in another partition than
    they belong in."""
    rows, wrong = lake.read(stream.name), ~F.expr(stream.is_placed())
    within = span.holds(F.col("event_date"))
    found = rows.where(within & wrong).count()
    # By the event time itself, so that the table's statistics tell which files can have any.
    return found if span.is_open else found + rows.where(~within & wrong & span.holds_time(F.col(stream.event_time))).count()


def bring_back(lake: Lake, stream: EventStream) -> int:
    """Move all such rows, of whatever dates, to where they belong, in one commit; how many they were."""
    wrong = f"NOT ({stream.is_placed()})"
    found = lake.read(stream.name).where(wrong).select(F.col("event_date").cast("string")).distinct().collect()
    dates = [row[0] for row in found]
    if not dates:
        return 0
    settings = ", ".join(f"`{name}` = {value}" for name, value in stream.partition_sql().items())
    statement = f"UPDATE {lake.identifier(stream.name)} SET {settings} WHERE {on_dates(dates)} AND {wrong}"
    with mending(lake, stream.name, {"placed": True}, dates=dates, changes_answers=True):
        for attempt in conflict_retries():
            with attempt:
                changed = lake.spark.sql(statement).collect()[0]["num_affected_rows"]
    return int(changed)
