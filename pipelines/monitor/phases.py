"""Where the time of a micro-batch goes: laps taken between its steps, for the ledger's `durations_ms`."""

import threading
import time
from collections.abc import Mapping

# What `foreachBatch` of the join's query took and wrote, until its progress is read. In the module, not in the function, because
# Spark Connect pickles that, and runs it in another process: then nothing is found here, and `addBatch` stays whole.
_NOTED: dict[tuple[str, int], dict[str, int]] = {}
_LOCK = threading.Lock()
_KEPT = 200


class Laps:
    """Milliseconds by phase. Every lap begins where the last one ended."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._seconds: dict[str, float] = {}

    def lap(self, phase: str, parts: Mapping[str, float] | None = None) -> None:
        """End a phase; `parts` are seconds of it that count as phases of their own."""
        now, parts = time.monotonic(), parts or {}
        for name, seconds in {phase: now - self._last - sum(parts.values()), **parts}.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + max(0.0, seconds)
        self._last = now

    def durations_ms(self) -> dict[str, int]:
        """`total` until now, and each phase."""
        seconds = {"total": time.monotonic() - self._start, **self._seconds}
        return {name: round(value * 1000) for name, value in seconds.items()}


def note(checkpoint: str, batch: int, seconds: Mapping[str, float], *, rows_out: int) -> None:
    """Keep what the parts of a micro-batch took, and what it wrote, for the driver that reads its progress."""
    with _LOCK:
        while len(_NOTED) >= _KEPT:
            del _NOTED[next(iter(_NOTED))]
        _NOTED[checkpoint, batch] = {**{name: round(value * 1000) for name, value in seconds.items()}, "rows_out": rows_out}


def noted(checkpoint: str, batch: int) -> dict[str, int]:
    """What was noted, once; nothing where another process has noted it."""
    with _LOCK:
        return _NOTED.pop((checkpoint, batch), {})
