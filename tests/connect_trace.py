"""A small trace through every stage over a real Spark Connect server, and through the notebooks.

A program of its own, for a process has either classic Spark or Connect. Prints, as JSON, the module of its session, the tables,
and what the stages and notebooks said.
"""

import _thread
import contextlib
import io
import json
import os
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import DataFrame, SparkSession
from tenacity import retry, retry_if_exception_message, stop_after_attempt

from pipelines.jobs.backfill import backfill
from pipelines.jobs.run import run_all
from pipelines.lake.reader import open_reader
from pipelines.session import spark_session
from tests.builders import play, shown
from tests.replay import Replay

ROOT = Path(__file__).parent.parent
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


class Widgets:
    """Stands in for a Databricks workspace's `dbutils`, which cannot exist here: values that a job passes."""

    def __init__(self, **values: str) -> None:
        self.values, self.widgets = values, self

    def text(self, name: str, default: str) -> None:
        self.values.setdefault(name, default)

    def dropdown(self, name: str, default: str, choices: list[str]) -> None:
        assert default in choices
        self.values.setdefault(name, default)

    def get(self, name: str) -> str:
        return self.values[name]


def notebook(name: str, **values: str) -> str:
    """Run a notebook's cells; what it printed and displayed."""
    shown = io.StringIO()

    def display(frame: DataFrame) -> None:
        print(frame.toPandas().to_string())

    scope: dict[str, Any] = {"dbutils": Widgets(**values), "display": display, "displayHTML": print}
    with contextlib.redirect_stdout(shown):
        for cell in (ROOT / "notebooks" / f"{name}.py").read_text().split("# COMMAND ----------"):
            exec(compile(cell, name, "exec"), scope)
    return shown.getvalue()


def run_until(pipeline: Replay, outcomes: int) -> None:
    """`rejoin run`, stopped as by Ctrl-C once so many outcomes have a row."""

    def watch() -> None:
        while open_reader(pipeline.config, lambda: pipeline.lake).count(pipeline.lake.attributed) < outcomes:
            time.sleep(0.5)
        _thread.interrupt_main()

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        PATIENTLY(run_all)(pipeline.lake, pipeline.config)


def through_the_stages(spark: SparkSession, root: Path) -> dict[str, Any]:
    pipeline = Replay(spark, root, ["trigger.every=1s"])
    pipeline.land("impressions", IMPRESSIONS[0])
    pipeline.land("playbacks", [*PLAYBACKS[0], "nonsense"])
    PATIENTLY(pipeline.ingest)()
    PATIENTLY(pipeline.join)()
    pipeline.settle()
    pipeline.land("impressions", IMPRESSIONS[1])
    pipeline.land("playbacks", [*PLAYBACKS[1], "nonsense"])
    run_until(pipeline, outcomes=5)
    pipeline.settle(everything=True)
    report = pipeline.reconcile()
    relanded, lanes = pipeline.reland("playbacks").rows, {id: lane for id, (_, lane) in pipeline.answers().items()}
    backfilled = list(backfill(pipeline.lake, pipeline.config, date(2026, 1, 10), None))
    log = pipeline.lake.newest_commits(pipeline.lake.attributed)
    commits = [json.loads(commit.metadata) for commit in log if commit.metadata]
    return {
        "verdict": report.verdict,
        "counts": report.counts,
        "relanded": relanded,
        "backfilled": backfilled,
        "lanes": lanes,
        "quarantined": len(pipeline.rows("quarantine")),
        "ingest": len(pipeline.rows("ledger", "query LIKE 'ingest:%' AND rows_in > 0")),
        "commits": commits,
        "table": pipeline.attributed(),
    }


def through_the_notebooks(spark: SparkSession, root: Path) -> dict[str, Any]:
    pipeline = Replay(spark, root)
    sources = [f"streams.{name}.source.path={root}/landing/{name}" for name in ("impressions", "playbacks")]
    given = {"set": "\n".join([f"lake={root}/lake", *sources])}
    pipeline.land("impressions", [event for wave in IMPRESSIONS for event in wave])
    pipeline.land("playbacks", [*(event for wave in PLAYBACKS for event in wave), "nonsense"])
    said = {"run": PATIENTLY(notebook)("run", **given)}
    said["settle_and_reconcile"] = notebook("settle_and_reconcile", **given)
    said["explore"] = notebook("explore", **given)
    said["explain"] = notebook("explain", **given, outcome_id="q")
    said["quarantine_and_reland"] = notebook("quarantine_and_reland", **given, reland="yes")
    return {"said": said, "table": pipeline.attributed()}


def main(root: Path) -> None:
    os.environ["SPARK_HOME"] = home_without_zip(root.with_name("spark"))
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # The server starts workers for `foreachBatch`, which import this checkout.
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["SPARK_REMOTE"] = "local[2]"  # as where somebody else has made the session
    builder = SparkSession.builder.remote("local[2]")
    for name, value in SERVER.items():
        builder = builder.config(name, value)
    builder.getOrCreate()
    spark = spark_session()
    done = {"session": type(spark).__module__, "stages": through_the_stages(spark, root / "stages")}
    done["notebooks"] = through_the_notebooks(spark, root / "notebooks")
    print(json.dumps(done))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
