"""The check that benches hold results against (benchmarks/check_result.py), held against rows computed by hand."""

import json
from datetime import datetime, timezone
from pathlib import Path

import duckdb
import pytest

from benchmarks.check_result import Counts, compare, truth

NOW = datetime(2026, 1, 10, 13, tzinfo=timezone.utc)
NONE = (None, None, None, None, None)
COLUMNS = (
    "playback_id",
    "event_time",
    "exposure_id",
    "exposure_time",
    "exposure_row_id",
    "exposure_position",
    "exposure_device",
    "exposure_model_version",
)


def at(clock: str) -> str:
    return f"2026-01-10T{clock}Z"


def show(id: str, clock: str, title: str | None = "t1", **more: object) -> str:
    carried = {"row_id": "new", "position": 3, "device": "tv", "model_version": "m1"}
    event = {"impression_id": id, "event_time": at(clock), "profile_id": "u1", "title_id": title, **carried, **more}
    return json.dumps(event)


def play(id: str, clock: str, title: str | None = "t1", **more: object) -> str:
    event = {"playback_id": id, "event_time": at(clock), "profile_id": "u1", "title_id": title, "device": "tv"}
    return json.dumps({**event, "seconds_watched": 60, **more})


def table(tmp_path: Path, shown: list[str], played: list[str], hours: float = 6) -> duckdb.DuckDBPyConnection:
    """A connection with the truth of these lines."""
    for name, lines in (("shown", shown), ("played", played)):
        (tmp_path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    connection = duckdb.connect()
    truth(connection, [str(tmp_path / "shown.jsonl")], [str(tmp_path / "played.jsonl")], hours, now=NOW)
    return connection


def chosen(connection: duckdb.DuckDBPyConnection) -> dict[str, str | None]:
    rows = connection.execute("SELECT playback_id, exposure_id FROM expected").fetchall()
    assert len(rows) == len(dict(rows))
    return dict(rows)


@pytest.mark.parametrize(
    ("shown", "answer"),
    [
        ([], None),
        ([show("a", "12:00:00")], "a"),  # at the very time
        ([show("a", "06:00:00")], "a"),  # at the far end of the window
        ([show("a", "05:59:59.999")], None),
        ([show("a", "12:00:00.001")], None),
        ([show("a", "11:00:00"), show("b", "10:00:00")], "a"),  # the last
        ([show("a", "11:00:00"), show("b", "12:30:00")], "a"),  # not one from afterwards
        ([show("b", "11:00:00"), show("c", "11:00:00"), show("a", "11:00:00")], "c"),  # ties: the greatest id
        ([show("a", "11:00:00", title="t2"), show("b", "10:00:00")], "b"),  # its own title only
        ([show("a", "11:00:00", title=None)], None),
        ([show("a", "11:00:00"), show("a", "11:00:00")], "a"),  # a duplicate
    ],
)
def test_the_last_impression_in_the_window_is_chosen(tmp_path: Path, shown: list[str], answer: str | None) -> None:
    assert chosen(table(tmp_path, shown, [play("p", "12:00:00")])) == {"p": answer}


def test_a_null_key_matches_nothing(tmp_path: Path) -> None:
    assert chosen(table(tmp_path, [show("a", "11:00:00", title=None)], [play("p", "12:00:00", title=None)])) == {"p": None}


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        (play("p", "12:00:00"), True),
        (play("p", "12:00:00", device=None), True),
        (play("p", "12:00:00", seconds_watched=None, more={"a": [1]}), True),
        (play("p", "12:00:00", event_time="2026-01-10T14:00:00.5+02:00"), True),
        (play("p", "12:00:00", event_time=1768046400000), True),
        (play("p", "12:00:00").replace(": ", ":").replace(", ", ","), True),
        (play("p", "13:05:00"), True),
        (play("p", "13:05:00.001"), False),
        (play("p", "12:00:00", event_time="2036-01-08T12:00:00Z"), False),
        (play("p", "12:00:00", event_time="yesterday evening"), False),
        (play("p", "12:00:00", event_time="2026-01-10T12:00:00"), False),
        (play("p", "12:00:00", event_time="2026-02-30T12:00:00Z"), False),
        (play("p", "12:00:00", event_time=None), False),
        (play("p", "12:00:00", playback_id=None), False),
        (play("p", "12:00:00", playback_id=7), False),
        (play("p", "12:00:00", seconds_watched={"unexpected": [1, 2]}), False),
        (play("p", "12:00:00", seconds_watched="60"), False),
        (play("p", "12:00:00", seconds_watched=1.5), False),
        (play("p", "12:00:00", seconds_watched=2**31), False),
        (json.dumps({"event_time": at("12:00:00")}), False),
        (play("p", "12:00:00")[:60], False),
        ("[" + play("p", "12:00:00") + "]", False),
        ('"text"', False),
        ("not, json", False),
        ("", False),
    ],
)
def test_only_whole_events_of_the_right_types_and_no_later_than_now_are_accepted(
    tmp_path: Path, line: str, accepted: bool
) -> None:
    played = [play("before", "10:00:00"), line, play("after", "11:00:00")]
    assert set(chosen(table(tmp_path, [], played))) == {"before", "after"} | ({"p"} if accepted else set())


def test_an_impression_that_is_refused_is_never_chosen(tmp_path: Path) -> None:
    shown = [show("a", "11:00:00", model_version={"unexpected": [1, 2]}), show("b", "10:00:00")]
    assert chosen(table(tmp_path, shown, [play("p", "12:00:00")])) == {"p": "b"}


def test_each_row_has_its_times_in_utc_and_the_values_carried(tmp_path: Path) -> None:
    played = [play("p", "12:00:00", event_time="2026-01-10T14:00:00+02:00"), play("q", "12:00:00", title="t2")] * 2
    rows = table(tmp_path, [show("a", "11:30:00.250", position=None)], played).execute("FROM expected ORDER BY 1").fetchall()
    noon, shown_at = datetime(2026, 1, 10, 12), datetime(2026, 1, 10, 11, 30, 0, 250_000)
    assert rows == [("p", noon, "a", shown_at, "new", None, "tv", "m1"), ("q", noon, None, *NONE)]


def found(connection: duckdb.DuckDBPyConnection, tmp_path: Path, rows: list[tuple[object, ...]]) -> Counts:
    names = ", ".join(f"c{n} AS {name}" for n, name in enumerate(COLUMNS))
    values = ", ".join("(" + ", ".join("NULL" if v is None else repr(v) for v in row) + ")" for row in rows)
    source = f"(VALUES {values}) AS r({', '.join(f'c{n}' for n in range(len(COLUMNS)))})"
    connection.execute(f"COPY (SELECT {names} FROM {source}) TO '{tmp_path}/found.parquet' (FORMAT parquet)")
    return compare(connection, f"{tmp_path}/*.parquet")


def pair(id: str, exposure: str | None, clock: str = "11:00:00", position: int = 3) -> tuple[object, ...]:
    shown = (exposure, f"2026-01-10 {clock}", "new", position, "tv", "m1") if exposure else (None, *NONE)
    return (id, "2026-01-10 12:00:00", *shown)


RIGHT = Counts(expected=2, right=2, wrong=0, unattributed=0, lost=0, extra=0, duplicates=0, rows=2)


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([pair("p", "a"), pair("q", None)], {}),
        # Every matching pair, and a row without one that came before, come down to the last touch.
        ([pair("p", None), pair("p", "b", "10:00:00"), pair("p", "a"), pair("q", None)], {"rows": 4}),
        ([pair("p", "a"), pair("p", "a"), pair("q", None)], {"rows": 3, "duplicates": 1}),
        ([pair("p", "b", "10:00:00"), pair("q", None)], {"right": 1, "wrong": 1}),
        ([pair("p", "a", position=4), pair("q", None)], {"right": 1, "wrong": 1}),
        ([pair("p", "a"), pair("q", "a")], {"right": 1, "wrong": 1}),
        ([pair("p", None), pair("q", None)], {"right": 1, "unattributed": 1}),
        ([pair("q", None)], {"right": 1, "lost": 1, "rows": 1}),
        ([pair("p", "a"), pair("q", None), pair("r", "a")], {"extra": 1, "rows": 3}),
        ([pair("r", None), pair("r", None)], {"right": 0, "lost": 2, "extra": 1, "duplicates": 1}),
    ],
)
def test_each_playback_is_counted_once(tmp_path: Path, rows: list[tuple[object, ...]], counts: dict[str, int]) -> None:
    shown = [show("a", "11:00:00"), show("b", "10:00:00")]
    connection = table(tmp_path, shown, [play("p", "12:00:00"), play("q", "12:00:00", title="t2")])
    result = found(connection, tmp_path, rows)
    assert result == Counts(**{**vars(RIGHT), **counts})
    assert result.exact == (rows == [pair("p", "a"), pair("q", None)])


def test_nothing_never_passes_as_exact(tmp_path: Path) -> None:
    connection = table(tmp_path, [], [])
    counts = found(connection, tmp_path, [pair("r", None)])
    assert (counts.expected, counts.extra, counts.exact) == (0, 1, False)
