"""Which outcomes a settle run looks up: those whose answer the join cannot know to be final.

A run sees bronze at two pinned versions and a limit: the join's horizon, or none with `--all`. Of the outcomes at or below
the limit it takes

- *open* ones: event time above the previous run's horizon (they became final since), or landed since the previous run;
  of these, the late ones, those without a row, and those without a hot match (their exposure may lie further back than
  the join looks);
- *touched* ones: outcomes in `[e, e + attribution_window]` of a late exposure at e. Outcomes already final are touched by the
  late exposures that landed since the previous run; those that became final since, by any late exposure: so a late
  exposure stays open until the horizon has passed `e + attribution_window`.

Pure functions of DataFrames; cost follows what landed and what became final since the previous run.
"""

from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.durations import micros
from pipelines.events import Streams
from pipelines.lake import at


@dataclass(frozen=True, kw_only=True)
class Window:
    """The outcomes that may have become final: `previous < event_time <= limit` (microseconds; None is unbounded)."""

    previous: int | None
    limit: int | None

    def reached(self, column: str) -> Column:
        return F.lit(True) if self.limit is None else F.col(column) <= at(self.limit)

    def newly(self, column: str) -> Column:
        return self.reached(column) & (F.lit(True) if self.previous is None else F.col(column) > at(self.previous))

    def already(self, column: str) -> Column:
        return F.lit(False) if self.previous is None else F.col(column) <= at(self.previous)


def open_outcomes(
    bronze: DataFrame, landed: DataFrame, attributed: DataFrame, streams: Streams, window: Window, hot_window: timedelta
) -> DataFrame:
    """Open outcomes that need a look-up, with `__cause`: `late`, `missing` or `tail`. Columns: the outcome's own.

    `bronze` is all outcomes as pinned, `landed` those that the previous run had not seen, `attributed` the result so far.
    """
    outcome = streams.outcome
    own = [F.col(f.name) for f in outcome.schema]
    time = outcome.event_time
    became_final = _in_dates(bronze, time, window).where(window.newly(time))
    landed_behind = landed.where(window.already(time) & window.reached(time))
    rows = became_final.select(*own, "late").unionByName(landed_behind.select(*own, "late"))
    rows = rows.withColumn("event_date", F.to_date(time))
    done = attributed.select(
        F.col("event_date"),
        F.col(outcome.id).alias("__id"),
        F.col("exposure_time").alias("__exposure_time"),
        F.lit(True).alias("__done"),
    )
    same = (rows["event_date"] == done["event_date"]) & (F.col(outcome.id) == F.col("__id"))
    seen = rows.join(done, same, how="left_outer")
    hot_since = F.unix_micros(F.col(time)) - F.lit(micros(hot_window))
    no_hot_match = F.col("__exposure_time").isNull() | (F.unix_micros("__exposure_time") < hot_since)
    cause = (
        F.when(F.col("late"), "late").when(F.col("__done").isNull(), "missing").when(no_hot_match & outcome.has_keys(), "tail")
    )
    return seen.select(*own, cause.alias("__cause")).where(F.col("__cause").isNotNull())


def touched_outcomes(bronze: DataFrame, late_exposures: DataFrame, streams: Streams, window: timedelta) -> DataFrame:
    """The outcomes of `bronze` that match some of `late_exposures`, with `__cause` `touched`. Columns: the outcome's own."""
    outcome, exposure = streams.outcome, streams.exposure
    late = late_exposures.where(exposure.has_keys()).select(
        *(F.col(key).alias(f"__key_{key}") for key in exposure.keys),
        F.unix_micros(exposure.event_time).alias("__from"),
    )
    time = F.unix_micros(F.col(outcome.event_time))
    matches = (time >= F.col("__from")) & (time <= F.col("__from") + F.lit(micros(window)))
    for key in outcome.keys:
        matches = matches & (F.col(key) == F.col(f"__key_{key}"))
    own = [F.col(f.name) for f in outcome.schema]
    return bronze.join(late, matches, how="left_semi").select(*own, F.lit("touched").alias("__cause"))


def _in_dates(bronze: DataFrame, time: str, window: Window) -> DataFrame:
    """Prune partitions: the date of a row follows from its event time."""
    if window.previous is not None:
        bronze = bronze.where(F.col("event_date") >= F.to_date(at(window.previous)))
    if window.limit is not None:
        bronze = bronze.where(F.col("event_date") <= F.to_date(at(window.limit)))
    return bronze
