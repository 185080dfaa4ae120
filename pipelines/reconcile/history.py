"""Earlier reconciliations, as the report's trend shows them."""

import json
from dataclasses import dataclass
from typing import Any

from pyspark.sql import functions as F

from pipelines.lake import Lake

_RUNS_SHOWN = 60


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
