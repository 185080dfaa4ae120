"""What a run found, as the frames that the suites of expectations look at, and the thresholds that they refer to."""

from datetime import date

import pandas as pd

from pipelines.config.model import Config
from pipelines.reconcile.compare.diff import HourSummary
from pipelines.reconcile.result import Reconciliation

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
    }


def frames(run: Reconciliation) -> dict[str, pd.DataFrame]:
    """By suite: `summary` of one row, `bronze` a row a stream, `attributed` a row an hour (times UTC)."""
    bronze = ("stream", "accepted", "late", "files", "ingested", "quarantine_rate")
    hours = ("event_date", "hour", "batch_rows", "table_rows", "differences", "unattributed")
    attributed = [{**{name: getattr(hour, name) for name in hours}, "fullness": _fullness(hour)} for hour in run.hours]
    return {
        "summary": pd.DataFrame([_summary(run)]),
        "bronze": pd.DataFrame([{name: getattr(audit, name) for name in bronze} for audit in run.audits]),
        "attributed": pd.DataFrame(attributed, columns=[*hours, "fullness"]),
    }


def _summary(run: Reconciliation) -> dict[str, float]:
    return {
        "landed": run.books.landed,
        "unbalanced": run.books.unbalanced,
        "table_rows": sum(hour.table_rows for hour in run.hours),
        "differences": run.differences,
        "unexplained": run.causes.get("unknown", 0),
        "quarantine_rate": max(audit.quarantine_rate for audit in run.audits),
        "files_ingested_twice": sum(audit.files_ingested_twice for audit in run.audits),
        "files_without_rows": sum(audit.files_without_rows for audit in run.audits),
        "files_unreadable": sum(audit.files_unreadable for audit in run.audits),
        "files_changed": sum(audit.files_changed for audit in run.audits),
        "rows_misplaced": sum(audit.rows_misplaced for audit in run.audits),
        "data_files_gone": run.table_files_gone + sum(len(audit.gone) for audit in run.audits),
        "foreign_commits": sum(len(audit.history.foreign) for audit in run.audits),
        "dates_empty": _dates_empty(run.hours),
        "offsets_missing": sum(audit.offsets.missing for audit in run.audits),
        "offsets_unproven": sum(audit.offsets.unproven + audit.offsets.unasked for audit in run.audits),
        "offsets_ingested_twice": sum(audit.offsets.twice for audit in run.audits),
    }


def _dates_empty(hours: list[HourSummary]) -> int:
    """The dates between the first and the last with outcomes that have none, on either side."""
    dates = {date.fromisoformat(hour.event_date) for hour in hours}
    return (max(dates) - min(dates)).days + 1 - len(dates) if dates else 0


def _fullness(hour: HourSummary) -> float:
    """The smaller side as a share of the greater; a single row too many or too few is a difference, and not this."""
    smaller, greater = sorted((hour.batch_rows, hour.table_rows))
    return smaller / greater if greater >= _ENOUGH_FOR_A_SHARE else 1.0
