"""What both Spark peers start from: a local session, and the two topics' values as typed, plausible events."""

import os
import sys
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

SCHEMAS = {
    "impressions": (
        "impression_id STRING, event_time TIMESTAMP, profile_id STRING, title_id STRING, "
        "row_id STRING, position INT, device STRING, model_version STRING"
    ),
    "playbacks": (
        "playback_id STRING, event_time TIMESTAMP, profile_id STRING, title_id STRING, device STRING, seconds_watched INT"
    ),
}
IDS = {"impressions": "impression_id", "playbacks": "playback_id"}
CARRIED = ("row_id", "position", "device", "model_version")
_CORRUPT = "corrupt"


def local_session(name: str, memory: str, settings: dict[str, str]) -> SparkSession:
    """A session on two cores and loopback, in UTC, with Delta and the JARs that scripts/setup fetched; tuned as Rejoin's own."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    folder = Path(os.environ.get("REJOIN_JARS") or Path(sys.prefix) / "rejoin-jars")
    log4j = Path(__file__).with_name("log4j2.properties")
    conf = {
        "spark.driver.memory": memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j.as_uri()} -XX:+UseParallelGC",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.jars": ",".join(str(file) for file in sorted(folder.glob("*.jar"))),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        **settings,
    }
    builder = SparkSession.builder.appName(name).master("local[2]")
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def kafka_options(bootstrap: str, topic: str) -> dict[str, str]:
    return {"kafka.bootstrap.servers": bootstrap, "subscribe": topic, "startingOffsets": "earliest"}


def events(records: DataFrame, topic: str) -> DataFrame:
    """The columns of SCHEMAS of each Kafka record that is an event; other records are left out.

    Left out are what is no JSON object or has a value of another type (an object for text too), no id, no readable time, or a
    time more than five minutes after the record was written, which would move the watermark.
    """
    parsed = F.from_json(
        F.col("value").cast("string"),
        f"{SCHEMAS[topic]}, {_CORRUPT} STRING",
        {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT},
    )
    # Unnested by `inline`: a filter above it is not pushed below, where it would parse each record once more.
    rows = records.select("timestamp", F.inline(F.array(parsed)))
    return rows.where(_is_event(topic)).drop("timestamp", _CORRUPT)


def _is_event(topic: str) -> Column:
    known = F.col(IDS[topic]).isNotNull() & F.col("event_time").isNotNull() & F.col(_CORRUPT).isNull()
    plausible = F.col("event_time") <= F.col("timestamp") + F.expr("INTERVAL 5 MINUTES")
    last = F.col("model_version" if topic == "impressions" else "device")
    return known & plausible & ~F.coalesce(last.startswith("{"), F.lit(False))
