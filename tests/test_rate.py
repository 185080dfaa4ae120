"""What `status` says of rates: the figures from the ledger's entries, what bounds the pipeline, what falls behind, what waits."""

import time
from typing import Any

import pytest

from pipelines.observe.behind import Behind, LeftToSettle, Unread, behind_lines, left_to_settle, waiting
from pipelines.observe.bounds import bound_by, falling_behind
from pipelines.observe.ledger import PASSED_OVER
from pipelines.observe.phases import Laps, note, noted
from pipelines.observe.rate import Rate, measure, rate_lines
from pipelines.readable import about

SECOND = 1_000_000
NOW = 10_000 * SECOND


def entry(query: str, start: float, seconds: float, rows: int, **more: Any) -> dict[str, Any]:
    """As `Ledger.since` gives it: a micro-batch that starts at second `start`."""
    durations = {"total": round(seconds * 1000), **more.pop("phases", {})}
    times = {"started_at": round(start * SECOND), "finished_at": round((start + seconds) * SECOND)}
    rest = {"rows_in": rows, "rows_out": rows, "rows_late": 0, "horizon": None, "state_rows": None, "detail": {}}
    return {"query": query, "durations_ms": durations, **times, **rest, **more}


def rate(query: str = "join", busy: float = 540.0, span: float = 600.0, **more: Any) -> Rate:
    """A query that has just run for ten minutes in 60 micro-batches."""
    given = {"since": NOW - round(span * SECOND), "until": NOW, "micro_batches": 60, "rows": 600_000, "median": 9.0, "last": 9.0}
    return Rate(query=query, busy=busy, **{**given, **more})


def test_figures_are_of_all_recent_micro_batches() -> None:
    found = [
        entry("ingest:a", 0, 4, 400, phases={"read": 3000, "bronze": 800}, detail={"max_event_time_us": 100 * SECOND}),
        entry("ingest:a", 10, 2, 100, phases={"read": 1500, "bronze": 400}, detail={"max_event_time_us": 106 * SECOND}),
        entry("ingest:a", 18, 2, 0, detail={"max_event_time_us": 106 * SECOND}),
    ]
    (measured,) = measure({"ingest:a": found, "join": []})
    assert (measured.rows, measured.busy, measured.span, measured.micro_batches) == (500, 8.0, 20.0, 3)
    assert measured.utilisation == 0.4
    assert measured.processed_per_second == 62.5
    assert measured.arriving_per_second == 25.0
    assert (measured.median, measured.last) == (3.0, 2.0), "the median is of those with rows"
    assert measured.pace == pytest.approx(6 / 16)
    assert measured.phases == pytest.approx({"read": 4.5, "bronze": 1.2, "other": 2.3})
    assert sum(measured.phases.values()) == pytest.approx(measured.busy)


def test_the_parts_of_add_batch_are_counted_once_and_the_join_is_asked_for_what_landed_on_time() -> None:
    durations = {"triggerExecution": 10_000, "addBatch": 9000, "resolve": 6000, "merge": 2500, "walCommit": 400}
    tasks = {"state_task_ms": {"taking in": 3000, "evicting": 1000}}
    joined = [
        {**entry("join", at, 10, 100, detail=tasks, state_rows=7), "durations_ms": durations, "horizon": h * SECOND}
        for at, h in ((0, 50), (10, 60))
    ]
    landed = [entry("ingest:a", at, 1, 300, rows_late=20) for at in (-10, 3, 9, 30)]
    _, join = measure({"ingest:a": landed, "join": joined})
    assert join.phases == pytest.approx({"resolve": 12.0, "merge": 5.0, "addBatch": 1.0, "walCommit": 0.8, "other": 1.2})
    assert join.arrived == 560
    assert (join.arriving_per_second, join.processed_per_second) == (28.0, 10.0)
    assert join.pace == 1.0
    lines = rate_lines([join])
    assert "resolve 60%, merge 25%, addBatch 5%, walCommit 4%, other 6%" in lines[-2]
    assert "state: taking in 75%, evicting 25%" in lines[-1]
    assert max(map(len, lines)) <= 100


def test_what_is_not_known_is_not_told() -> None:
    """An entry of an earlier version has no phases; of one micro-batch there is no telling how busy the query is."""
    (one,) = measure({"settle": [entry("settle", 0, 3, 5)]})
    assert (one.utilisation, one.arriving_per_second, one.pace, one.fixed) == (None, None, None, None)
    assert one.phases == {"other": 3.0}
    assert len(rate_lines([one])) == 4
    assert measure({"settle": [entry("settle", 0, 3, 5) | {"started_at": None}]}) == []


@pytest.mark.parametrize(
    ("rows", "seconds", "fixed"),
    [
        ([100, 200, 300, 400, 500], [2.1, 2.2, 2.3, 2.4, 2.5], 2.0),
        ([100, 110, 120, 130, 140], [2.1, 2.2, 2.3, 2.4, 2.5], None),
        ([100, 200, 300], [2.1, 2.2, 2.3], None),
        ([100, 200, 300, 400, 500], [2.5, 2.4, 2.3, 2.2, 2.1], None),
        ([100, 200, 300, 400, 500], [1.0, 2.0, 3.0, 4.0, 5.0], 0.0),
    ],
    ids=["a line", "sizes alike", "too few", "falling", "no fixed cost"],
)
def test_the_fixed_cost_is_what_no_rows_would_take(rows: list[int], seconds: list[float], fixed: float | None) -> None:
    found = [entry("ingest:a", 10 * n, s, r) for n, (r, s) in enumerate(zip(rows, seconds, strict=True))]
    (measured,) = measure({"ingest:a": found})
    assert measured.fixed == (None if fixed is None else pytest.approx(fixed, abs=1e-6))


STATE = {"resolve": 378.0, "merge": 140.0, "other": 22.0}


@pytest.mark.parametrize(
    ("rates", "store", "said"),
    [
        ([], "rocksdb", "nothing has run yet"),
        (
            [rate("settle", micro_batches=1, last=4.2), rate(micro_batches=1, last=12.0)],
            "rocksdb",
            "too few micro-batches to tell; the longest is join's, 12 s",
        ),
        (
            [rate("ingest:a", busy=90), rate(busy=120)],
            "rocksdb",
            "nothing: the busiest query, join, is busy 20% of the time",
        ),
        (
            [rate("ingest:a", busy=500), rate(busy=558, phases=STATE, state_rows=2_900_000)],
            "rocksdb",
            "join is busy 93% of the time; 68% of it is resolve: state of 2.9 M rows; "
            "a smaller join.hot_window or state_store.provider=memory helps",
        ),
        (
            [rate(busy=558, phases=STATE, state_rows=2_900_000)],
            "memory",
            "join is busy 93% of the time; 68% of it is resolve: state of 2.9 M rows; "
            "a smaller join.hot_window or more cores helps",
        ),
        (
            [rate(phases={"merge": 400.0, "resolve": 100.0}, state_rows=2_900_000)],
            "rocksdb",
            "join is busy 90% of the time; 74% of it is merge: the MERGE into the result; "
            "a longer trigger.every merges more at once; `rejoin maintain` compacts",
        ),
        (
            [rate(phases={"addBatch": 500.0}, state_rows=40)],
            "rocksdb",
            "join is busy 90% of the time; 93% of it is addBatch: reading, matching, state; "
            "more cores or a longer trigger.every help",
        ),
        (
            [rate(phases={"walCommit": 500.0}, state_rows=40)],
            "rocksdb",
            "join is busy 90% of the time; 93% of it is walCommit: Spark's own bookkeeping; "
            "a longer trigger.every or faster storage for checkpoints helps",
        ),
        (
            [rate("ingest:a", phases={"read": 500.0}, median=2.1, fixed=1.8), rate(busy=100)],
            "rocksdb",
            "ingest:a is busy 90% of the time; fixed cost: 0.3 s of work in 2.1 s micro-batches; "
            "a longer trigger.every does the same with less",
        ),
        (
            [rate("ingest:a", rows=6000, phases={"read": 500.0}, median=2.1)],
            "rocksdb",
            "ingest:a is busy 90% of the time; fixed cost: 100 rows to a micro-batch of 2.1 s; "
            "a longer trigger.every does the same with less",
        ),
        (
            [rate("settle", busy=300, median=5.0, fixed=4.5)],
            "rocksdb",
            "nothing: the busiest query, settle, is busy 50% of the time; fixed cost: 0.5 s of work in 5.0 s micro-batches; "
            "a longer settle.every does the same with less",
        ),
        (
            [rate("ingest:a", busy=590, span=600), rate("join", busy=98, span=100, phases=STATE)],
            "rocksdb",
            "ingest:a is busy 98% of the time; its entries do not say where the time goes; "
            "more cores or a longer trigger.every help",
        ),
    ],
    ids=[
        "none",
        "too few",
        "idle",
        "state",
        "state in memory",
        "merge",
        "small state",
        "bookkeeping",
        "fixed",
        "few rows",
        "half",
        "longest",
    ],
)
def test_what_bounds_the_pipeline(rates: list[Rate], store: str, said: str) -> None:
    assert bound_by(rates, state_store=store) == said


@pytest.mark.parametrize(
    ("rates", "behind"),
    [
        ([rate("ingest:a", busy=580, advanced=300.0, between=590.0)], ["ingest:a"]),
        ([rate("ingest:a", busy=580, advanced=595.0, between=590.0)], []),
        ([rate("ingest:a", busy=100, advanced=300.0, between=590.0)], []),
        ([rate("ingest:a", busy=58, span=60, advanced=20.0, between=50.0)], []),
        ([rate("ingest:a", busy=580, advanced=300.0, between=590.0, until=NOW - 700 * SECOND, since=0)], []),
        ([rate("ingest:a", busy=100, advanced=590.0, between=590.0), rate(busy=590, advanced=400.0, between=590.0)], ["join"]),
        (
            [rate("ingest:a", busy=590, advanced=400.0, between=590.0), rate(busy=590, advanced=400.0, between=590.0)],
            ["ingest:a"],
        ),
        ([rate("ingest:a", busy=100, advanced=6000.0, between=590.0), rate(busy=590, advanced=2000.0, between=590.0)], []),
        ([rate(busy=590, advanced=0.0, between=590.0)], []),
        ([rate(busy=100, advanced=590.0, between=590.0), rate("settle", busy=590, advanced=90.0, between=500.0)], ["settle"]),
    ],
    ids=[
        "slower than the clock",
        "as fast as the clock",
        "not busy: its source is slow",
        "a minute only",
        "stopped long ago",
        "slower than what feeds it",
        "its feed is as slow",
        "history, faster than the clock",
        "nothing comes",
        "settle behind the join",
    ],
)
def test_what_falls_behind(rates: list[Rate], behind: list[str]) -> None:
    found = falling_behind(rates, state_store="rocksdb", now=NOW)
    assert [finding.problem.split()[0] for finding in found] == behind
    assert all(finding.remedy for finding in found)


def test_how_fast_it_falls_behind_is_said() -> None:
    rates = [rate("ingest:a", busy=100, advanced=590.0, between=590.0), rate(advanced=295.0, between=590.0, phases=STATE)]
    (finding,) = falling_behind(rates, state_store="rocksdb", now=NOW)
    assert finding.problem == (
        "join falls behind, by 30 s of event time a minute: busy 90% of the time; 70% of it is resolve: reading, matching, state"
    )


BACKLOG = {"finished_at": NOW, "horizon": 500 * SECOND, "consumed": {"a": 4}, "detail": {"bytes": {"a": 3 * 1024**2}}}


@pytest.mark.parametrize(
    ("settled", "left"),
    [(None, True), ({"horizon": None}, True), ({"horizon": 499 * SECOND}, True), ({"horizon": 500 * SECOND}, False)],
)
def test_a_backlog_is_left_until_settle_has_come_as_far(settled: dict[str, Any] | None, left: bool) -> None:
    last = {PASSED_OVER: BACKLOG, "settle": None if settled is None else {"detail": {"settled": settled}}}
    found = left_to_settle(last)
    assert (found is not None) == left
    assert left_to_settle({PASSED_OVER: None, "settle": None}) is None
    if found is not None:
        assert (found.up_to, found.told) == (500 * SECOND, "3.0 MiB of a")


@pytest.mark.parametrize(
    ("behind", "joined", "problems"),
    [
        (
            Behind(unread={"a": Unread(files=3, bytes=2048)}),
            NOW - 900 * SECOND,
            ["the join finished its last micro-batch 15 min ago"],
        ),
        (Behind(unread={"a": Unread(files=3, bytes=2048)}), NOW - 90 * SECOND, []),
        (Behind(unread={"a": Unread(files=0, bytes=0)}), NOW - 900 * SECOND, []),
        (
            Behind(left_to_settle=LeftToSettle(at=NOW - 900 * SECOND, up_to=0, bytes={})),
            NOW,
            ["settle has not looked at the backlog"],
        ),
        (Behind(left_to_settle=LeftToSettle(at=NOW - 90 * SECOND, up_to=0, bytes={})), NOW, []),
    ],
    ids=["join stopped", "join at work", "nothing to do", "settle stopped", "settle will come"],
)
def test_what_has_waited_for_ten_minutes_needs_attention(behind: Behind, joined: int, problems: list[str]) -> None:
    found = waiting(behind, {"join": {"finished_at": joined}}, now=NOW)
    assert [f.problem[: len(p)] for f, p in zip(found, problems, strict=True)] == problems


def test_how_far_behind_reads_in_a_line_each() -> None:
    left = LeftToSettle(at=NOW, up_to=500 * SECOND, bytes={"a": 1024})
    behind = Behind(newest=4000 * SECOND, horizon=100 * SECOND, unread={"a": Unread(files=2, bytes=1024)}, left_to_settle=left)
    assert behind_lines(behind) == [
        "  behind       65 min: from the horizon to the newest landed event, 1970-01-01T01:06:40.000Z",
        "  unread       a 2 files, 1.0 KiB",
        "  left over    a backlog up to 1970-01-01T00:08:20.000Z that settle has not looked at yet",
        "               (1.0 KiB of a): run `rejoin settle --once`",
    ]
    assert behind_lines(Behind()) == []


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
        note("checkpoint", batch, {"merge": 0.25})
    assert noted("checkpoint", 299) == {"merge": 250}
    assert noted("checkpoint", 299) == {}
    assert noted("checkpoint", 0) == {}, "long gone"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (95, "95 s"), (700, "12 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_state_that_was_evicted_just_now_has_been_paid_for() -> None:
    """The last micro-batch of a drain holds little; and what it took is no fixed cost, for it had no rows."""
    rows = [200_000, 150_000, 150_000, 50_000, 0, 0]
    found = [entry("join", 30 * n, 25, r, state_rows=s) for n, (r, s) in enumerate(zip(rows, [2, 3, 5, 5, 5, 0], strict=True))]
    _, join = measure({"ingest:a": [entry("ingest:a", -90, 9, 9)], "join": found})
    assert (join.state_rows, join.fixed) == (5, None)
    assert join.arriving_per_second == 0
