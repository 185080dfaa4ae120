"""How the join reads bronze: all of it in one micro-batch, or bounded, commit by commit.

What keeps on-time rows from being dropped (`pipelines.join.watermarks`) needs commits to be read in their order; a rate limit may
split them. So

- a backlog within the limits is taken whole, and heartbeats may speak for all of it at once;
- a longer one is taken in bounded micro-batches; heartbeats speak for what the checkpoint has read, no more;
- a checkpoint that has read nothing yet would get the table's files in the order of their modification, which OPTIMIZE changes.
  It reads the log from its first commit on instead; where the log no longer tells all, it takes the table whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import functions as F

from pipelines.checkpoints import read_whole
from pipelines.config import TriggerConfig
from pipelines.events import EventStream
from pipelines.lake import Lake

_UNLIMITED = str(2**31 - 1)
_NO_DATA_CHANGE = (
    "ADD CONSTRAINT",
    "ADD COLUMNS",
    "SET TBLPROPERTIES",
    "UPGRADE PROTOCOL",
    "OPTIMIZE",
    "VACUUM START",
    "VACUUM END",
)
_APPENDS = ("CREATE TABLE", "WRITE", "STREAMING UPDATE")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """`consumed`: the last bronze version of each stream that the checkpoint has read whole; none for a new checkpoint."""

    consumed: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
    from_first_commit: bool = False

    def options(self, trigger: TriggerConfig) -> dict[str, str]:
        """For the Delta source."""
        if self.whole:
            return {"maxFilesPerTrigger": _UNLIMITED}
        limits = {"maxFilesPerTrigger": str(trigger.join_max_files), "maxBytesPerTrigger": f"{int(trigger.join_max_bytes)}b"}
        return {**limits, "startingVersion": "0"} if self.from_first_commit else limits


def plan_reading(lake: Lake, checkpoint: str, trigger: TriggerConfig, *, once: bool) -> Reading:
    """How the next run of the checkpoint reads."""
    streams = lake.streams.both
    consumed = read_whole(lake, checkpoint)
    if once and all(_fits(lake, stream, consumed.get(stream.name, -1), trigger) for stream in streams):
        return Reading(consumed=consumed, whole=True)
    if consumed:
        return Reading(consumed=consumed, whole=False)
    ordered = all(_log_tells_all(lake, stream) for stream in streams)
    return Reading(consumed=consumed, whole=not ordered, from_first_commit=ordered)


def _fits(lake: Lake, stream: EventStream, after: int, trigger: TriggerConfig) -> bool:
    """Whether what has landed after that version is within one micro-batch's limits."""
    name = lake.identifier(stream.name)
    if after < 0:
        files, size = lake.size(stream.name)
        return files <= trigger.join_max_files and size <= trigger.join_max_bytes
    behind = lake.version(stream.name) - after
    if behind <= 0:
        return True
    if behind > trigger.join_max_files:  # a commit has one file or more
        return False
    history = lake.spark.sql(f"DESCRIBE HISTORY {name} LIMIT {behind}").where(F.col("version") > after)
    metrics = [row[0] or {} for row in history.select("operationMetrics").collect()]
    files = sum(int(m.get("numFiles", 0)) for m in metrics)
    size = sum(int(m.get("numOutputBytes", 0)) for m in metrics)
    return files <= trigger.join_max_files and size <= trigger.join_max_bytes


def _log_tells_all(lake: Lake, stream: EventStream) -> bool:
    """Whether every file that was ever appended can still be read through the table's log, from its first commit on."""
    history = lake.spark.sql(f"DESCRIBE HISTORY {lake.identifier(stream.name)}")
    first, operations = history.select(F.min("version"), F.collect_set("operation")).collect()[0]
    # OPTIMIZE leaves the files that it replaces; VACUUM takes them away.
    rewritten = {"OPTIMIZE", "VACUUM END"} <= set(operations)
    return first == 0 and not rewritten and set(operations) <= {*_APPENDS, *_NO_DATA_CHANGE}
