"""Ingest: source -> parse -> bronze and quarantine; one stateless query per stream."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.config.model import Config, KafkaSource
from pipelines.context import Context, open_context
from pipelines.ingest.idle import IdleWatch
from pipelines.ingest.landings import Landings
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.ingest.position import check_continues, check_same_topic, position
from pipelines.ingest.sources import read_stream
from pipelines.ingest.state import read_progress
from pipelines.ingest.writer import BronzeWriter
from pipelines.jobs.driving import triggered, wait
from pipelines.jobs.reporting import IngestReport, Say, unsaid
from pipelines.lake.tables import Lake
from pipelines.model.errors import RejoinError
from pipelines.model.events import EventStream
from pipelines.session import behind_connect


def ingest(lake: Lake, config: Config, *, once: bool, say: Say = unsaid) -> None:
    """Run both ingest queries: to the end of what is there (`once`), or until stopped."""
    with open_context(lake, config) as context:
        ingest_in(context, once=once, say=say)


def ingest_in(context: Context, *, once: bool, say: Say = unsaid) -> None:
    """As `ingest`, in a process that shares its context with other lanes."""
    lane = start_ingest(context, once=once, say=say)
    try:
        with failures_explained(context):
            wait(lane.queries, partial(lane.tick, idle=not once), drain=once)
    finally:
        lane.close()
    lane.watch.drained()


@dataclass(frozen=True, kw_only=True)
class IngestLane:
    """The running queries, and what has to be done beside them."""

    context: Context
    queries: list[StreamingQuery]
    writers: list[BronzeWriter]
    watch: IdleWatch
    report: IngestReport

    def tick(self, *, idle: bool = True) -> None:
        if idle:
            self.watch.tick()
        self.publish()
        self.report.tick(self.context.facts.horizon)
        self.context.tick()

    def close(self) -> None:
        """Hand over what landed last, and say what came of all lines."""
        self.publish()
        self.report.end()

    def publish(self) -> None:
        """Hand over what has landed since the last call: entries for the ledger, the writers' states for `control`."""
        for writer in self.writers:
            while writer.entries:
                self.context.ledger.add(writer.entries.pop(0))
                if writer.state is not None:
                    self.context.control.put(writer.state.as_fact(writer.stream.name))


@contextmanager
def failures_explained(context: Context) -> Iterator[None]:
    """A query that fails because Kafka does not answer, or has lost what comes next, fails with what a start would say."""
    try:
        yield
    except RejoinError:
        lake, config = context.lake, context.config
        for stream in lake.streams.both:
            source = config.streams[stream.name].source
            if isinstance(source, KafkaSource):
                state = read_progress(lake, stream, context.facts, config.join.watermark_delay).state
                check_continues(stream.name, source, position(lake, stream, source, context.facts, state))
        raise


def start_ingest(context: Context, *, once: bool, landings: Landings | None = None, say: Say = unsaid) -> IngestLane:
    """Start both queries. `landings` tells a join in the same process of what has landed."""
    streams = context.lake.streams.both
    context.need(*(stream.name for stream in streams), "quarantine")
    # Both sources are opened, and found to continue, before any query runs.
    with ThreadPoolExecutor() as pool:
        prepared = list(pool.map(partial(_prepare, context, landings or Landings()), streams))
    writers = [writer for writer, _ in prepared]
    report = IngestReport(config=context.config, writers=writers, say=unsaid if behind_connect(context.lake.spark) else say)
    queries: list[StreamingQuery] = []
    try:
        for _, stream in prepared:
            queries.append(triggered(stream, context.config.trigger.every, once=once).start())
    except BaseException:
        for query in queries:
            query.stop()
        raise
    watch = IdleWatch(control=context.control, config=context.config, writers=writers)
    return IngestLane(context=context, queries=queries, writers=writers, watch=watch, report=report)


def _prepare(context: Context, landings: Landings, stream: EventStream) -> tuple[BronzeWriter, DataStreamWriter]:
    lake, config = context.lake, context.config
    source, delay = config.streams[stream.name].source, config.join.watermark_delay
    progress = read_progress(lake, stream, context.facts, delay)
    place = position(lake, stream, source, context.facts, progress.state)
    consumes: dict[str, str | None] = {}
    if isinstance(source, KafkaSource):
        consumes = {"topic": source.topic, "topic_id": check_continues(stream.name, source, place).id}
    raw = read_stream(lake.spark, source, config.trigger, f"streams.{stream.name}.source", place.offsets)
    writer = BronzeWriter(
        lake=lake,
        stream=stream,
        source=source,
        place=place,
        watermark_delay=delay,
        progress=progress,
        consumes=consumes,
        still_there=partial(check_same_topic, stream.name, source, consumes.get("topic_id")),
        landings=landings,
    )
    query = (
        parse(raw, stream, rules_of(config))
        .writeStream.queryName(f"ingest:{stream.name}")
        .option("checkpointLocation", place.checkpoint)
        .foreachBatch(writer)
    )
    return writer, query
