"""How much has landed in an hour, against the same hour of earlier days: an outage of a producer differs from nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from pyspark.sql import functions as F

from pipelines.config import VolumeConfig
from pipelines.events import EventStream
from pipelines.instants import EPOCH
from pipelines.lake import Lake
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class HourVolume:
    """Accepted rows of an hour of event time (UTC), `late` of them late; `usual` is the median of the same hour on earlier days,
    None where there are too few of those."""

    stream: str
    event_date: str
    hour: int
    rows: int
    late: int
    usual: float | None

    @property
    def volume(self) -> float | None:
        """The rows as a share of the usual ones."""
        return None if self.usual is None else self.rows / self.usual


_Counts = dict[tuple[date, int], tuple[int, int, int]]


def volumes(lake: Lake, span: Range, bound: int | None, limits: VolumeConfig) -> list[HourVolume]:
    """Of each stream and each hour of the dates that are over, by the bound of event time (microseconds; None: by the newest
    event of both streams): from the first hour that has rows on, those without any too. The last date that there is thins out by
    itself, and is not judged."""
    counted = {stream.name: _count(lake, stream, span, limits) for stream in lake.streams.both}
    newest = (newest for counts in counted.values() for *_, newest in counts.values())
    over = max(newest, default=0) if bound is None else bound
    return [each for name, counts in counted.items() for each in _judged(name, counts, span, over, limits)]


def _count(lake: Lake, stream: EventStream, span: Range, limits: VolumeConfig) -> _Counts:
    """By hour: rows, late ones, and the newest event time."""
    reach = Range(first=span.first - timedelta(days=limits.days) if span.first else None, last=span.last)
    time = F.col(stream.event_time)
    counted = (
        lake.read(stream.name)
        .where(reach.holds(F.col("event_date")))
        .groupBy(F.col("event_date").alias("date"), F.hour(time).alias("hour"))
        .agg(F.count("*").alias("rows"), F.count_if("late").alias("late"), F.unix_micros(F.max(time)).alias("newest"))
    )
    return {(row["date"], row["hour"]): (row["rows"], row["late"], row["newest"]) for row in counted.collect()}


def _judged(stream: str, counts: _Counts, span: Range, over: int, limits: VolumeConfig) -> Iterator[HourVolume]:
    days = sorted({day for day, _ in counts})
    for day, hour in _hours(min(counts), over) if counts else ():
        if (span.first is None or span.first <= day) and (span.last is None or day <= span.last):
            rows, late, _ = counts.get((day, hour), (0, 0, 0))
            usual = _usual(counts, days, day, hour, limits)
            yield HourVolume(stream=stream, event_date=str(day), hour=hour, rows=rows, late=late, usual=usual)


def _hours(first: tuple[date, int], over: int) -> Iterator[tuple[date, int]]:
    """The hours from one on, of dates that have ended at an instant."""
    number = (first[0] - EPOCH.date()).days * 24 + first[1]
    for each in range(number, over // 86_400_000_000 * 24):
        yield EPOCH.date() + timedelta(days=each // 24), each % 24


def _usual(counts: _Counts, days: list[date], day: date, hour: int, limits: VolumeConfig) -> float | None:
    """A day that has anything at all counts, also where this hour of it is empty."""
    earlier = [each for each in days if day - timedelta(days=limits.days) <= each < day]
    if len(earlier) < limits.min_days:
        return None
    usual = median(counts.get((each, hour), (0, 0, 0))[0] for each in earlier)
    return usual if usual >= limits.min_rows else None
