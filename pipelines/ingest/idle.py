"""A silent stream must not stall the other: its watermark is raised to where the other's is.

Silent means

- while ingest runs: nothing accepted for `idle_timeout` of wall-clock time, and no micro-batch that is landing;
- in a drain (`--once`): nothing accepted in this run, and the other stream's newest event is `idle_timeout` or more ahead of
  this one's. A drain sees all that there is, so nothing is waiting.

A raise is made while the stream's lock is held, so between two commits: every later one meets it. It is a fact of `control`.
If the stream comes back with old events, they are late, and settled: the result is the same.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.config.model import Config
from pipelines.control.facts import Fact
from pipelines.control.store import Control
from pipelines.ingest.writer import BronzeWriter
from pipelines.model.durations import micros


@dataclass(kw_only=True)
class IdleWatch:
    """Watches the writers of one ingest job, in the process that runs it."""

    control: Control
    config: Config
    writers: Sequence[BronzeWriter]
    _checked: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Raise the watermark of a stream that has been silent for `idle_timeout`; looks once a trigger. Never waits."""
        now = time.monotonic()
        if now - self._checked < self.config.trigger.every.total_seconds():
            return
        self._checked = now
        timeout = self.config.join.idle_timeout.total_seconds()
        for writer, other in self._pairs():
            if now - writer.accepted_at >= timeout and writer.lock.acquire(blocking=False):
                try:
                    # Again, for a micro-batch may have landed meanwhile.
                    if time.monotonic() - writer.accepted_at >= timeout:
                        self._raise(writer, other.newest)
                finally:
                    writer.lock.release()

    def drained(self) -> None:
        """After a drain: raise the watermark of a stream that had nothing, where the other has gone ahead."""
        timeout = micros(self.config.join.idle_timeout)
        for writer, other in self._pairs():
            ahead, mine = other.newest, writer.newest
            if writer.has_accepted or ahead is None:
                continue
            if mine is None or ahead - mine >= timeout:
                with writer.lock:
                    self._raise(writer, ahead)

    def _pairs(self) -> list[tuple[BronzeWriter, BronzeWriter]]:
        first, second = self.writers
        return [(first, second), (second, first)]

    def _raise(self, writer: BronzeWriter, ahead: int | None) -> None:
        if ahead is None:
            return
        value = ahead - micros(self.config.join.watermark_delay)
        if writer.watermark is None or value > writer.watermark:
            writer.raise_floor(value)
            self.control.put(Fact(kind="idle", stream=writer.stream.name, event_time=value))
