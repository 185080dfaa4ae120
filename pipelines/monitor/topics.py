"""Records of Kafka topics that ingest has not read: what Kafka has, against ingest's checkpoint. Kafka is asked for a second."""

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.config.model import Config, KafkaSource
from pipelines.control.facts import Facts
from pipelines.control.gaps import accepted
from pipelines.model.errors import RejoinError
from pipelines.model.paths import is_local
from pipelines.monitor.lag import Finding

_SECONDS = 1.0


def unread_records(config: Config, checkpoints: str, facts: Facts) -> dict[str, int | None]:
    """By stream that comes from Kafka, how many offsets come after those that ingest has read; None where Kafka does not answer,
    or the checkpoint is not on a local disk."""
    topics = {name: stream.source for name, stream in config.streams.items() if isinstance(stream.source, KafkaSource)}
    if not topics:
        return {}

    def unread(name: str) -> int | None:
        return _unread(topics[name], f"streams.{name}.source", checkpoints, name, facts)

    with ThreadPoolExecutor() as pool:
        return dict(zip(topics, pool.map(unread, topics), strict=True))


def for_topics(unread: Mapping[str, int | None], running: Collection[str]) -> list[Finding]:
    """Findings of records that wait while no ingest seems to be `running`."""
    return [
        Finding(
            problem=f"{name}: {count:,} records of its topic have not been read",
            remedy="run `rejoin run`, or see what it says where it is running",
        )
        for name, count in unread.items()
        if count and name not in running
    ]


def _unread(source: KafkaSource, where: str, checkpoints: str, name: str, facts: Facts) -> int | None:
    from pipelines.kafka.client import ends_now  # takes a while

    if not is_local(checkpoints):
        return None
    gap = next((each for each in reversed(accepted(facts, name)) if each.topic == source.topic), None)
    checkpoint = Path(checkpoints, f"ingest-{name}" if gap is None else f"ingest-{name}-after-gap-{gap.id}")
    read = _offsets(checkpoint, source.topic)
    try:
        ends = ends_now(source, where, read, _SECONDS)
    except RejoinError:
        return None
    return sum(max(0, end - read[partition]) for partition, end in ends.items())


def _offsets(checkpoint: Path, topic: str) -> dict[int, int]:
    """The next offset to read of each partition, after the last finished micro-batch; none where there is none yet."""
    finished = [int(path.name) for path in checkpoint.glob("commits/*") if path.name.isdigit()]
    log = checkpoint / "offsets" / str(max(finished, default=-1))
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    found = (json.loads(line).get(topic) for line in lines if line.startswith("{"))
    return {int(partition): offset for offsets in found if isinstance(offsets, dict) for partition, offset in offsets.items()}
