"""Health at a glance, from the ledger: how far each query is, what is wrong, what to do about it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import Any

from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.gaps import accepted
from pipelines.instants import iso, now_us
from pipelines.join.reading import unread
from pipelines.lake import Lake
from pipelines.observe.lag import (
    BACKLOG,
    RECENT_US,
    Finding,
    Lag,
    Latest,
    Throughput,
    backlog_left,
    bottleneck,
    falling_behind,
    throughput,
    versions_read,
    waiting,
)
from pipelines.observe.lateness import Lateness, lateness_lines, read_lateness
from pipelines.observe.ledger import Ledger
from pipelines.readable import LINE_WIDTH, about, size


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
    behind: Lag = field(default_factory=Lag)
    rates: list[Throughput] = field(default_factory=list)
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
        lines += _lag_lines(self.behind)
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
        lines += _throughput_lines(self.rates)
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
    last = ledger.latest((*names, BACKLOG))
    now, horizon = now_us(), ledger.horizon()
    recent = ledger.since({name: entry["finished_at"] - RECENT_US for name in names if (entry := last[name])})
    rates = [each for name, entries in recent.items() if (each := throughput(name, entries))]
    behind, joined = _lag(lake, last, horizon), last["join"]
    dropped = lake.read("ledger").agg(F.sum("rows_dropped_by_watermark")).collect()[0][0] or 0
    reconciliation = _last_reconciliation(lake)
    findings = [
        *(
            Finding(problem=f"{name} has never run", remedy=f"run `rejoin {name.partition(':')[0]}`")
            for name in names
            if last[name] is None
        ),
        *_problems(dropped, reconciliation),
        *waiting(behind, joined["finished_at"] if joined else None, now),
        *falling_behind(rates, now),
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
        bound_by=bottleneck(rates),
    )


def _lag(lake: Lake, last: Latest, horizon: int | None) -> Lag:
    streams = {stream.name: stream for stream in lake.streams.both}
    landed = [entry["detail"].get("max_event_time_us") for name in streams if (entry := last.get(f"ingest:{name}"))]
    read = {name: version for name, version in versions_read(last).items() if last.get(f"ingest:{name}")}
    return Lag(
        newest=max((at for at in landed if at is not None), default=None),
        horizon=horizon,
        unread={name: unread(lake, streams[name], version) for name, version in read.items()},
        backlog=backlog_left(last),
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


def _lag_lines(lag: Lag) -> list[str]:
    """For a terminal."""
    lines = []
    if lag.seconds is not None:
        lines.append(f"  behind       {about(lag.seconds)}: from the horizon to the newest landed event, {iso(lag.newest)}")
    if lag.unread:
        some = [f"{stream} {files:,} files, {size(count)}" for stream, (files, count) in lag.unread.items() if files]
        lines.append(f"  unread       {'; '.join(some) or 'nothing: the join has read all that has landed'}")
    if lag.backlog is not None:
        lines.append(f"  left over    a backlog up to {iso(lag.backlog.up_to)} that settle has not read yet")
        lines.append(f"               ({lag.backlog}): run `rejoin settle --once`")
    return lines


def _throughput_lines(found: Sequence[Throughput]) -> list[str]:
    """For a terminal: a line of figures for each query, and one with its phases."""
    head = f"  {'':<24} {'busy':>6} {'events/s':>10} {'pace':>9} {'median':>9} {'last':>9}"
    lines = ["", "throughput (each query's last 10 minutes: events/s while busy; a micro-batch's seconds)", head]
    for each in found:
        busy, pace = _shown(each.utilisation, "{:.0%}"), _shown(each.pace, "{:,.2f} x")
        rate, seconds = _shown(each.processed_per_second, "{:,.1f}"), f"{each.median:>7.1f} s {each.last:>7.1f} s"
        lines.append(f"  {each.query:<24} {busy:>6} {rate:>10} {pace:>9} {seconds}")
        phases = ", ".join(f"{name} {share:.0%}" for name, share in each.shares().items() if share >= 0.02)
        lines += wrap(phases, LINE_WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6)
    return lines if found else []


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
