"""Ingest: source -> parse -> door -> bronze and quarantine; one stateless query per stream."""

from dataclasses import dataclass

from pyspark.sql.streaming.query import StreamingQuery

from pipelines.checkpoints import checkpoint_id, kafka_offsets
from pipelines.config import Config, KafkaSource
from pipelines.durations import micros
from pipelines.events import EventStream
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
    lake.ensure(*(stream.name for stream in lake.streams.both), "quarantine", "ledger", "heartbeats")
    started = [_start(lake, config, stream, once=once) for stream in lake.streams.both]
    watch = IdleWatch(lake=lake, config=config, doors=[door for door, _ in started])
    return IngestLane(queries=[query for _, query in started], watch=watch)


def _start(lake: Lake, config: Config, stream: EventStream, *, once: bool) -> tuple[Door, StreamingQuery]:
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
    return door, triggered(writer, config, once=once).start()
