"""Lateness made visible, from the ledger: how late events come, what settling does, when dates are final, what state costs.

All figures are of the ledger's last 7 days of runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json
from pydantic_core import from_json

from pipelines.config.model import Config
from pipelines.lake.reader import TableReader, rows_of
from pipelines.model.durations import format_duration
from pipelines.model.format import size
from pipelines.model.histogram import ENDS, NAMES, Histogram
from pipelines.model.time import EPOCH, iso
from pipelines.monitor.entries import last_days

_DATES_SHOWN = 7
_COVERAGES = (0.90, 0.95, 0.99)
_DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class StreamLateness:
    """How far behind the newest event of its stream each accepted event came; how many were late by the delay then in force."""

    stream: str
    accepted: int
    late: int
    behind: Histogram


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Outcomes that settle looked up for one cause, and those whose row that added or changed."""

    cause: str
    looked_up: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class HotWindow:
    """A hot window that would answer `coverage` of the attributed outcomes in the stream, and what it would hold in state:
    the most that the join has held so far, in proportion. `window` is None where no bucket of the histogram covers as much."""

    coverage: float
    window: timedelta | None
    state_rows: int | None
    state_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class DateFinality:
    """An event date (UTC) of the outcomes: rows in the table, since when settle has answered for all of it (microseconds), and
    what late events have done to it since: outcomes looked up again, rows added or changed, when last."""

    date: str
    rows: int
    final_since: int | None
    looked_up_after: int = 0
    changed_after: int = 0
    changed_at: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "final_since": iso(self.final_since), "changed_at": iso(self.changed_at)}


@dataclass(frozen=True, kw_only=True)
class Lateness:
    streams: list[StreamLateness]
    final: int
    unattributed: int
    settled: int
    causes: list[Cause]
    delays: Histogram
    hot_window: timedelta
    watermark_delay: timedelta
    hot_windows: list[HotWindow]
    dates: list[DateFinality]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; durations as the configuration writes them, times ISO-8601 UTC."""
        return {
            "streams": [{**asdict(s), "behind": dict(s.behind.counts)} for s in self.streams],
            "outcomes": {"final": self.final, "unattributed": self.unattributed, "settled": self.settled},
            "causes": [asdict(cause) for cause in self.causes],
            "delays": dict(self.delays.counts),
            "hot_window": {
                "is": format_duration(self.hot_window),
                "covers": self.delays.share_within(self.hot_window),
                "for_coverage": [{**asdict(w), "window": _written(w.window)} for w in self.hot_windows],
            },
            "dates": [each.as_dict() for each in self.dates],
        }


def lateness_of(reader: TableReader, config: Config) -> Lateness:
    """Read it from the ledger (which must exist) and from the row counts of the attributed table's last dates."""
    names = [config.stream_name("exposure"), config.stream_name("outcome")]
    days = last_days(reader)
    streams = []
    for name in names:
        found = reader.scan("ledger", ["rows_out", "rows_late", "detail"], [*days, ("query", "=", f"ingest:{name}")]).read_all()
        accepted, late = (pc.sum(found[column]).as_py() or 0 for column in ("rows_out", "rows_late"))
        streams.append(
            StreamLateness(
                stream=name,
                accepted=accepted,
                late=late,
                behind=_behind(found["detail"]),
            )
        )
    runs = rows_of(reader.scan("ledger", ["finished_at", "horizon", "detail"], [*days, ("query", "=", "settle")]))
    settles = [{**run, "detail": from_json(run["detail"] or "{}")} for run in runs]
    finals = [settle["detail"].get("final") or {} for settle in settles]
    looked_up = _sum(settle["detail"].get("causes") for settle in settles)
    changed = _sum(settle["detail"].get("changed") for settle in settles)
    delays = _histogram(_sum(final.get("delays") for final in finals))
    state = reader.scan("ledger", ["state_rows", "state_bytes"], [*days, ("query", "=", "join")])
    return Lateness(
        streams=streams,
        final=sum(final.get("outcomes") or 0 for final in finals),
        unattributed=sum(final.get("unattributed") or 0 for final in finals),
        settled=sum(final.get("settled") or 0 for final in finals),
        causes=[Cause(cause=cause, looked_up=n, changed=changed.get(cause, 0)) for cause, n in sorted(looked_up.items())],
        delays=delays,
        hot_window=config.join.hot_window,
        watermark_delay=config.join.watermark_delay,
        hot_windows=_hot_windows(state.read_all(), delays, config),
        dates=_dates(reader, f"attributed_{names[1]}", settles),
    )


def _behind(details: pa.ChunkedArray) -> Histogram:
    """The sum of the histograms in ingest's details. Arrow parses them: there is one for each micro-batch of 7 days."""
    found = pc.struct_field(pc.extract_regex(details.cast(pa.string()), r'"lateness":\s*(?P<counts>\{[^}]*\})'), "counts")
    lines = "\n".join(each for each in found.to_pylist() if each)
    counts = arrow_json.read_json(BytesIO(lines.encode())) if lines else pa.table({})
    return _histogram({name: pc.sum(counts[name]).as_py() or 0 for name in counts.schema.names})


def _sum(counts: Iterable[Mapping[str, int] | None]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in (each or {}).items():
            total[name] = total.get(name, 0) + count
    return total


def _histogram(counts: Mapping[str, int]) -> Histogram:
    return Histogram.of({bucket: count for bucket, count in counts.items() if bucket in NAMES})


def _hot_windows(state: pa.Table, delays: Histogram, config: Config) -> list[HotWindow]:
    """For each coverage; state in proportion to the most that the join has held."""
    held = (config.join.hot_window + config.join.watermark_delay) / timedelta(seconds=1)
    most_rows = pc.max(state["state_rows"])
    most_bytes = state["state_bytes"][pc.index(state["state_rows"], most_rows).as_py()].as_py() if most_rows.is_valid else 0
    found = []
    for coverage in _COVERAGES:
        window = delays.covering(coverage)
        if window is not None:
            window = min(window, config.join.attribution_window)
        rows = size_of = None
        if window is not None and most_rows.as_py() and held > 0:
            times = (window + config.join.watermark_delay) / timedelta(seconds=1) / held
            rows, size_of = round(most_rows.as_py() * times), round((most_bytes or 0) * times)
        found.append(HotWindow(coverage=coverage, window=window, state_rows=rows, state_bytes=size_of))
    return found


def _dates(reader: TableReader, attributed: str, settles: Sequence[Mapping[str, Any]]) -> list[DateFinality]:
    """The last dates of the outcomes, and every one that late events have changed after it was final."""
    if not reader.exists(attributed):
        return []
    after = _after_final(settles)
    shown = sorted({*reader.dates(attributed)[-_DATES_SHOWN:], *after})
    wanted = [date.fromisoformat(day) for day in shown]
    counted = reader.scan(attributed, ["event_date"], [("event_date", "in", wanted)]).read_all()
    rows = {str(row["values"]): row["counts"] for row in pc.value_counts(counted["event_date"]).to_pylist()}
    return [
        DateFinality(date=day, rows=rows.get(day, 0), final_since=_final_since(settles, day), **after.get(day, {}))
        for day in shown
    ]


def _after_final(settles: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What late events have done to each date after it was final, by the fields of `DateFinality`."""
    found: dict[str, dict[str, Any]] = {}
    for settle in settles:
        for day, counts in (settle["detail"].get("after_final") or {}).items():
            sums = found.setdefault(day, {"looked_up_after": 0, "changed_after": 0, "changed_at": None})
            sums["looked_up_after"] += counts.get("looked_up") or 0
            if counts.get("changed"):
                sums["changed_after"] += counts["changed"]
                sums["changed_at"] = max(settle["finished_at"], sums["changed_at"] or 0)
    return found


def _final_since(settles: Sequence[Mapping[str, Any]], day: str) -> int | None:
    """When settle first finished with a horizon at or beyond the end of a date (microseconds)."""
    end = (date.fromisoformat(day) - EPOCH.date()).days * _DAY_US + _DAY_US - 1
    return min((s["finished_at"] for s in settles if s["horizon"] is not None and s["horizon"] >= end), default=None)


def _written(duration: timedelta | None) -> str | None:
    return None if duration is None else format_duration(duration)


def lateness_lines(found: Lateness) -> list[str]:
    """For a terminal: what is late, what settle did, what the hot window covers, which dates are final."""
    lines = ["", "lateness (the last 7 days of runs)"]
    for stream in found.streams:
        share = stream.late / stream.accepted if stream.accepted else 0.0
        reach = " ".join(f"{coverage:.0%} {_ahead(stream.behind, coverage)}" for coverage in _COVERAGES)
        lines.append(
            f"  {stream.stream:<24} {stream.late:,} of {stream.accepted:,} late ({share:.2%}); behind by at most: {reach}"
        )
    causes = ", ".join(f"{c.cause} {c.looked_up:,} ({c.changed:,} changed)" for c in found.causes) or "nothing"
    lines.append(f"  settle looked up         {causes}")
    of_them = f"{found.unattributed:,} unattributed, {found.settled:,} answered by settle"
    lines.append(f"  final outcomes           {found.final:,}, of them {of_them}")
    covers = found.delays.share_within(found.hot_window)
    lines.append(f"  hot window               {format_duration(found.hot_window)} covers {covers:.1%} of the attributed outcomes")
    for each in found.hot_windows:
        held = "" if each.state_rows is None else f", about {each.state_rows:,} state rows, {size(each.state_bytes or 0)}"
        lines.append(f"    {each.coverage:.0%} would need          {_ahead(found.delays, each.coverage)}{held}")
    lines += ["", "event dates"]
    for day in found.dates:
        state = f"final since {iso(day.final_since)}" if day.final_since else "open"
        after = f"; then {day.looked_up_after:,} looked up, {day.changed_after:,} changed" if day.looked_up_after else ""
        last = f", last at {iso(day.changed_at)}" if day.changed_at else ""
        lines.append(f"  {day.date}  {day.rows:>12,} rows  {state}{after}{last}")
    return lines


def _ahead(histogram: Histogram, coverage: float) -> str:
    duration = histogram.covering(coverage)
    if duration is not None:
        return format_duration(duration)
    return f"more than {format_duration(ENDS[-1])}" if histogram.total else "unknown yet"
