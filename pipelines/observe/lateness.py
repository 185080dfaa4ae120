"""Lateness made visible, from the ledger: how late events come, what settling does, when dates are final, what state costs.

All figures are of the ledger's last `_DAYS` days of runs, but for when a date became final, which no row is too old to tell.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.durations import format_duration
from pipelines.histogram import ENDS, NAMES, Histogram
from pipelines.instants import iso
from pipelines.lake import Lake
from pipelines.readable import size

_DAYS = 30
_DATES_SHOWN = 7
_COVERAGES = (0.90, 0.95, 0.99)
_COUNTS = "map<string,bigint>"
_AFTER_FINAL = f"map<string,{_COUNTS}>"
_FINAL = "struct<outcomes:bigint,unattributed:bigint,settled:bigint,delays:map<string,bigint>>"


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


def read_lateness(lake: Lake, config: Config) -> Lateness:
    """Read it from the ledger (which must exist) and from the row counts of the attributed table's last dates."""
    recent = lake.read("ledger").where(F.col("run_date") >= F.date_sub(F.current_date(), _DAYS))
    names = [stream.name for stream in lake.streams.both]
    totals, counts = _totals(recent, names), _counts(recent)
    delays = _histogram(counts["delays"])
    return Lateness(
        streams=[
            StreamLateness(
                stream=name,
                accepted=totals[f"accepted {name}"] or 0,
                late=totals[f"late {name}"] or 0,
                behind=_histogram(counts[f"ingest:{name}"]),
            )
            for name in names
        ],
        final=totals["outcomes"] or 0,
        unattributed=totals["unattributed"] or 0,
        settled=totals["settled"] or 0,
        causes=[
            Cause(cause=cause, looked_up=looked_up, changed=counts["changed"].get(cause, 0))
            for cause, looked_up in sorted(counts["causes"].items())
        ],
        delays=delays,
        hot_window=config.join.hot_window,
        watermark_delay=config.join.watermark_delay,
        hot_windows=_hot_windows(totals["state"], delays, config),
        dates=_dates(lake, recent.where("query = 'settle'").select("finished_at", "detail")),
    )


def _totals(ledger: DataFrame, streams: Iterable[str]) -> dict[str, Any]:
    """Of all queries, in one look. `state` is the most that the join has held."""
    query, figures = F.col("query"), []
    for name in streams:
        of_stream = query == f"ingest:{name}"
        for told, column in (("accepted", "rows_out"), ("late", "rows_late")):
            figures.append(F.sum(F.when(of_stream, F.col(column))).alias(f"{told} {name}"))
    final = F.when(query == "settle", F.from_json(F.get_json_object("detail", "$.final"), _FINAL))
    figures += [F.sum(final[name]).alias(name) for name in ("outcomes", "unattributed", "settled")]
    figures.append(F.max(F.when(query == "join", F.struct("state_rows", "state_bytes"))).alias("state"))
    return ledger.agg(*figures).collect()[0].asDict()


def _counts(ledger: DataFrame) -> dict[str, dict[str, int]]:
    """What the ledger's details count, in one look: by `ingest:<stream>` how far events came behind; of settle `delays`,
    `causes`, and the `changed` of these."""
    query = F.col("query")

    def told(where: Column, kind: Column, key: str) -> Column:
        counts = F.from_json(F.get_json_object("detail", f"$.{key}"), _COUNTS)
        return F.when(where, F.struct(kind.alias("kind"), counts.alias("counts")))

    keys = {"delays": "final.delays", "causes": "causes", "changed": "changed"}
    of_settle = (told(query == "settle", F.lit(kind), key) for kind, key in keys.items())
    parts = F.array(told(query.startswith("ingest:"), query, "lateness"), *of_settle)
    each = ledger.select(F.inline(F.array_compact(parts))).select("kind", F.explode("counts").alias("name", "count"))
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in each.groupBy("kind", "name").agg(F.sum("count").alias("sum")).collect():
        found[row["kind"]][row["name"]] = row["sum"]
    return found


def _histogram(counts: Mapping[str, int]) -> Histogram:
    return Histogram.of({bucket: count for bucket, count in counts.items() if bucket in NAMES})


def _hot_windows(greatest: Row | None, delays: Histogram, config: Config) -> list[HotWindow]:
    held = (config.join.hot_window + config.join.watermark_delay) / timedelta(seconds=1)
    found = []
    for coverage in _COVERAGES:
        window = delays.covering(coverage)
        if window is not None:
            window = min(window, config.join.attribution_window)
        rows = size_of = None
        if window is not None and greatest is not None and greatest["state_rows"] and held > 0:
            times = (window + config.join.watermark_delay) / timedelta(seconds=1) / held
            rows, size_of = round(greatest["state_rows"] * times), round(greatest["state_bytes"] * times)
        found.append(HotWindow(coverage=coverage, window=window, state_rows=rows, state_bytes=size_of))
    return found


def _dates(lake: Lake, settles: DataFrame) -> list[DateFinality]:
    """The last dates of the outcomes, and every one that late events have changed after it was final."""
    if not lake.exists(lake.attributed):
        return []
    table = lake.read(lake.attributed)
    newest = [row[0] for row in table.select("event_date").distinct().orderBy(F.desc("event_date")).limit(_DATES_SHOWN).collect()]
    after = _after_final(settles)
    shown = {str(day) for day in newest} | set(after)
    counted = table.where(F.col("event_date").cast("string").isin(*shown)).groupBy("event_date").count() if shown else None
    rows = {str(row[0]): row[1] for row in counted.collect()} if counted is not None else {}
    since = _final_since(lake, shown)
    return [
        DateFinality(date=day, rows=rows.get(day, 0), final_since=since.get(day), **after.get(day, {})) for day in sorted(shown)
    ]


def _after_final(settles: DataFrame) -> dict[str, dict[str, int]]:
    told = F.from_json(F.get_json_object("detail", "$.after_final"), _AFTER_FINAL)
    days = settles.select(F.unix_micros("finished_at").alias("at"), F.explode(told).alias("day", "counts"))
    changed = F.col("counts")["changed"]
    summed = days.groupBy("day").agg(
        F.sum(F.col("counts")["looked_up"]).alias("looked_up_after"),
        F.sum(changed).alias("changed_after"),
        F.max(F.when(changed > 0, F.col("at"))).alias("changed_at"),
    )
    return {row["day"]: {k: v for k, v in row.asDict().items() if k != "day"} for row in summed.collect()}


def _final_since(lake: Lake, days: Iterable[str]) -> dict[str, int]:
    """When settle first finished with a horizon at or beyond the end of each date (microseconds)."""
    runs = lake.read("ledger").where("query = 'settle' AND horizon IS NOT NULL")
    last_whole = F.date_sub(F.to_date(F.col("horizon") + F.expr("INTERVAL 1 MICROSECOND")), 1)
    first = runs.groupBy(last_whole.alias("through")).agg(F.unix_micros(F.min("finished_at")).alias("at")).collect()
    reached: Mapping[date, int] = {row["through"]: row["at"] for row in first}
    found = {}
    for day in days:
        ends = [at for through, at in reached.items() if str(through) >= day]
        if ends:
            found[day] = min(ends)
    return found


def _written(duration: timedelta | None) -> str | None:
    return None if duration is None else format_duration(duration)


def lateness_lines(found: Lateness) -> list[str]:
    """For a terminal: what is late, what settle did, what the hot window covers, which dates are final."""
    lines = ["", "lateness (the last 30 days of runs)"]
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
