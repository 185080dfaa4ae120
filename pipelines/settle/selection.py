"""Which outcomes a settle run looks up: those whose answer the join cannot know to be final.

A run sees bronze at two pinned versions and a limit: the join's horizon, or none with `--all`. Of the outcomes at or below
the limit it takes

- *open* ones: event time above the previous run's horizon (they became final since), or landed since the previous run;
  of these, the late ones, those that the join has not finished with (`--all` only), those without a row, and those without
  a hot match of the join's (their exposure may lie further back than it looks);
- *touched* ones: outcomes in `[e, e + attribution_window]` of a late exposure at e. Outcomes already final are touched by the
  late exposures that landed since the previous run; those that became final since, by any late exposure: so a late
  exposure stays open until the horizon has passed `e + attribution_window`.

Pure functions of DataFrames; cost follows what landed and what became final since the previous run.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.lake.tables import at
from pipelines.model.durations import micros
from pipelines.model.events import Streams


@dataclass(frozen=True, kw_only=True)
class Window:
    """The outcomes that may have become final: `previous < event_time <= limit` (microseconds; None is unbounded).

    `horizon` is the join's; the limit is the same, or none where all is to be settled. Of outcomes at or below `untrusted` the
    join may not have read all that matters (`pipelines.join.start`).
    """

    previous: int | None
    horizon: int | None
    limit: int | None
    untrusted: int | None = None

    def reached(self, column: str) -> Column:
        return F.lit(True) if self.limit is None else F.col(column) <= at(self.limit)

    def newly(self, column: str, back: timedelta = timedelta(0)) -> Column:
        """The event times that became final, and `back` before them."""
        return self.reached(column) & (F.lit(True) if self.previous is None else F.col(column) > at(self.previous - micros(back)))

    def dates(self, back: timedelta = timedelta(0)) -> Column:
        """A predicate on `event_date` that holds for all newly final event times, and `back` before them: prunes partitions."""
        parts = []
        if self.previous is not None:
            parts.append(F.col("event_date") >= F.to_date(at(self.previous - micros(back))))
        if self.limit is not None:
            parts.append(F.col("event_date") <= F.to_date(at(self.limit)))
        return reduce(lambda a, b: a & b, parts, F.lit(True))

    def pending(self, column: str) -> Column:
        """Whether the join has not finished with the outcome yet, so that it may well have no row."""
        return F.lit(True) if self.horizon is None else F.col(column) > at(self.horizon)

    def joined(self, column: str) -> Column:
        """Whether the join has read all that matters for outcomes of that time, or will have."""
        return F.lit(True) if self.untrusted is None else F.col(column) > at(self.untrusted)

    def already(self, column: str) -> Column:
        return F.lit(False) if self.previous is None else F.col(column) <= at(self.previous)


def outcomes_to_look_up(
    rows: DataFrame, attributed: DataFrame, streams: Streams, window: Window, hot_window: timedelta
) -> DataFrame:
    """Of open outcomes (rows of bronze) those that need a look-up, with `__cause`: `late`, `pending`, `missing` or `tail`.

    `attributed` is the result so far, pruned to the dates of `rows` at most. Returns the outcome's own columns and the cause.
    """
    outcome = streams.outcome
    time = F.col(outcome.event_time)
    own = [F.col(f.name) for f in outcome.schema]
    asked = rows.select(*own, "late", F.to_date(time).alias("__date"))
    done = attributed.select(
        F.col("event_date").alias("__done_date"),
        F.col(outcome.id).alias("__done_id"),
        F.col("exposure_time").alias("__exposure_time"),
        F.col("attributed_by").alias("__lane"),
    )
    same = (F.col("__date") == F.col("__done_date")) & (F.col(outcome.id) == F.col("__done_id"))
    seen = asked.join(done, same, how="left_outer")
    has_no_row = F.col("__done_id").isNull()
    hot_since = F.unix_micros(time) - F.lit(micros(hot_window))
    # Only the join's own match is known to be the best of the hot window: settle may have written before the join had seen
    # all of it, or while the join looked less far back.
    joined = window.joined(outcome.event_time)
    hot_match = joined & (F.col("__lane") == "join") & (F.unix_micros("__exposure_time") >= hot_since)
    cause = (
        F.when(F.col("late"), "late")
        .when(window.pending(outcome.event_time), "pending")
        .when(has_no_row, "missing")
        .when(~F.coalesce(hot_match, F.lit(False)) & (outcome.has_keys() | ~joined), "tail")
    )
    return seen.select(*own, cause.alias("__cause")).where(F.col("__cause").isNotNull())


def unanswered(outcomes: DataFrame, attributed: DataFrame, streams: Streams) -> DataFrame:
    """The outcomes whose id has no row on any date, as `missing`. A date alone says little: of an id with events on several
    dates, repair leaves one row."""
    own = [F.col(f.name) for f in streams.outcome.schema]
    known = attributed.select(streams.outcome.id)
    return outcomes.join(known, streams.outcome.id, how="left_anti").select(*own, F.lit("missing").alias("__cause"))


def touched_outcomes(bronze: DataFrame, late_exposures: DataFrame, streams: Streams, attribution: timedelta) -> DataFrame:
    """The outcomes of `bronze` that match some of `late_exposures`, with `__cause` `touched`. Columns: the outcome's own."""
    outcome, exposure = streams.outcome, streams.exposure
    late = late_exposures.where(exposure.has_keys()).select(
        *exposure.aliased_keys(),
        F.unix_micros(exposure.event_time).alias("__from"),
    )
    time = F.unix_micros(F.col(outcome.event_time))
    matches = (time >= F.col("__from")) & (time <= F.col("__from") + F.lit(micros(attribution))) & outcome.same_keys()
    own = [F.col(f.name) for f in outcome.schema]
    return bronze.join(late, matches, how="left_semi").select(*own, F.lit("touched").alias("__cause"))
