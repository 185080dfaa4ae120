"""What a run found, as the frames that the suites of expectations look at, and the thresholds that they refer to."""

from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from pipelines.config import Config
from pipelines.reconcile.diff import HourSummary

if TYPE_CHECKING:
    from pipelines.reconcile.run import Reconciliation

# Of fewer rows than these a few are half.
_ENOUGH_FOR_A_SHARE = 20


def parameters(config: Config) -> dict[str, float | None]:
    """The `$PARAMETER`s of conf/expectations."""
    limits = config.reconcile.expectations
    return {
        "min_outcomes": limits.min_outcomes,
        "max_differences": config.reconcile.tolerances.max_differences,
        "quarantine_rate_warn": limits.quarantine_rate.warn,
        "quarantine_rate_fail": limits.quarantine_rate.fail,
        "unchecked_changes_fail": 0 if limits.unchecked_changes == "fail" else None,
        "volume_warn": limits.volume.warn,
        "volume_fail": limits.volume.fail,
    }


def frames(run: "Reconciliation") -> dict[str, pd.DataFrame]:
    """By suite: `summary` of one row, `bronze` a row a stream and hour, `attributed` a row an hour (times UTC)."""
    bronze = [
        {"stream": v.stream, "event_date": v.event_date, "hour": v.hour, "rows": v.rows, "late": v.late, "volume": v.volume}
        for v in run.volumes
    ]
    attributed = [
        {
            "event_date": hour.event_date,
            "hour": hour.hour,
            "batch_rows": hour.batch_rows,
            "table_rows": hour.table_rows,
            "differences": hour.differences,
            "unattributed": hour.unattributed,
            "fullness": _fullness(hour),
        }
        for hour in run.hours
    ]
    return {
        "summary": pd.DataFrame([_summary(run)]),
        "bronze": pd.DataFrame(bronze, columns=["stream", "event_date", "hour", "rows", "late", "volume"]).astype(
            {"volume": float}
        ),
        "attributed": pd.DataFrame(
            attributed,
            columns=["event_date", "hour", "batch_rows", "table_rows", "differences", "unattributed", "fullness"],
        ),
    }


def _summary(run: "Reconciliation") -> dict[str, float]:
    return {
        "landed": run.account.landed,
        "unbalanced": run.account.unbalanced,
        "table_rows": sum(hour.table_rows for hour in run.hours),
        "differences": run.differences,
        "unexplained": run.causes.get("unknown", 0),
        "quarantine_rate": max(door.quarantine_rate for door in run.doors),
        "files_ingested_twice": sum(door.files_ingested_twice for door in run.doors),
        "rows_copied": sum(door.rows_copied for door in run.doors),
        "rows_unsourced": sum(door.rows_unsourced for door in run.doors),
        "rows_misplaced": sum(door.rows_misplaced for door in run.doors),
        "rows_lost": sum(door.rows_lost for door in run.doors),
        "data_files_gone": run.table_files_gone + sum(door.data_files_gone for door in run.doors),
        "unchecked_changes": run.unchecked_changes,
        "dates_empty": _dates_empty(run),
        "offsets_missing": sum(door.offsets.missing for door in run.doors),
        "offsets_ingested_twice": sum(door.offsets.twice for door in run.doors),
    }


def _dates_empty(run: "Reconciliation") -> int:
    """The dates between the first and the last with outcomes that have none, on either side."""
    if run.sampled:
        return 0  # nobody knows
    dates = {date.fromisoformat(hour.event_date) for hour in run.hours}
    return (max(dates) - min(dates)).days + 1 - len(dates) if dates else 0


def _fullness(hour: HourSummary) -> float:
    """The smaller side as a share of the greater; a single row too many or too few is a difference, and not this."""
    smaller, greater = sorted((hour.batch_rows, hour.table_rows))
    return smaller / greater if greater >= _ENOUGH_FOR_A_SHARE else 1.0
