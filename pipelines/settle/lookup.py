"""Attribution from the lake: candidates for given outcomes among all landed exposures of the attribution window."""

from collections.abc import Iterable
from datetime import timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.durations import micros
from pipelines.events import Streams
from pipelines.inforce import Rules
from pipelines.lake import at

HOUR_US = 3_600_000_000


# As many outcomes are few: their keys fit into memory, and are sent to where the exposures are.
_FEW = 200_000
# Of more, each task holds a part in memory, of so many at most.
_HELD = 500_000


def event_hours(outcomes: DataFrame, event_time: str) -> dict[int, int]:
    """How many there are in each hour of event time (microseconds of its start), in order. Runs the plan of `outcomes`."""
    hour = F.floor(F.unix_micros(F.col(event_time)) / F.lit(HOUR_US)).cast("bigint") * F.lit(HOUR_US)
    return dict(sorted(tuple(row) for row in outcomes.groupBy(hour.alias("__hour")).count().collect()))


def spans(hours: Iterable[int], *, before: timedelta = timedelta(0), after: timedelta = timedelta(0)) -> list[tuple[int, int]]:
    """The hours as intervals (microseconds, inclusive), widened to both sides, overlapping ones joined.

    >>> spans([0, HOUR_US])
    [(0, 7199999999)]
    """
    joined: list[tuple[int, int]] = []
    for hour in sorted(hours):
        start, end = hour - micros(before), hour + HOUR_US - 1 + micros(after)
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def within(event_time: str, intervals: list[tuple[int, int]]) -> Column:
    """A predicate of literals on partition and time, by which Delta skips partitions and files."""
    parts = [
        (F.col("event_date") >= F.to_date(at(start)))
        & (F.col("event_date") <= F.to_date(at(end)))
        & (F.col(event_time) >= at(start))
        & (F.col(event_time) <= at(end))
        for start, end in intervals
    ]
    return reduce(lambda a, b: a | b, parts, F.lit(False))


def lake_candidates(
    outcomes: DataFrame, exposures: DataFrame, streams: Streams, rules: Rules, count: int | None = None
) -> DataFrame:
    """Each outcome with each matching exposure, or once with nulls; matching as in DESIGN section 2, over the whole window of the
    rule that holds for it.

    Returns the columns of `candidate_schema`. `exposures` may be pruned to the spans of the outcomes, no further. How it goes
    about it depends on the `count` of outcomes; where that is not known, it is Spark's choice.
    """
    time = F.col(streams.outcome.event_time)
    parts = [
        _candidates(outcomes.where(rule.holds(time)), exposures, streams.under(rule.keys, rule.carry), rule.window, count)
        for rule in rules
    ]
    return reduce(DataFrame.unionByName, parts)


def _candidates(outcomes: DataFrame, exposures: DataFrame, streams: Streams, window: timedelta, count: int | None) -> DataFrame:
    found = exposures.where(streams.exposure.has_keys()).select(*streams.as_exposure(), *streams.exposure.keys_aside())
    if count is None or count <= _FEW:
        # Exposures of keys that nobody asks for go first: of all those of their hours none is shuffled but what may match.
        asked = outcomes.select(*streams.outcome.keys_aside())
        asked = asked if count is None else F.broadcast(asked)
        found = found.join(asked, [f"__key_{key}" for key in streams.exposure.keys], how="left_semi")
    behind = F.unix_micros(F.col(streams.outcome.event_time)) - F.unix_micros("exposure_time")
    matches = (behind >= 0) & (behind <= F.lit(micros(window))) & streams.outcome.same_keys()
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
