"""A reconciliation as JSON-ready data (docs/report.schema.json)."""

import json
from dataclasses import asdict
from typing import Any

from pipelines.model.time import iso
from pipelines.reconcile.compare.pins import NOTHING_FINAL
from pipelines.reconcile.result import Reconciliation

JSON_SCHEMA_VERSION = 2


def to_dict(run: Reconciliation) -> dict[str, Any]:
    """The report; times are ISO-8601 UTC. `schema_version` changes when a key changes its meaning or goes."""
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "run_id": run.run_id,
        "verdict": run.verdict,
        "sentence": verdict_sentence(run),
        "agrees": run.agrees,
        "started_at": iso(run.started_us),
        "finished_at": iso(run.finished_us),
        "dates": {"from": _text(run.range.first), "to": _text(run.range.last)},
        "judged_from": _text(run.judged_from),
        "streams": {"exposure": run.streams[0], "outcome": run.streams[1]},
        "pins": {**asdict(run.pins), "bound": bound(run)},
        "counts": run.counts,
        "differences": run.differences,
        "repaired": run.repaired,
        "repair_refused": run.refused,
        "findings": [asdict(finding) for finding in run.findings],
        "table_files_gone": run.table_files_gone,
        "table_files_dropped": run.table_files_dropped,
        "before_repair": run.before_repair,
        "causes": run.causes,
        "account": {**run.books.as_dict(), "unattributed": run.unattributed, "duplicates": run.duplicates},
        "hours": [{**asdict(hour), "differences": hour.differences} for hour in run.hours],
        "bronze": [audit.as_dict() for audit in run.audits],
        "expectations": [asdict(check) for check in run.checks],
        "lateness": run.lateness.as_dict(),
        "configuration": run.configuration,
        "versions": run.versions,
        "earlier_runs": [asdict(earlier) for earlier in run.earlier],
        "sample": [{**row, "event_time": iso(row["event_time"])} for row in run.sample],
    }


def to_json(run: Reconciliation) -> str:
    return json.dumps(to_dict(run), indent=2, sort_keys=True, default=str)


def bound(run: Reconciliation) -> str | None:
    """Up to when outcomes were compared; `nothing` where no horizon has been published yet."""
    return "nothing" if run.pins.bound == NOTHING_FINAL else iso(run.pins.bound)


def verdict_sentence(run: Reconciliation) -> str:
    rows = sum(hour.batch_rows for hour in run.hours)
    if run.differences:
        return f"{run.differences:,} of {rows:,} outcomes differ between the table and an independent batch computation"
    failed = [check.name for check in run.checks if check.failed]
    if failed:
        return f"no row differs, but an expectation failed: {', '.join(failed)}"
    return f"the table equals an independent batch computation in all {rows:,} outcomes, row by row"


def notes(run: Reconciliation) -> list[str]:
    """What a reader has to know beside the figures, a sentence each."""
    said = []
    if run.judged_from:
        said.append(
            f"Dates before {run.judged_from} were not compared: the rule has changed since, and they were not backfilled to it."
        )
    if run.repaired:
        said.append(f"{run.repaired:,} outcomes were repaired, then all was compared again.")
    if run.table_files_dropped:
        said.append(f"The dates of {run.table_files_dropped:,} lost data files of the output table were rewritten.")
    if run.refused:
        said.append("NOT REPAIRED: from bronze that lacks rows batch has the wrong answer; repair bronze first, as said above.")
    return said


def _text(value: object) -> str | None:
    return None if value is None else str(value)
