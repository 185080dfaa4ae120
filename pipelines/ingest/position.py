"""Where a stream goes on: the checkpoint it uses and, of one from Kafka, the next offset to read of each partition."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import functions as F

from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.control.facts import Facts
from pipelines.control.gaps import Gap, accepted, find_gaps
from pipelines.ingest.offsets import kafka_offsets
from pipelines.ingest.state import WriterState
from pipelines.kafka.client import Topic, topic_id, topic_now
from pipelines.lake.tables import Lake
from pipelines.model.errors import SourceError
from pipelines.model.events import EventStream


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


def position(
    lake: Lake, stream: EventStream, source: FilesSource | KafkaSource, facts: Facts, state: WriterState | None
) -> Position:
    """After the checkpoint's finished micro-batches; where it has none, behind an accepted gap that nothing has landed after, or
    behind what has landed. `state` is the writer's."""
    base = lake.checkpoint(f"ingest-{stream.name}")
    if isinstance(source, FilesSource):
        return Position(checkpoint=base, offsets={})
    read = state.topic_id if state and state.topic == source.topic else None
    gap = next((each for each in reversed(accepted(facts, stream.name)) if each.topic == source.topic), None)
    checkpoint = base if gap is None else f"{base}-after-gap-{gap.id}"
    offsets = kafka_offsets(lake.spark, checkpoint, source.topic)
    if not offsets and gap is not None and not _landed_after(lake, stream, gap.at):
        return Position(checkpoint=checkpoint, offsets=gap.offsets, topic_id=gap.topic_id)
    if not offsets and state is not None and state.topic == source.topic:
        offsets = landed_offsets(lake, stream, source.topic, after=gap.at if gap and gap.made_anew else None)
    return Position(checkpoint=checkpoint, offsets=offsets, topic_id=read)


def landed_offsets(lake: Lake, stream: EventStream, topic: str, *, after: int | None = None) -> dict[int, int]:
    """By partition of a topic, the offset after the last one in bronze or in quarantine; of what was ingested `after` a time
    (microseconds), if given."""
    rejected = lake.read("quarantine").where(F.col("stream") == stream.name)
    columns = "source_partition", "source_offset", F.unix_micros("ingest_time").alias("at")
    bronze, rejected = (rows.where(F.col("source") == topic).select(*columns) for rows in (lake.read(stream.name), rejected))
    landed = bronze.unionByName(rejected)
    landed = landed if after is None else landed.where(F.col("at") > after)
    last = landed.groupBy("source_partition").agg(F.max("source_offset").alias("last"))
    return {row["source_partition"]: row["last"] + 1 for row in last.collect() if row["last"] is not None}


def _landed_after(lake: Lake, stream: EventStream, at: int) -> bool:
    rejected = lake.read("quarantine").where(F.col("stream") == stream.name)
    return any(not rows.where(F.unix_micros("ingest_time") > at).isEmpty() for rows in (lake.read(stream.name), rejected))


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
