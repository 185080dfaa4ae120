"""What stands in bronze more often than it came, and taking it out again.

Of a landing file that is there its events tell (`pipelines.reconcile.landed`). One that is gone is still known to have landed
whole, in one commit: rows of it with two ingest times are of a file that landed twice. A Kafka record is known by topic,
partition, offset and timestamp.

Copies change no answer, for the sink and batch choose among events whatever their number; they are wrong in every count.
"""

from collections.abc import Collection
from contextlib import ExitStack
from functools import reduce

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.events import EventStream
from pipelines.lake import MENDED, Lake, column_list
from pipelines.reconcile.landed import held_against_files
from pipelines.reconcile.losses import Losses
from pipelines.sink import merge, user_metadata

_RECORD = ("source", "source_partition", "source_offset", "source_time")


def files_twice(bronze: DataFrame, files: Collection[str] | None) -> dict[str, int]:
    """Of landing files that are there no more (None: of all), those that `bronze` has with several ingest times; how many rows of
    each are too many."""
    if files is not None and not files:
        return {}
    times = _of_files(bronze, files).groupBy("source", "ingest_time").count()
    first = F.row_number().over(Window.partitionBy("source").orderBy("ingest_time")) == 1
    later = times.withColumn("__first", first).where("NOT __first").groupBy("source").agg(F.sum("count").alias("rows"))
    return {row["source"]: row["rows"] for row in later.collect()}


def take_out_copies(lake: Lake, config: Config, stream: EventStream, losses: Losses) -> int:
    """Leave in bronze each event as often as it came, in one commit; how many rows were too many."""
    bronze = lake.read(stream.name)
    with ExitStack() as held:
        flagged = [_flagged_records(bronze)]
        if losses.surplus:
            flagged.append(held.enter_context(held_against_files(lake, config, stream, losses.surplus)).rows)
        gone = files_twice(bronze, losses.untold)
        if gone:
            earliest = F.min("ingest_time").over(Window.partitionBy("source"))
            flagged.append(_of_files(bronze, gone).withColumn("__surplus", F.col("ingest_time") > earliest))
        rows = reduce(DataFrame.unionByName, flagged).persist()
        held.callback(rows.unpersist)
        surplus = rows.where("__surplus")
        count = surplus.count()
        if count:
            _leave_the_others(lake, stream, rows, surplus, count)
        return count


def _leave_the_others(lake: Lake, stream: EventStream, rows: DataFrame, surplus: DataFrame, count: int) -> None:
    """Nothing tells a row from its copy: all that have the place and id of one go, and those that are not surplus come again."""
    place = (*_RECORD, stream.id)
    places = surplus.select(*(F.col(name).alias(f"__{name}") for name in place), F.lit(True).alias("__delete")).distinct()
    same = reduce(lambda a, b: a & b, (F.col(name).eqNullSafe(F.col(f"__{name}")) for name in place))
    kept = rows.where("NOT __surplus").join(places, same, "left_semi").select(*stream.bronze_schema.names)
    source = kept.withColumn("__delete", F.lit(False)).unionByName(places, allowMissingColumns=True).persist()
    columns = stream.bronze_schema.names
    matched = " AND ".join(f"t.`{name}` <=> s.`__{name}`" for name in place)
    insert = f"INSERT ({column_list(columns)}) VALUES ({column_list(columns, 's.')})"
    try:
        source.count()
        with user_metadata(lake.spark, {MENDED: {"rows": count}}):
            merge(
                lake,
                stream.name,
                source,
                f"s.__delete AND {matched}",
                f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND NOT s.__delete THEN {insert}",
            )
    finally:
        source.unpersist()


def _flagged_records(bronze: DataFrame) -> DataFrame:
    """The Kafka records with more than one row: the first to land stays."""
    records = bronze.where(F.col("source_partition").isNotNull())
    several = records.groupBy(*_RECORD).agg(F.count("*").alias("__rows")).where("__rows > 1")
    same = reduce(lambda a, b: a & b, (F.col(f"b.{name}").eqNullSafe(F.col(f"r.{name}")) for name in _RECORD))
    twice = records.alias("b").join(F.broadcast(several.alias("r")), same, "left_semi")
    nth = F.row_number().over(Window.partitionBy(*_RECORD).orderBy("ingest_time", "ingest_batch"))
    return twice.withColumn("__surplus", nth > 1)


def _of_files(bronze: DataFrame, files: Collection[str] | None) -> DataFrame:
    rows = bronze.where(F.col("source_partition").isNull() & F.col("source").isNotNull())
    return rows if files is None else rows.where(F.col("source").isin(*files))
