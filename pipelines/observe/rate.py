"""How fast each query goes, and where its time goes: figures from its recent entries in the ledger; no Spark here.

*Recent* are the micro-batches that finished within ten minutes before the query's latest one did, with that one; so a query that
has stopped shows how it went when it last ran. The *span* goes from the first start among them to the last finish; *busy* is the
time spent in them. Of ingest and settle the ledger does not tell what Spark does between two micro-batches, nor what the entry
itself takes to write (some tenths of a second each): they are busy a little more than they say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import linear_regression, median
from textwrap import wrap
from typing import Any

from pipelines.instants import iso
from pipelines.readable import LINE_WIDTH

RECENT_US = 600_000_000
OTHER = "other"

_SECOND = 1_000_000
_ENOUGH_TO_FIT = 5


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One query's recent micro-batches. Times are microseconds, durations seconds.

    `rows` are events read (of settle: outcomes looked up); `arrived` those that came for it meanwhile, None where only what it
    has read is known. `phases` add up to `busy`; `state_tasks` are task time, and do not. `advanced` is how far the query came in
    event time between the end of its first and of its last recent micro-batch, `between` the wall time that took; None where it
    has come nowhere yet. `fixed` is what a micro-batch costs however few its rows; None where that cannot be told. `state_rows`
    are the most that were held.
    """

    query: str
    since: int
    until: int
    micro_batches: int
    rows: int
    busy: float
    arrived: int | None = None
    median: float
    last: float
    phases: Mapping[str, float] = field(default_factory=dict)
    state_tasks: Mapping[str, float] = field(default_factory=dict)
    state_rows: int | None = None
    advanced: float | None = None
    between: float = 0.0
    fixed: float | None = None

    @property
    def span(self) -> float:
        return (self.until - self.since) / _SECOND

    @property
    def utilisation(self) -> float | None:
        """The busy share of the span; None for a single micro-batch, which is all of its span."""
        return min(1.0, self.busy / self.span) if self.micro_batches > 1 and self.span > 0 else None

    @property
    def processed_per_second(self) -> float | None:
        """Events for each second of being busy: what the query could take."""
        return self.rows / self.busy if self.busy > 0 else None

    @property
    def arriving_per_second(self) -> float | None:
        """Events for each second of the span: what it was asked to take."""
        rows = self.rows if self.arrived is None else self.arrived
        return rows / self.span if self.micro_batches > 1 and self.span > 0 else None

    @property
    def pace(self) -> float | None:
        """Seconds of event time for each second on the clock; below 1 the query falls behind events that happen now."""
        return self.advanced / self.between if self.advanced is not None and self.between > 0 else None

    def shares(self) -> dict[str, float]:
        """The phases as shares of the busy time, the greatest first."""
        if not self.busy:
            return {}
        return {name: seconds / self.busy for name, seconds in sorted(self.phases.items(), key=lambda item: -item[1])}

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; rates and shares rounded for people."""
        return {
            "query": self.query,
            "since": iso(self.since),
            "until": iso(self.until),
            "micro_batches": self.micro_batches,
            "rows": self.rows,
            "processed_per_s": _rounded(self.processed_per_second, 1),
            "arriving_per_s": _rounded(self.arriving_per_second, 1),
            "busy_s": _rounded(self.busy, 3),
            "utilisation": _rounded(self.utilisation, 3),
            "pace": _rounded(self.pace, 3),
            "micro_batch_s": {name: _rounded(getattr(self, name), 3) for name in ("median", "last", "fixed")},
            "phases_s": {name: round(seconds, 3) for name, seconds in self.phases.items()},
            "state_task_s": {name: round(seconds, 3) for name, seconds in self.state_tasks.items()},
            "state_rows": self.state_rows,
        }


def rate_lines(rates: Sequence[Rate]) -> list[str]:
    """For a terminal: a line of figures for each query, and one with its phases."""
    if not rates:
        return []
    head = f"  {'':<24} {'busy':>6} {'events/s':>10} {'arriving':>10} {'pace':>8} {'median':>9} {'last':>9}"
    lines = ["", "rate (each query's last 10 minutes: events/s while busy; a micro-batch's seconds)", head]
    for rate in rates:
        busy = "-" if rate.utilisation is None else f"{rate.utilisation:.0%}"
        lines.append(
            f"  {rate.query:<24} {busy:>6} {_number(rate.processed_per_second):>10} {_number(rate.arriving_per_second):>10} "
            f"{_times(rate.pace):>8} {rate.median:>7.1f} s {rate.last:>7.1f} s"
        )
        for text in _phase_texts(rate):
            lines += wrap(text, LINE_WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6)
    return lines


def _phase_texts(rate: Rate) -> list[str]:
    """The phases that matter, and of the join what its state's tasks did."""
    shares = {name: share for name, share in rate.shares().items() if name != OTHER}
    shown = {name: share for name, share in shares.items() if share >= 0.02}
    if not shown:
        return []
    parts = [f"{name} {share:.0%}" for name, share in shown.items()]
    rest = 1 - sum(shown.values())
    texts = [", ".join(parts + ([f"{OTHER} {rest:.0%}"] if rest >= 0.02 else []))]
    tasks = sum(rate.state_tasks.values())
    if tasks >= 1:
        texts.append("state: " + ", ".join(f"{name} {part / tasks:.0%}" for name, part in rate.state_tasks.items()))
    return texts


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} x" if value >= 10 else f"{value:.2f} x"


def measure(entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Rate]:
    """The rates of the queries that have any, from the entries of each (as `Ledger.since` gives them)."""
    timed = {query: [e for e in found if e["started_at"] is not None] for query, found in entries.items()}
    rates = [_rate(query, found) for query, found in timed.items() if found]
    landed = [e for query, found in timed.items() if query.startswith("ingest:") for e in found]
    return [_with_arrivals(rate, landed) if rate.query == "join" else rate for rate in rates]


def _rate(query: str, entries: Sequence[Mapping[str, Any]]) -> Rate:
    seconds = [_seconds(e) for e in entries]
    with_rows = [s for s, e in zip(seconds, entries, strict=True) if e["rows_in"]]
    phases: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    for entry in entries:
        phases.update(_phases(entry))
        tasks.update({k: ms / 1000 for k, ms in (entry["detail"] or {}).get("state_task_ms", {}).items()})
    reached = [(e["finished_at"], at) for e in entries if (at := _reached(e)) is not None]
    return Rate(
        query=query,
        since=min(e["started_at"] for e in entries),
        until=max(e["finished_at"] for e in entries),
        micro_batches=len(entries),
        rows=sum(e["rows_in"] or 0 for e in entries),
        busy=sum(seconds),
        median=median(with_rows or seconds),
        last=seconds[-1],
        phases=dict(phases),
        state_tasks=dict(tasks),
        state_rows=max((e["state_rows"] for e in entries if e["state_rows"] is not None), default=None),
        advanced=(reached[-1][1] - reached[0][1]) / _SECOND if reached else None,
        between=(reached[-1][0] - reached[0][0]) / _SECOND if reached else 0.0,
        fixed=_fixed([(e["rows_in"], s) for e, s in zip(entries, seconds, strict=True) if e["rows_in"]]),
    )


def _with_arrivals(join: Rate, landed: Sequence[Mapping[str, Any]]) -> Rate:
    """What landed on time during the join's span is what it was asked to take."""
    meanwhile = [e for e in landed if join.since < e["finished_at"] <= join.until]
    on_time = sum((e["rows_out"] or 0) - (e["rows_late"] or 0) for e in meanwhile)
    return replace(join, arrived=on_time)


def _seconds(entry: Mapping[str, Any]) -> float:
    durations = entry["durations_ms"] or {}
    total = durations.get("triggerExecution", durations.get("total"))
    return float(total / 1000 if total is not None else (entry["finished_at"] - entry["started_at"]) / _SECOND)


def _phases(entry: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by phase, which add up to the micro-batch. Of the join `resolve` and `merge` lie within Spark's `addBatch`."""
    found = {k: ms / 1000 for k, ms in (entry["durations_ms"] or {}).items() if k not in ("total", "triggerExecution")}
    if "addBatch" in found:
        found["addBatch"] = max(0.0, found["addBatch"] - found.get("resolve", 0.0) - found.get("merge", 0.0))
    rest = _seconds(entry) - sum(found.values())
    return {**found, OTHER: max(0.0, rest)}


def _reached(entry: Mapping[str, Any]) -> int | None:
    """How far in event time the query had come with this micro-batch."""
    ingest = entry["query"].startswith("ingest:")
    reached = (entry["detail"] or {}).get("max_event_time_us") if ingest else entry["horizon"]
    return None if reached is None else int(reached)


def _fixed(points: Sequence[tuple[int, float]]) -> float | None:
    """What a micro-batch costs at no rows, by the line through (rows, seconds); None where sizes differ too little."""
    rows = [r for r, _ in points]
    if len(points) < _ENOUGH_TO_FIT or max(rows) < 2 * min(rows):
        return None
    slope, intercept = linear_regression(rows, [s for _, s in points])
    return min(max(0.0, intercept), median(s for _, s in points)) if slope > 0 else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
