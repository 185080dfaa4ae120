"""The report's plots, as SVG text for the page: no script, no network, sharp in print.

Colours suit light and dark paper alike; a plot is narrow enough for a phone.
"""

import logging
from datetime import timedelta
from typing import Any, Literal

import altair as alt
import pandas as pd
import vl_convert

from pipelines.histogram import END_OF, NAMES, Histogram
from pipelines.observe.lateness import Lateness
from pipelines.reconcile.compare.diff import HourSummary
from pipelines.reconcile.report.history import EarlierRun

_WIDTH, _HEIGHT = 330, 200
_MOST_HOURS = 240
_INK, _GRID = "#7a8591", "#7a859133"
_FIRST, _SECOND, _MARK = "#4c8bc9", "#e0913a", "#c0504d"


def plots(hours: list[HourSummary], lateness: Lateness, earlier: list[EarlierRun]) -> list[tuple[str, str]]:
    """(What it shows, SVG) for each plot that there is data for."""
    drawn = [
        ("Outcomes by hour (or day) of event time: bars are batch, points the table", _by_hour(hours)),
        ("Outcomes without an exposure, as a share of the table's, by hour (or day) of event time", _unattributed(hours)),
        ("How far events are behind their stream (to the right of the line: late)", _behind(lateness)),
        ("Outcomes that settle looked up, and those it changed, by cause", _causes(lateness)),
        ("Attributed outcomes that a hot window of this length would cover (line: as configured)", _coverage(lateness)),
        ("Earlier reconciliations: share of outcomes without an exposure, and of late events", _trend(earlier)),
    ]
    return [(title, _svg(chart)) for title, chart in drawn if chart is not None]


def _by_hour(hours: list[HourSummary]) -> Any:
    if not hours:
        return None
    frame = pd.DataFrame(
        {"hour": f"{h.event_date} {h.hour:02d}h", "day": str(h.event_date), "batch": h.batch_rows, "table": h.table_rows}
        for h in hours
    )
    place = "hour"
    if len(frame) > _MOST_HOURS:
        place = "day"
        frame = frame.groupby("day", as_index=False)[["batch", "table"]].sum().tail(_MOST_HOURS)
    sparse = frame[place][:: max(1, len(frame) // 8)].tolist()
    x = alt.X(f"{place}:N", axis=alt.Axis(values=sparse, labelAngle=-45, title=None), sort=None)
    bars = alt.Chart(frame).mark_bar(color=_FIRST, opacity=0.6).encode(x=x, y=alt.Y("batch:Q", title="outcomes"))
    points = alt.Chart(frame).mark_circle(color=_SECOND, size=18, opacity=1).encode(x=x, y="table:Q")
    return alt.layer(bars, points)


def _unattributed(hours: list[HourSummary]) -> Any:
    rows = [
        {"hour": f"{h.event_date} {h.hour:02d}h", "day": str(h.event_date), "table": h.table_rows, "open": h.unattributed}
        for h in hours
        if h.table_rows
    ]
    if not rows:
        return None
    frame, place = pd.DataFrame(rows), "hour"
    if len(frame) > _MOST_HOURS:
        place = "day"
        frame = frame.groupby("day", as_index=False)[["table", "open"]].sum().tail(_MOST_HOURS)
    frame["share"] = frame["open"] / frame["table"]
    sparse = frame[place][:: max(1, len(frame) // 8)].tolist()
    x = alt.X(f"{place}:N", axis=alt.Axis(values=sparse, labelAngle=-45, title=None), sort=None)
    y = alt.Y("share:Q", axis=alt.Axis(format="%", tickCount=5), title=None, scale=alt.Scale(domainMin=0))
    return alt.Chart(frame).mark_line(point=True, color=_FIRST).encode(x=x, y=y)


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
    sparse = frame["run"].drop_duplicates()[:: max(1, len(earlier) // 8)].tolist()
    x = alt.X("run:N", axis=alt.Axis(values=sparse, labelAngle=-45, title=None), sort=None)
    y = alt.Y("share:Q", axis=alt.Axis(format="%", tickCount=5), title=None, scale=alt.Scale(domainMin=0))
    colour = alt.Color("of:N", scale=alt.Scale(range=[_FIRST, _SECOND]), legend=alt.Legend(orient="top", title=None))
    return alt.Chart(frame).mark_line(point=True).encode(x=x, y=y, color=colour)


def _behind(lateness: Lateness) -> Any:
    parts = [(stream.stream, stream.behind) for stream in lateness.streams if stream.behind.total]
    if not parts:
        return None
    names = _used([histogram for _, histogram in parts])
    rows = [{"behind": n, "stream": stream, "events": h.counts[n]} for stream, h in parts for n in names if h.counts.get(n)]
    x = alt.X("behind:N", sort=names, scale=alt.Scale(domain=names), axis=alt.Axis(labelAngle=-45), title="behind by at most")
    bars = (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar()
        .encode(
            x=x,
            y=alt.Y("events:Q", scale=alt.Scale(type="symlog"), axis=alt.Axis(tickCount=5, format="~s")),
            xOffset=alt.XOffset("stream:N"),
            color=alt.Color("stream:N", scale=alt.Scale(range=[_FIRST, _SECOND]), legend=alt.Legend(orient="top", title=None)),
        )
    )
    return alt.layer(bars, _rule(names, lateness.watermark_delay, "end"))


def _causes(lateness: Lateness) -> Any:
    if not lateness.causes:
        return None
    rows = [
        {"cause": c.cause, "what": what, "outcomes": n}
        for c in lateness.causes
        for what, n in (("looked up", c.looked_up), ("changed", c.changed))
    ]
    return (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar()
        .encode(
            y=alt.Y("cause:N", title=None),
            yOffset=alt.YOffset("what:N", sort=["looked up", "changed"]),
            x=alt.X("outcomes:Q", axis=alt.Axis(tickCount=4, format="~s")),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=["looked up", "changed"], range=[_FIRST, _SECOND]),
                legend=alt.Legend(orient="top", title=None),
            ),
        )
    )


def _coverage(lateness: Lateness) -> Any:
    if not lateness.delays.total:
        return None
    names = [n for n in _used([lateness.delays]) if n in END_OF]
    if not names:
        return None
    frame = pd.DataFrame({"window": name, "covered": lateness.delays.share_within(END_OF[name])} for name in names)
    x = alt.X("window:N", sort=names, scale=alt.Scale(domain=names), axis=alt.Axis(labelAngle=-45), title="hot window")
    y = alt.Y("covered:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5), title=None)
    line = alt.Chart(frame).mark_line(point=True, color=_FIRST).encode(x=x, y=y)
    return alt.layer(line, _rule(names, lateness.hot_window, "middle"))


def _rule(names: list[str], value: timedelta, where: Literal["middle", "end"]) -> Any:
    """A line in the middle or at the end of the last bucket that ends at or below `value`."""
    below = [name for name, end in END_OF.items() if end <= value and name in names]
    place = pd.DataFrame({"at": [below[-1] if below else names[0]]})
    # All buckets lie beyond: the line is before the first.
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
        .configure_legend(labelColor=_INK, titleColor=_INK)
    )
    logging.getLogger("vl_convert").setLevel(logging.ERROR)
    return str(vl_convert.vegalite_to_svg(styled.to_dict()))
