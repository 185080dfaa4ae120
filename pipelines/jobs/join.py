"""Join: on-time bronze rows -> stream-stream join of the hot window -> sink; the horizon -> ledger."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.checkpoints import checkpoint_id, out_of_reach, read_whole
from pipelines.config import Config
from pipelines.durations import micros
from pipelines.events import EventStream
from pipelines.heartbeats import latest_idle, write_heartbeats
from pipelines.inforce import Rules, put_in_force, require_in_force
from pipelines.jobs.driving import triggered, wait
from pipelines.join.backlog import pass_over
from pipelines.join.heartbeats import feed_before_start, reached
from pipelines.join.reading import Reading, plan_reading
from pipelines.join.state import join_checkpoint, new_checkpoint
from pipelines.join.stream_join import hot_candidates, only_under
from pipelines.join.watermarks import on_time_rows
from pipelines.lake import Lake, at
from pipelines.observe.ledger import Entry, Ledger
from pipelines.observe.phases import note
from pipelines.observe.progress import ProgressReader
from pipelines.session import interpreted
from pipelines.sink import AttributedSink

log = structlog.get_logger()

STATE_PROVIDERS = {
    "rocksdb": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "memory": "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
}


def join(lake: Lake, config: Config, *, once: bool, since: int | None = None) -> None:
    """Run the join: to the end of what bronze holds (`once`), or until stopped. `since` as in `start_join`."""
    if once:
        drain(lake, config, since=since)
        return
    start_join(lake, config, since=since).run()


def drain(lake: Lake, config: Config, *, since: int | None = None) -> None:
    """Join what bronze holds: a backlog beyond a micro-batch's limits in several, and then the rest, whole."""
    _drain(lake, config, *_prepare(lake, config, since), since=since)


def _drain(lake: Lake, config: Config, rules: Rules, checkpoint: str, *, since: int | None) -> None:
    whole = False
    while not whole:
        lane = _start(lake, config, rules, checkpoint, once=True, since=since)
        lane.run()
        whole = lane.whole


@dataclass(kw_only=True)
class JoinLane:
    """The running query and what has to be done beside it: publish progress, feed heartbeats where no data comes."""

    lake: Lake
    config: Config
    query: StreamingQuery
    progress: ProgressReader
    run_id: str
    once: bool
    whole: bool
    _looked: float = field(default_factory=time.monotonic)
    _read_since_fed: bool = False
    _fed_idle: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """To the end of a drain, or until stopped; what the last micro-batches did is published in any case."""
        try:
            wait([self.query], self.tick, drain=self.once)
        finally:
            self.publish()

    def publish(self) -> list[Entry]:
        """Write what the query has done since the last look into the ledger."""
        entries = self.progress.entries(self.query)
        Ledger(self.lake).write(entries)
        return entries

    def tick(self) -> None:
        before = dict(self.progress.consumed)
        entries = self.publish()
        now, every = time.monotonic(), self.config.trigger.every.total_seconds()
        # A commit without rows counts: what was fed before the query had passed it was less than its streams have come to.
        if any(entry.rows_in for entry in entries) or self.progress.consumed != before:
            self._read_since_fed, quiet = True, False
        else:
            quiet = now - self._looked >= 1.5 * every
        # A drain needs no feeding: what it was fed before its start is all there is.
        if not self.once and (quiet or entries):
            self._looked = now
            self._feed(quiet=quiet)

    def _feed(self, *, quiet: bool) -> None:
        """Where bronze has gone quiet, feed how far both streams have come; where one is idle, how far its door was raised."""
        idle = {
            name: beat for name, beat in latest_idle(self.lake).items() if beat.version <= self.progress.consumed.get(name, -1)
        }
        raised = {name: beat.value for name, beat in idle.items()}
        if not (quiet and self._read_since_fed) and raised == self._fed_idle:
            return
        delay = self.config.join.watermark_delay
        write_heartbeats(self.lake, reached(self.lake, delay, self.run_id, self.progress.consumed, idle))
        self._read_since_fed, self._fed_idle = False, raised


def start_join(lake: Lake, config: Config, *, since: int | None = None) -> JoinLane:
    """Start the running query. A new checkpoint takes its state from bronze: above the horizon, or `since` if earlier."""
    rules, checkpoint = _prepare(lake, config, since)
    needed = _needed(lake, config, Ledger(lake).horizon(), since)
    if plan_reading(lake, checkpoint, config.trigger, needed, once=True).whole:
        _drain(lake, config, rules, checkpoint, since=since)
    return _start(lake, config, rules, checkpoint, once=False, since=since)


def _prepare(lake: Lake, config: Config, since: int | None) -> tuple[Rules, str]:
    """The tables, the rules, and the checkpoint that this configuration's state needs: a new one where the join has been down for
    longer than the tables' logs reach back, or a long backlog is left to settle. Who asks for a replay gets one."""
    rules = put_in_force(lake, config, *(stream.name for stream in lake.streams.both), lake.attributed, "heartbeats")
    lake.as_tables_have()
    checkpoint = join_checkpoint(lake, config)
    if behind := out_of_reach(lake, checkpoint):
        log.info("join takes a new checkpoint, and its state from bronze: logs do not reach back to its last", of=sorted(behind))
        checkpoint = new_checkpoint(lake, config)
    if since is not None:
        return rules, checkpoint
    return rules, pass_over(lake, config, read_whole(lake, checkpoint), Ledger(lake).horizon()) or checkpoint


def _needed(lake: Lake, config: Config, horizon: int | None, since: int | None) -> dict[str, int]:
    """What a checkpoint that begins above a published horizon needs, as event times by stream: outcomes after it, and exposures
    of the hot window before those. It never begins above the horizon, for what lies between is not final."""
    if horizon is None:
        return {}
    start = horizon if since is None else min(since, horizon)
    streams = lake.streams
    return {streams.outcome.name: start, streams.exposure.name: start - micros(config.join.hot_window)}


def _start(lake: Lake, config: Config, rules: Rules, checkpoint: str, *, once: bool, since: int | None) -> JoinLane:
    run_id = uuid.uuid4().hex[:12]
    identity = checkpoint_id(lake.spark, checkpoint, recovers=False).id
    horizon = Ledger(lake).horizon()
    needed = _needed(lake, config, horizon, since)
    reading = plan_reading(lake, checkpoint, config.trigger, needed, once=once)
    feed_before_start(lake, config.join.watermark_delay, run_id, reading)
    lake.spark.conf.set("spark.sql.streaming.stateStore.providerClass", STATE_PROVIDERS[config.state_store.provider])
    sink = AttributedSink(lake)

    def write(candidates: DataFrame, batch: int) -> None:
        here = sink.lake.with_session(candidates.sparkSession)
        with interpreted(here.spark):
            require_in_force(here, here.config)
        written = AttributedSink(here).write(candidates, lane="join")
        note(identity, batch, {"resolve": written.seconds - written.merge_seconds, "merge": written.merge_seconds})

    writer = (
        candidates_of(lake, config, rules, run_id, reading, needed)
        .writeStream.queryName("join")
        .option("checkpointLocation", checkpoint)
        .foreachBatch(write)
    )
    query = triggered(writer, config, once=once).start()
    progress = ProgressReader(query="join", run_id=identity, horizon=horizon, consumed=dict(reading.consumed))
    return JoinLane(lake=lake, config=config, query=query, progress=progress, run_id=run_id, once=once, whole=reading.whole)


def candidates_of(lake: Lake, config: Config, rules: Rules, run: str, reading: Reading, needed: Mapping[str, int]) -> DataFrame:
    """The streaming plan: of each stream the on-time rows that are needed, joined over the hot window."""

    def rows(stream: EventStream) -> DataFrame:
        since = _since(stream.event_time, needed[stream.name]) if stream.name in needed else None
        return on_time_rows(lake, stream, run, reading.options(stream.name, config.trigger), since)

    streams = lake.streams.under(rules.current.keys, rules.current.carry)
    candidates = hot_candidates(rows(streams.outcome), rows(streams.exposure), streams, config.join.hot_window)
    return only_under(rules.current, candidates, streams)


def _since(event_time: str, start: int) -> Column:
    return (F.col(event_time) >= at(start)) & (F.col("event_date") >= F.to_date(at(start)))
