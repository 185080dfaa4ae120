"""How the join reads bronze: all of it in one micro-batch, or bounded, commit by commit.

What keeps on-time rows from being dropped (`pipelines.join.watermarks`) needs commits to be read in their order; a rate limit may
split them. So

- a backlog within the limits is taken whole, and heartbeats may speak for all of it at once;
- a longer one is taken in bounded micro-batches; heartbeats speak for what the checkpoint has read, no more;
- a checkpoint that has read nothing yet would get the table's files in the order of their modification, which OPTIMIZE changes,
  and all of them. It reads the log instead, from the first commit that has a row which can still matter; where the log no longer
  tells all since then, it takes the table whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.checkpoints import read_whole
from pipelines.config import TriggerConfig
from pipelines.events import EventStream
from pipelines.lake import Lake, at, is_gone
from pipelines.tablelog import NO_DATA_CHANGE, files_taken

_UNLIMITED = str(2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """`consumed`: the last bronze version of each stream that the checkpoint has read whole, or needs not read; none for a new
    checkpoint over a table taken whole. `starts`: the version of each stream that a new checkpoint begins with."""

    consumed: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
    starts: Mapping[str, int] = field(default_factory=dict)

    def options(self, stream: str, trigger: TriggerConfig) -> dict[str, str]:
        """For the Delta source of the stream's bronze table."""
        begin = {"startingVersion": str(self.starts[stream])} if stream in self.starts else {}
        # Commits that take rows out (copies that reconcile found, an erasure on request) bring nothing that is not known.
        begin["skipChangeCommits"] = "true"
        if self.whole:
            return {"maxFilesPerTrigger": _UNLIMITED, **begin}
        return {
            "maxFilesPerTrigger": str(trigger.join_max_files),
            "maxBytesPerTrigger": f"{int(trigger.join_max_bytes)}b",
            **begin,
        }


def plan_reading(lake: Lake, checkpoint: str, trigger: TriggerConfig, since: Mapping[str, int], *, once: bool) -> Reading:
    """How the next run of the checkpoint reads. `since` is the event time (microseconds) of each stream from which on rows can
    still matter; without one, all do."""
    streams = lake.streams.both
    consumed, starts = read_whole(lake, checkpoint), {}
    if not consumed:
        for stream in streams:
            start = _first_needed(lake, stream, since.get(stream.name))
            if start is None or not _log_tells_all(lake, stream, start):
                return Reading(whole=True)
            starts[stream.name] = start
        consumed = {name: start - 1 for name, start in starts.items()}
    fits = all(_fits(lake, stream, consumed[stream.name], trigger) for stream in streams)
    return Reading(consumed=consumed, whole=once and fits, starts=starts)


def _first_needed(lake: Lake, stream: EventStream, since: int | None) -> int | None:
    """The first version of bronze with an on-time row at or after `since`, the latest where none has; None where the log does not
    reach back far enough to tell.

    Bronze only grows, so versions without such a row come before those with one: looked for backwards in doubling steps, then by
    halving. Each look reads the newest partitions' statistics.
    """
    latest = lake.version(stream.name)
    if since is None or latest <= 0:
        return 0
    matters = (F.col(stream.event_time) >= at(since)) & (F.col("event_date") >= F.to_date(at(since))) & ~F.col("late")
    step, high = 1, latest
    while high > 0 and _has(lake, stream, high - 1, matters):
        high, step = max(0, high - step), step * 2
    # Now `high - 1` has no such row; and the first that has lies in the last step, or is `high`.
    low, top = high, min(latest, high + step // 2)
    while low < top:
        middle = (low + top) // 2
        low, top = (low, middle) if _has(lake, stream, middle, matters) else (middle + 1, top)
    return None if low > 0 and _has(lake, stream, low - 1, matters) is None else low


def _has(lake: Lake, stream: EventStream, version: int, matters: Column) -> bool | None:
    """Whether a version of bronze has such a row; None where the version cannot be read any more."""
    try:
        return not lake.read(stream.name, version).where(matters).isEmpty()
    except Exception as error:  # the class differs between classic Spark and Connect
        if is_gone(error):
            return None
        raise


def _fits(lake: Lake, stream: EventStream, after: int, trigger: TriggerConfig) -> bool:
    """Whether what has landed after that version is within one micro-batch's limits."""
    behind = lake.version(stream.name) - after if after >= 0 else 0
    if behind > trigger.join_max_files:
        return False  # a commit has one file or more
    files, size = _appended(lake, stream, after, after + behind) if after >= 0 else lake.size(stream.name)
    return files <= trigger.join_max_files and size <= trigger.join_max_bytes


def unread(lake: Lake, stream: EventStream, after: int) -> tuple[int, int]:
    """Files and bytes of bronze that have landed after a version; all of it for one below 0."""
    return _appended(lake, stream, after, lake.version(stream.name)) if after >= 0 else lake.size(stream.name)


def _appended(lake: Lake, stream: EventStream, after: int, latest: int) -> tuple[int, int]:
    """Files and bytes of the versions after `after`."""
    if latest <= after:
        return 0, 0
    metrics = [row[0] or {} for row in lake.history(stream.name, after, latest).select("operationMetrics").collect()]
    return sum(int(m.get("numFiles", 0)) for m in metrics), sum(int(m.get("numOutputBytes", 0)) for m in metrics)


def _log_tells_all(lake: Lake, stream: EventStream, start: int) -> bool:
    """Whether every file that was appended can still be read through the table's log, from version `start` on."""
    since = lake.commits(stream.name, start - 1)
    # Reconcile may have put back what bronze had lost, or somebody have changed it.
    appended = all(commit.keeps_files or commit.operation in NO_DATA_CHANGE for commit in since)
    return bool(since) and since[-1].version == start and appended and not files_taken(since)
