"""Plain Spark 4.2: a stream-stream left outer join over the whole attribution window, Kafka to Delta, trigger availableNow.

    python benchmarks/peers/spark_stream_join.py --bootstrap HOST:PORT --window-hours 6 --out DIR --checkpoint DIR
        [--delay-minutes 10] [--max-offsets 1000000]

Reads from the earliest offset to the one that is the latest at start, and appends every matching pair to the Delta table `--out`
(not partitioned): choosing the last touch is left to who reads it, and so are duplicates of playbacks. That is less work than
Rejoin does. Events behind the watermark are dropped. Playbacks without a match come out once the watermark has passed them, so
those at the very end, within `--delay-minutes` of it, do not: Spark does not move the watermark to the end when a source is
exhausted. Both count as lost.

Settings, as the Structured Streaming Programming Guide ("RocksDB state store implementation") advises or offers: RocksDB with
changelog checkpoints, so that a commit writes what has changed only, and without the exact count of rows, which costs a look-up
for each write. Its block cache is 64 MiB instead of 8 for each store, of which there are eight. Two shuffle partitions for two
cores. A micro-batch reads `--max-offsets` records over both topics, to each its share of the backlog, so that both advance alike
in event time: large ones, as each scans the whole state once to evict from it.

The last line is JSON. `seconds` is from the start of the query to its end, without the start of Spark and without the counting
of state, which is done afterwards. `state_rows` is how many rows both sides held after the micro-batch that left most behind
(Spark's own count is 0 with tracking off): the checkpoint of that micro-batch is counted with the statestore data source, which
finds it as long as there are no more than 100 micro-batches. `state_bytes` is the most that all RocksDB instances held in memory
and in files after a micro-batch, as the progress reports it: caches and what is deleted but not yet compacted included.
"""

import argparse
import json
import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress
from spark_events import CARRIED, events, kafka_options, local_session

SETTINGS = {
    "spark.sql.streaming.stateStore.providerClass": ("org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"),
    "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.streaming.stateStore.rocksdb.blockCacheSizeMB": "64",
    "spark.sql.streaming.multipleWatermarkPolicy": "min",
    "spark.sql.streaming.numRecentProgressUpdates": "100000",
}


def backlog(bootstrap: str, topic: str) -> int:
    """Records in the topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "spark-stream-join", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30) for p in partitions]
    finally:
        consumer.close()
    return sum(last - first for first, last in ends)


def shares(backlogs: dict[str, int], max_offsets: int) -> dict[str, int]:
    """Of each topic, how many records a micro-batch reads, so that both last for the same number of them."""
    return {topic: max(1, round(max_offsets * count / max(1, sum(backlogs.values())))) for topic, count in backlogs.items()}


def stream(spark: SparkSession, bootstrap: str, topic: str, max_offsets: int) -> DataFrame:
    options = {**kafka_options(bootstrap, topic), "maxOffsetsPerTrigger": str(max_offsets)}
    return events(spark.readStream.format("kafka").options(**options).load(), topic)


def pairs(playbacks: DataFrame, impressions: DataFrame, window_hours: float, delay_minutes: float) -> DataFrame:
    """Every playback with every impression in the window before it, both ends inclusive, or with none."""
    delay = f"{round(delay_minutes * 60)} seconds"
    plays = playbacks.withWatermark("event_time", delay)
    shown = impressions.select(
        F.col("profile_id").alias("shown_to"),
        F.col("title_id").alias("shown_title"),
        F.col("event_time").alias("exposure_time"),
        F.col("impression_id").alias("exposure_id"),
        *(F.col(c).alias(f"exposure_{c}") for c in CARRIED),
    ).withWatermark("exposure_time", delay)
    matches = F.expr(f"""
        shown_to = profile_id AND shown_title = title_id AND exposure_time <= event_time
        AND exposure_time >= event_time - INTERVAL {round(window_hours * 3600)} SECONDS
    """)
    return plays.join(shown, matches, "leftOuter").drop("shown_to", "shown_title")


def fullest(batches: list[StreamingQueryProgress]) -> int | None:
    """The micro-batch after which the state held most impressions; None where there was none.

    What was put in and not taken out, less the playbacks: Spark counts them when they are put in, but, of a left outer join,
    not when they are taken out.
    """
    held, most, batch = 0, -1, None
    for progress in batches:
        operator = progress.stateOperators[0]
        played = sum(source.numInputRows for source in progress.sources if "[playbacks]" in source.description)
        held += operator.numRowsUpdated - operator.numRowsRemoved - played
        if held > most:
            most, batch = held, progress.batchId
    return batch


def rows_at(spark: SparkSession, checkpoint: Path, batch: int | None) -> int:
    """Rows in the state of both sides of the join after this micro-batch."""
    if batch is None:
        return 0
    reader = spark.read.format("statestore").option("batchId", batch)
    return sum(reader.option("joinSide", side).load(str(checkpoint)).count() for side in ("left", "right"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--window-hours", type=float, default=6)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--checkpoint", type=Path, required=True)
    arguments.add_argument("--delay-minutes", type=float, default=10)
    arguments.add_argument("--max-offsets", type=int, default=1_000_000, help="records of a micro-batch, of both topics")
    arguments.add_argument("--memory", default="3g")
    options = arguments.parse_args()
    spark = local_session("spark-stream-join", options.memory, SETTINGS)
    limits = shares({t: backlog(options.bootstrap, t) for t in ("playbacks", "impressions")}, options.max_offsets)
    sides = [stream(spark, options.bootstrap, topic, limit) for topic, limit in limits.items()]
    joined = pairs(*sides, options.window_hours, options.delay_minutes)
    writer = joined.writeStream.format("delta").outputMode("append").trigger(availableNow=True)
    clock = time.monotonic()
    query = writer.option("checkpointLocation", str(options.checkpoint)).start(str(options.out))
    query.awaitTermination()
    stopped = time.monotonic()
    seconds = stopped - clock
    batches = [progress for progress in query.recentProgress if progress.stateOperators]
    operators = [progress.stateOperators[0] for progress in batches]
    figures = {
        "state_rows": rows_at(spark, options.checkpoint, fullest(batches)),
        "state_bytes": max((o.memoryUsedBytes + o.customMetrics["rocksdbSstFileSize"] for o in operators), default=0),
        "dropped_by_watermark": sum(o.numRowsDroppedByWatermark for o in operators),
        "batches": len(batches),
        "seconds": round(seconds, 2),
    }
    spark.stop()
    print(json.dumps({**figures, "after_seconds": round(time.monotonic() - stopped, 2)}))


if __name__ == "__main__":
    main()
