"""Ingest: source -> parse -> bronze and quarantine; one stateless query per stream."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.config.model import Config
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.context import Context, open_context
from pipelines.control.lease import RELANDING, leased
from pipelines.ingest.idle import IdleWatch
from pipelines.ingest.landing import landing_of
from pipelines.ingest.landings import Landings
from pipelines.ingest.offsets import files_planned
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.ingest.position import check_continues, check_same_topic, position
from pipelines.ingest.sources import read_stream
from pipelines.ingest.sources.files import landing_directory
from pipelines.ingest.state import read_progress
from pipelines.ingest.unreadable import Reread, read_around, reread, still_unreadable, waiting
from pipelines.ingest.writer import BronzeWriter
from pipelines.jobs.driving import in_rounds, triggered, wait
from pipelines.jobs.reporting import UNSAID, IngestReport, Say
from pipelines.jobs.serving import observed
from pipelines.lake.tables import Lake
from pipelines.model.errors import LeaseError, RejoinError
from pipelines.model.events import EventStream
from pipelines.session import behind_connect

_LOOK_SECONDS = 60.0


def ingest(lake: Lake, config: Config, *, once: bool, say: Say = UNSAID) -> None:
    """Run both ingest queries: to the end of what is there (`once`), or until stopped."""
    with open_context(lake, config) as context, observed(context, "ingest", once=once, say=say):
        if once or not behind_connect(lake.spark):
            ingest_in(context, once=once, say=say)
        else:
            in_rounds(config.trigger.every, partial(ingest_in, context, once=True, say=say))


def ingest_in(context: Context, *, once: bool, say: Say = UNSAID) -> None:
    """As `ingest`, in a process that shares its context with other lanes."""
    lane = start_ingest(context, once=once, say=say)
    try:
        with failures_explained(context):
            wait(lane.queries, partial(lane.tick, idle=not once), drain=once)
        if behind_connect(context.lake.spark):
            lane.ran_elsewhere()
    finally:
        lane.close()
    lane.watch.drained()


@dataclass(kw_only=True)
class IngestLane:
    """The running queries, and what has to be done beside them."""

    context: Context
    queries: list[StreamingQuery]
    writers: list[BronzeWriter]
    watch: IdleWatch
    report: IngestReport
    _look_at: float = field(default_factory=lambda: time.monotonic() + _LOOK_SECONDS)

    def tick(self, *, idle: bool = True) -> None:
        if idle:
            self.watch.tick()
        self.publish()
        self.report.tick(self.context.facts.horizon)
        if time.monotonic() >= self._look_at:
            waiting = sum(_look_again(self.context, writer, self.report.say) for writer in self.writers)
            # Each costs some reading.
            self._look_at = time.monotonic() + _LOOK_SECONDS * max(1, min(60, waiting))
        self.context.tick()

    def ran_elsewhere(self) -> None:
        """Learn from bronze what landed: Spark Connect runs `foreachBatch` in processes of its own."""
        lake, delay = self.context.lake, self.context.config.join.watermark_delay
        for writer in self.writers:
            writer.ran_elsewhere(read_progress(lake, writer.stream, self.context.facts, delay))

    def close(self) -> None:
        """Hand over what landed last, and say what came of all lines."""
        self.publish()
        for writer in self.writers:
            last = self.context.facts.last("ingest", writer.stream.name)
            now = writer.state and replace(writer.state, stopped=True).as_fact(writer.stream.name)
            if now and (last is None or now.detail != last.detail):
                self.context.control.put(now)
        self.report.end()

    def publish(self) -> None:
        """Hand over what has landed since the last call: entries for the ledger, the writers' states for `control`."""
        for writer in self.writers:
            if writer.found_unreadable:
                writer.found_unreadable = False
                _name_unreadable(self.context, writer, self.report.say)
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


def start_ingest(context: Context, *, once: bool, landings: Landings | None = None, say: Say = UNSAID) -> IngestLane:
    """Start both queries. `landings` tells a join in the same process of what has landed."""
    streams = context.lake.streams.both
    context.need(*(stream.name for stream in streams), "quarantine")
    # Both sources are opened, and found to continue, before any query runs.
    with ThreadPoolExecutor() as pool:
        prepared = list(pool.map(partial(_prepare, context, landings or Landings()), streams))
    writers = [writer for writer, _ in prepared]
    report = IngestReport(config=context.config, writers=writers, say=UNSAID if behind_connect(context.lake.spark) else say)
    report.begin()
    for writer in writers:
        _look_again(context, writer, say, first=True)
        if not once and writer.state is not None:
            context.control.put(writer.state.as_fact(writer.stream.name))  # it has not stopped
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


def _name_unreadable(context: Context, writer: BronzeWriter, say: Say) -> None:
    found = Reread(still=still_unreadable(context.lake, waiting(context.lake, context.config, writer.stream)))
    if found.still:
        say.line(f"{writer.stream.name}: {found}")


def _look_again(context: Context, writer: BronzeWriter, say: Say, *, first: bool = False) -> int:
    """Look once more at the landing files of a stream that could not be read, if there are any; how many still cannot, which the
    `first` look names. A landing directory that is no longer there is an error."""
    source = context.config.streams[writer.stream.name].source
    if isinstance(source, FilesSource):
        landing_directory(source, f"streams.{writer.stream.name}.source")
    if not writer.unreadable:
        return 0
    lake, config, stream = context.lake, context.config, writer.stream
    writer.unreadable = False  # a micro-batch may find one meanwhile
    files = waiting(lake, config, stream)
    done = Reread(still=still_unreadable(lake, files))
    try:
        if len(done.still) < len(files):
            with leased(lake, RELANDING):
                done = reread(lake, config, stream)
    except LeaseError:
        writer.unreadable = True  # a reland is at it
        return 0
    writer.unreadable |= bool(done.still)
    if done.files or (first and done.still):
        say.line(f"{stream.name}: {done}")
    if writer.state is not None:
        context.control.put(replace(writer.state, unreadable=writer.unreadable).as_fact(stream.name))
    return len(done.still)


def _prepare(context: Context, landings: Landings, stream: EventStream) -> tuple[BronzeWriter, DataStreamWriter]:
    lake, config, rules = context.lake, context.config, rules_of(context.config)
    source, delay = config.streams[stream.name].source, config.join.watermark_delay
    progress = read_progress(lake, stream, context.facts, delay)
    place = position(lake, stream, source, context.facts, progress.state)
    landing = landing_of(source, stream.name, progress.state)
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
        landing=landing,
        still_there=partial(check_same_topic, stream.name, source, consumes.get("topic_id")),
        around=partial(_around, config, stream, landing, place.checkpoint),
        landings=landings,
    )
    query = (
        parse(raw, stream, rules)
        .writeStream.queryName(f"ingest:{stream.name}")
        .option("checkpointLocation", place.checkpoint)
        .foreachBatch(writer)
    )
    return writer, query


def _around(
    config: Config, stream: EventStream, landing: Sequence[str], checkpoint: str, lake: Lake, micro_batch: int
) -> DataFrame | None:
    return read_around(lake, config, stream, landing, files_planned(lake.spark, checkpoint, micro_batch))
