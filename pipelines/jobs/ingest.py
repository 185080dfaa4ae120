"""Ingest: source -> parse -> door -> bronze and quarantine; one stateless query per stream."""

from dataclasses import dataclass

from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.checkpoints import checkpoint_id, kafka_offsets
from pipelines.config import Config, KafkaSource
from pipelines.durations import micros
from pipelines.events import EventStream
from pipelines.inforce import put_in_force
from pipelines.ingest.door import Door
from pipelines.ingest.idle import IdleWatch
from pipelines.ingest.parse import ParseRules, parse
from pipelines.ingest.sources import read_stream
from pipelines.instants import to_micros
from pipelines.jobs.driving import triggered, wait
from pipelines.kafka_client import check_continues
from pipelines.lake import Lake


def ingest(lake: Lake, config: Config, *, once: bool) -> None:
    """Run both ingest queries: to the end of what is there (`once`), or until stopped."""
    lane = start_ingest(lake, config, once=once)
    wait(lane.queries, lambda: None if once else lane.watch.tick(), drain=once)
    lane.watch.drained()


@dataclass(frozen=True, kw_only=True)
class IngestLane:
    """The running queries, and the watch over silent streams that has to be ticked beside them."""

    queries: list[StreamingQuery]
    watch: IdleWatch


def start_ingest(lake: Lake, config: Config, *, once: bool) -> IngestLane:
    put_in_force(lake, config, *(stream.name for stream in lake.declared.both), "quarantine", "heartbeats")
    # All sources are opened, and found in order, before any query runs.
    prepared = [_prepare(lake, config, stream) for stream in lake.declared.both]
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
    location = lake.checkpoint(f"ingest-{stream.name}")
    identity = checkpoint_id(lake.spark, location, recovers=lake.version(stream.name) > 1)
    source = config.streams[stream.name].source
    where = f"streams.{stream.name}.source"
    raw = read_stream(lake.spark, source, config.trigger, where)
    if isinstance(source, KafkaSource):
        check_continues(source, where, kafka_offsets(lake.spark, location, source.topic), location)
    rules = ParseRules(
        max_event_bytes=config.ingest.max_event_bytes,
        max_future_skew_us=micros(config.join.max_future_skew),
        earliest_us=to_micros(config.ingest.earliest_event_time),
    )
    door = Door(lake=lake, stream=stream, watermark_delay=config.join.watermark_delay, checkpoint=identity)
    writer = (
        parse(raw, stream, rules)
        .writeStream.queryName(f"ingest:{stream.name}")
        .option("checkpointLocation", location)
        .foreachBatch(door)
    )
    return door, writer
