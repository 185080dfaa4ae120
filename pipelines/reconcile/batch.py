"""Batch attribution by sorting: an as-of scan over the union of both streams.

Rows of one key are put in order of time, exposures before outcomes of the same instant, exposures of one instant by id and
carried values. Walking that order, the last exposure seen before an outcome is the greatest by DESIGN section 2's rule; it is
the answer if it lies within the attribution window. No join, no range condition, no aggregate of candidates: nothing in
common with how the stream gets there.
"""

from datetime import timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from pipelines.events import Streams
from pipelines.inforce import Rules


def outcome_events(bronze: DataFrame, streams: Streams) -> DataFrame:
    """One row for each distinct outcome id: its earliest event, then the one with the smallest JSON; the rest are conflicts.

    Adds `__versions`, the number of different events that bronze has of the id.
    """
    outcome = streams.outcome
    own = [F.col(f.name) for f in outcome.schema]
    by_id = Window.partitionBy(outcome.id)
    rank = F.expr(outcome.event_rank())
    ranked = bronze.select(*own, rank.alias("__rank")).withColumn("__place", F.dense_rank().over(by_id.orderBy("__rank")))
    first = F.row_number().over(by_id.orderBy("__rank"))
    counted = ranked.withColumn("__versions", F.max("__place").over(by_id)).withColumn("__first", first)
    return counted.where("__first = 1").select(*own, "__versions")


# The keys of so many outcomes fit into memory.
_FEW = 1_000_000


def attribute(
    outcomes: DataFrame, exposures: DataFrame, streams: Streams, rules: Rules, *, count: int | None = None
) -> DataFrame:
    """Each of `outcomes` (one row an id) with its last matching exposure by the rule that holds for it, or with nulls.

    Where their `count` is known, and small, no exposure is sorted whose keys no outcome has. Returns the columns of `outcomes`,
    which may have more than the events' own, then the exposure columns.
    """
    time = F.col(streams.outcome.event_time)
    few = count is not None and count <= _FEW
    answered = [
        _as_of(outcomes.where(rule.holds(time)), exposures, streams.under(rule.keys, rule.carry), rule.window, few)
        for rule in rules
    ]
    return reduce(DataFrame.unionByName, answered)


def _as_of(outcomes: DataFrame, exposures: DataFrame, streams: Streams, window: timedelta, few: bool) -> DataFrame:
    outcome, exposure = streams.outcome, streams.exposure
    if few:
        wanted = F.broadcast(outcomes.select(*outcome.keys_aside()).distinct())
        exposures = exposures.join(wanted, exposure.same_keys(), "left_semi")
    keys = [f"__key_{i}" for i in range(len(outcome.keys))]
    asked = outcomes.where(outcome.has_keys()).select(
        *(F.col(key).alias(name) for key, name in zip(outcome.keys, keys, strict=True)),
        F.col(outcome.event_time).alias("__at"),
        F.lit(True).alias("__asks"),
        F.struct("*").alias("__outcome"),
        _none(streams.exposure_columns).alias("__exposure"),
    )
    offered = exposures.where(exposure.has_keys()).select(
        *(F.col(key).alias(name) for key, name in zip(exposure.keys, keys, strict=True)),
        F.col(exposure.event_time).alias("__at"),
        F.lit(False).alias("__asks"),
        _none(outcomes.schema.fields).alias("__outcome"),
        F.struct(*streams.as_exposure()).alias("__exposure"),
    )
    ties = [F.asc_nulls_first(F.col("__exposure").getField(f.name)) for f in streams.exposure_columns]
    # The hash only comes first in the order of the sort: keys that begin alike cost it a look at both of them each time.
    walk = Window.partitionBy("__hash", *keys).orderBy("__at", "__asks", *ties)
    last = F.last("__exposure", ignorenulls=True).over(walk.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    both = asked.unionByName(offered).withColumn("__hash", F.xxhash64(*keys))
    answered = both.withColumn("__last", last).where("__asks")
    recent = F.col("__last.exposure_time") >= F.col("__at") - F.lit(window)
    own = [F.col("__outcome").getField(name).alias(name) for name in outcomes.columns]
    found = [F.when(recent, F.col("__last").getField(f.name)).alias(f.name) for f in streams.exposure_columns]
    # A null key matches nothing, so its outcomes need no walk.
    keyless = outcomes.where(~outcome.has_keys())
    nothing = [F.lit(None).cast(f.dataType).alias(f.name) for f in streams.exposure_columns]
    return answered.select(*own, *found).unionByName(keyless.select("*", *nothing))


def _none(fields: list[StructField]) -> Column:
    return F.lit(None).cast(StructType([StructField(f.name, f.dataType) for f in fields]))
