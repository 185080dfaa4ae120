"""Bugs put into the lanes on purpose are caught by reconcile on a generated day, each row of them."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines import sink
from pipelines.demo.generator import DayModel, generate_day
from pipelines.jobs import join as join_job
from pipelines.model.events import Streams
from pipelines.settle import run as settle_run
from tests import oracle

WINDOW = timedelta(hours=6)
DAY = DayModel(
    day=date(2026, 1, 10),
    hours=8,
    impressions=3000,
    playbacks=900,
    profiles=150,
    titles=20,
    malformed_share=0.0,
    instant_share=0.05,
)


def only_where(match: Column) -> Callable[[DataFrame, Streams], DataFrame]:
    """Of candidates, the matches that satisfy a condition; the others as if there were none."""
    return lambda found, streams: found.withColumns({f.name: F.when(match, F.col(f.name)) for f in streams.exposure_columns})


def near_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The join: an exposure of the outcome's own instant does not match."""
    right, wrong = join_job.hot_candidates, only_where(F.col("exposure_time") < F.col("event_time"))
    monkeypatch.setattr(join_job, "hot_candidates", lambda o, e, streams, hot: wrong(right(o, e, streams, hot), streams))


def far_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settle: an exposure that lies exactly the window behind does not match."""
    right, wrong = settle_run.lake_candidates, only_where(F.col("exposure_time") > F.col("event_time") - F.lit(WINDOW))
    monkeypatch.setattr(
        settle_run, "lake_candidates", lambda o, e, streams, rules, n: wrong(right(o, e, streams, rules, n), streams)
    )


def ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink: of exposures of one instant the one with the smallest id."""

    def resolve(candidates: DataFrame, streams: Streams, *, first_events: bool = False) -> DataFrame:
        outcome = streams.outcome
        order = [F.desc_nulls_last("exposure_time"), F.asc("exposure_id")]
        placed = candidates.select("*", *outcome.partition_values())
        first = sink._first(placed, outcome.id, [F.expr(outcome.event_rank()).asc(), *order])
        return first.select(*candidates.columns, *outcome.partition_columns)

    monkeypatch.setattr(sink, "resolve", resolve)


def bug_of(right: dict[str, Any], wrong: dict[str, Any]) -> str:
    """Which of the bugs makes of a row of the truth that other one."""
    if right["exposure_time"] == wrong["exposure_time"]:
        return "ties"
    edges = {right["event_time"]: "near_edge", right["event_time"] - WINDOW // timedelta(microseconds=1): "far_edge"}
    return edges.get(right["exposure_time"], "none of these")


@pytest.mark.slow
def test_bugs_are_caught_on_a_generated_day_row_by_row(replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = replay()
    arrivals = generate_day(DAY, pipeline.config).arrivals
    lines = {name: [each.line for each in each_stream] for name, each_stream in arrivals.items()}
    bugs = (near_edge, far_edge, ties)
    for plant in bugs:
        plant(monkeypatch)
    # In order of arrival: what comes on time is the join's to answer.
    halves = [(texts[: len(texts) // 2], texts[len(texts) // 2 :]) for texts in (lines["impressions"], lines["playbacks"])]
    for impressions, playbacks in zip(*halves, strict=True):
        pipeline.wave(impressions, playbacks)
        pipeline.join()
    pipeline.settle(everything=True)
    monkeypatch.undo()
    # But for those whose clock was ahead, all are accepted.
    events = {name: [e for e in map(json.loads, texts) if e["event_time"] < "2030"] for name, texts in lines.items()}
    truth = oracle.attribute(events["playbacks"], events["impressions"], window=WINDOW)
    found = pipeline.attributed()
    wrong = {id for id in truth if found[id] != truth[id]}
    shown_by = {bug_of(truth[id], found[id]) for id in wrong}
    assert shown_by == {bug.__name__ for bug in bugs}, "the day has what shows each bug"
    report = pipeline.reconcile()
    assert (report.verdict, report.counts["mismatched"]) == ("differs", len(wrong))
    assert pipeline.reconcile(fix=True).agrees
    assert pipeline.attributed() == truth
