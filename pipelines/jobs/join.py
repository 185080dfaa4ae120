"""Join: on-time bronze rows -> stream-stream join of the hot window -> sink; the horizon -> ledger."""

import time
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.checkpoints import checkpoint_id
from pipelines.config import Config
from pipelines.durations import micros
from pipelines.jobs.driving import triggered, wait
from pipelines.join.heartbeats import feed
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


def join(lake: Lake, config: Config, *, once: bool) -> None:
    """Run the join: to the end of what bronze holds (`once`), or until stopped."""
    lane = start_join(lake, config, once=once)
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
    _quiet_since: float = field(default_factory=time.monotonic)
    _fed: bool = True

    def tick(self) -> None:
        entries = self.progress.entries(self.query)
        Ledger(self.lake).write(entries)
        if entries:
            self._quiet_since = time.monotonic()
            self._fed = self._fed and not any(entry.rows_in for entry in entries)
        quiet = time.monotonic() - self._quiet_since
        if not self.once and not self._fed and quiet > 1.5 * self.config.trigger.every.total_seconds():
            self._fed = feed(self.lake, self.config.join.watermark_delay)
            self._quiet_since = time.monotonic()


def start_join(lake: Lake, config: Config, *, once: bool, since: int | None = None) -> JoinLane:
    """Start the query. A new checkpoint takes its state from bronze: above `since`, or above the published horizon."""
    names = [stream.name for stream in lake.streams.both]
    lake.ensure(*names, lake.attributed, "ledger", "heartbeats")
    location = lake.checkpoint("join")
    identity = checkpoint_id(lake.spark, location, recovers=False)
    horizon = Ledger(lake).horizon()
    # What bronze holds now, the first micro-batch takes; these heartbeats with it (see pipelines.join.heartbeats). After a
    # restart they also give Spark back the progress of each stream, of which it remembers only the least.
    feed(lake, config.join.watermark_delay)
    lake.spark.conf.set("spark.sql.streaming.stateStore.providerClass", STATE_PROVIDERS[config.state_store.provider])
    sink = AttributedSink(lake)

    def write(candidates: DataFrame, _batch: int) -> None:
        AttributedSink(sink.lake.with_session(candidates.sparkSession)).write(candidates, lane="join")

    writer = (
        candidates_of(lake, config, horizon if since is None else since)
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


def _since(event_time: str, start: int) -> Column:
    return (F.col(event_time) >= at(start)) & (F.col("event_date") >= F.to_date(at(start)))
