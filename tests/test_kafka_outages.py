"""Running processes against a broker that loses records, or goes away and comes back in the middle."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests import oracle
from tests.kafka_replay import KafkaReplay, day
from tests.processes import Process, group_of_processes, until

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts a command over a pipeline."""

    def words(pipeline: KafkaReplay) -> list[str]:
        own = ("trigger.every=1s", "settle.every=5s", "spark.shuffle_partitions=2", "spark.driver_memory=1g")
        return [word for each in (*pipeline.overrides, *own) for word in ("--set", each)]

    with group_of_processes() as launch:
        yield lambda command, pipeline: launch(command, *words(pipeline))


def landed(pipeline: KafkaReplay, stream: str) -> int:
    return pipeline.read(stream).count() if pipeline.lake.exists(stream) else 0


def retention(pipeline: KafkaReplay) -> None:
    pipeline.send("playbacks", day(40, 200)[1])
    pipeline.delete_records("playbacks", {p: end - 1 for p, end in pipeline.ends("playbacks").items()})


def made_anew_and_longer(pipeline: KafkaReplay) -> None:
    pipeline.make_anew("playbacks")
    pipeline.send("playbacks", day(40, 200)[1])


LOSSES = [
    (retention, r"topic \S+ partition \d: offsets \d+ to \d+ are no longer in Kafka \(\d+ records\)"),
    (made_anew_and_longer, r"topic \S+ partition \d: \d+ records of it have been read, but it was made anew"),
]


@pytest.mark.parametrize(("lose", "said"), LOSSES, ids=["retention", "made anew"])
def test_a_loss_while_ingest_runs_ends_it_with_one_line(
    kafka: Callable[..., KafkaReplay], start: Callable[..., Process], lose: Callable[[KafkaReplay], None], said: str
) -> None:
    pipeline = kafka()
    for stream, events in zip(("impressions", "playbacks"), day(0, 40), strict=True):
        pipeline.send(stream, events)
    process = start("ingest", pipeline)
    until(lambda: landed(pipeline, "playbacks") == 40, process)
    # Held, so that the loss is between two of its looks at the topic.
    os.killpg(process.pid, signal.SIGSTOP)
    lose(pipeline)
    os.killpg(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=90)
    assert_ended_with_one_line(out, err, process.returncode)
    assert re.search(rf"rejoin: streams\.playbacks\.source: {said} .*`rejoin accept-gap playbacks`", err)
    assert landed(pipeline, "playbacks") == 40


def test_a_broker_that_is_stopped_and_killed_while_all_runs(
    kafka: Callable[..., KafkaReplay], start: Callable[..., Process]
) -> None:
    pipeline = kafka()
    impressions: list[Any] = []
    playbacks: list[Any] = []

    def produce() -> None:
        seen, played = day(len(playbacks), 20)
        # Some hours old.
        for event in played[::7]:
            event["event_time"] = "2026-01-10T10:00:00Z"
        pipeline.send("impressions", seen)
        pipeline.send("playbacks", played)
        impressions.extend(seen)
        playbacks.extend(played)

    produce()
    process = start("run", pipeline)
    until(lambda: landed(pipeline, "playbacks") == 20, process)
    for stop in (pipeline.broker.stop, pipeline.broker.kill):
        produce()
        stop()
        time.sleep(5)
        pipeline.broker.start()
        produce()
        process = again_where_it_gave_up(process, lambda: start("run", pipeline))
    # Not "until it is equal": what lands twice must show below, and not as a wait without end.
    until(lambda: all(landed(pipeline, stream) >= len(playbacks) for stream in ("impressions", "playbacks")), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    pipeline.join()
    pipeline.settle(everything=True)
    pipeline.assert_each_record_landed_once()
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert pipeline.dropped() == 0
    assert pipeline.reconcile().agrees


def again_where_it_gave_up(process: Process, restart: Callable[[], Process]) -> Process:
    """Spark waits for a broker for a while, and may then give up: with one line, and a restart goes on."""
    if process.poll() is None:
        return process
    assert_ended_with_one_line(*process.communicate(), process.returncode)
    return restart()


def assert_ended_with_one_line(out: str, err: str, code: int) -> None:
    """Behind what it had said of what it read."""
    *said, last = err.splitlines()
    assert (code, out, last.startswith("rejoin: ")) == (2, "", True), err
    assert all(re.match(r"(impressions|playbacks): ", line) for line in said), err
