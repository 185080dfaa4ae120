"""Ingest: source -> parse -> door -> bronze and quarantine; one stateless query per stream."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.checkpoints import checkpoint_id
from pipelines.config import Config, KafkaSource
from pipelines.errors import RejoinError
from pipelines.events import EventStream
from pipelines.inforce import put_in_force
from pipelines.ingest.door import Door
from pipelines.ingest.idle import IdleWatch
from pipelines.ingest.parse import parse, rules_of
from pipelines.ingest.position import check_continues, check_same_topic, position
from pipelines.ingest.sources import read_stream
from pipelines.jobs.driving import triggered, wait
from pipelines.lake import Lake


def ingest(lake: Lake, config: Config, *, once: bool) -> None:
    """Run both ingest queries: to the end of what is there (`once`), or until stopped."""
    lane = start_ingest(lake, config, once=once)
    with failures_explained(lake, config):
        wait(lane.queries, lambda: None if once else lane.watch.tick(), drain=once)
    lane.watch.drained()


@dataclass(frozen=True, kw_only=True)
class IngestLane:
    """The running queries, and the watch over silent streams that has to be ticked beside them."""

    queries: list[StreamingQuery]
    watch: IdleWatch


@contextmanager
def failures_explained(lake: Lake, config: Config) -> Iterator[None]:
    """A query that fails because Kafka does not answer, or has lost what comes next, fails with what a start would say."""
    try:
        yield
    except RejoinError:
        for stream in lake.streams.both:
            source = config.streams[stream.name].source
            if isinstance(source, KafkaSource):
                check_continues(stream.name, source, position(lake, stream.name, source))
        raise


def start_ingest(lake: Lake, config: Config, *, once: bool) -> IngestLane:
    put_in_force(lake, config, *(stream.name for stream in lake.declared.both), "quarantine", "heartbeats")
    # All sources are opened, and found in order, before any query runs.
    with ThreadPoolExecutor() as pool:
        prepared = list(pool.map(partial(_prepare, lake, config), lake.declared.both))
    queries: list[StreamingQuery] = []
    try:
        for _, writer in prepared:
            queries.append(triggered(writer, config, once=once).start())
    except BaseException:
        for query in queries:
            query.stop()
        raise
    watch = IdleWatch(lake=lake, config=config, doors=[door for door, _ in prepared])
    return IngestLane(queries=queries, watch=watch)


def _prepare(lake: Lake, config: Config, stream: EventStream) -> tuple[Door, DataStreamWriter]:
    source = config.streams[stream.name].source
    place = position(lake, stream.name, source)
    consumes: dict[str, str | None] = {}
    if isinstance(source, KafkaSource):
        consumes = {"topic": source.topic, "topic_id": check_continues(stream.name, source, place).id}
    raw = read_stream(lake.spark, source, config.trigger, f"streams.{stream.name}.source", place.offsets)
    identity = checkpoint_id(lake.spark, place.checkpoint, recovers=lake.size(stream.name)[0] > 0)
    door = Door(
        lake=lake,
        stream=stream,
        watermark_delay=config.join.watermark_delay,
        checkpoint=identity,
        consumes=consumes,
        still_there=partial(check_same_topic, stream.name, source, consumes.get("topic_id")),
    )
    writer = (
        parse(raw, stream, rules_of(config))
        .writeStream.queryName(f"ingest:{stream.name}")
        .option("checkpointLocation", place.checkpoint)
        .foreachBatch(door)
    )
    return door, writer
