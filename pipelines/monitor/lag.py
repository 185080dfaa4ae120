"""Lag and throughput of each query, and the bottleneck: computed from ledger entries, without reading a table.

A query's recent micro-batches are its latest one and those that finished within the ten minutes before it. The span goes from the
first start among them to the last finish; busy is the time spent in them. Event times and instants are microseconds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from pipelines.control.facts import Fact, Facts
from pipelines.model.format import about, size
from pipelines.model.time import iso

RECENT_US = 600_000_000

_SECOND = 1_000_000
_SATURATED, _FULL, _SLOWER = 0.8, 0.9, 0.95
_ENOUGH_SECONDS, _FEW_ROWS = 120.0, 1000
_HELPS = {
    "ingest": "more cores help, and for a topic more partitions",
    "join": "a longer trigger.every, a smaller join.hot_window or more cores help",
    "settle": "a longer settle.every or a wider join.hot_window helps",
}

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    problem: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """A query's recent micro-batches. `rows` are events read (settle: outcomes looked up); `phases` add up to `busy` (seconds).

    `pace` is seconds of event time for each second on the clock: below 1 the query falls behind events that happen now; None
    where it is unknown. `state_rows` are the most that were held.
    """

    query: str
    since: int
    until: int
    micro_batches: int
    rows: int
    busy: float
    median: float
    last: float
    phases: Mapping[str, float] = field(default_factory=dict)
    pace: float | None = None
    state_rows: int | None = None

    @property
    def span(self) -> float:
        return (self.until - self.since) / _SECOND

    @property
    def utilisation(self) -> float | None:
        """The busy share of the span; None for a single micro-batch, which is all of its span."""
        return min(1.0, self.busy / self.span) if self.micro_batches > 1 and self.span > 0 else None

    @property
    def processed_per_second(self) -> float | None:
        return self.rows / self.busy if self.busy > 0 else None

    def shares(self) -> dict[str, float]:
        """The phases as shares of the busy time, the greatest first."""
        ordered = sorted(self.phases.items(), key=lambda item: -item[1])
        return {name: seconds / self.busy for name, seconds in ordered} if self.busy else {}

    def as_dict(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("query", "micro_batches", "rows", "state_rows")}
        figures = {"processed_per_s": self.processed_per_second, "busy_s": self.busy, "pace": self.pace}
        return {
            **given,
            **{name: _rounded(value) for name, value in {**figures, "utilisation": self.utilisation}.items()},
            "since": iso(self.since),
            "until": iso(self.until),
            "micro_batch_s": {"median": _rounded(self.median), "last": _rounded(self.last)},
            "phases_s": {name: _rounded(seconds) for name, seconds in self.phases.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What a start of the join left to settle: event times at or below `up_to`; `bytes` of bronze by stream."""

    at: int
    up_to: int
    bytes: Mapping[str, int]

    def __str__(self) -> str:
        return " and ".join(f"{size(count)} of {stream}" for stream, count in self.bytes.items())


@dataclass(frozen=True, kw_only=True)
class Lag:
    """`newest`: the greatest landed event time. `unread`: files and bytes of bronze that the join has not read, by stream; no
    entry where that is unknown. `backlog`: until settle has come as far."""

    newest: int | None = None
    horizon: int | None = None
    unread: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    backlog: Backlog | None = None

    @property
    def seconds(self) -> float | None:
        """From the horizon to the newest landed event, in event time; includes `join.watermark_delay`."""
        return None if self.newest is None or self.horizon is None else max(0.0, (self.newest - self.horizon) / _SECOND)

    def as_dict(self) -> dict[str, Any]:
        left = self.backlog and {**asdict(self.backlog), "at": iso(self.backlog.at), "up_to": iso(self.backlog.up_to)}
        return {
            "newest_event_time": iso(self.newest),
            "horizon_lag_s": self.seconds,
            "unread_by_join": {stream: {"files": files, "bytes": count} for stream, (files, count) in self.unread.items()},
            "left_to_settle": left,
        }


def throughput(query: str, entries: Sequence[Entry]) -> Throughput | None:
    """A query's figures from its recent entries, the latest last; None without a timed one."""
    timed = [entry for entry in entries if entry["started_at"] is not None]
    if not timed:
        return None
    seconds, phases = [_seconds(entry) for entry in timed], Counter[str]()
    for entry in timed:
        phases.update(_phases(entry))
    return Throughput(
        query=query,
        since=min(entry["started_at"] for entry in timed),
        until=max(entry["finished_at"] for entry in timed),
        micro_batches=len(timed),
        rows=sum(entry["rows_in"] or 0 for entry in timed),
        busy=sum(seconds),
        median=median([s for s, entry in zip(seconds, timed, strict=True) if entry["rows_in"]] or seconds),
        last=seconds[-1],
        phases=dict(phases),
        pace=_pace(timed),
        state_rows=max((entry["state_rows"] for entry in timed if entry["state_rows"] is not None), default=None),
    )


def bottleneck(found: Sequence[Throughput]) -> str:
    """One sentence: the query that is busy most of the time (of several the one busy longest), its greatest phase, what helps."""
    known = [(share, each) for each in found if (share := each.utilisation) is not None]
    if not known:
        return "too few micro-batches to tell" if found else "nothing has run yet"
    saturated = [each for share, each in known if share >= _SATURATED]
    if not saturated:
        share, busiest = max(known, key=lambda pair: pair[0])
        return f"nothing: the busiest query, {busiest.query}, is busy {share:.0%} of the time"
    first = max(saturated, key=lambda each: each.busy)
    return f"{first.query} is busy {first.utilisation:.0%} of the time; {'; '.join(_why(first))}"


def falling_behind(found: Sequence[Throughput], now: int) -> list[Finding]:
    """The running queries that are busy all the time and advance in event time more slowly than the clock and than their input.

    Nothing is said on less than two minutes, nor of a query that has stopped, nor where no input comes.
    """
    findings = []
    for each in found:
        running = now - each.until <= RECENT_US and each.span >= _ENOUGH_SECONDS and (each.utilisation or 0) >= _FULL
        input_pace = _pace_of_input(each, found)
        if running and each.pace is not None and input_pace is not None and each.pace < _SLOWER * min(1.0, input_pace):
            what, helps = _why(each)
            slower = f"falls behind, by {about((input_pace - each.pace) * 60)} of event time a minute"
            problem = f"{each.query} {slower}: busy {each.utilisation:.0%} of the time; {what}"
            findings.append(Finding(problem=problem, remedy=helps))
    return findings


def backlog_left(facts: Facts) -> Backlog | None:
    """The backlog that the join's last start left to settle, where settle has not come as far."""
    left, settled = facts.handoff, facts.settled.horizon
    if left is None or left.event_time is None or (settled is not None and settled >= left.event_time):
        return None
    return Backlog(at=left.at, up_to=left.event_time, bytes=left.detail.get("bytes", {}))


def versions_read(join: Entry | None, handoff: Fact | None) -> dict[str, int]:
    """The last version of each bronze table that the join has read whole; none where it has read nothing since a handoff."""
    if join is None or (handoff is not None and handoff.at > join["finished_at"]):
        return {}
    return {stream: read_whole(offset) for stream, offset in join["consumed"].items() if offset}


def read_whole(offset: Mapping[str, Any]) -> int:
    """The last version that the join has read whole, of an offset of its Delta source: that names the version to read next, or
    the snapshot that is read, which a start takes in one micro-batch."""
    return int(offset["reservoirVersion"]) - (0 if offset.get("isStartingVersion") else 1)


def _pace(entries: Sequence[Entry]) -> float | None:
    """By how far the query came in event time between the ends of its first and its last micro-batch, by the time between."""
    is_ingest = entries[0]["query"].startswith("ingest:")
    times = [(e["finished_at"], e["detail"].get("max_event_time_us") if is_ingest else e["horizon"]) for e in entries]
    known = [(at, reached) for at, reached in times if reached is not None]
    between = known[-1][0] - known[0][0] if known else 0
    return (known[-1][1] - known[0][1]) / between if between > 0 else None


def _pace_of_input(each: Throughput, found: Sequence[Throughput]) -> float | None:
    """The clock's for ingest; the slower stream's for the join; the join's for settle. None where nothing comes."""
    if each.query.startswith("ingest:"):
        return 1.0
    source = "ingest:" if each.query == "join" else "join"
    meanwhile = [f.pace for f in found if f.query.startswith(source) and f.until >= each.since]
    return min((pace for pace in meanwhile if pace is not None), default=None)


def _why(each: Throughput) -> tuple[str, str]:
    """What the query's time goes into, and what helps."""
    kind, rows = each.query.partition(":")[0], each.rows // each.micro_batches
    if rows < _FEW_ROWS and (each.state_rows or 0) < 100 * _FEW_ROWS:
        longer = "settle.every" if kind == "settle" else "trigger.every"
        return f"fixed cost: {rows:,} rows to a micro-batch of {about(each.median)}", f"a longer {longer} does the same with less"
    phase, share = next(iter(each.shares().items()))
    state = f", with {each.state_rows:,} rows of state" if each.state_rows else ""
    return f"{share:.0%} of it is {phase}{state}", _HELPS[kind]


def _seconds(entry: Entry) -> float:
    durations = entry["durations_ms"]
    total = durations.get("triggerExecution", durations.get("total"))
    return float(total / 1000 if total is not None else (entry["finished_at"] - entry["started_at"]) / _SECOND)


def _phases(entry: Entry) -> dict[str, float]:
    """Seconds by phase, which add up to the micro-batch. The join's `resolve` and `merge` are within Spark's `addBatch`."""
    found = {k: ms / 1000 for k, ms in entry["durations_ms"].items() if k not in ("total", "triggerExecution")}
    if "addBatch" in found:
        found["addBatch"] = max(0.0, found["addBatch"] - found.get("resolve", 0.0) - found.get("merge", 0.0))
    return {**found, "other": max(0.0, _seconds(entry) - sum(found.values()))}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
