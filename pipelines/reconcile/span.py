"""Which outcomes a reconciliation is about: those of a range of event dates."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.model.durations import micros


@dataclass(frozen=True, kw_only=True)
class Range:
    """Event dates (UTC), both inclusive; None is open. Holds none where `first` lies after `last`."""

    first: date | None = None
    last: date | None = None

    def holds(self, column: Column) -> Column:
        """Whether a date column lies in the range."""
        bounds = [column >= F.lit(self.first)] if self.first else []
        bounds += [column <= F.lit(self.last)] if self.last else []
        return reduce(lambda a, b: a & b, bounds, F.lit(True))

    def holds_time(self, column: Column) -> Column:
        """Whether a time column lies on a date of the range; statistics of the column tell which files can have such rows."""
        bounds = [column >= F.lit(str(self.first)).cast("timestamp")] if self.first else []
        bounds += [column < F.lit(str(self.last + timedelta(days=1))).cast("timestamp")] if self.last else []
        return reduce(lambda a, b: a & b, bounds, F.lit(True))

    def has_any(self, dates: Collection[date]) -> bool:
        return any((not self.first or self.first <= each) and (not self.last or each <= self.last) for each in dates)

    def reaching_back(self, window: timedelta) -> "Range":
        """With the dates before it that a window reaches."""
        days = timedelta(days=-(-micros(window) // 86_400_000_000))
        return Range(first=self.first - days if self.first else None, last=self.last)

    def since(self, first: date | None) -> "Range":
        """Without the dates before `first`."""
        return self if first is None else Range(first=max(first, self.first or first), last=self.last)

    @property
    def is_open(self) -> bool:
        """Whether it holds every date."""
        return self.first is None and self.last is None

    def __str__(self) -> str:
        if self.is_open:
            return "all dates"
        return f"{self.first or '...'} to {self.last or '...'}" if self.first != self.last else str(self.first)
