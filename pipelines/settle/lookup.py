"""Attribution from the lake: candidates for given outcomes among all landed exposures of the attribution window."""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.lake.tables import at
from pipelines.model.durations import micros
from pipelines.model.events import Streams
from pipelines.model.time import EPOCH

HOUR_US = 3_600_000_000
_DAY_US = 24 * HOUR_US
# Each is a term of a predicate, which is evaluated for every row that is not skipped.
_MOST_SPANS = 32

# As many outcomes are few: their keys fit into memory, and are sent to where the exposures are.
_FEW = 200_000
# Of more, each task holds a part in memory, of so many at most.
_HELD = 500_000


def hour_of(event_time: str) -> Column:
    """The hour of an event time: microseconds of its start."""
    return F.floor(F.unix_micros(F.col(event_time)) / F.lit(HOUR_US)).cast("bigint") * F.lit(HOUR_US)


def event_hours(outcomes: DataFrame, event_time: str) -> dict[int, int]:
    """How many there are in each hour of event time (microseconds of its start), in order. Runs the plan of `outcomes`."""
    return dict(sorted(tuple(row) for row in outcomes.groupBy(hour_of(event_time).alias("__hour")).count().collect()))


def spans(
    hours: Iterable[int], *, before: timedelta = timedelta(0), after: timedelta = timedelta(0), most: int = _MOST_SPANS
) -> list[tuple[int, int]]:
    """The hours as intervals (microseconds, inclusive), widened to both sides; overlapping ones are joined, and then those with
    the smallest gaps between them, until there are `most` at most.

    >>> spans([0, HOUR_US, 5 * HOUR_US])
    [(0, 7199999999), (18000000000, 21599999999)]
    >>> spans([0, 2 * HOUR_US, 9 * HOUR_US], most=2)
    [(0, 10799999999), (32400000000, 35999999999)]
    """
    joined: list[tuple[int, int]] = []
    for hour in sorted(hours):
        start, end = hour - micros(before), hour + HOUR_US - 1 + micros(after)
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    gaps = sorted(range(1, len(joined)), key=lambda n: joined[n][0] - joined[n - 1][1], reverse=True)
    cuts = sorted(gaps[: most - 1])
    ends = zip([0, *cuts], [*cuts, len(joined)], strict=True)
    return [(joined[first][0], joined[beyond - 1][1]) for first, beyond in ends] if joined else []


def within(event_time: str, hours: Iterable[int], *, before: timedelta = timedelta(0), after: timedelta = timedelta(0)) -> Column:
    """A predicate of literals by which Delta skips partitions and files: the dates that the widened hours lie on, and a bounded
    number of intervals of event time. It holds for every event time within them, and may for others between."""
    hours = list(hours)
    if not hours:
        return F.lit(False)
    days = sorted({day for start, end in spans(hours, before=before, after=after, most=len(hours)) for day in _days(start, end)})
    times = (F.col(event_time).between(at(start), at(end)) for start, end in spans(hours, before=before, after=after))
    return F.col("event_date").isin(days) & reduce(or_, times)


def _days(start: int, end: int) -> Iterator[date]:
    first, last = (at_us // _DAY_US for at_us in (start, end))
    return (EPOCH.date() + timedelta(days=day) for day in range(first, last + 1))


def lake_candidates(
    outcomes: DataFrame, exposures: DataFrame, streams: Streams, attribution: timedelta, count: int | None = None
) -> DataFrame:
    """Each outcome with each matching exposure, or once with nulls; matching as in DESIGN section 2.

    Returns the columns of `candidate_schema`. `exposures` may be pruned to the hours of the outcomes, no further. How it goes
    about it depends on the `count` of outcomes; where that is not known, it is Spark's choice.
    """
    found = exposures.where(streams.exposure.has_keys()).select(*streams.as_exposure(), *streams.exposure.aliased_keys())
    if count is None or count <= _FEW:
        # Exposures of keys that nobody asks for go first: of all those of their hours none is shuffled but what may match.
        asked = outcomes.select(*streams.outcome.aliased_keys())
        asked = asked if count is None else F.broadcast(asked)
        found = found.join(asked, [f"__key_{key}" for key in streams.exposure.keys], how="left_semi")
    behind = F.unix_micros(F.col(streams.outcome.event_time)) - F.unix_micros("exposure_time")
    matches = (behind >= 0) & (behind <= F.lit(micros(attribution))) & streams.outcome.same_keys()
    columns = streams.candidate_schema.names
    keyed = _held(outcomes.where(streams.outcome.has_keys()), streams, count)
    # Those without a key match nothing, and would all be hashed to one task.
    others = outcomes.where(~streams.outcome.has_keys())
    none = [F.lit(None).cast(f.dataType).alias(f.name) for f in streams.exposure_columns]
    matched = keyed.join(found, matches, how="left_outer").select(*columns)
    return matched.unionByName(others.select("*", *none).select(*columns))


def _held(outcomes: DataFrame, streams: Streams, count: int | None) -> DataFrame:
    """Outcomes to be hashed, not sorted, in parts that fit."""
    if count is None:
        return outcomes
    partitions = int(outcomes.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    parts = -(-count // _HELD)
    spread = outcomes.repartition(parts, *streams.outcome.keys) if parts > partitions else outcomes
    return spread.hint("shuffle_hash")
