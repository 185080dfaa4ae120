"""Join: on-time bronze rows -> stream-stream join of the hot window -> sink; the horizon -> control."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.config.model import Config
from pipelines.context import Context, open_context
from pipelines.control.facts import Fact
from pipelines.ingest.landings import Landings
from pipelines.ingest.state import newest_ingested, read_progress
from pipelines.ingest.writer import BronzeWriter
from pipelines.jobs.driving import triggered, wait
from pipelines.jobs.serving import observed
from pipelines.join.heartbeats import open_heartbeats, write_heartbeats
from pipelines.join.progress import JoinProgress, ProgressListener
from pipelines.join.start import JoinStart, is_done, plan_start
from pipelines.join.stream_join import hot_candidates
from pipelines.join.watermarks import on_time_rows
from pipelines.lake.tables import Lake
from pipelines.monitor.phases import note
from pipelines.sink import AttributedSink

STATE_PROVIDERS = {
    "rocksdb": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "memory": "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
}
# How often the query looks for new commits where nothing in this process tells it.
_LOOK_EVERY = timedelta(seconds=1)
_REPORT_SECONDS = 10.0

log = structlog.get_logger(query="join")


def join(lake: Lake, config: Config, *, once: bool) -> None:
    """Run the join: to the end of what bronze holds (`once`), or until stopped."""
    with open_context(lake, config) as context, observed(context, "join", once=once):
        join_in(context, once=once)


def join_in(context: Context, *, once: bool) -> None:
    """As `join`, in a process that shares its context with other lanes."""
    _need(context)
    if not (once and is_done(context)):
        start_join(context, once=once).run()


def start_join(context: Context, *, once: bool = False, ingest: "Ingest | None" = None) -> "JoinLane":
    """Start the query with a new checkpoint."""
    _need(context)
    lake, config = context.lake, context.config
    start = plan_start(context, once=once)
    settings = {
        "spark.sql.streaming.stateStore.providerClass": STATE_PROVIDERS[config.state_store.provider],
        "spark.sql.streaming.pollingDelay": "100ms",
    }
    for key, value in settings.items():
        lake.spark.conf.set(key, value)
    # What the first micro-batch takes whole may be spoken for at once.
    write_heartbeats(lake.spark, start.heartbeats, start.watermarks if start.whole else {})
    listener = ProgressListener("join")
    lake.spark.streams.addListener(listener)
    streams = lake.streams
    beats = open_heartbeats(lake.spark, start.heartbeats)
    sides = {s.name: on_time_rows(start.rows(lake, s, config.trigger), beats, s) for s in streams.both}
    candidates = hot_candidates(sides[streams.outcome.name], sides[streams.exposure.name], streams, config.join.hot_window)
    run_id = start.directory.rpartition("/")[2]
    write = _Write(lake=lake, run_id=run_id, every=config.trigger.every, landings=ingest.landings if ingest else None)
    query = candidates.writeStream.queryName("join").option("checkpointLocation", start.checkpoint).foreachBatch(write)
    every = timedelta(0) if once or ingest else min(_LOOK_EVERY, config.trigger.every)
    return JoinLane(
        context=context,
        start=start,
        query=triggered(query, every).start(),
        listener=listener,
        progress=JoinProgress(
            run_id=run_id,
            streams=(streams.outcome.name, streams.exposure.name),
            horizon=start.horizon,
            consumed={name: each.start - 1 for name, each in start.unread.items() if each.start is not None},
        ),
        once=once,
        ingest=ingest,
        _fed=dict(start.watermarks) if start.whole else {},
    )


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Ingest in the same process, as the join sees it: by stream the writer."""

    writers: Mapping[str, BronzeWriter]
    landings: Landings


@dataclass(kw_only=True)
class _Write:
    """The join's `foreachBatch` function. Beside an ingest in the same process it returns when that has landed something more: so
    the next micro-batch starts then, and takes what both streams have landed."""

    lake: Lake
    run_id: str
    every: timedelta
    landings: Landings | None
    _seen: int = 0

    def __call__(self, candidates: DataFrame, batch: int) -> None:
        sink = AttributedSink(self.lake.with_session(candidates.sparkSession))
        written = sink.write(candidates, lane="join")
        clock = time.monotonic()
        if self.landings is not None:
            self._seen = self.landings.wait(self._seen, 1.2 * self.every.total_seconds())
        phases = {"resolve": written.seconds - written.merge_seconds, "merge": written.merge_seconds}
        rows = written.inserted + written.updated
        note(self.run_id, batch, {**phases, "wait": time.monotonic() - clock}, rows_out=rows)


@dataclass(kw_only=True)
class JoinLane:
    """The running query, and what has to be done beside it: publish the horizon, write heartbeats where no data comes."""

    context: Context
    start: JoinStart
    query: StreamingQuery
    listener: ProgressListener
    progress: JoinProgress
    once: bool
    ingest: Ingest | None = None
    _fed: dict[str, int] = field(default_factory=dict)
    _read_at: dict[str, float] = field(default_factory=dict)
    _looked: float = field(default_factory=time.monotonic)
    _published: bool = False
    _dropped: int = 0

    def run(self) -> None:
        """To the end of what had landed at the start (`once`), or until stopped."""
        try:
            wait([self.query], self.tick, done=self.done if self.once else None)
        finally:
            self.close()

    def tick(self) -> None:
        self.publish()
        self._feed()
        self.context.tick()

    def done(self) -> bool:
        """Whether all that had landed at the start is joined, and as much of it final as can be."""
        read = all(self.progress.consumed.get(name, -1) >= each.version for name, each in self.start.progress.items())
        target = self.start.target
        return read and (target is None or (self.progress.horizon or 0) >= target)

    def close(self) -> None:
        """Publish what the query did last."""
        reported = self.query.isActive or self.listener.wait_for_end(str(self.query.runId), _REPORT_SECONDS)
        self.publish()  # fails where Spark itself has been stopped, which needs no second message
        if not reported:
            log.warning("the join's last micro-batches were not reported in time; status does not have them")
        self.context.lake.spark.streams.removeListener(self.listener)

    def publish(self) -> None:
        """Hand over what the query has done since the last call: entries for the ledger, the horizon for `control`."""
        before = self.progress.horizon
        entries = self.progress.entries(self.listener.take(str(self.query.runId)))
        if not entries:
            return
        self.context.ledger.add(*entries)
        for name in self.progress.fresh:
            self._read_at[name] = time.monotonic()
        if self.progress.dropped > self._dropped:
            self._distrust()
        if self.progress.horizon is not None:
            detail = {"consumed": dict(self.progress.consumed)}
            self.context.control.put(Fact(kind="horizon", event_time=self.progress.horizon, detail=detail))
        if self.progress.horizon != before and not self._published:
            self._published = True
            _remove_others(self.start.directory)

    def _distrust(self) -> None:
        """Rows were dropped by the watermark, which must never be: leave to settle all outcomes of now and before."""
        log.error("the join dropped rows by watermark; settle looks all outcomes up", rows=self.progress.dropped)
        self._dropped = self.progress.dropped
        delay, facts = self.context.config.join.watermark_delay, self.context.facts
        states = [read_progress(self.context.lake, stream, facts, delay).state for stream in self.context.lake.streams.both]
        newest = max((s.max_event_time for s in states if s and s.max_event_time is not None), default=None)
        if newest is not None:
            self.context.control.write(Fact(kind="distrust", event_time=newest))

    def _feed(self) -> None:
        """Where a stream has gone quiet, and the join has read all that it has landed, write how far it has come."""
        now, every = time.monotonic(), self.context.config.trigger.every.total_seconds()
        quiet = 0.0 if self.once else 1.5 * every
        names = [name for name in self.start.progress if now - self._read_at.get(name, 0.0) >= quiet]
        if not names or (not self.once and now - self._looked < every):
            return
        self._looked = now
        reached = {name: self._reached(name) for name in names}
        beats = {
            name: value
            for name, (value, version) in reached.items()
            if value is not None and value > self._fed.get(name, value - 1) and self.progress.consumed.get(name, -1) >= version
        }
        if beats:
            write_heartbeats(self.context.lake.spark, self.start.heartbeats, beats)
            self._fed |= beats

    def _reached(self, name: str) -> tuple[int | None, int]:
        """What a stream's next commit meets, and the version of the last one by which events landed."""
        lake = self.context.lake
        if self.once:
            known = self.start.progress[name]
            return known.watermark, known.version
        if self.ingest is not None:
            value = self.ingest.writers[name].watermark
            if value is None or value <= self._fed.get(name, value - 1):
                return None, -1
            return value, newest_ingested(lake.newest_commits(name))[0]
        facts, delay = self.context.control.refresh(), self.context.config.join.watermark_delay
        found = read_progress(lake, lake.streams.named(name), facts, delay)
        return found.watermark, found.version


def _need(context: Context) -> None:
    context.need(*(stream.name for stream in context.lake.streams.both), context.lake.attributed)


def _remove_others(directory: str) -> None:
    """Remove what other runs of the join have left, where it is on a local disk (DESIGN section 3.1): none starts from there."""
    own = Path(directory)
    if "://" in directory or not own.parent.is_dir():
        return
    for other in own.parent.iterdir():
        if other.name != own.name:
            shutil.rmtree(other, ignore_errors=True)
