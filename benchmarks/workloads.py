"""The workloads of the bench: a day of events by the generator's defaults, as files and in Kafka topics."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.sources import KafkaSource
from pipelines.demo.broker import Broker
from pipelines.kafka.client import create_topic, produce

ROOT = Path(__file__).parent.parent
STREAMS = ("impressions", "playbacks")
PARTITIONS = 2
_KEY = re.compile(r'"profile_id":"([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Events of `hours` of event time, to be joined over `window_hours`. `events` names those that are the same events."""

    name: str
    events: str
    impressions: int
    playbacks: int
    hours: float = 12
    window_hours: int = 6
    seed: int = 7

    @property
    def size(self) -> int:
        return self.impressions + self.playbacks


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="w1", events="w1", impressions=5_000_000, playbacks=500_000),
        Workload(name="w2", events="w1", impressions=5_000_000, playbacks=500_000, window_hours=24),
        Workload(name="w3", events="w3", impressions=25_000_000, playbacks=2_500_000),
        Workload(name="small", events="small", impressions=400_000, playbacks=40_000),
    )
}


def generate(workload: Workload, directory: Path) -> dict[str, list[Path]]:
    """The files of events, by stream in order of arrival; made once for each size and seed."""
    folder = directory / f"{workload.events}-{workload.impressions}-{workload.playbacks}-{workload.hours:g}h-{workload.seed}"
    done = folder / "done"
    if not done.is_file():
        sizes = ["--impressions", str(workload.impressions), "--playbacks", str(workload.playbacks)]
        words = [*sizes, "--hours", str(workload.hours), "--seed", str(workload.seed), "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "pipelines", "generate", *words], cwd=ROOT, check=True)  # noqa: S603
        done.touch()
    return {name: sorted((folder / name).glob("*.jsonl")) for name in STREAMS}


def load(broker: Broker, files: dict[str, list[Path]]) -> None:
    """Produce the events to topics of the streams' names, keyed by profile."""
    for name in STREAMS:
        source = KafkaSource(format="kafka", bootstrap_servers=broker.servers, topic=name)
        create_topic(source, name, PARTITIONS)
        produce(source, name, _keyed(files[name]))


def _keyed(files: list[Path]) -> Iterator[tuple[str | None, str]]:
    for file in files:
        with file.open() as lines:
            for line in lines:
                found = _KEY.search(line)
                yield (found.group(1) if found else None), line.rstrip("\n")


def overrides(servers: str, lake: Path, workload: Workload, prefix: str = "") -> list[str]:
    """`--set`s by which Rejoin reads the topics, whose names begin with `prefix`, and joins over the workload's window into a
    lake."""
    sets = [f"lake={lake}", f"join.attribution_window={workload.window_hours}h"]
    for name in STREAMS:
        source = {"format": "kafka", "bootstrap_servers": servers, "topic": prefix + name}
        sets.append(f"streams.{name}.source={json.dumps(source)}")
    return [word for each in sets for word in ("--set", each)]
