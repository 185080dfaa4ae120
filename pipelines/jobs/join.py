"""Join: on-time bronze rows -> stream-stream join of the hot window -> sink; the horizon -> ledger."""

import time
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.checkpoints import checkpoint_id
from pipelines.config import Config
from pipelines.durations import micros
from pipelines.heartbeats import latest_idle, write_heartbeats
from pipelines.jobs.driving import triggered, wait
from pipelines.join.heartbeats import feed_before_start, reached
from pipelines.join.stream_join import hot_candidates
from pipelines.join.watermarks import on_time_rows
from pipelines.lake import Lake, at
from pipelines.observe.ledger import Ledger
from pipelines.observe.progress import ProgressReader
from pipelines.sink import AttributedSink

STATE_PROVIDERS = {
    "rocksdb": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "memory": "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
}


def join(lake: Lake, config: Config, *, once: bool, since: int | None = None) -> None:
    """Run the join: to the end of what bronze holds (`once`), or until stopped. `since` as in `start_join`."""
    lane = start_join(lake, config, once=once, since=since)
    wait([lane.query], lane.tick, drain=once)
    lane.tick()


@dataclass(kw_only=True)
class JoinLane:
    """The running query and what has to be done beside it: publish progress, feed heartbeats where no data comes."""

    lake: Lake
    config: Config
    query: StreamingQuery
    progress: ProgressReader
    once: bool
    _looked: float = field(default_factory=time.monotonic)
    _read_since_fed: bool = False
    _fed_idle: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        entries = self.progress.entries(self.query)
        Ledger(self.lake).write(entries)
        now, every = time.monotonic(), self.config.trigger.every.total_seconds()
        if any(entry.rows_in for entry in entries):
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
        write_heartbeats(self.lake, reached(self.lake, self.config.join.watermark_delay, self.progress.consumed, idle))
        self._read_since_fed, self._fed_idle = False, raised


def start_join(lake: Lake, config: Config, *, once: bool, since: int | None = None) -> JoinLane:
    """Start the query. A new checkpoint takes its state from bronze: above the published horizon, or `since` if earlier."""
    names = [stream.name for stream in lake.streams.both]
    lake.ensure(*names, lake.attributed, "ledger", "heartbeats")
    location = lake.checkpoint("join")
    identity = checkpoint_id(lake.spark, location, recovers=False)
    horizon = Ledger(lake).horizon()
    feed_before_start(lake, config.join.watermark_delay)
    lake.spark.conf.set("spark.sql.streaming.stateStore.providerClass", STATE_PROVIDERS[config.state_store.provider])
    sink = AttributedSink(lake)

    def write(candidates: DataFrame, _batch: int) -> None:
        AttributedSink(sink.lake.with_session(candidates.sparkSession)).write(candidates, lane="join")

    writer = (
        candidates_of(lake, config, _earlier(since, horizon))
        .writeStream.queryName("join")
        .option("checkpointLocation", location)
        .foreachBatch(write)
    )
    query = triggered(writer, config, once=once).start()
    progress = ProgressReader(query="join", run_id=identity.id, horizon=horizon)
    return JoinLane(lake=lake, config=config, query=query, progress=progress, once=once)


def candidates_of(lake: Lake, config: Config, horizon: int | None) -> DataFrame:
    """The streaming plan. A checkpoint that begins above a published horizon needs only what can still matter:
    outcomes after it, and exposures of the hot window before those."""
    streams, hot = lake.streams, config.join.hot_window
    outcome_since = exposure_since = None
    if horizon is not None:
        outcome_since = _since(streams.outcome.event_time, horizon)
        exposure_since = _since(streams.exposure.event_time, horizon - micros(hot))
    outcomes = on_time_rows(lake, streams.outcome, outcome_since)
    exposures = on_time_rows(lake, streams.exposure, exposure_since)
    return hot_candidates(outcomes, exposures, streams, hot)


def _earlier(since: int | None, horizon: int | None) -> int | None:
    """Where a new checkpoint begins: never above the horizon, for what lies between is not final."""
    return horizon if since is None or horizon is None else min(since, horizon)


def _since(event_time: str, start: int) -> Column:
    return (F.col(event_time) >= at(start)) & (F.col("event_date") >= F.to_date(at(start)))
