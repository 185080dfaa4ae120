"""The sink keeps two extremes: so whatever is written in whatever order, the row is the same."""

import itertools
import json
from typing import Any

import pytest
from pyspark.sql import functions as F

from pipelines.sink import AttributedSink
from tests.builders import play, shown


def candidate(outcome: dict[str, Any], exposure: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {"exposure_id": "impression_id", "exposure_time": "event_time"}
    carried = {f"exposure_{c}": c for c in ("row_id", "position", "device", "model_version")}
    return {**outcome, **{k: exposure.get(v) if exposure else None for k, v in {**names, **carried}.items()}}


def write(pipeline: Any, *candidates: dict[str, Any], lane: str = "join") -> None:
    lake = pipeline.lake
    lines = lake.spark.createDataFrame([(json.dumps(c),) for c in candidates], "line string")
    rows = lines.select(F.from_json("line", lake.streams.candidate_schema).alias("c")).select("c.*")
    AttributedSink(lake).write(rows, lane=lane)


STEPS = [
    candidate(play("p", "12:00")),
    candidate(play("p", "12:00"), shown("a", "11:00")),
    candidate(play("p", "12:00"), shown("b", "11:30")),
    # A conflicting event of the same id: later, so it never is the event, however good its exposure.
    candidate(play("p", "12:30"), shown("z", "12:29")),
]


@pytest.mark.parametrize(
    "order",
    [*(pytest.param(order, marks=pytest.mark.soak) for order in ((0, 1, 2, 3), (2, 3, 0, 1))), (3, 2, 1, 0), (1, 1, 3, 2)],
    ids=str,
)
def test_any_order_and_repetition_of_writes_ends_in_the_same_row(replay: Any, order: tuple[int, ...]) -> None:
    pipeline = replay()
    for step in order:
        write(pipeline, STEPS[step])
    rows = pipeline.attributed()
    assert {k: v["exposure_id"] for k, v in rows.items()} == {"p": "b"}
    assert rows["p"]["event_date"] == "2026-01-10"


def test_one_write_settles_what_stands_twice_in_it(replay: Any) -> None:
    pipeline = replay()
    write(pipeline, *itertools.chain(STEPS, reversed(STEPS)))
    assert pipeline.answers() == {"p": ("b", "join")}


def test_a_winning_event_takes_the_row_over_with_its_own_exposure(replay: Any) -> None:
    pipeline = replay()
    write(pipeline, STEPS[3])
    write(pipeline, STEPS[0], lane="settle")
    assert pipeline.answers() == {"p": (None, "settle")}


@pytest.mark.slow
def test_a_row_that_is_not_improved_is_not_touched(replay: Any) -> None:
    pipeline = replay()
    write(pipeline, STEPS[2])
    before = pipeline.rows("attributed_playbacks")
    write(pipeline, STEPS[0], STEPS[1], STEPS[2], lane="settle")
    assert pipeline.rows("attributed_playbacks") == before


def test_events_of_two_dates_are_two_rows_until_repair(replay: Any) -> None:
    """DESIGN section 2: within one event date the sink sees to conflicts at once, across dates reconcile does."""
    pipeline = replay()
    write(pipeline, candidate(play("p", "2026-01-10T12:00:00Z")), candidate(play("p", "2026-01-11T12:00:00Z")))
    assert len(pipeline.rows("attributed_playbacks")) == 2
