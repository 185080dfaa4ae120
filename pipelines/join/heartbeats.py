"""Heartbeats tell the join's watermark how far each stream has come when no further row does.

A heartbeat of value H for a stream says: every row of that stream with `event_time <= H` that the door took for on time is in
bronze at or below `bronze_version`. It holds for `H = greatest event time as of that version - watermark_delay`, since every
later commit meets a watermark at the door of at least H.

It must not reach the join before those rows do. A micro-batch takes all that bronze holds, bronze's version is pinned before
the heartbeat is written, and a watermark moves only at the end of a micro-batch: so the rows are read in the heartbeat's own
micro-batch at the latest. Heartbeats live in a table of their own, inside the lake's `_rejoin` area; no view, count or export
that a user reads has them.
"""

from datetime import timedelta

from pyspark.sql import functions as F

from pipelines.durations import micros
from pipelines.instants import now_us
from pipelines.lake import HEARTBEATS_SCHEMA, Lake


def feed(lake: Lake, watermark_delay: timedelta) -> bool:
    """Write a heartbeat for each stream, of how far its bronze has come; False while one of them is empty."""
    rows = []
    for stream in lake.streams.both:
        version = lake.version(stream.name)
        newest = lake.max_event_time(stream, version)
        if newest is None:
            return False
        rows.append((stream.name, "feed", newest - micros(watermark_delay), version, now_us()))
    frame = lake.spark.createDataFrame(rows, "stream string, kind string, event_time long, bronze_version long, created_at long")
    for name in ("event_time", "created_at"):
        frame = frame.withColumn(name, F.timestamp_micros(name))
    lake.append("heartbeats", frame.select(*HEARTBEATS_SCHEMA.names))
    return True
