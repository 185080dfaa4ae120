"""What bounds the pipeline, and whether it falls behind: rules over the figures of `pipelines.observe.rate`, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.observe.rate import OTHER, RECENT_US, Rate
from pipelines.readable import about

SATURATED = 0.8
"""The busy share from which on a query bounds the pipeline."""
FULL = 0.9
"""The busy share from which on a query that does not keep up cannot."""
MOSTLY_FIXED = 0.6
NOTABLE = 0.3
FEW_ROWS = 1000
"""Rows that are next to no work for a micro-batch."""

_SLOWER = 0.95
_MINUTES_ENOUGH = 120.0
_LARGE_STATE = 100_000
_LONGER = "a longer trigger.every does the same with less"
_STATE = ("resolve", "addBatch")

# Of each kind of query and phase: what it is, and what helps.
_KNOWN = {
    ("ingest", "read"): ("reading and parsing", "more cores help, and for a topic more partitions"),
    ("ingest", "quarantine"): ("writing to quarantine", "`rejoin show quarantine` tells what is rejected, and why"),
    ("ingest", "bronze"): ("appending to bronze", "more cores or faster storage help"),
    ("join", "merge"): ("the MERGE into the result", "a longer trigger.every merges more at once; `rejoin maintain` compacts"),
    ("settle", "select"): ("finding what to look up", "a longer settle.every helps"),
    ("settle", "look_up"): ("looking up in the lake", "a wider join.hot_window leaves less to look up; more cores help"),
    ("settle", "write"): ("the MERGE into the result", "a longer settle.every merges more at once; `rejoin maintain` compacts"),
    ("settle", "figures"): ("counting what was done", "a longer settle.every helps"),
    ("settle", "bookkeeping"): ("reading what was settled before", "a longer settle.every helps"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    problem: str
    remedy: str


def bound_by(rates: Sequence[Rate], *, state_store: str) -> str:
    """One sentence: which query bounds the pipeline, by which phase, and what helps. Of several that are busy most of the time it
    is the one that has been busy longest."""
    known = [(rate.utilisation, rate) for rate in rates if rate.utilisation is not None]
    if not known:
        if not rates:
            return "nothing has run yet"
        longest = max(rates, key=lambda rate: rate.last)
        return f"too few micro-batches to tell; the longest is {longest.query}'s, {about(longest.last)}"
    saturated = [rate for share, rate in known if share >= SATURATED]
    if saturated:
        first = max(saturated, key=lambda rate: rate.busy)
        what, helps = _why(first, state_store)
        return f"{first.query} is busy {first.utilisation:.0%} of the time; {what}; {helps}"
    share, busiest = max(known, key=lambda pair: pair[0])
    told = f"nothing: the busiest query, {busiest.query}, is busy {share:.0%} of the time"
    if share >= NOTABLE and (fixed := _fixed(busiest)):
        return f"{told}; {fixed}; {_longer(busiest)}"
    return told


def falling_behind(rates: Sequence[Rate], *, state_store: str, now: int) -> list[Finding]:
    """The queries that run now, are busy all the time, and yet come forward in event time more slowly than the clock, and than
    what feeds them: so their lag grows. Nothing is said on less than two minutes, nor of a query that has stopped."""
    found = []
    for rate in rates:
        if not _runs(rate, now) or rate.span < _MINUTES_ENOUGH or (rate.utilisation or 0.0) < FULL:
            continue
        feed = _pace_of_feed(rate, rates)
        if rate.pace is None or feed is None or rate.pace >= _SLOWER * min(1.0, feed):
            continue
        what, helps = _why(rate, state_store)
        lag = f"falls behind, by {about((feed - rate.pace) * 60)} of event time a minute"
        found.append(Finding(problem=f"{rate.query} {lag}: busy {rate.utilisation:.0%} of the time; {what}", remedy=helps))
    return found


def _runs(rate: Rate, now: int) -> bool:
    return now - rate.until <= RECENT_US


def _pace_of_feed(rate: Rate, rates: Sequence[Rate]) -> float | None:
    """How fast event time comes towards a query: for ingest as the clock goes; the join follows the slower of the streams that
    come meanwhile, settle the join. None where nothing comes."""
    if rate.query.startswith("ingest:"):
        return 1.0
    feeds = "ingest:" if rate.query == "join" else "join"
    meanwhile = [r.pace for r in rates if r.query.startswith(feeds) and r.until >= rate.since and r.pace is not None]
    return min(meanwhile, default=None)


def _why(rate: Rate, state_store: str) -> tuple[str, str]:
    """What the query's time goes into, and what helps."""
    shares = {name: share for name, share in rate.shares().items() if name != OTHER} or {OTHER: 1.0}
    phase, share = next(iter(shares.items()))
    kind = rate.query.partition(":")[0]
    if kind == "join" and phase in _STATE and (rate.state_rows or 0) >= _LARGE_STATE:
        cheaper = " or state_store.provider=memory" if state_store != "memory" else " or more cores"
        return (
            f"{share:.0%} of it is {phase}: state of {_millions(rate.state_rows or 0)} rows",
            f"a smaller join.hot_window{cheaper} helps",
        )
    if fixed := _fixed(rate):
        return fixed, _longer(rate)
    if kind == "join" and phase in _STATE:
        return f"{share:.0%} of it is {phase}: reading, matching, state", "more cores or a longer trigger.every help"
    if (kind, phase) in _KNOWN:
        what, helps = _KNOWN[kind, phase]
        return f"{share:.0%} of it is {phase}: {what}", helps
    if phase == OTHER:
        return "its entries do not say where the time goes", "more cores or a longer trigger.every help"
    return (
        f"{share:.0%} of it is {phase}: Spark's own bookkeeping",
        "a longer trigger.every or faster storage for checkpoints helps",
    )


def _fixed(rate: Rate) -> str | None:
    """Where most of a micro-batch is what it costs however few its rows."""
    rows = rate.rows // rate.micro_batches
    if rate.fixed is None and rows < FEW_ROWS:
        return f"fixed cost: {rows:,} rows to a micro-batch of {about(rate.median)}"
    if rate.fixed is None or rate.fixed < MOSTLY_FIXED * rate.median:
        return None
    return f"fixed cost: {about(max(0.0, rate.median - rate.fixed))} of work in {about(rate.median)} micro-batches"


def _longer(rate: Rate) -> str:
    return _LONGER.replace("trigger.every", "settle.every") if rate.query == "settle" else _LONGER


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"
