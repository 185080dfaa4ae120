"""Batch attribution by sorting: an as-of scan over the union of both streams.

Rows of one key are sorted by time, exposures before outcomes of the same instant, exposures of one instant by id and carried
values. The last exposure before an outcome in that order is the greatest by DESIGN section 2's rule; it is the answer if it lies
within the attribution window. No join, no range condition, no aggregate of candidates.

The rule is written here a second time, from DESIGN section 2, so that a mistake in `pipelines.model.events` or a lane shows.
"""

from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from pipelines.model.events import EventStream, Streams
from pipelines.model.rule import Rule

# The keys of so many outcomes fit into memory.
_FEW = 1_000_000
_JSON = {"ignoreNullFields": "false", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"}


def outcome_events(bronze: DataFrame, streams: Streams) -> DataFrame:
    """One row for each distinct outcome id: its earliest event, then the one with the smallest JSON; the others are conflicts.

    Adds `__versions`, the number of different events that bronze has of the id.
    """
    outcome = streams.outcome
    own = [F.col(f.name) for f in outcome.schema]
    by_rank = Window.partitionBy(outcome.id).orderBy(outcome.event_time, "__json")
    ranked = bronze.select(*own, canonical_json(outcome).alias("__json"))
    numbered = ranked.withColumns({"__place": F.dense_rank().over(by_rank), "__nth": F.row_number().over(by_rank)})
    versions = numbered.withColumn("__versions", F.max("__place").over(Window.partitionBy(outcome.id)))
    return versions.where("__nth = 1").select(*own, "__versions")


def canonical_json(stream: EventStream) -> Column:
    """An event's declared columns as JSON: keys sorted at every depth, no spaces, nulls explicit, times in microseconds."""
    return F.to_json(_sorted(F.struct(*(F.col(f.name) for f in stream.schema)), stream.schema), _JSON)


def _sorted(value: Column, kind: DataType) -> Column:
    if isinstance(kind, StructType):
        fields = sorted(kind.fields, key=lambda field: field.name)
        ordered = F.struct(*(_sorted(value.getField(f.name), f.dataType).alias(f.name) for f in fields))
        return F.when(value.isNotNull(), ordered)
    if isinstance(kind, ArrayType):
        return F.transform(value, lambda item: _sorted(item, kind.elementType))
    if isinstance(kind, MapType):
        keys = F.sort_array(F.map_keys(value))
        return F.map_from_arrays(keys, F.transform(keys, lambda key: _sorted(F.element_at(value, key), kind.valueType)))
    return value


def attribute(outcomes: DataFrame, exposures: DataFrame, streams: Streams, rule: Rule, *, count: int | None = None) -> DataFrame:
    """Add to each of `outcomes` (one row an id) the exposure columns of its last matching exposure, or nulls.

    Where the `count` of outcomes is known, and small, no exposure is sorted whose keys no outcome has.
    """
    outcome, exposure = streams.outcome, streams.exposure
    keys = [f"__key_{n}" for n in range(len(rule.keys))]
    values = [F.col(key).alias(name) for key, name in zip(rule.keys, keys, strict=True)]
    # A null key matches nothing.
    with_keys = reduce(and_, (F.col(key).isNotNull() for key in rule.keys))
    if count is not None and count <= _FEW:
        wanted = F.broadcast(outcomes.where(with_keys).select(*values).distinct())
        same = reduce(and_, (F.col(key) == F.col(name) for key, name in zip(rule.keys, keys, strict=True)))
        exposures = exposures.join(wanted, same, "left_semi")
    taken = {"exposure_id": exposure.id, "exposure_time": exposure.event_time, **{f"exposure_{c}": c for c in rule.carry}}
    shown = F.struct(*(F.col(column).alias(name) for name, column in taken.items()))
    fields = [StructField(name, exposures.schema[column].dataType) for name, column in taken.items()]
    asked = outcomes.where(with_keys).select(
        *values,
        F.col(outcome.event_time).alias("__at"),
        F.lit(True).alias("__asks"),
        F.struct("*").alias("__outcome"),
        _null(fields).alias("__exposure"),
    )
    offered = exposures.where(with_keys).select(
        *values,
        F.col(exposure.event_time).alias("__at"),
        F.lit(False).alias("__asks"),
        _null(outcomes.schema.fields).alias("__outcome"),
        shown.alias("__exposure"),
    )
    ties = [F.col("__exposure").getField(name).asc_nulls_first() for name in taken]
    # The hash makes the sort compare keys that begin alike less often.
    walk = Window.partitionBy("__hash", *keys).orderBy("__at", "__asks", *ties)
    last = F.last("__exposure", ignorenulls=True).over(walk.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    both = asked.unionByName(offered).withColumn("__hash", F.xxhash64(*keys))
    answered = both.withColumn("__last", last).where("__asks")
    recent = F.col("__last.exposure_time") >= F.col("__at") - F.lit(rule.window)
    own = [F.col("__outcome").getField(name).alias(name) for name in outcomes.columns]
    found = [F.when(recent, F.col("__last").getField(f.name)).alias(f.name) for f in fields]
    nothing = [F.lit(None).cast(f.dataType).alias(f.name) for f in fields]
    return answered.select(*own, *found).unionByName(outcomes.where(~with_keys).select("*", *nothing))


def _null(fields: list[StructField]) -> Column:
    return F.lit(None).cast(StructType([StructField(f.name, f.dataType) for f in fields]))
