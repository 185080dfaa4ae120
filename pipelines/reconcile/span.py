"""Which outcomes a reconciliation is about: event dates, a slice of them, a sample of the ids."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.durations import micros
from pipelines.instants import to_micros
from pipelines.lake import at

_BUCKETS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Range:
    """Event dates (UTC), both inclusive; None is open."""

    first: date | None = None
    last: date | None = None

    def holds(self, column: Column) -> Column:
        """Whether a date column lies in the range."""
        bounds = [column >= F.lit(self.first)] if self.first else []
        bounds += [column <= F.lit(self.last)] if self.last else []
        return reduce(lambda a, b: a & b, bounds, F.lit(True))

    def holds_time(self, column: Column) -> Column:
        """Whether a time column lies on a date of the range."""
        bounds = [column >= F.lit(str(self.first)).cast("timestamp")] if self.first else []
        bounds += [column < F.lit(str(self.last + timedelta(days=1))).cast("timestamp")] if self.last else []
        return reduce(lambda a, b: a & b, bounds, F.lit(True))

    def has_any(self, dates: Collection[date]) -> bool:
        return any((not self.first or self.first <= each) and (not self.last or each <= self.last) for each in dates)

    def reaching_back(self, window: timedelta) -> "Range":
        """With the dates before it that a window reaches."""
        days = timedelta(days=-(-micros(window) // 86_400_000_000))
        return Range(first=self.first - days if self.first else None, last=self.last)

    @property
    def is_open(self) -> bool:
        """Whether it holds every date."""
        return self.first is None and self.last is None

    def __str__(self) -> str:
        if self.is_open:
            return "all dates"
        return f"{self.first or '...'} to {self.last or '...'}" if self.first != self.last else str(self.first)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What is compared at once: a range whole, or one hour of event time of it (`hour`: its date and 0 to 23, UTC). With
    `strays`, also the rows of the table that lie in a partition of the range without being of its dates."""

    span: Range
    hour: tuple[date, int] | None = None
    strays: bool = True

    def holds(self, time: Column) -> Column:
        """Whether an event time lies in it."""
        if self.hour is None:
            return self.span.holds(F.to_date(time))
        start = self._start
        return (time >= at(start)) & (time < at(start + micros(timedelta(hours=1))))

    def rows(self, time: Column) -> Column:
        """The rows of the table that are compared: by their event time or by their partition, for they may have been moved."""
        inside = self.holds(time)
        if not self.strays or self.span.is_open:
            return inside
        in_partition = self.span.holds(F.col("event_date"))
        return inside | (in_partition if self.hour is None else in_partition & ~self.span.holds(F.to_date(time)))

    def may_be_chosen(self, window: timedelta) -> Column:
        """By their partition, the exposures that an outcome of the slice can match."""
        dates = self.span if self.hour is None else Range(first=self.hour[0], last=self.hour[0])
        return dates.reaching_back(window).holds(F.col("event_date"))

    @property
    def is_everything(self) -> bool:
        return self.hour is None and self.span.is_open

    @property
    def _start(self) -> int:
        assert self.hour is not None
        day, hour = self.hour
        return to_micros(datetime(day.year, day.month, day.day, hour, tzinfo=timezone.utc))

    def __str__(self) -> str:
        return str(self.span) if self.hour is None else f"{self.hour[0]} {self.hour[1]:02d}h"


def by_hour(span: Range, hours: Sequence[tuple[date, int]]) -> Iterator[Slice]:
    """A slice for each of the hours; the first takes the range's strays."""
    for number, hour in enumerate(hours):
        yield Slice(span=span, hour=hour, strays=number == 0)


def sampled(id: Column, share: float) -> Column:
    """Whether an id is in the sample: by a hash of its text, so the same ids in every table and every run."""
    return F.pmod(F.xxhash64(id.cast("string")), F.lit(_BUCKETS)) < F.lit(round(share * _BUCKETS))
