"""What stands in bronze more often than it came, or never came, and taking it out again.

Of a landing file that is there its events tell (`pipelines.reconcile.landed`). One that is gone is still known to have landed
whole, in one commit: rows of it at two ingest times that are alike are of a file that landed twice. A Kafka record is known by
topic, partition, offset and timestamp; of two with one place that are not alike, nothing tells which is right: both stay.

Copies change no answer, for the sink and batch choose among events whatever their number; they are wrong in every count.
"""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, reduce
from operator import and_

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.events import EventStream
from pipelines.ingest.door import ORIGIN
from pipelines.lake import Lake, column_list
from pipelines.reconcile.commits import mending, on_dates
from pipelines.reconcile.content import content
from pipelines.reconcile.landed import held_against_files
from pipelines.reconcile.losses import Losses
from pipelines.sink import merge


def files_twice(bronze: DataFrame, stream: EventStream, files: Collection[str] | None) -> dict[str, int]:
    """Of landing files that are there no more (None: of all), those of which `bronze` has events at several ingest times; how
    many rows of each are too many."""
    if files is not None and not files:
        return {}
    surplus = _flagged_lines(bronze, stream, files).where("__surplus")
    return {row["source"]: row["count"] for row in surplus.groupBy("source").count().collect()}


@dataclass(frozen=True, kw_only=True)
class TakenOut:
    """Rows that were taken out of bronze: copies of others, and those that their source does not have."""

    copies: int = 0
    unsourced: int = 0


def take_out_surplus(lake: Lake, config: Config, stream: EventStream, losses: Losses) -> TakenOut:
    """Leave in bronze each event as often as it came, in one commit."""
    bronze = lake.read(stream.name)
    with ExitStack() as held:
        flagged = [_flagged_records(bronze, stream)]
        files = {*losses.copies, *losses.unsourced}
        if files:
            flagged.append(held.enter_context(held_against_files(lake, config, stream, files)).rows)
        gone = files_twice(bronze, stream, losses.untold)
        if gone:
            flagged.append(_flagged_lines(bronze, stream, gone))
        rows = reduce(partial(DataFrame.unionByName, allowMissingColumns=True), flagged).persist()
        held.callback(rows.unpersist)
        surplus = rows.where("__surplus")
        unsourced = F.count_if(F.coalesce("__unsourced", F.lit(False))) if files else F.lit(0)
        count, made_up = surplus.agg(F.count("*"), unsourced).collect()[0]
        if count:
            _leave_the_others(lake, stream, rows, surplus, told={"rows": count}, changes_answers=made_up > 0)
        return TakenOut(copies=count - made_up, unsourced=made_up)


def _leave_the_others(
    lake: Lake, stream: EventStream, rows: DataFrame, surplus: DataFrame, *, told: Mapping[str, int], changes_answers: bool
) -> None:
    """Nothing tells a row from its copy: all that have the place and id of one go, and those that are not surplus come again."""
    place = (*ORIGIN, stream.id)
    places = surplus.select(*(F.col(name).alias(f"__{name}") for name in place), F.lit(True).alias("__delete")).distinct()
    same = reduce(and_, (F.col(name).eqNullSafe(F.col(f"__{name}")) for name in place))
    concerned = rows.join(places, same, "left_semi").persist()
    columns = stream.bronze_schema.names
    kept = concerned.where("NOT __surplus").select(*columns)
    source = kept.withColumn("__delete", F.lit(False)).unionByName(places, allowMissingColumns=True).persist()
    matched = " AND ".join(f"t.`{name}` <=> s.`__{name}`" for name in place)
    insert = f"INSERT ({column_list(columns)}) VALUES ({column_list(columns, 's.')})"
    try:
        dates = [row[0] for row in concerned.select(F.col("event_date").cast("string")).distinct().collect()]
        source.count()
        with mending(lake, stream.name, told, dates=dates, changes_answers=changes_answers):
            merge(
                lake,
                stream.name,
                source,
                f"{on_dates(dates, 't.')} AND s.__delete AND {matched}",
                f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND NOT s.__delete THEN {insert}",
            )
    finally:
        source.unpersist()
        concerned.unpersist()


def _flagged_records(bronze: DataFrame, stream: EventStream) -> DataFrame:
    """The Kafka records with more than one row: of those that are alike the first to land stays."""
    records = bronze.where(F.col("source_partition").isNotNull())
    several = records.groupBy(*ORIGIN).agg(F.count("*").alias("__rows")).where("__rows > 1")
    same = reduce(and_, (F.col(f"b.{name}").eqNullSafe(F.col(f"r.{name}")) for name in ORIGIN))
    twice = records.alias("b").join(F.broadcast(several.alias("r")), same, "left_semi")
    alike = Window.partitionBy(*ORIGIN, content(stream)).orderBy("ingest_time", "ingest_batch")
    return twice.withColumn("__surplus", F.row_number().over(alike) > 1)


def _flagged_lines(bronze: DataFrame, stream: EventStream, files: Collection[str] | None) -> DataFrame:
    """The rows of landing files; too many are those of a later ingest time than the file's first that have their like in it."""
    rows = bronze.where(F.col("source_partition").isNull() & F.col("source").isNotNull())
    rows = rows if files is None else rows.where(F.col("source").isin(*files))
    several = rows.groupBy("source").agg(F.count_distinct("ingest_time").alias("__times")).where("__times > 1")
    rows = rows.join(several, "source", "left_semi").select(*rows.columns)
    later = F.col("ingest_time") > F.min("ingest_time").over(Window.partitionBy("source"))
    nth = F.row_number().over(Window.partitionBy("source", "__what", "ingest_time").orderBy("ingest_batch"))
    first = F.count_if(~F.col("__later")).over(Window.partitionBy("source", "__what"))
    told = rows.withColumn("__what", content(stream)).withColumn("__later", later).withColumn("__nth", nth)
    flagged = told.withColumn("__surplus", F.col("__later") & (F.col("__nth") <= first))
    return flagged.select(*rows.columns, "__surplus")
