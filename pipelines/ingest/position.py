"""Where a stream goes on: the checkpoint it uses and, of one from Kafka, the next offset to read of each partition."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.checkpoints import kafka_offsets
from pipelines.config import FilesSource, KafkaSource
from pipelines.errors import SourceError
from pipelines.gaps import Gap, accepted, find_gaps
from pipelines.kafka_client import Topic, topic_id, topic_now
from pipelines.lake import Lake
from pipelines.observe.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Position:
    """`offsets` is empty where nothing tells: then the query starts as `starting_offsets` says. `topic_id` is which of the topics
    of that name they count in, where that is known."""

    checkpoint: str
    offsets: Mapping[int, int]
    topic_id: str | None = None

    def gaps(self, topic: Topic) -> list[Gap]:
        """What Kafka no longer has of what comes next."""
        return find_gaps(self.offsets, topic.held, another=is_another(self.topic_id, topic.id))


def position(lake: Lake, stream: str, source: FilesSource | KafkaSource) -> Position:
    """After its finished micro-batches; behind an accepted gap, with a checkpoint of its own, as long as that has finished none.

    Where a checkpoint has got lost later, nothing tells: what was accepted once is out of date by then.
    """
    base = lake.checkpoint(f"ingest-{stream}")
    if isinstance(source, FilesSource):
        return Position(checkpoint=base, offsets={})
    batch = Ledger(lake).last(f"ingest:{stream}")
    read = batch["consumed"].get("topic_id") if batch and batch["consumed"].get("topic") == source.topic else None
    gap = next((each for each in reversed(accepted(lake, stream)) if each.topic == source.topic), None)
    if gap is None:
        return Position(checkpoint=base, offsets=kafka_offsets(lake.spark, base, source.topic), topic_id=read)
    checkpoint = f"{base}-after-gap-{gap.id}"
    offsets = kafka_offsets(lake.spark, checkpoint, source.topic)
    if not offsets and (batch is None or batch["finished_at"] < gap.at):
        return Position(checkpoint=checkpoint, offsets=gap.offsets, topic_id=gap.topic_id)
    return Position(checkpoint=checkpoint, offsets=offsets, topic_id=read)


def check_continues(stream: str, source: KafkaSource, place: Position) -> Topic:
    """The topic as it is now. Raises SourceError where it has lost what comes next, is not there, or Kafka does not answer."""
    where = f"streams.{stream}.source"
    topic = topic_now(source, where)
    gaps = place.gaps(topic)
    if not gaps:
        return topic
    more = f" (and so in {len(gaps) - 1} more partitions)" if len(gaps) > 1 else ""
    raise SourceError(
        f"{where}: topic {source.topic} {gaps[0]}{more}; bring the records back, or run `rejoin accept-gap {stream}` to go on "
        "with what Kafka has (what has landed does not land again; records that are produced again later land like any other)"
    )


def check_same_topic(stream: str, source: FilesSource | KafkaSource, known: str | None) -> None:
    """Raise SourceError where the topic is not the one that was `known`: offsets of the two mean different records."""
    where = f"streams.{stream}.source"
    if isinstance(source, KafkaSource) and is_another(known, topic_id(source, where)):
        raise SourceError(f"{where}: topic {source.topic} was made anew while it was being read; start `rejoin ingest` again")


def is_another(known: str | None, found: str | None) -> bool:
    """Whether two topics are known to be different ones."""
    return known is not None and found is not None and known != found
