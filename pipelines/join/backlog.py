"""A long backlog goes past the join: settle answers it from the lake.

State is for what is hot. The events of a backlog are in the lake, all of them, and their outcomes can be looked up there at once,
for a small part of what it costs to put each of their exposures into state and to take it out again. So a start that finds more
unread than `trigger.settle_backlog_bytes` publishes as the horizon how far both streams have come in all that has landed; settle
sees to what lies at or below it, and the join begins above it with a new checkpoint, whose state is one hot window.

Why that horizon holds (DESIGN section 2): by the door's own promise all that lands from now on at or below it is late. What the
join has written of those outcomes may lack an exposure that it had not read; so settle takes none of it for an answer
(`passed_over`).
"""

from collections.abc import Mapping
from datetime import timedelta

import structlog

from pipelines.config import Config
from pipelines.durations import micros
from pipelines.heartbeats import Heartbeat, latest_idle, write_heartbeats
from pipelines.instants import iso
from pipelines.join.heartbeats import reached
from pipelines.join.reading import unread
from pipelines.join.state import new_checkpoint
from pipelines.lake import Lake
from pipelines.observe.ledger import PASSED_OVER, Entry

log = structlog.get_logger()


def pass_over(lake: Lake, config: Config, consumed: Mapping[str, int], horizon: int | None) -> str | None:
    """Leave to settle what has landed after versions `consumed`, where it is too much for the join and the horizon (microseconds)
    can move by more than the hot window that a new checkpoint has to read again. The location of the checkpoint to go on with;
    None where the one in use goes on."""
    limit = config.trigger.settle_backlog_bytes
    if limit is None:
        return None
    behind = {stream.name: unread(lake, stream, consumed.get(stream.name, -1))[1] for stream in lake.streams.both}
    if max(behind.values()) <= limit:
        return None
    versions, beats = _come(lake, config.join.watermark_delay)
    if len(beats) < len(versions):
        return None
    new = min(beat.value for beat in beats)
    if horizon is not None and new <= horizon + micros(config.join.hot_window):
        return None
    # No run reads these; they hold the doors to it that nothing at or below them is on time any more.
    write_heartbeats(lake, beats)
    log.info("a backlog is left to settle; the join begins above it", horizon=iso(new), bytes=behind)
    why = Entry(query=PASSED_OVER, consumed=versions, horizon=new, detail={"bytes": behind})
    return new_checkpoint(lake, config, why)


def _come(lake: Lake, watermark_delay: timedelta) -> tuple[dict[str, int], list[Heartbeat]]:
    """The versions of bronze, and how far each stream is complete in them but for what is late; nothing of one that has not
    begun."""
    idle = latest_idle(lake)  # before the versions are pinned, so that these cover them
    versions = {stream.name: lake.version(stream.name) for stream in lake.streams.both}
    return versions, reached(lake, watermark_delay, "", versions, idle)
