"""A silent stream must not stall the other: its door is raised to where the other's is, by an idle heartbeat.

Silent means

- while ingest runs: nothing accepted for `idle_timeout` of wall-clock time;
- in a drain (`--once`): nothing accepted in this run, and the other stream's newest event is `idle_timeout` or more ahead of
  this one's. A drain sees all that there is, so nothing is waiting.

The heartbeat is written while the stream's door is held shut (its lock), so it falls between two commits of the stream: every
commit before it is at or below its version, and every one after it counts it. If the stream comes back with old events, they are
late, and settled: the result is the same.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.config import Config
from pipelines.durations import micros
from pipelines.heartbeats import Heartbeat, write_heartbeats
from pipelines.ingest.door import Door
from pipelines.lake import Lake
from pipelines.session import behind_connect


@dataclass(kw_only=True)
class IdleWatch:
    """Watches the doors of one ingest job, in the process that runs it."""

    lake: Lake
    config: Config
    doors: Sequence[Door]
    _checked: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Raise the door of a stream that has been silent for `idle_timeout`; looks once a trigger."""
        if self._doors_are_elsewhere():
            return
        now = time.monotonic()
        if now - self._checked < self.config.trigger.every.total_seconds():
            return
        self._checked = now
        timeout = self.config.join.idle_timeout.total_seconds()
        for door, other in self._pairs():
            if now - door.accepted_at >= timeout:
                self._raise(door, other.newest())

    def drained(self) -> None:
        """After a drain: raise the door of a stream that had nothing, where the other has gone ahead."""
        timeout = micros(self.config.join.idle_timeout)
        for door, other in self._pairs():
            ahead = other.newest()
            if door.accepted_rows or ahead is None:
                continue
            mine = door.newest()
            if mine is None or ahead - mine >= timeout:
                self._raise(door, ahead)

    def _doors_are_elsewhere(self) -> bool:
        """Spark Connect runs doors in a process of its own, whose locks and figures are not ours: there drains do it."""
        return behind_connect(self.lake.spark)

    def _pairs(self) -> list[tuple[Door, Door]]:
        first, second = self.doors
        return [(first, second), (second, first)]

    def _raise(self, door: Door, ahead: int | None) -> None:
        if ahead is None:
            return
        value = ahead - micros(self.config.join.watermark_delay)
        with door.shut():
            watermark = door.watermark()
            if watermark is not None and value <= watermark:
                return
            version = self.lake.version(door.stream.name)
            write_heartbeats(self.lake, [Heartbeat(stream=door.stream.name, kind="idle", value=value, version=version)])
            door.raise_floor(value)
