"""Durations as people write them: `250ms`, `30s`, `10m`, `6h`, `2d`, `1h30m`, and `0`."""

import re
from datetime import timedelta

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PART = re.compile(r"(\d+)(ms|[dhms])")
PATTERN = r"^(?:(?:\d+(?:ms|[dhms]))+|0)$"
_WHOLE = re.compile(PATTERN)

ALLOWED = "a duration such as 250ms, 30s, 10m, 6h, 2d or 1h30m"


def parse_duration(text: object) -> timedelta:
    """Read a duration; `0` needs no unit. Raises ValueError that says what is allowed.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, bool) and text in (0, "0"):
        return timedelta(0)
    if not isinstance(text, str) or not _WHOLE.match(text.strip()):
        raise ValueError(f"{text!r} is not {ALLOWED}")
    try:
        return timedelta(milliseconds=sum(int(n) * _UNITS[unit] for n, unit in _PART.findall(text)))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than time itself can be kept") from None


def format_duration(value: timedelta) -> str:
    """The shortest form that `parse_duration` reads back.

    >>> format_duration(timedelta(minutes=90))
    '1h30m'
    """
    rest, parts = round(value / timedelta(milliseconds=1)), []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def micros(value: timedelta) -> int:
    """Whole microseconds, the unit of Spark's timestamps."""
    return value // timedelta(microseconds=1)
