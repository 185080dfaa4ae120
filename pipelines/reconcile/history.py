"""The lake's own history of reconciliations: runs, rows that differed, rows that were repaired and why."""

import json
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.lake import Lake
from pipelines.schemas import DIFFS_SCHEMA

_RUNS_SHOWN = 60
ALL_DATES = "from_date IS NULL AND to_date IS NULL"
"""Of rows of `reconciliations`: the run was over every date."""


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """What a run found; shares are of the outcomes in the table, and of the accepted events of both streams. None: not told."""

    run_id: str
    finished_at: str
    verdict: str
    differences: int
    unattributed_share: float | None
    late_share: float | None


def earlier_runs(lake: Lake) -> list[EarlierRun]:
    """The latest runs of the lake's history, the latest last."""
    if not lake.exists("reconciliations"):
        return []
    rows = lake.read("reconciliations").orderBy(F.desc("finished_at")).limit(_RUNS_SHOWN).select("summary").collect()
    return [_run(json.loads(row["summary"])) for row in reversed(rows)]


def last_agreeing(lake: Lake, condition: str) -> dict[str, Any] | None:
    """The summary of the last run that agreed in the end, with `started_us`; of those, no samples, for which a condition on
    `reconciliations` holds."""
    if not lake.exists("reconciliations"):
        return None
    runs = lake.read("reconciliations").where("verdict IN ('agrees', 'repaired')").where(condition)
    runs = runs.where("get_json_object(summary, '$.sampled') IS NULL")  # a sample says little of dates
    found = runs.orderBy(F.desc("finished_at")).limit(1).select("summary", F.unix_micros("started_at").alias("at")).collect()
    return {**json.loads(found[0]["summary"]), "started_us": found[0]["at"]} if found else None


def as_told() -> list[Column]:
    """Of differing rows with their causes (see `causes.with_causes`): what is told of each, `event_time` in microseconds."""
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
    in between leaves a word too many, not one too few."""
    lake.ensure("reconciliation_diffs")
    told = explained.where("counts").select(*as_told()).withColumn("repaired", F.lit(True))
    _append(lake, run_id, told)


def record_sample(lake: Lake, run_id: str, rows: DataFrame) -> None:
    """Append differing rows (columns of `as_told`) that stay as they are."""
    _append(lake, run_id, rows.withColumn("repaired", F.lit(False)))


def _append(lake: Lake, run_id: str, rows: DataFrame) -> None:
    dated = rows.withColumn("event_time", F.timestamp_micros("event_time")).withColumn("run_id", F.lit(run_id))
    dated = dated.withColumn("run_date", F.current_date())
    lake.append("reconciliation_diffs", dated.select(*DIFFS_SCHEMA.names))


def _run(summary: dict[str, Any]) -> EarlierRun:
    rows, accepted = sum(h["table_rows"] for h in summary["hours"]), sum(d["accepted"] for d in summary["door"])
    return EarlierRun(
        run_id=summary["run_id"],
        finished_at=summary["finished_at"],
        verdict=summary["verdict"],
        differences=summary["differences"],
        unattributed_share=summary["account"]["unattributed"] / rows if rows else None,
        late_share=sum(d["late"] for d in summary["door"]) / accepted if accepted else None,
    )
