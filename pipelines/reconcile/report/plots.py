"""The report's plots, as SVG text for the page: no script, no network, sharp in print.

Colours suit light and dark paper alike; a plot is narrow enough for a phone.
"""

import logging
from datetime import timedelta
from typing import Any, Literal

import altair as alt
import pandas as pd
import vl_convert

from pipelines.model.durations import format_duration
from pipelines.model.histogram import END_OF, NAMES, Histogram
from pipelines.monitor.lateness import Lateness
from pipelines.reconcile.compare.diff import HourSummary
from pipelines.reconcile.result import EarlierRun

_WIDTH, _HEIGHT = 330, 200
_MOST_HOURS = 240
_INK, _GRID = "#7a8591", "#7a859133"
_FIRST, _SECOND, _MARK = "#4c8bc9", "#e0913a", "#c0504d"
_PERCENT = alt.Axis(format="%", tickCount=5)
_FROM_ZERO = alt.Scale(domainMin=0)


def plots(hours: list[HourSummary], lateness: Lateness, earlier: list[EarlierRun]) -> list[tuple[str, str, str]]:
    """(What it shows, how to read it, SVG) for each plot that there is data for."""
    delay, window = format_duration(lateness.watermark_delay), format_duration(lateness.hot_window)
    drawn = [
        ("Outcomes over time", "bars: batch; points: the table", _by_hour(hours)),
        ("Outcomes without an exposure", "share of the outcomes in the table", _unattributed(hours)),
        ("How far events are behind their stream", f"right of the line, the watermark delay of {delay}: late", _behind(lateness)),
        ("What settle looked up", "and what of it changed, by cause", _causes(lateness)),
        ("What a hot window of another length would cover", f"line: as configured, {window}", _coverage(lateness)),
        ("Earlier reconciliations", "share of outcomes without an exposure, and of late events", _trend(earlier)),
    ]
    return [(title, hint, _svg(chart)) for title, hint, chart in drawn if chart is not None]


def _by_hour(hours: list[HourSummary]) -> Any:
    if not hours:
        return None
    frame, x = _over_time(hours)
    bars = alt.Chart(frame).mark_bar(color=_FIRST, opacity=0.6).encode(x=x, y=alt.Y("batch:Q", title="outcomes"))
    return alt.layer(bars, alt.Chart(frame).mark_circle(color=_SECOND, size=18, opacity=1).encode(x=x, y="table:Q"))


def _unattributed(hours: list[HourSummary]) -> Any:
    hours = [hour for hour in hours if hour.table_rows]
    if not hours:
        return None
    frame, x = _over_time(hours)
    frame["share"] = frame["open"] / frame["table"]
    y = alt.Y("share:Q", title="share of outcomes", axis=_PERCENT, scale=_FROM_ZERO)
    return alt.Chart(frame).mark_line(point=True, color=_FIRST).encode(x=x, y=y)


def _over_time(hours: list[HourSummary]) -> tuple[pd.DataFrame, alt.X]:
    """A row an hour, or a day where there are too many, with the axis for it."""
    frame = pd.DataFrame(
        {
            "hour": f"{hour.event_date} {hour.hour:02d}:00",
            "day": str(hour.event_date),
            "batch": hour.batch_rows,
            "table": hour.table_rows,
            "open": hour.unattributed,
        }
        for hour in hours
    )
    if len(frame) <= _MOST_HOURS:
        return frame, _sparse("hour", frame, "hour of event time (UTC)")
    frame = frame.groupby("day", as_index=False)[["batch", "table", "open"]].sum().tail(_MOST_HOURS)
    return frame, _sparse("day", frame, "date of event time (UTC)")


def _sparse(column: str, frame: pd.DataFrame, title: str) -> alt.X:
    """An axis of names in the frame's order, some eight of them written."""
    names = frame[column].drop_duplicates()
    values = names[:: max(1, len(names) // 8)].tolist()
    return alt.X(f"{column}:N", axis=alt.Axis(values=values, labelAngle=-45), sort=None, title=title)


def _trend(earlier: list[EarlierRun]) -> Any:
    rows = [
        {"run": run.finished_at[:16].replace("T", " "), "of": name, "share": share}
        for run in earlier
        for name, share in (("without an exposure", run.unattributed_share), ("late", run.late_share))
        if share is not None
    ]
    if len(earlier) < 2 or not rows:
        return None
    frame = pd.DataFrame(rows)
    y = alt.Y("share:Q", title="share", axis=_PERCENT, scale=_FROM_ZERO)
    x = _sparse("run", frame, "run finished (UTC)")
    return alt.Chart(frame).mark_line(point=True).encode(x=x, y=y, color=_two_colours("of"))


def _behind(lateness: Lateness) -> Any:
    parts = [(stream.stream, stream.behind) for stream in lateness.streams if stream.behind.total]
    if not parts:
        return None
    names = _used([histogram for _, histogram in parts])
    rows = [{"behind": n, "stream": stream, "events": h.counts[n]} for stream, h in parts for n in names if h.counts.get(n)]
    most = max(max(histogram.counts.values()) for _, histogram in parts)
    ticks = alt.Axis(values=[10**n for n in range(len(str(most)))], format=",d")
    y = alt.Y("events:Q", title="events (logarithmic)", scale=alt.Scale(type="symlog"), axis=ticks)
    bars = alt.Chart(pd.DataFrame(rows)).mark_bar()
    bars = bars.encode(
        x=_buckets("behind", names, "behind the greatest event time by at most"),
        y=y,
        xOffset="stream:N",
        color=_two_colours("stream"),
    )
    return alt.layer(bars, _rule(names, lateness.watermark_delay, "end"))


def _causes(lateness: Lateness) -> Any:
    if not lateness.causes:
        return None
    order = ["looked up", "changed"]
    figures = [(c.cause, what, n) for c in lateness.causes for what, n in zip(order, (c.looked_up, c.changed), strict=True)]
    bars = alt.Chart(pd.DataFrame(figures, columns=["cause", "what", "outcomes"])).mark_bar()
    x = alt.X("outcomes:Q", axis=alt.Axis(tickCount=4, format=",d"))
    offset = alt.YOffset("what:N", sort=order)
    return bars.encode(y=alt.Y("cause:N", title=None), yOffset=offset, x=x, color=_two_colours("what", order))


def _coverage(lateness: Lateness) -> Any:
    names = [name for name in _used([lateness.delays]) if name in END_OF] if lateness.delays.total else []
    if not names:
        return None
    frame = pd.DataFrame({"window": name, "covered": lateness.delays.share_within(END_OF[name])} for name in names)
    y = alt.Y("covered:Q", title="share of attributed outcomes", axis=_PERCENT, scale=alt.Scale(domain=[0, 1]))
    line = alt.Chart(frame).mark_line(point=True, color=_FIRST).encode(x=_buckets("window", names, "hot window (duration)"), y=y)
    return alt.layer(line, _rule(names, lateness.hot_window, "middle"))


def _buckets(column: str, names: list[str], title: str) -> alt.X:
    return alt.X(f"{column}:N", sort=names, scale=alt.Scale(domain=names), axis=alt.Axis(labelAngle=-45), title=title)


def _two_colours(column: str, domain: list[str] | None = None) -> alt.Color:
    scale = alt.Scale(range=[_FIRST, _SECOND], domain=domain or alt.Undefined)
    return alt.Color(f"{column}:N", scale=scale, legend=alt.Legend(orient="top", title=None))


def _rule(names: list[str], value: timedelta, where: Literal["middle", "end"]) -> Any:
    """A line in the middle or at the end of the last bucket that ends at or below `value`; before the first, where none does."""
    below = [name for name, end in END_OF.items() if end <= value and name in names]
    place = pd.DataFrame({"at": [below[-1] if below else names[0]]})
    position = 0.0 if not below else 1.0 if where == "end" else 0.5
    return alt.Chart(place).mark_rule(color=_MARK, strokeDash=[4, 3]).encode(x=alt.X("at:N", sort=names, bandPosition=position))


def _used(histograms: list[Histogram]) -> list[str]:
    """The buckets from the first to the last that any of them uses."""
    used = [i for i, name in enumerate(NAMES) if any(h.counts.get(name) for h in histograms)]
    return list(NAMES[used[0] : used[-1] + 1])


def _svg(chart: Any) -> str:
    styled = (
        chart.properties(width=_WIDTH, height=_HEIGHT, background="transparent")
        .configure_view(stroke=None)
        .configure_axis(labelColor=_INK, titleColor=_INK, gridColor=_GRID, domainColor=_INK, tickColor=_INK, labelOverlap=True)
        .configure_axisX(titlePadding=14)  # browsers' fonts are wider than the one that it is laid out for
        .configure_legend(labelColor=_INK, titleColor=_INK)
    )
    logging.getLogger("vl_convert").setLevel(logging.ERROR)
    return str(vl_convert.vegalite_to_svg(styled.to_dict()))
