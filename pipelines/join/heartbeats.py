"""Moving the join's watermark where no further row does: heartbeats.

A heartbeat of value H for a stream says: every on-time row of it with `event_time <= H` is in bronze at or below a version that
the join has read. It must not reach the join before those rows: they would be at or below the watermark, and dropped. A watermark
moves at the end of a micro-batch, so it is enough that the rows are read in the heartbeat's own micro-batch at the latest.

Heartbeats are files in the directory of one run of the join: no table, no user and no other run sees them, and they go with it.
"""

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession

_ROW = "stream string, at long"


def open_heartbeats(spark: SparkSession, directory: str) -> DataFrame:
    """The heartbeats of a run as a stream: `stream`, and `at`, the value in microseconds since the epoch."""
    return spark.readStream.schema(_ROW).json(directory)


def write_heartbeats(spark: SparkSession, directory: str, values: Mapping[str, int]) -> None:
    """Write a value for each of some streams, durably; of none, so that the directory is there."""
    rows = spark.createDataFrame(list(values.items()), _ROW)
    rows.coalesce(1).write.mode("append").json(directory)
