"""The watermark of the join follows those that bronze's rows met at ingest, and never drops a row that was on time there.

Why it cannot (the argument; DESIGN section 3.2 asks for it). Write W(c) for the watermark that commit c of a stream met at
ingest. An on-time row of commit c has `event_time > W(c)`, and W never falls from one commit to the next. Each side of the
join carries two watermark definitions:

- on `door_watermark`, delay 0: its value after any number of rows is the W of the latest commit of which a row has been
  read, whether the commit was read whole or in part;
- on `event_time`, delay 0: it marks the column by which Spark filters late rows and bounds the state. It is always ahead of
  the other.

Spark's watermark is the least of all definitions of both sides. So while any row of commit c is unread it is at most W(c),
and the row's event time is above it. However commits are split over micro-batches, and however many one holds, no row is
late.

The price is one commit of delay: the last commit's own maximum moves the watermark when the next one comes. Heartbeats
(`pipelines.join.heartbeats`) pay it where there is no next one.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    NumericType,
    StringType,
    TimestampType,
)

from pipelines.model.events import EventStream

_EPOCH = "TIMESTAMP'1970-01-01 00:00:00'"
_NEVER = "TIMESTAMP'0001-01-02 00:00:00'"


def on_time_rows(bronze: DataFrame, heartbeats: DataFrame, stream: EventStream) -> DataFrame:
    """A stream's on-time rows with the watermark that they met, which heartbeats of that stream (`pipelines.join.heartbeats`)
    move where no row comes. Columns: the stream's own."""
    beats = heartbeats.where(F.col("stream") == stream.name).withColumn("event_time", F.timestamp_micros("at"))
    return with_door_watermark(bronze.where("NOT late"), beats, stream)


def with_door_watermark(bronze: DataFrame, heartbeats: DataFrame, stream: EventStream) -> DataFrame:
    """Union heartbeats in, define both watermarks, take the heartbeats out again. Columns: the stream's own."""
    data = bronze.select(
        *(F.col(f.name) for f in stream.schema),
        F.coalesce("door_watermark", F.expr(_EPOCH)).alias("__door"),
        F.lit(False).alias("__heartbeat"),
    )
    beats = heartbeats.select(
        *(_heartbeat_value(stream, f.name, f.dataType) for f in stream.schema),
        F.col("event_time").alias("__door"),
        F.lit(True).alias("__heartbeat"),
    )
    marked = data.unionByName(beats).withWatermark("__door", "0 seconds").withWatermark(stream.event_time, "0 seconds")
    # The filter names the event time although no row has that one: Spark pushes a filter that does not through the
    # watermark, where it would remove the heartbeats before they are seen.
    data_only = marked.where(~F.col("__heartbeat") | (F.col(stream.event_time) < F.expr(_NEVER)))
    return data_only.select(*(F.col(f.name) for f in stream.schema))


def _heartbeat_value(stream: EventStream, name: str, kind: DataType) -> Column:
    if name == stream.event_time:
        return F.col("event_time").alias(name)
    if name in stream.keys:
        # Not null, or the join's own `key IS NOT NULL`, pushed down, would remove heartbeats too; but of a type that may be null.
        # Where bronze has nothing new, Spark leaves it out of the union, and a key that is never null reads keys in the state
        # that are null.
        return F.when(F.col("stream") != "", _any_value(kind).cast(kind)).alias(name)
    return F.lit(None).cast(kind).alias(name)


def _any_value(kind: DataType) -> Column:
    if isinstance(kind, StringType):
        return F.lit("")
    if isinstance(kind, NumericType):
        return F.lit(0)
    if isinstance(kind, BooleanType):
        return F.lit(False)
    if isinstance(kind, DateType | TimestampType):
        return F.expr(_EPOCH)
    return F.from_json(F.lit("[]" if kind.typeName() == "array" else "{}"), kind.simpleString())
