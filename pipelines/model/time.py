"""Instants as the code holds them outside Spark: microseconds since the epoch, UTC. No Python time zone plays a part."""

import time
import uuid
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


def new_run_id() -> str:
    """A name for a run: its start in UTC, to the second, and some letters that tell it from others of that second."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6]


def to_micros(moment: datetime) -> int:
    """An aware datetime as microseconds since the epoch, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(micros: int | None) -> str | None:
    """ISO-8601 UTC with milliseconds (cut, not rounded); None stays None.

    >>> iso(1_767_225_600_123_999)
    '2026-01-01T00:00:00.123Z'
    """
    if micros is None:
        return None
    return (EPOCH + timedelta(microseconds=micros)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
