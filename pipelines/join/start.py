"""One way to start the join: a new checkpoint, whose state comes from landed data above the horizon (DESIGN section 3.1).

A start needs the outcomes above the horizon, and the exposures of one hot window before them. Bronze's commits say from which
version on: each carries the greatest event time before it, which never falls. Where more than `trigger.settle_backlog_bytes` of a
stream's bronze would have to be read, the backlog is handed off to settle: the horizon moves to what both streams have reached,
by facts that every later commit meets, so all that lands from then on at or below it is late. Settle looks up what lies between,
and takes no row of the join for an answer there, for the join may not have read all that matters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import structlog
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import TriggerConfig
from pipelines.context import Context
from pipelines.control.facts import Fact
from pipelines.ingest.state import StreamProgress, read_progress
from pipelines.lake.history import INGEST, Commit, files_taken
from pipelines.lake.tables import Lake, at
from pipelines.model.durations import format_duration, micros
from pipelines.model.events import EventStream
from pipelines.model.time import iso, new_run_id

_UNLIMITED = str(2**31 - 1)

log = structlog.get_logger(query="join")


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What a start has to read of a stream's bronze: from version `start` on (None: the table as it is, for its log does not tell
    all since then), so many files and bytes."""

    start: int | None
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class JoinStart:
    """A start: `directory` is the run's own. By stream: how far it has come, what is unread, and `since`, the event time
    (microseconds, inclusive) from which on rows are needed (None: all). `whole`: all of it in the first micro-batch."""

    directory: str
    progress: Mapping[str, StreamProgress]
    unread: Mapping[str, Unread]
    since: Mapping[str, int | None]
    whole: bool
    horizon: int | None

    @property
    def checkpoint(self) -> str:
        return f"{self.directory}/checkpoint"

    @property
    def heartbeats(self) -> str:
        return f"{self.directory}/heartbeats"

    @property
    def watermarks(self) -> dict[str, int]:
        """By stream that has begun, what its next commit meets."""
        return {name: each.watermark for name, each in self.progress.items() if each.watermark is not None}

    @property
    def target(self) -> int | None:
        """The horizon once all that has landed is joined, in whole milliseconds as Spark's watermark; None while a stream has not
        begun."""
        known = self.watermarks
        return min(known.values()) // 1000 * 1000 if len(known) == len(self.progress) else None

    def rows(self, lake: Lake, stream: EventStream, trigger: TriggerConfig) -> DataFrame:
        """The stream's bronze from where this start needs it, as a stream."""
        unread, since = self.unread[stream.name], self.since[stream.name]
        options = {"maxFilesPerTrigger": _UNLIMITED}
        if not self.whole:
            options = {
                "maxFilesPerTrigger": str(trigger.join_max_files),
                "maxBytesPerTrigger": f"{int(trigger.join_max_bytes)}b",
            }
        if unread.start is not None:
            options["startingVersion"] = str(unread.start)
        # Commits that take rows out (reland, an erasure on request) bring nothing that the join has to see.
        rows = lake.stream(stream.name, skipChangeCommits="true", **options)
        if since is None:
            return rows
        return rows.where((F.col(stream.event_time) >= at(since)) & (F.col("event_date") >= F.to_date(at(since))))


def plan_start(context: Context, *, once: bool) -> JoinStart:
    """Look once at bronze's commits; hand off the backlog where it is too long."""
    lake, config = context.lake, context.config
    logs = {stream.name: _Log(lake.newest_commits(stream.name)) for stream in lake.streams.both}
    progress = {
        stream.name: read_progress(lake, stream, context.facts, config.join.watermark_delay, logs[stream.name])
        for stream in lake.streams.both
    }
    start = _start(context, progress, logs, once=once)
    limit, target, horizon = config.trigger.settle_backlog_bytes, start.target, start.horizon
    too_long = limit is not None and max(unread.bytes for unread in start.unread.values()) > limit
    if too_long and target is not None and (horizon is None or target > horizon + micros(config.join.hot_window)):
        behind = {name: unread.bytes for name, unread in start.unread.items()}
        context.control.write(Fact(kind="handoff", event_time=target, detail={"bytes": behind}))
        log.info("backlog handed off to settle; the join starts above it", horizon=iso(target), bytes=behind)
        start = _start(context, progress, logs, once=once)
    context.control.put(Fact(kind="join", detail={"hot_window": format_duration(config.join.hot_window)}))
    return start


def is_done(context: Context) -> bool:
    """Whether the last run of the join has read all that has landed, and published as far as that allows."""
    facts, lake = context.facts, context.lake
    last, window = facts.last("horizon"), facts.last("join")
    if last is None or window is None or window.detail["hot_window"] != format_duration(context.config.join.hot_window):
        return False
    consumed = last.detail.get("consumed", {})
    found = [read_progress(lake, stream, facts, context.config.join.watermark_delay) for stream in lake.streams.both]
    read = all(consumed.get(s.name, -1) >= each.version for s, each in zip(lake.streams.both, found, strict=True))
    marks = [each.watermark for each in found]
    if any(mark is None for mark in marks):
        return False
    return read and (facts.horizon or 0) >= min(mark for mark in marks if mark is not None) // 1000 * 1000


def _start(context: Context, progress: Mapping[str, StreamProgress], logs: "Mapping[str, _Log]", *, once: bool) -> JoinStart:
    lake, config, horizon = context.lake, context.config, context.facts.horizon
    exposure, outcome = lake.streams.exposure.name, lake.streams.outcome.name
    since: dict[str, int | None] = {exposure: None, outcome: None}
    if horizon is not None:
        since = {exposure: horizon - micros(config.join.hot_window), outcome: horizon}
    unread = {name: _unread(lake, name, logs[name], since[name]) for name in (exposure, outcome)}
    trigger = config.trigger
    fits = all(u.files <= trigger.join_max_files and u.bytes <= trigger.join_max_bytes for u in unread.values())
    return JoinStart(
        directory=lake.checkpoint(f"join/{new_run_id()}"),
        progress=progress,
        unread=unread,
        since=since,
        # A table whose log does not tell all comes file by file, in no order: in one micro-batch, that does not matter.
        whole=(once and fits) or any(each.start is None for each in unread.values()),
        horizon=horizon,
    )


class _Log:
    """A table's commits, the newest first, to be walked more than once; reads no more of the log than is asked for."""

    def __init__(self, commits: Iterator[Commit]) -> None:
        self._source, self._read = commits, list[Commit]()

    def __iter__(self) -> Iterator[Commit]:
        yield from self._read
        for commit in self._source:
            self._read.append(commit)
            yield commit


def _unread(lake: Lake, table: str, log_: "_Log", since: int | None) -> Unread:
    """What has to be read for all on-time rows at or after `since` (microseconds; None: for all rows)."""
    needed: list[Commit] = []
    for commit in log_:
        needed.append(commit)
        met = commit.ours(INGEST)
        # All rows of the commits before this one are at or before what it met.
        if met is not None and since is not None and (met["max_event_time"] is None or met["max_event_time"] < since):
            break
    tells_all = bool(needed) and (needed[-1].version == 0 or needed[-1].ours(INGEST) is not None)
    # A commit of somebody else may have taken rows out, and VACUUM their files.
    if not tells_all or not all(c.keeps_files or c.changes_no_data for c in needed) or files_taken(needed):
        files, size = lake.size(table)
        return Unread(start=None, files=files, bytes=size)
    added = [commit.added for commit in needed]
    return Unread(start=needed[-1].version, files=sum(f for f, _ in added), bytes=sum(b for _, b in added))
