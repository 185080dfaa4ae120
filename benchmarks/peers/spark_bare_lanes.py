"""Plain Spark 4.2: three streaming queries in one application, Kafka to Delta to an attributed Delta table, until stopped.

    python benchmarks/peers/spark_bare_lanes.py --bootstrap HOST:PORT --lake DIR [--topic-prefix P] [--conf KEY=VALUE ...]

1. and 2. Each topic is parsed with `from_json` and appended to a Delta table that is partitioned by event date.
3. Both tables are read as streams and joined (stream-stream left outer, over the hot window), and each micro-batch is merged into
   the attributed table: one row for each playback, with its last touch.

This is what a pipeline costs without bookkeeping: nothing is validated, quarantined, counted or settled. Events behind the
watermark are lost, and so are impressions before the hot window. Triggers and session settings are Rejoin's own
(pipelines/session.py, conf/playback.yml), and so are the JARs. A playback may match in more than one micro-batch: the later touch
wins in the MERGE. The source of the MERGE is persisted, as the Structured Streaming Programming Guide advises for a micro-batch
that is read more than once ("Using Foreach and ForeachBatch"), and the table has deletion vectors, as Delta's guide advises for
MERGE.
"""

import argparse
import os
import signal
import threading
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery
from spark_events import CARRIED, SCHEMAS, kafka_options, local_session

WATERMARK_DELAY = "10 minutes"
HOT_WINDOW = "30 MINUTES"
TRIGGER = "10 seconds"
SETTINGS = {
    "spark.master": "local[*]",
    "spark.sql.shuffle.partitions": str(min(16, max(2, os.cpu_count() or 2))),
    "spark.sql.codegen.cache.maxEntries": "2000",
    "spark.scheduler.mode": "FAIR",
    "spark.sql.streaming.stateStore.providerClass": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "spark.sql.streaming.statefulOperator.allowMultiple": "false",
    "spark.sql.streaming.multipleWatermarkPolicy": "min",
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
}
EXPOSURE = (
    "exposure_id STRING, exposure_time TIMESTAMP, "
    "exposure_row_id STRING, exposure_position INT, exposure_device STRING, exposure_model_version STRING"
)


def create_table(spark: SparkSession, path: Path, columns: str, properties: str = "") -> None:
    spark.sql(f"CREATE TABLE IF NOT EXISTS delta.`{path}` ({columns}, event_date DATE) USING delta "
              f"PARTITIONED BY (event_date) {properties}")  # fmt: skip


def land(spark: SparkSession, bootstrap: str, prefix: str, stream: str, lake: Path) -> StreamingQuery:
    records = spark.readStream.format("kafka").options(**kafka_options(bootstrap, prefix + stream)).load()
    event = F.from_json(F.col("value").cast("string"), SCHEMAS[stream]).alias("event")
    rows = records.select(event).select("event.*").withColumn("event_date", F.to_date("event_time"))
    writer = rows.writeStream.format("delta").queryName(stream).outputMode("append").trigger(processingTime=TRIGGER)
    return writer.option("checkpointLocation", str(lake / "_checkpoints" / stream)).start(str(lake / stream))


def attribute(spark: SparkSession, lake: Path) -> StreamingQuery:
    plays = spark.readStream.format("delta").load(str(lake / "playbacks")).withWatermark("event_time", WATERMARK_DELAY)
    shown = spark.readStream.format("delta").load(str(lake / "impressions")).select(
        F.col("profile_id").alias("shown_to"),
        F.col("title_id").alias("shown_title"),
        F.col("impression_id").alias("exposure_id"),
        F.col("event_time").alias("exposure_time"),
        *(F.col(c).alias(f"exposure_{c}") for c in CARRIED),
    ).withWatermark("exposure_time", WATERMARK_DELAY)  # fmt: skip
    matches = F.expr(f"""
        shown_to = profile_id AND shown_title = title_id AND exposure_time <= event_time
        AND exposure_time >= event_time - INTERVAL {HOT_WINDOW}
    """)
    pairs = plays.join(shown, matches, "leftOuter").drop("shown_to", "shown_title")
    last = Window.partitionBy("playback_id").orderBy(F.desc_nulls_last("exposure_time"), F.desc("exposure_id"))

    def merge(batch: DataFrame, _: int) -> None:
        touches = batch.withColumn("place", F.row_number().over(last)).where("place = 1").drop("place").persist()
        touches.createOrReplaceTempView("touches")
        touches.sparkSession.sql(f"""
            MERGE INTO delta.`{lake / "attributed_playbacks"}` t USING touches s
            ON t.event_date = s.event_date AND t.playback_id = s.playback_id
            WHEN MATCHED AND s.exposure_time IS NOT NULL
              AND (t.exposure_time IS NULL OR s.exposure_time > t.exposure_time) THEN UPDATE SET *
            WHEN NOT MATCHED THEN INSERT *
        """)
        touches.unpersist()

    writer = pairs.writeStream.queryName("join").foreachBatch(merge).trigger(processingTime=TRIGGER)
    return writer.option("checkpointLocation", str(lake / "_checkpoints" / "join")).start()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--lake", type=lambda p: Path(p).absolute(), required=True)
    arguments.add_argument("--topic-prefix", default="")
    arguments.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="settings of the session")
    arguments.add_argument("--memory", default="3g")
    options = arguments.parse_args()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    spark = local_session("bare-lanes", options.memory, {**SETTINGS, **dict(each.split("=", 1) for each in options.conf)})
    for stream, columns in SCHEMAS.items():
        create_table(spark, options.lake / stream, columns)
    merged = "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    create_table(spark, options.lake / "attributed_playbacks", f"{SCHEMAS['playbacks']}, {EXPOSURE}", merged)
    queries = [land(spark, options.bootstrap, options.topic_prefix, stream, options.lake) for stream in SCHEMAS]
    queries.append(attribute(spark, options.lake))
    while not stopped.wait(1) and all(query.isActive for query in queries):
        pass
    failures = [query.exception() for query in queries if not query.isActive]
    for query in queries:
        query.stop()
    spark.stop()
    if failures:
        raise SystemExit(f"a query has stopped: {failures[0]}")


if __name__ == "__main__":
    main()
