"""Health at a glance, from the ledger: how far each query is, what is wrong, what to do about it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import Any

import pyarrow.compute as pc

from pipelines.config.model import Config
from pipelines.config.streams import checkpoints_of
from pipelines.control.facts import Facts, facts_in
from pipelines.control.gaps import accepted
from pipelines.lake.reader import TableReader
from pipelines.model.format import LINE_WIDTH, about, size
from pipelines.model.time import iso, now_us
from pipelines.monitor.entries import last_days, last_reconciliation, latest_and_recent
from pipelines.monitor.judged import Judged, read_judged
from pipelines.monitor.lag import (
    Entry,
    Finding,
    Lag,
    Throughput,
    backlog_left,
    bottleneck,
    falling_behind,
    throughput,
    versions_read,
)
from pipelines.monitor.lateness import Lateness, lateness_lines, lateness_of
from pipelines.monitor.topics import for_topics, unread_records
from pipelines.monitor.waiting import for_ingest, for_join, for_rows, for_settle, stopped_ingest


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
    streams: list[Judged] = field(default_factory=list)
    unread_records: dict[str, int | None] = field(default_factory=dict)

    def to_json(self) -> str:
        own = {
            "lateness": self.lateness.as_dict() if self.lateness else None,
            "behind": self.behind.as_dict(),
            "rates": [rate.as_dict() for rate in self.rates],
            "streams": {judged.stream: judged.as_dict() for judged in self.streams},
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
        lines += [f"  {judged.stream:<12} {judged}" for judged in self.streams]
        for name, count in self.unread_records.items():
            lines.append(f"  {name:<12} {'unknown' if count is None else f'{count:,}'} records unread in Kafka")
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


def read_status(reader: TableReader, config: Config) -> Status:
    """Read the state of the pipeline; a lake that is not there yet is a finding, not an error."""
    if not reader.exists("ledger"):
        finding = Finding(problem=f"no ledger in {reader.location}: nothing has run yet", remedy="run `rejoin ingest --once`")
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
    outcome, now = config.stream_name("outcome"), now_us()
    streams = [config.stream_name("exposure"), outcome]
    names = [*(f"ingest:{stream}" for stream in streams), "join", "settle"]
    latest, recent = latest_and_recent(reader, names)
    facts = facts_in(reader)
    checkpoints, stopped = checkpoints_of(config), stopped_ingest(facts, streams)
    unread = unread_records(config, checkpoints, facts)
    rates = [each for name in names if (each := throughput(name, recent.get(name, [])))]
    lag, joined = _lag(reader, streams, latest, facts), latest["join"]
    dropped, judged, reconciliation = _dropped(reader), read_judged(reader, streams), last_reconciliation(reader)
    if reconciliation is not None:
        reconciliation = {**reconciliation, "finished_at": iso(reconciliation["finished_at"])}
    findings = [
        *(
            Finding(problem=f"{name} has never run", remedy=f"run `rejoin {name.partition(':')[0]}`")
            for name in names
            if latest[name] is None
        ),
        *_problems(dropped, reconciliation),
        *(finding for each in judged for finding in each.findings),
        *for_rows(judged, outcome, _rows(reader, f"attributed_{outcome}")),
        *for_ingest(config, checkpoints, stopped, now),
        *for_topics(unread, latest, stopped, now),
        *for_join(lag, config.join.watermark_delay.total_seconds(), joined["finished_at"] if joined else None, now),
        *for_settle(latest, facts.settled.horizon, config.settle.every.total_seconds(), now),
        *falling_behind(rates, now),
    ]
    return Status(
        healthy=not findings,
        horizon=iso(facts.horizon),
        settled_to=iso(facts.settled.horizon),
        queries=[_query(entry, now) for name in names if (entry := latest[name])],
        quarantined=_by_reason(judged),
        gaps=[{"stream": name, "what": str(gap), "at": iso(gap.at)} for name in streams for gap in accepted(facts, name)],
        dropped_by_watermark=dropped,
        last_reconciliation=reconciliation,
        lateness=lateness_of(reader, config),
        findings=findings,
        behind=lag,
        rates=rates,
        bound_by=bottleneck(rates),
        streams=judged,
        unread_records=unread,
    )


def _lag(reader: TableReader, streams: Sequence[str], latest: Mapping[str, Entry | None], facts: Facts) -> Lag:
    landed = {stream: entry["detail"].get("max_event_time_us") for stream in streams if (entry := latest[f"ingest:{stream}"])}
    read = versions_read(latest["join"], facts.handoff)
    return Lag(
        newest=max((at for at in landed.values() if at is not None), default=None),
        horizon=facts.horizon,
        unread={stream: reader.appended_after(stream, version) for stream, version in read.items() if stream in landed},
        backlog=backlog_left(facts),
    )


def _rows(reader: TableReader, table: str) -> int:
    return reader.count(table) if reader.exists(table) else 0


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


def _query(entry: Mapping[str, Any], now: int) -> dict[str, Any]:
    return {
        "query": entry["query"],
        "batch": entry["batch"],
        "finished_at": iso(entry["finished_at"]),
        "age_s": max(0, (now - entry["finished_at"]) // 1_000_000),
        "rows_in": entry["rows_in"] or 0,
        "state_rows": entry["state_rows"],
        "watermark": iso(entry["watermark"]),
    }


def _dropped(reader: TableReader) -> int:
    column = "rows_dropped_by_watermark"
    return pc.sum(reader.scan("ledger", [column], [*last_days(reader), ("query", "=", "join")]).read_all()[column]).as_py() or 0


def _by_reason(judged: Sequence[Judged]) -> dict[str, int]:
    total = Counter[str]()
    for each in judged:
        total.update(each.quarantined)
    return dict(sorted(total.items()))


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
