"""Health at a glance, from the ledger: how far each query is, what is wrong, what to do about it."""

import json
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import Any

from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.gaps import accepted
from pipelines.instants import iso, now_us
from pipelines.lake import Lake
from pipelines.observe.behind import Behind, behind_lines, read_behind, waiting
from pipelines.observe.bounds import Finding, bound_by, falling_behind
from pipelines.observe.lateness import Lateness, lateness_lines, read_lateness
from pipelines.observe.ledger import PASSED_OVER, Ledger
from pipelines.observe.rate import RECENT_US, Rate, measure, rate_lines
from pipelines.readable import LINE_WIDTH


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `rejoin status` shows; docs/status.md says what each key means. Times are ISO-8601 UTC; ages are whole seconds."""

    healthy: bool
    horizon: str | None
    settled_to: str | None
    queries: list[dict[str, Any]]
    quarantined: dict[str, int]
    gaps: list[dict[str, str | None]]
    dropped_by_watermark: int
    last_reconciliation: dict[str, Any] | None
    lateness: Lateness | None
    findings: list[Finding]
    behind: Behind = field(default_factory=Behind)
    rates: list[Rate] = field(default_factory=list)
    bound_by: str | None = None

    def to_json(self) -> str:
        own = {
            "lateness": self.lateness.as_dict() if self.lateness else None,
            "behind": self.behind.as_dict(),
            "rates": [rate.as_dict() for rate in self.rates],
        }
        return json.dumps({**asdict(self), **own}, indent=2, sort_keys=True, default=str)

    def to_text(self) -> str:
        lines = ["HEALTHY" if self.healthy else "NEEDS ATTENTION", ""]
        lines.append(f"  horizon      {self.horizon or 'none yet'} (the join has finished up to here)")
        lines.append(f"  settled to   {self.settled_to or 'none yet'}")
        lines += behind_lines(self.behind)
        for query in self.queries:
            state = f", {query['state_rows']:,} state rows" if query["state_rows"] is not None else ""
            lines.append(
                f"  {query['query']:<24} batch {query['batch']}, {query['age_s']:,} s ago, {query['rows_in']:,} rows in{state}"
            )
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.quarantined.items()) or "none"
        lines.append(f"  quarantined  {reasons}")
        for gap in self.gaps:
            lines.append(f"  gap accepted {gap['stream']}: {gap['what']} (accepted {gap['at']})")
        last = self.last_reconciliation
        lines.append(f"  reconciled   {last['verdict'] + ' at ' + last['finished_at'] if last else 'never'}")
        lines += rate_lines(self.rates)
        lines += wrap(self.bound_by or "", LINE_WIDTH, initial_indent="  bound by     ", subsequent_indent=" " * 15)
        lines += lateness_lines(self.lateness) if self.lateness else []
        for finding in self.findings:
            lines += ["", f"  ! {finding.problem}", f"    {finding.remedy}"]
        return "\n".join(lines)


def read_status(lake: Lake, config: Config) -> Status:
    """Read the state of the pipeline; a lake that is not there yet is a finding, not an error."""
    if not lake.exists("ledger"):
        finding = Finding(problem=f"no ledger in {lake.root}: nothing has run yet", remedy="run `rejoin ingest --once`")
        return Status(
            healthy=False,
            horizon=None,
            settled_to=None,
            queries=[],
            quarantined={},
            gaps=[],
            dropped_by_watermark=0,
            last_reconciliation=None,
            lateness=None,
            findings=[finding],
        )
    ledger = Ledger(lake)
    names = [*(f"ingest:{stream.name}" for stream in lake.streams.both), "join", "settle"]
    last = ledger.latest((*names, PASSED_OVER))
    now, horizon = now_us(), ledger.horizon()
    rates = measure(ledger.since({name: entry["finished_at"] - RECENT_US for name in names if (entry := last[name])}))
    behind, provider = read_behind(lake, last, horizon), config.state_store.provider
    dropped = lake.read("ledger").agg(F.sum("rows_dropped_by_watermark")).collect()[0][0] or 0
    reconciliation = _last_reconciliation(lake)
    findings = [
        *(
            Finding(problem=f"{name} has never run", remedy=f"run `rejoin {name.partition(':')[0]}`")
            for name in names
            if last[name] is None
        ),
        *_problems(dropped, reconciliation),
        *waiting(behind, last, now=now),
        *falling_behind(rates, state_store=provider, now=now),
    ]
    settled = last["settle"]
    return Status(
        healthy=not findings,
        horizon=iso(horizon),
        settled_to=iso(settled["detail"]["settled"]["horizon"]) if settled else None,
        queries=[_query(entry) for name in names if (entry := last[name])],
        quarantined=_quarantined(lake),
        gaps=_gaps(lake),
        dropped_by_watermark=dropped,
        last_reconciliation=reconciliation,
        lateness=read_lateness(lake, config),
        findings=findings,
        behind=behind,
        rates=rates,
        bound_by=bound_by(rates, state_store=provider),
    )


def _problems(dropped: int, reconciliation: dict[str, Any] | None) -> list[Finding]:
    problems = []
    if dropped:
        problems.append(
            Finding(
                problem=f"the join dropped {dropped:,} rows by watermark, which must never happen",
                remedy="run `rejoin settle --all`, then `rejoin reconcile`; please report it with the ledger",
            )
        )
    if reconciliation and reconciliation["verdict"] == "differs":
        problems.append(
            Finding(
                problem=f"the last reconciliation found differences: {reconciliation['report']}",
                remedy="run `rejoin settle --once`, then `rejoin reconcile --repair`",
            )
        )
    return problems


def _query(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "query": entry["query"],
        "batch": entry["batch"],
        "finished_at": iso(entry["finished_at"]),
        "age_s": max(0, (now_us() - entry["finished_at"]) // 1_000_000),
        "rows_in": entry["rows_in"] or 0,
        "state_rows": entry["state_rows"],
        "watermark": iso(entry["watermark"]),
    }


def _quarantined(lake: Lake) -> dict[str, int]:
    if not lake.exists("quarantine"):
        return {}
    rows = lake.read("quarantine").groupBy("reason").count().orderBy("reason").collect()
    return {row["reason"]: row["count"] for row in rows}


def _gaps(lake: Lake) -> list[dict[str, str | None]]:
    """Records that Kafka had lost and that somebody gave up: no fault of the pipeline's health, but nothing to forget."""
    names = [stream.name for stream in lake.streams.both]
    return [{"stream": name, "what": str(each), "at": iso(each.at)} for name in names for each in accepted(lake, name)]


def _last_reconciliation(lake: Lake) -> dict[str, Any] | None:
    if not lake.exists("reconciliations"):
        return None
    rows = lake.read("reconciliations").orderBy(F.desc("finished_at")).limit(1)
    found = rows.select("verdict", F.unix_micros("finished_at").alias("finished"), "report").collect()
    if not found:
        return None
    return {"verdict": found[0]["verdict"], "finished_at": iso(found[0]["finished"]), "report": found[0]["report"]}
