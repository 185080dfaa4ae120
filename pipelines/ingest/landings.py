"""Tells the join, in the same process, when ingest has landed something: it starts then, and not at a multiple of an interval."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# How long the second stream's micro-batch, which starts at the same time, may take longer to begin.
_GRACE_SECONDS = 0.3


class Landings:
    """Counts what has landed and what is landing. Safe to use from several threads; a copy (pickled) counts by itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._landed = self._landing = 0
        self._at = time.monotonic()
        self._open = False

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    @contextmanager
    def landing(self) -> Iterator[None]:
        """A micro-batch of ingest lands within."""
        with self._changed:
            self._landing += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._landing -= 1
                self._landed += 1
                self._at = time.monotonic()
                self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> int:
        """Return when more than `seen` micro-batches have landed and none is landing, at once where the last has landed `seconds`
        ago or more, or once `release`d; how many have landed then."""
        with self._changed:
            deadline = self._at + seconds
            self._changed.wait_for(lambda: self._open or self._landed > seen, max(0.0, deadline - time.monotonic()))
            if self._landed > seen and not self._open:
                self._changed.wait_for(lambda: self._open or self._landing > 0 or self._landed > seen + 1, _GRACE_SECONDS)
                self._changed.wait_for(lambda: self._open or not self._landing, max(0.0, deadline - time.monotonic()))
            return self._landed

    def release(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()
