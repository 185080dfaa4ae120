"""Heartbeats: how far a stream has come, told where no row tells it.

A heartbeat of value H (an event time) and version v for a stream says: every row of it with `event_time <= H` that the door
takes for on time is in bronze at or below version v. There are two kinds:

- `idle`, written by the door of a stream that has fallen silent, so that it does not hold the other one back. From then on
  the door itself counts it: what comes after and lies at or below H is late (`pipelines.ingest.idle`).
- `feed:<run>`, written by the join's driver for one run of its query, once that has read bronze up to v, or together with
  that (`pipelines.join.heartbeats`). Only these reach the join's watermark; those of a run that died reach no other.

They live in a table of their own in the lake's `_rejoin` area; no view, count or export that a user reads has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import functions as F

from pipelines.instants import now_us
from pipelines.lake import Lake
from pipelines.schemas import HEARTBEATS_SCHEMA


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """`value` in microseconds since the epoch; `kind` is `idle` or what `feed_kind` says."""

    stream: str
    kind: str
    value: int
    version: int


def write_heartbeats(lake: Lake, beats: Sequence[Heartbeat]) -> None:
    """Append in one commit; it is durable when this returns."""
    if not beats:
        return
    rows = [(beat.stream, beat.kind, beat.value, beat.version, now_us()) for beat in beats]
    frame = lake.spark.createDataFrame(rows, "stream string, kind string, event_time long, bronze_version long, created_at long")
    for name in ("event_time", "created_at"):
        frame = frame.withColumn(name, F.timestamp_micros(name))
    lake.append("heartbeats", frame.select(*HEARTBEATS_SCHEMA.names))


def promised(lake: Lake, stream: str) -> int | None:
    """The greatest value of any heartbeat of the stream: what its door must never fall below again."""
    beats = lake.read("heartbeats").where(F.col("stream") == stream)
    value = beats.select(F.unix_micros(F.max("event_time"))).collect()[0][0]
    return None if value is None else int(value)


def feed_kind(run: str) -> str:
    """The kind of the heartbeats that are meant for one run of the join."""
    return f"feed:{run}"


def latest_idle(lake: Lake) -> dict[str, Heartbeat]:
    """The greatest idle heartbeat of each stream that has any."""
    idle = lake.read("heartbeats").where("kind = 'idle'")
    greatest = idle.groupBy("stream").agg(F.max(F.struct(F.unix_micros("event_time").alias("value"), "bronze_version")))
    return {
        stream: Heartbeat(stream=stream, kind="idle", value=best["value"], version=best["bronze_version"])
        for stream, best in greatest.collect()
    }
