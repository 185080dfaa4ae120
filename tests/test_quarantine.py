"""What is in quarantine comes back: judged again by today's schema, landed once, marked; and its rate is told."""

from collections.abc import Callable
from datetime import date, timedelta
from unittest.mock import patch

import pytest

from pipelines.ingest import quarantine
from pipelines.jobs.reland import report_reland_quarantine, run_reland_quarantine
from pipelines.reconcile.report import to_text
from tests import oracle
from tests.builders import play, shown
from tests.replay import Replay
from tests.test_changes import playbacks_schema

IMPRESSIONS = [shown(f"i{n}", f"{8 + n:02d}:00") for n in range(8)]
NARROW = playbacks_schema("INT")
RIGHT = playbacks_schema("BIGINT")
MANY = 3_000_000_000
PLAYBACKS = [play(f"p{n}", f"{8 + n:02d}:20", seconds_watched=MANY if n else 100) for n in range(8)]
TRUTH = oracle.attribute(PLAYBACKS, IMPRESSIONS, window=timedelta(hours=6))


def relanded(pipeline: Replay, reason: str | None = None, since: date | None = None) -> str:
    done = run_reland_quarantine(pipeline.lake, pipeline.config, "playbacks", reason, since)
    return report_reland_quarantine("playbacks", *done).partition("\n")[0]


def assert_right(pipeline: Replay) -> None:
    pipeline.ingest()
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == TRUTH
    run = pipeline.reconcile()
    assert run.verdict == "agrees"
    assert "playbacks  9 read = 8 accepted (7 late) + 1 quarantined (not_json 1)" in to_text(run)


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_mistake_in_a_schema_is_right_after_one_edit_and_one_reland(replay: Callable[..., Replay], accepted: int) -> None:
    """Also where nothing at all was accepted: then nothing but the reland says how far the stream has come."""
    pipeline = replay(NARROW)
    sent = PLAYBACKS if accepted else [{**event, "seconds_watched": MANY} for event in PLAYBACKS]
    pipeline.wave(IMPRESSIONS, [*sent, sent[1], "{"])
    pipeline.ingest()
    pipeline.join()
    pipeline.settle(everything=True)
    run = pipeline.reconcile()
    assert run.verdict == "differs"
    assert f"quarantine rate at most 0.5 (is {0.9 if accepted else 1})" in to_text(run)
    [finding] = [f for f in pipeline.status().findings if "quarantine" in f.problem]
    assert "seconds_watched must be INT, got 3000000000" in finding.problem
    assert "rejoin reland playbacks --quarantine" in finding.remedy

    assert relanded(pipeline).startswith("playbacks: 0 of ")
    pipeline.reconfigure(RIGHT)
    assert relanded(pipeline, reason="not_json") == (
        "playbacks: 0 of 1 quarantined payloads pass by now; 0 rows landed; still in quarantine: not_json 1"
    )
    assert relanded(pipeline, since=date(2999, 1, 1)) == "playbacks: nothing in quarantine; nothing to do"
    count = 9 - accepted
    assert relanded(pipeline) == (
        f"playbacks: {count} of {count + 1} quarantined payloads pass by now; {count} rows landed; "
        "still in quarantine: not_json 1"
    )
    assert relanded(pipeline).startswith("playbacks: 0 of 1 ")
    pipeline.ingest()
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(sent, IMPRESSIONS, window=timedelta(hours=6))
    run = pipeline.reconcile()
    assert run.verdict == "agrees"
    assert f"playbacks  10 read = 9 accepted ({count} late) + 1 quarantined (not_json 1)" in to_text(run)


def test_a_kill_between_its_two_commits_lands_nothing_twice(replay: Callable[..., Replay]) -> None:
    pipeline = replay(NARROW)
    pipeline.wave(IMPRESSIONS, [*PLAYBACKS, "{"])
    pipeline.ingest()
    pipeline.reconfigure(RIGHT)
    with patch.object(quarantine, "mark_relanded", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        relanded(pipeline)
    assert "7 of 8 quarantined payloads pass by now; 0 rows landed" in relanded(pipeline)
    assert_right(pipeline)


def test_what_was_relanded_can_be_lost_and_landed_again_and_is_no_sibling(replay: Callable[..., Replay]) -> None:
    """Two lines of one file with one id and time, of which one was quarantined, are two events."""
    pipeline = replay(NARROW)
    first, second = play("p1", "10:05", seconds_watched=100), play("p1", "10:05", seconds_watched=MANY)
    pipeline.wave([shown("i1", "10:00")], [first, second, second])
    pipeline.reconfigure(RIGHT)
    assert "2 rows landed" in relanded(pipeline)
    landed = sorted(row["seconds_watched"] for row in pipeline.rows("playbacks"))
    assert landed == [100, MANY, MANY]
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE seconds_watched = {MANY}")
    assert pipeline.reland("playbacks").rows == 2
    assert sorted(row["seconds_watched"] for row in pipeline.rows("playbacks")) == landed
