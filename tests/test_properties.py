"""DESIGN section 2 as two properties of the whole pipeline, over random timelines, arrivals and interleavings.

1. After `settle --all` the table equals the oracle of all accepted events: all columns, partitions included.
2. After any settle, all outcomes at or below its horizon equal the oracle of the events that it had seen.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from tests import oracle
from tests.builders import play, shown

WINDOW = timedelta(minutes=60)
SETTINGS = ("join.attribution_window=60m", "join.watermark_delay=5m")

# A grid of instants, with neighbours a millisecond off: ties, and edges of both windows hit exactly.
INSTANTS = [f"{10 + m // 60:02d}:{m % 60:02d}:00{ms}" for m in range(0, 180, 10) for ms in ("", ".001")]
AT = st.sampled_from(INSTANTS)
WHO = st.sampled_from(["ann", "bob", "cleo", None])
# Days before, up to the last instant of a date. Outcome ids are of one date: of two on different dates, reconcile sees to one.
DAYS_AGO = st.sampled_from(["2026-01-07T12:00:00Z", "2026-01-07T12:20:00Z", "2026-01-07T23:59:59.999Z"])
DEVICE = st.sampled_from(["tv", "web"])
PLAY = st.one_of(
    st.builds(play, st.sampled_from([f"p{n}" for n in range(12)]), AT, WHO, device=DEVICE),
    st.builds(play, st.sampled_from(["old1", "old2"]), DAYS_AGO, WHO, device=DEVICE),
)
SHOWN = st.builds(
    shown, st.sampled_from([f"i{n}" for n in range(12)]), st.one_of(AT, AT, DAYS_AGO), WHO, position=st.sampled_from([1, None])
)


@dataclass(frozen=True)
class Wave:
    impressions: tuple[dict[str, Any], ...]
    playbacks: tuple[dict[str, Any], ...]
    join: bool
    settle: bool
    lost: str | None = None
    """The checkpoint that is lost before this wave."""


@st.composite
def timelines(draw: st.DrawFn, most_waves: int = 3) -> tuple[str, int, int, list[Wave]]:
    """Events shuffled into waves whatever their time, some of them several times; each stage skipped at times, checkpoints lost
    at times. With a hot window, how many files a micro-batch of the join takes, and how many unread bytes go to settle."""
    impressions = draw(st.lists(SHOWN, min_size=4, max_size=20))
    playbacks = draw(st.lists(PLAY, min_size=4, max_size=16))
    count = draw(st.integers(2, most_waves))
    landed: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(count)]
    for side, events in enumerate((impressions, playbacks)):
        for event in events:
            for wave in draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2)):
                landed[wave][side].append(event)
    lost = st.sampled_from([None, None, None, "join", "ingest-impressions", "ingest-playbacks"])
    waves = [Wave(tuple(a), tuple(b), draw(st.booleans()), draw(st.booleans()), draw(lost)) for a, b in landed]
    hot_window, files, backlog = (
        st.sampled_from(["0", "10m", "25m", "60m"]),
        st.sampled_from([1, 1000]),
        st.sampled_from([1, 10**9]),
    )
    return draw(hot_window), draw(files), draw(backlog), waves


def check(replay: Any, hot_window: str, files: int, backlog: int, waves: list[Wave]) -> None:
    limits = f"trigger.join_max_files={files}", f"trigger.settle_backlog_bytes={backlog}"
    pipeline = replay(*SETTINGS, f"join.hot_window={hot_window}", *limits)
    impressions: list[Any] = []
    playbacks: list[Any] = []
    for wave in waves:
        if wave.lost:
            pipeline.lose_checkpoint(wave.lost)
        pipeline.wave(wave.impressions, wave.playbacks)
        impressions += wave.impressions
        playbacks += wave.playbacks
        if wave.join:
            pipeline.join()
        if wave.settle:
            horizon = pipeline.settle().settled.horizon
            if horizon is not None:
                expected = oracle.attribute(playbacks, impressions, window=WINDOW)
                assert _until(pipeline.attributed(), horizon) == _until(expected, horizon)
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
    assert pipeline.dropped() == 0


def _until(rows: dict[Any, dict[str, Any]], horizon: int) -> dict[Any, dict[str, Any]]:
    return {id: row for id, row in rows.items() if row["event_time"] <= horizon}


LATE_BETTER = [
    # The exposure nearest to p arrives late, after p was settled with another.
    Wave((shown("a", "10:00"), shown("x", "11:30", who="bob")), (play("p", "10:30"), play("y", "11:30", who="cleo")), True, True),
    Wave((shown("b", "10:20"),), (play("q", "10:25"),), True, True),
]


NEARER_UNREAD = [
    # p has a row of the join's; what would be nearer lands on time, in a backlog that the join passes over.
    Wave(
        (shown("a", "10:00"), shown("x", "10:12", who="bob")), (play("p", "10:07"), play("y", "10:12", who="cleo")), True, False
    ),
    Wave((shown("b", "10:06"), shown("z", "11:30", who="bob")), (play("q", "10:30"), play("w", "11:30", who="cleo")), True, True),
]


def profile(examples: int) -> Any:
    # Shrinking replays whole pipelines: worth it, within reason. The failing example is printed in any case.
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, derandomize=True
    )


@profile(1)
@given(timeline=timelines())
@example(timeline=("10m", 1, 10**9, LATE_BETTER))
@example(timeline=("10m", 1, 1, NEARER_UNREAD))
def test_any_waves_end_in_the_oracle(replay: Any, timeline: tuple[str, int, list[Wave]]) -> None:
    check(replay, *timeline)


@pytest.mark.slow
@profile(5)
@given(timeline=timelines())
def test_more_waves_end_in_the_oracle(replay: Any, timeline: tuple[str, int, list[Wave]]) -> None:
    check(replay, *timeline)


@pytest.mark.soak
@pytest.mark.timeout(0)
@settings(profile(100), derandomize=False)
@given(timeline=timelines(most_waves=6))
def test_random_waves_end_in_the_oracle(replay: Any, timeline: tuple[str, int, list[Wave]]) -> None:
    """Other examples each time; `make soak`. What it finds becomes a regression with a name."""
    check(replay, *timeline)
