"""Records of Kafka topics that ingest has not read: what Kafka has, against ingest's checkpoint. Kafka is asked for a second."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.config.model import Config
from pipelines.config.sources import KafkaSource
from pipelines.control.facts import Facts
from pipelines.control.gaps import accepted
from pipelines.model.errors import RejoinError
from pipelines.model.paths import is_local
from pipelines.monitor.checkpoints import offsets_read
from pipelines.monitor.lag import RECENT_US, Entry, Finding

_SECONDS = 1.0


def unread_records(config: Config, checkpoints: str, facts: Facts) -> dict[str, int | None]:
    """By stream that comes from Kafka, how many offsets come after those that ingest has read; None where that cannot be told:
    Kafka does not answer, the checkpoint is new or not on a local disk, or counts in a topic of before."""
    topics = {name: stream.source for name, stream in config.streams.items() if isinstance(stream.source, KafkaSource)}
    if not topics:
        return {}

    def unread(name: str) -> int | None:
        return _unread(topics[name], f"streams.{name}.source", checkpoints, name, facts)

    with ThreadPoolExecutor() as pool:
        return dict(zip(topics, pool.map(unread, topics), strict=True))


def for_topics(
    unread: Mapping[str, int | None], latest: Mapping[str, Entry | None], stopped: Mapping[str, bool], now: int
) -> list[Finding]:
    """Findings of records that wait for an ingest that has stopped, or that has landed nothing for ten minutes."""
    found = []
    for name, count in unread.items():
        last = latest[f"ingest:{name}"]
        if count and (stopped[name] or last is None or now - last["finished_at"] > RECENT_US):
            problem = f"{name}: {count:,} records of its topic have not been read"
            found.append(Finding(problem=problem, remedy="run `rejoin run`, or see what it says where it is running"))
    return found


def _unread(source: KafkaSource, where: str, checkpoints: str, name: str, facts: Facts) -> int | None:
    from pipelines.kafka.client import ends_now  # takes a while

    if not is_local(checkpoints):
        return None
    gap = next((each for each in reversed(accepted(facts, name)) if each.topic == source.topic), None)
    if gap is None:
        read = offsets_read(Path(checkpoints, f"ingest-{name}"), source.topic)
    else:
        read = offsets_read(Path(checkpoints, f"ingest-{name}-after-gap-{gap.id}"), source.topic) or dict(gap.offsets)
    try:
        ends = ends_now(source, where, _SECONDS)
    except RejoinError:
        return None
    if not read or any(ends.get(partition, 0) < offset for partition, offset in read.items()):
        return None
    return sum(end - read.get(partition, 0) for partition, end in ends.items())
