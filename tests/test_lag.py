"""Lag and throughput: figures from literal ledger entries, the bottleneck, what falls behind, what waits."""

import time
from typing import Any

import pytest

from pipelines.control.facts import Fact, Facts
from pipelines.model.format import about
from pipelines.monitor.judged import Judged
from pipelines.monitor.lag import (
    Backlog,
    Lag,
    Throughput,
    backlog_left,
    bottleneck,
    falling_behind,
    throughput,
    versions_read,
)
from pipelines.monitor.phases import Laps, note, noted
from pipelines.monitor.waiting import for_join, for_rows, for_settle

SECOND = 1_000_000
NOW = 10_000 * SECOND


def entry(query: str, start: float, seconds: float, rows: int, **more: Any) -> dict[str, Any]:
    """A ledger entry of a micro-batch that starts at second `start`."""
    durations = {"total": round(seconds * 1000), **more.pop("phases", {})}
    times = {"started_at": round(start * SECOND), "finished_at": round((start + seconds) * SECOND)}
    rest = {"rows_in": rows, "horizon": None, "state_rows": None, "detail": {}}
    return {"query": query, "durations_ms": durations, **times, **rest, **more}


def rate(query: str = "join", busy: float = 540.0, span: float = 600.0, **more: Any) -> Throughput:
    """A query that has just run for ten minutes in 60 micro-batches."""
    given = {"since": NOW - round(span * SECOND), "until": NOW, "micro_batches": 60, "rows": 600_000, "median": 9.0, "last": 9.0}
    return Throughput(query=query, busy=busy, **{**given, "phases": {"read": busy}, **more})


def test_figures_are_of_all_recent_micro_batches() -> None:
    entries = [
        entry("ingest:a", 0, 4, 400, phases={"read": 3000, "bronze": 800}, detail={"max_event_time_us": 100 * SECOND}),
        entry("ingest:a", 10, 2, 100, phases={"read": 1500, "bronze": 400}, detail={"max_event_time_us": 106 * SECOND}),
        entry("ingest:a", 18, 2, 0, detail={"max_event_time_us": 106 * SECOND}),
    ]
    found = throughput("ingest:a", entries)
    assert found is not None
    assert (found.rows, found.busy, found.span, found.micro_batches) == (500, 8.0, 20.0, 3)
    assert (found.utilisation, found.processed_per_second) == (0.4, 62.5)
    assert (found.median, found.last) == (3.0, 2.0), "the median is of those with rows"
    assert found.pace == pytest.approx(6 / 16)
    assert found.phases == pytest.approx({"read": 4.5, "bronze": 1.2, "other": 2.3})


def test_phases_within_add_batch_are_counted_once() -> None:
    durations = {"triggerExecution": 10_000, "addBatch": 9000, "resolve": 6000, "merge": 2500, "walCommit": 400}
    entries = [{**entry("join", at, 10, 100, state_rows=7), "durations_ms": durations, "horizon": at * SECOND} for at in (0, 10)]
    found = throughput("join", entries)
    assert found is not None
    assert found.phases == pytest.approx({"resolve": 12.0, "merge": 5.0, "addBatch": 1.0, "walCommit": 0.8, "other": 1.2})
    assert (found.pace, found.state_rows, next(iter(found.shares()))) == (1.0, 7, "resolve")


def test_one_micro_batch_has_no_utilisation_and_no_pace() -> None:
    one = throughput("settle", [entry("settle", 0, 3, 5)])
    assert one is not None
    assert (one.utilisation, one.pace, one.phases) == (None, None, {"other": 3.0})
    assert throughput("settle", [entry("settle", 0, 3, 5) | {"started_at": None}]) is None


STATE = {"resolve": 378.0, "merge": 140.0, "other": 22.0}


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([], "nothing has run yet"),
        ([rate(micro_batches=1)], "too few micro-batches to tell"),
        ([rate("ingest:a", busy=90), rate(busy=120)], "nothing: the busiest query, join, is busy 20% of the time"),
        (
            [rate("ingest:a", busy=500), rate(busy=558, phases=STATE, state_rows=2_900_000)],
            "join is busy 93% of the time; 68% of it is resolve, with 2,900,000 rows of state; "
            "a longer trigger.every, a smaller join.hot_window or more cores help",
        ),
        (
            [rate("ingest:a", rows=6000, median=2.1)],
            "ingest:a is busy 90% of the time; fixed cost: 100 rows to a micro-batch of 2.1 s; "
            "a longer trigger.every does the same with less",
        ),
        (
            [rate("ingest:a", busy=590), rate("join", busy=98, span=100, phases=STATE)],
            "ingest:a is busy 98% of the time; 100% of it is read; more cores help, and for a topic more partitions",
        ),
    ],
    ids=["nothing", "one micro-batch", "idle", "state", "few rows", "the longest"],
)
def test_bottleneck(rates: list[Throughput], said: str) -> None:
    assert bottleneck(rates) == said


@pytest.mark.parametrize(
    ("rates", "behind"),
    [
        ([rate("ingest:a", busy=580, pace=0.5)], ["ingest:a"]),
        ([rate("ingest:a", busy=580, pace=1.01)], []),
        ([rate("ingest:a", busy=100, pace=0.5)], []),
        ([rate("ingest:a", busy=58, span=60, pace=0.4)], []),
        ([rate("ingest:a", busy=580, pace=0.5, until=NOW - 700 * SECOND, since=0)], []),
        ([rate("ingest:a", busy=100, pace=1.0), rate(busy=590, pace=0.7)], ["join"]),
        ([rate("ingest:a", busy=590, pace=0.7), rate(busy=590, pace=0.7)], ["ingest:a"]),
        ([rate("ingest:a", busy=100, pace=10.0), rate(busy=590, pace=3.4)], []),
        ([rate(busy=590, pace=0.0)], []),
        ([rate(busy=100, pace=1.0), rate("settle", busy=590, pace=0.2)], ["settle"]),
    ],
    ids=[
        "slower than the clock",
        "as fast as the clock",
        "not busy: its source is slow",
        "one minute only",
        "stopped",
        "slower than its input",
        "its input is as slow",
        "history, faster than the clock",
        "no input",
        "settle behind the join",
    ],
)
def test_falling_behind(rates: list[Throughput], behind: list[str]) -> None:
    found = falling_behind(rates, NOW)
    assert [finding.problem.split()[0] for finding in found] == behind
    assert all(finding.remedy for finding in found)


HANDOFF = Fact(kind="handoff", event_time=500 * SECOND, at=NOW, detail={"bytes": {"a": 3 * 1024**2}})


@pytest.mark.parametrize(("settled", "left"), [(None, True), (499 * SECOND, True), (500 * SECOND, False)])
def test_a_backlog_is_left_until_settle_has_come_as_far(settled: int | None, left: bool) -> None:
    run = Fact(kind="settled", detail={"run": 1, "horizon": settled}, at=NOW - SECOND)
    found = backlog_left(Facts((run, HANDOFF)))
    assert (str(found) == "3.0 MiB of a") if left else found is None
    assert backlog_left(Facts((run,))) is None


@pytest.mark.parametrize(
    ("join", "handoff", "versions"),
    [
        (None, None, {}),
        ({"finished_at": 1, "consumed": {"a": {"reservoirVersion": 5}, "b": None}}, None, {"a": 4}),
        ({"finished_at": 1, "consumed": {"a": {"reservoirVersion": 5, "isStartingVersion": True}}}, None, {"a": 5}),
        ({"finished_at": 1, "consumed": {"a": {"reservoirVersion": 3}}}, HANDOFF, {}),
        ({"finished_at": NOW + 1, "consumed": {"a": {"reservoirVersion": 9}}}, HANDOFF, {"a": 8}),
    ],
    ids=["nothing ran", "an offset", "the first snapshot", "nothing read since a handoff", "has read on since"],
)
def test_what_the_join_has_read(join: dict[str, Any] | None, handoff: Fact | None, versions: dict[str, int]) -> None:
    assert versions_read(join, handoff) == versions


LONG_AGO, JUST_NOW = NOW - 900 * SECOND, NOW - 90 * SECOND


@pytest.mark.parametrize(
    ("lag", "joined", "problems"),
    [
        (Lag(unread={"a": (3, 2048)}), LONG_AGO, ["3 files (2.0 KiB) of bronze wait unread; the join last finished 15 min ago"]),
        (Lag(unread={"a": (3, 2048)}), JUST_NOW, []),
        (Lag(unread={"a": (0, 0)}), LONG_AGO, []),
        (
            Lag(backlog=Backlog(at=LONG_AGO, up_to=0, bytes={"a": 1024})),
            NOW,
            ["the backlog up to 1970-01-01T00:00:00.000Z (1.0 KiB of a), left to settle 15 min ago, waits unread"],
        ),
        (Lag(backlog=Backlog(at=JUST_NOW, up_to=0, bytes={})), NOW, []),
    ],
    ids=["join stopped", "join at work", "nothing to read", "settle stopped", "settle will come"],
)
def test_what_waits_unread_for_ten_minutes(lag: Lag, joined: int, problems: list[str]) -> None:
    assert [finding.problem for finding in for_join(lag, 600.0, joined, NOW)] == problems


@pytest.mark.parametrize(
    ("behind", "joined", "found"), [(7200, JUST_NOW, 0), (7200, LONG_AGO, 1), (90_000, JUST_NOW, 1), (1200, LONG_AGO, 0)]
)
def test_a_horizon_that_is_far_behind(behind: int, joined: int, found: int) -> None:
    assert len(for_join(Lag(newest=behind * SECOND, horizon=0), 600.0, joined, NOW)) == found


@pytest.mark.parametrize(
    ("settled_ago", "settled", "found"), [(10, 0, 0), (3600, 0, 1), (3600, 5, 0)], ids=["at work", "stopped", "has seen all"]
)
def test_a_settle_that_has_stopped(settled_ago: int, settled: int, found: int) -> None:
    latest = {"join": {"finished_at": NOW, "horizon": 5}, "settle": {"finished_at": NOW - settled_ago * SECOND}}
    assert len(for_settle(latest, settled, 60.0, NOW)) == found


def test_nothing_that_has_landed_and_nothing_that_was_attributed() -> None:
    some, none = Judged(stream="plays", accepted=3, quarantined={}), Judged(stream="views", accepted=0, quarantined={"x": 2})
    problems = [finding.problem for finding in for_rows([none, some], "plays", 0)]
    assert problems[0] == "views: nothing has landed, of 2 lines read"
    assert problems[1].startswith("no outcome has a row yet")
    assert for_rows([some], "plays", 2) == []


def test_lag_is_from_the_horizon_to_the_newest_event() -> None:
    assert Lag(newest=4000 * SECOND, horizon=100 * SECOND).seconds == 3900
    assert Lag(newest=90 * SECOND, horizon=100 * SECOND).seconds == 0
    assert Lag(newest=90 * SECOND).seconds is None


def test_laps_add_up_to_what_was_timed() -> None:
    laps = Laps()
    time.sleep(0.02)
    laps.lap("first")
    time.sleep(0.02)
    laps.lap("second", {"part": 0.005})
    laps.lap("first")
    durations = laps.durations_ms()
    assert list(durations) == ["total", "first", "second", "part"]
    assert durations["first"] >= 20
    assert durations["part"] == 5
    assert abs(durations["total"] - sum(v for k, v in durations.items() if k != "total")) <= 3


def test_what_is_noted_is_read_once_and_not_kept_for_ever() -> None:
    for batch in range(300):
        note("checkpoint", batch, {"merge": 0.25}, rows_out=7)
    assert noted("checkpoint", 299) == {"merge": 250, "rows_out": 7}
    assert noted("checkpoint", 299) == {}
    assert noted("checkpoint", 0) == {}, "long gone"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (95, "95 s"), (700, "12 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert about(seconds) == text
