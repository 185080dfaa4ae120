"""The lake's own history of reconciliations: runs, rows that differed, rows that were repaired and why."""

import json
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from pipelines.lake.tables import Lake
from pipelines.model.schemas import DIFFS_SCHEMA, RECONCILIATIONS_SCHEMA
from pipelines.reconcile.result import Reconciliation

_RUNS_SHOWN = 60


def past_reports(lake: Lake) -> list[dict[str, Any]]:
    """The reports of the latest runs, without samples, the latest last."""
    if not lake.exists("reconciliations"):
        return []
    rows = lake.read("reconciliations").orderBy(F.desc("finished_at")).limit(_RUNS_SHOWN).select("summary").collect()
    return [json.loads(row["summary"]) for row in reversed(rows)]


def reported() -> list[Column]:
    """Select from differing rows with their causes (see `causes.with_causes`) what is reported; `event_time` in microseconds."""
    return [
        F.col("class"),
        F.col("cause"),
        F.col("detail"),
        F.col("outcome_id").cast("string").alias("outcome_id"),
        F.unix_micros("event_time").alias("event_time"),
        F.concat_ws(",", "columns").alias("columns"),
        F.to_json("stream_row").alias("stream_row"),
        F.to_json("batch_row").alias("batch_row"),
    ]


def record_repairs(lake: Lake, run_id: str, explained: DataFrame) -> None:
    """Append every row that is about to be repaired, and why, to `reconciliation_diffs`. Before the repair: a run that is killed
    in between leaves a row too many, not one too few."""
    lake.ensure("reconciliation_diffs")
    _append_diffs(lake, run_id, explained.where("counts").select(*reported()), repaired=True)


def write_history(lake: Lake, run: Reconciliation, report: dict[str, Any], page: Path) -> None:
    """Append the run to `reconciliations`, and its sample of rows that were not repaired to `reconciliation_diffs`."""
    lake.ensure("reconciliations", "reconciliation_diffs")
    summary = json.dumps({k: v for k, v in report.items() if k not in ("sample", "earlier_runs")}, sort_keys=True, default=str)
    times = run.started_us, run.finished_us
    row = (run.run_id, *times, run.range.first, run.range.last, run.verdict, run.repaired, str(page), summary)
    schema = "run_id string, started_at long, finished_at long, from_date date, to_date date, verdict string, repaired long"
    frame = lake.spark.createDataFrame([row], f"{schema}, report string, summary string")
    frame = frame.withColumns({name: F.timestamp_micros(name) for name in ("started_at", "finished_at")})
    frame = frame.withColumn("run_date", F.to_date("finished_at"))
    lake.append("reconciliations", frame.select(*RECONCILIATIONS_SCHEMA.names))
    if run.sample and not run.repaired:  # what was repaired has been written before
        names = ("class", "outcome_id", "event_time", "columns", "stream_row", "batch_row", "cause", "detail")
        types = StructType([StructField(n, LongType() if n == "event_time" else StringType()) for n in names])
        rows = lake.spark.createDataFrame([tuple(each[n] for n in names) for each in run.sample], types)
        _append_diffs(lake, run.run_id, rows, repaired=False)


def _append_diffs(lake: Lake, run_id: str, rows: DataFrame, *, repaired: bool) -> None:
    stamps = {"run_id": F.lit(run_id), "run_date": F.current_date(), "repaired": F.lit(repaired)}
    dated = rows.withColumns({"event_time": F.timestamp_micros("event_time"), **stamps})
    lake.append("reconciliation_diffs", dated.select(*DIFFS_SCHEMA.names))
