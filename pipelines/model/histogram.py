"""Counts of durations in buckets that people can read: how late events come, how long after an exposure an outcome follows.

A bucket is named by its upper end, inclusive; its lower end, exclusive, is the end of the one before. The first holds 0 and
less, the last, `more`, all beyond thirty days. Counts add up over micro-batches, so that of a month is a sum over the ledger.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise

from pipelines.model.durations import format_duration, micros, parse_duration

_WRITTEN = """0 1s 2s 5s 10s 20s 30s 1m 2m 3m 5m 10m 15m 20m 30m 45m
              1h 1h30m 2h 3h 4h 6h 8h 12h 18h 1d 2d 3d 5d 7d 14d 30d"""
ENDS = tuple(parse_duration(text) for text in _WRITTEN.split())
MORE = "more"
NAMES = (*(format_duration(end) for end in ENDS), MORE)
END_OF = dict(zip(NAMES, ENDS, strict=False))


@dataclass(frozen=True)
class Histogram:
    """`counts` by name of bucket, in the order of `NAMES`, empty ones left out."""

    counts: Mapping[str, int]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Histogram":
        """Raises KeyError for a bucket that is none."""
        if unknown := set(counts) - set(NAMES):
            raise KeyError(f"no bucket of a histogram: {', '.join(sorted(unknown))}")
        return cls({name: counts[name] for name in NAMES if counts.get(name)})

    @classmethod
    def from_cumulative(cls, reached: Sequence[int]) -> "Histogram":
        """From what `cumulative` gives."""
        return cls.of(dict(zip(NAMES, [reached[0], *(b - a for a, b in pairwise(reached))], strict=True)))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def share_within(self, duration: timedelta) -> float:
        """At least this share lies at or below `duration`: whole buckets are counted. 0 where there is nothing."""
        held = sum(self.counts.get(name, 0) for name, end in END_OF.items() if end <= duration)
        return held / self.total if self.total else 0.0

    def covering(self, share: float) -> timedelta | None:
        """The shortest end of a bucket with `share` or more at or below it; None where no bucket's end reaches that far."""
        if not self.total:
            return None
        reached = list(accumulate(self.counts.get(name, 0) for name in NAMES))
        place = bisect_left(reached, share * self.total)
        return ENDS[place] if place < len(ENDS) else None


def cumulative(value_us: str) -> str:
    """SQL, an aggregate of a SQL expression: how many values (microseconds) lie at or below each end, then how many there are;
    nulls count nowhere."""
    reached = (f"count_if({value_us} <= {micros(end)})" for end in ENDS)
    return f"array({', '.join(reached)}, count({value_us}))"
