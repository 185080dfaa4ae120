"""A small trace through every stage over a real Spark Connect server, which is what serverless compute is.

A program of its own, for a process has either classic Spark or Connect. Prints, as JSON, the module of its session, the table,
and what the stages said.
"""

import json
import os
import sys
from datetime import date
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession
from tenacity import retry, retry_if_exception_message, stop_after_attempt

from pipelines.jobs.backfill import backfill
from pipelines.session import spark_session
from tests.builders import play, shown
from tests.replay import Replay

SERVER = {
    "spark.jars": ",".join(map(str, sorted((Path(sys.prefix) / "rejoin-jars").glob("*.jar")))),
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
}
IMPRESSIONS = [
    [shown("a", "10:00"), shown("b", "12:00"), shown("x", "14:00", who="bob")],
    [shown("late", "10:03"), shown("c", "16:00")],
]
PLAYBACKS = [[play("p", "10:05"), play("q", "12:50"), play("r", "14:00", who="cleo")], [play("old", "12:10"), play("s", "16:05")]]


def home_without_zip(root: Path) -> str:
    """Spark as installed, but for the zip of PySpark, which each worker would compile anew: on a busy machine that takes longer
    than the ten seconds that Spark waits for a worker."""
    installed = Path(pyspark.__file__).parent
    root.mkdir(parents=True)
    for part in installed.iterdir():
        if part.name != "python":
            (root / part.name).symlink_to(part)
    return str(root)


# Spark waits ten seconds for a worker, whatever else the machine does; a start that fails so has begun nothing.
PATIENTLY = retry(
    retry=retry_if_exception_message(match=r"(?s).*failed to connect back"), stop=stop_after_attempt(5), reraise=True
)


def main(root: Path) -> None:
    os.environ["SPARK_HOME"] = home_without_zip(root.with_name("spark"))
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # The server starts workers for `foreachBatch`, which import this checkout.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    os.environ["SPARK_REMOTE"] = "local[2]"  # as where somebody else has made the session
    builder = SparkSession.builder.remote("local[2]")
    for name, value in SERVER.items():
        builder = builder.config(name, value)
    builder.getOrCreate()
    spark = spark_session()
    pipeline = Replay(spark, root)
    for impressions, playbacks in zip(IMPRESSIONS, PLAYBACKS, strict=True):
        pipeline.land("impressions", impressions)
        pipeline.land("playbacks", [*playbacks, "nonsense"])
        PATIENTLY(pipeline.ingest)()
        PATIENTLY(pipeline.join)()
        pipeline.settle()
    pipeline.settle(everything=True)
    report = pipeline.reconcile()
    relanded, lanes = pipeline.reland("playbacks").rows, {id: lane for id, (_, lane) in pipeline.answers().items()}
    backfilled = list(backfill(pipeline.lake, pipeline.config, date(2026, 1, 10), None))
    said = {
        "session": type(spark).__module__,
        "verdict": report.verdict,
        "counts": report.counts,
        "relanded": relanded,
        "backfilled": backfilled,
        "lanes": lanes,
        "quarantined": len(pipeline.rows("quarantine")),
        "table": pipeline.attributed(),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
