"""`rejoin run` as a real process: killed in the middle, started again, stopped; the table is right."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.builders import play, shown

REJOIN = Path(sys.executable).parent / "rejoin"


def minute(m: int) -> str:
    return f"{10 + m // 60}:{m % 60:02d}"


@pytest.fixture
def start(replay: Any) -> Iterator[Callable[[Any], subprocess.Popen[str]]]:
    """Starts `rejoin run` in a process group of its own, which does not outlive the test."""
    running: list[subprocess.Popen[str]] = []

    def go(pipeline: Any) -> subprocess.Popen[str]:
        sets = [f"lake={pipeline.root}/lake", "trigger.every=1s", "settle.every=5s", "spark.shuffle_partitions=2"]
        sets += [f"streams.{s}.source.path={pipeline.root}/landing/{s}" for s in ("impressions", "playbacks")]
        args = [str(REJOIN), "run", *(word for s in sets for word in ("--set", s))]
        process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        running.append(process)
        return process

    yield go
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(condition: Callable[[], bool], seconds: float, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_the_middle_and_started_again(replay: Any, start: Any) -> None:
    pipeline = replay()
    impressions: list[Any] = []
    playbacks: list[Any] = []

    def wave(number: int) -> None:
        minutes = range(number * 20, number * 20 + 20)
        seen = [shown(f"i{m}", minute(m), who=f"w{m % 7}") for m in minutes]
        # Some for the minute they are in, some hours old.
        played = [play(f"p{m}", minute(max(0, m - (90 if m % 9 == 0 else 0))), who=f"w{m % 5}") for m in minutes]
        impressions.extend(seen)
        playbacks.extend(played)
        pipeline.land("impressions", seen)
        pipeline.land("playbacks", played)

    def landed() -> bool:
        return pipeline.read("playbacks").select("playback_id").distinct().count() == len(playbacks)

    wave(0)
    process = start(pipeline)
    until(landed, 120, process)
    wave(1)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wave(2)
    process = start(pipeline)
    until(landed, 120, process)
    wave(3)
    wave(4)
    until(landed, 60, process)
    last = max(oracle.micros(e["event_time"]) for e in playbacks) - 600_000_000

    def horizon() -> bool:
        rows = pipeline.rows("ledger", "query = 'join' AND horizon IS NOT NULL")
        return max((r["horizon"] for r in rows), default=0) >= last

    # The sources are quiet now: heartbeats bring the horizon up to the door.
    until(horizon, 120, process)
    # To the whole group, as who stops a service does: the JVM may go before Python has said goodbye to it.
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert pipeline.dropped() == 0
    assert len(pipeline.rows("playbacks")) == len(playbacks), "a replay landed rows twice"
    assert json.dumps(pipeline.reconcile().counts["matched"]) == str(len(playbacks))
