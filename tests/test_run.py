"""`rejoin run` as a real process: killed in the middle, started again, stopped; the table is right."""

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from pipelines.control.store import read_facts
from tests import oracle
from tests.builders import play, shown
from tests.processes import Process, free_port, group_of_processes, until

# What a stream's reading, or how its lines were judged, reads like on stderr.
SAID = r"(impressions|playbacks): (reading /\S+|.*\d+ read = \d+ accepted \(\d+ late\) \+ 0 quarantined.*)|metrics: http://\S+"
PORT = free_port()


def shown_by_metrics() -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=10) as probe:
        assert probe.status == 200
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line.startswith("rejoin"))}


def minute(m: int) -> str:
    return f"{10 + m // 60}:{m % 60:02d}"


@pytest.fixture
def start() -> Iterator[Callable[[Any], Process]]:
    """Starts `rejoin run` over a pipeline."""

    def words(pipeline: Any) -> list[str]:
        sets = [f"lake={pipeline.root}/lake", "trigger.every=1s", "settle.every=5s"]
        sets += ["tables.compact_every=5s", "spark.shuffle_partitions=2", f"metrics.port={PORT}"]
        sets += [f"streams.{s}.source.path={pipeline.root}/landing/{s}" for s in ("impressions", "playbacks")]
        return [word for s in sets for word in ("--set", s)]

    with group_of_processes() as launch:
        yield lambda pipeline: launch("run", *words(pipeline))


@pytest.mark.slow
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

    def judged(stream: str) -> list[int]:
        rows = pipeline.rows(stream)
        late = sum(row["late"] for row in rows)
        return [len(rows) - late, late, 0]

    def landed() -> bool:
        return pipeline.read("playbacks").select("playback_id").distinct().count() == len(playbacks)

    wave(0)
    process = start(pipeline)
    until(landed, process)
    wave(1)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wave(2)
    before = {stream: judged(stream) for stream in ("impressions", "playbacks")}
    process = start(pipeline)
    until(landed, process)
    wave(3)
    wave(4)
    until(landed, process)
    last = max(oracle.micros(e["event_time"]) for e in playbacks) - 600_000_000

    def horizon() -> bool:
        return (read_facts(pipeline.lake).horizon or 0) >= last

    # The sources are quiet now: heartbeats move the horizon.
    until(horizon, process)

    def compacted() -> bool:
        operations = [
            {c.operation for c in pipeline.lake.commits(t, 0)} for t in ("playbacks", "attributed_playbacks", "control")
        ]
        return all("OPTIMIZE" in each for each in operations)

    until(compacted, process)
    metrics = shown_by_metrics()
    for stream, events in (("impressions", impressions), ("playbacks", playbacks)):
        counted = [metrics[f'rejoin_rows_total{{stream="{stream}",verdict="{v}"}}'] for v in ("on_time", "late", "quarantined")]
        assert counted == [now - then for now, then in zip(judged(stream), before[stream], strict=True)]
        newest = max(oracle.micros(event["event_time"]) for event in events)
        assert metrics[f'rejoin_newest_event_timestamp_seconds{{stream="{stream}"}}'] == newest / 1e6
    assert metrics["rejoin_horizon_timestamp_seconds"] * 1e6 >= last
    assert metrics["rejoin_rows_dropped_by_watermark_total"] == 0
    # To the whole group, as who stops a service does: the JVM may go before Python has said goodbye to it.
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert [line.split(": ")[0] for line in err.splitlines()[-2:]] == ["impressions", "playbacks"]
    assert all(re.fullmatch(SAID, line) for line in err.splitlines()), err
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert pipeline.dropped() == 0
    assert len(pipeline.rows("playbacks")) == len(playbacks), "a replay landed rows twice"
    assert json.dumps(pipeline.reconcile().counts["matched"]) == str(len(playbacks))
