"""Feeding the join's watermark where no further row does.

A heartbeat must not reach the join before the rows that it speaks for: they would be at or below the watermark, and dropped.
A watermark moves at the end of a micro-batch only, so it is enough that the rows are read in the heartbeat's own micro-batch at
the latest. Two ways give that:

- the versions are ones that finished micro-batches have read whole;
- before a run that reads the backlog whole (`pipelines.join.reading`): versions are pinned, then the heartbeat is written, then
  the query starts, and its first new micro-batch takes all that bronze holds.

A heartbeat is meant for one run of the query. So one that was written and not read, because the run died in between, is of no
consequence: the next run, which may read otherwise, does not see it.
"""

from collections.abc import Mapping
from datetime import timedelta

from pipelines.durations import micros
from pipelines.events import EventStream
from pipelines.heartbeats import Heartbeat, feed_kind, latest_idle, write_heartbeats
from pipelines.join.reading import Reading
from pipelines.lake import Lake
from pipelines.observe.ledger import Ledger


def feed_before_start(lake: Lake, watermark_delay: timedelta, run: str, reading: Reading) -> None:
    """Tell how far each stream has come in what the query has read, or will read first. Gives Spark back, after a restart, the
    progress of each stream: it remembers only the least."""
    idle = latest_idle(lake)  # before the versions are pinned, so that these cover them
    now = {stream.name: lake.version(stream.name) for stream in lake.streams.both} if reading.whole else reading.consumed
    write_heartbeats(lake, reached(lake, watermark_delay, run, now, idle))


def reached(
    lake: Lake, watermark_delay: timedelta, run: str, versions: Mapping[str, int], idle: Mapping[str, Heartbeat]
) -> list[Heartbeat]:
    """For each stream the greatest heartbeat that holds for its bronze version; none for a stream that has not begun."""
    beats = []
    for stream in lake.streams.both:
        version = versions.get(stream.name, -1)
        value = _value(lake, stream, watermark_delay, version, idle.get(stream.name))
        if value is not None:
            beats.append(Heartbeat(stream=stream.name, kind=feed_kind(run), value=value, version=version))
    return beats


def _value(lake: Lake, stream: EventStream, delay: timedelta, version: int, idle: Heartbeat | None) -> int | None:
    values = []
    if 0 <= version < lake.version(stream.name):
        # Rows are there that have not been read, and the delay may have changed since they met the door: it never let in as on
        # time what lies at or below what a row before them had met.
        met = lake.door_watermark(stream, version)
        values += [] if met is None else [met]
    elif version >= 0 and (newest := lake.max_event_time(stream, version)) is not None:
        entry = Ledger(lake).last(f"ingest:{stream.name}")
        # An ingest that runs with another configuration than ours decides lateness by its own delay.
        door_delay = entry["detail"].get("watermark_delay_us", 0) if entry else 0
        values.append(newest - max(micros(delay), door_delay))
    if idle is not None and idle.version <= version:
        values.append(idle.value)
    return max(values, default=None)
