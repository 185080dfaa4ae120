"""What stands in bronze more than once, and taking it out again.

A landing file lands whole, in one commit: rows of one file with two ingest times are of a file that landed twice. A copy that
somebody made with its ingest time shows as rows that stand there several times; then the file itself, as long as it is there,
tells how many lines it has. A Kafka record is known by topic, partition, offset and timestamp.

Copies change no answer, for the sink and batch choose among events whatever their number; they are wrong in every count.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import MapType

from pipelines.events import EventStream
from pipelines.ingest.files import landed_lines
from pipelines.lake import MENDED, Lake, column_list
from pipelines.sink import merge, user_metadata

_RECORD = ("source", "source_partition", "source_offset", "source_time")
# From how many rows for each different one on a file is looked at: less than two, for those are counted approximately.
_REPEATS = 1.5
_GLOB = re.compile(r"([\[\]{}*?\\])")


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A landing file that is in bronze more than once. What came with `first`, its earliest ingest time (microseconds), stays; of
    that too only one row in `copies`, where those are exact copies. `surplus` rows are too many."""

    source: str
    first: int
    copies: int
    surplus: int


def copied_files(lake: Lake, stream: EventStream, bronze: DataFrame) -> list[Copied]:
    """The files of which `bronze` (all or some dates of the stream's table) has more rows than it should."""
    files = bronze.where(F.col("source_partition").isNull() & F.col("source").isNotNull())
    files = files.select("source", F.unix_micros("ingest_time").alias("at"), content(stream).alias("content"))
    repeats = F.count("*") >= _REPEATS * F.approx_count_distinct("content")
    each = files.groupBy("source").agg(F.min("at").alias("first"), F.max("at").alias("last"), repeats.alias("repeats"))
    suspects = each.where("first < last OR repeats").select("source").persist()
    try:
        if suspects.isEmpty():
            return []
        by_time = files.join(F.broadcast(suspects), "source", "left_semi").groupBy("source", "at")
        found = by_time.agg(F.count("*").alias("rows"), repeats.alias("repeats")).orderBy("source", "at")
        landings: dict[str, list[tuple[int, int, bool]]] = {}
        for row in found.collect():
            landings.setdefault(row["source"], []).append((row["at"], row["rows"], row["repeats"]))
    finally:
        suspects.unpersist()
    expected = _accepted_lines(lake, stream, [source for source, (first, *_) in landings.items() if first[2]])
    copied = []
    for source, times in landings.items():
        first, rows, _ = times[0]
        should = expected.get(source, rows)
        copies = rows // should if should and rows % should == 0 else 1
        surplus = sum(count for _, count, _ in times) - rows // copies
        if surplus:
            copied.append(Copied(source=source, first=first, copies=copies, surplus=surplus))
    return copied


def take_out_copies(lake: Lake, stream: EventStream) -> int:
    """Leave each landing file and each Kafka record in bronze once, in one commit; how many rows were too many."""
    bronze = lake.read(stream.name)
    files, records = copied_files(lake, stream, bronze), _copied_records(bronze).persist()
    surplus = sum(each.surplus for each in files) + int(records.agg(F.sum(F.col("rows") - 1)).collect()[0][0] or 0)
    source = _rewritten(lake, bronze, files, records, stream.bronze_schema.names).persist()
    same_file = "s.__source_partition IS NULL AND t.source_partition IS NULL AND t.source = s.__source"
    same_record = " AND ".join(f"t.{name} <=> s.__{name}" for name in _RECORD)
    columns = column_list(stream.bronze_schema.names)
    try:
        if surplus:
            with user_metadata(lake.spark, {MENDED: {"rows": surplus}}):
                merge(
                    lake,
                    stream.name,
                    source,
                    f"s.__delete AND (({same_file} AND t.ingest_time > s.__after) "
                    f"OR (s.__source_partition IS NOT NULL AND {same_record}))",
                    f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND NOT s.__delete THEN INSERT ({columns}) "
                    f"VALUES ({column_list(stream.bronze_schema.names, 's.')})",
                )
        return surplus
    finally:
        source.unpersist()
        records.unpersist()


def _rewritten(lake: Lake, bronze: DataFrame, files: Sequence[Copied], records: DataFrame, names: Sequence[str]) -> DataFrame:
    """The source of the MERGE: what to delete (`__delete`: of a file what came after a time, or a record) or insert again."""
    schema = "source string, first long, copies long"
    told = lake.spark.createDataFrame([(each.source, each.first, each.copies) for each in files], schema)
    kind = {"source": "string", "source_partition": "int", "source_offset": "bigint", "source_time": "timestamp"}
    # All rows of a file that is written again go; of the others those that came after the first time.
    after = F.timestamp_micros(F.when(F.col("copies") > 1, F.col("first") - 1).otherwise(F.col("first")))
    of_files = told.select(
        F.lit(True).alias("__delete"),
        F.col("source").alias("__source"),
        *(F.lit(None).cast(kind[name]).alias(f"__{name}") for name in _RECORD[1:]),
        after.alias("__after"),
    )
    of_records = records.select(
        F.lit(True).alias("__delete"),
        *(F.col(name).alias(f"__{name}") for name in _RECORD),
        F.lit(None).cast("timestamp").alias("__after"),
    )
    again = bronze.join(F.broadcast(told.where("copies > 1")), "source", "inner").where(
        F.unix_micros("ingest_time") == F.col("first")
    )
    same_row = Window.partitionBy("source", F.to_json(F.struct(*names))).orderBy("ingest_batch")
    one_of = again.withColumn("__nth", F.row_number().over(same_row)).where((F.col("__nth") - 1) % F.col("copies") == 0)
    same = [F.col(f"b.{name}").eqNullSafe(F.col(f"r.{name}")) for name in _RECORD]
    twice = (
        bronze.where(F.col("source_partition").isNotNull())
        .alias("b")
        .join(F.broadcast(records.alias("r")), _all(same), "left_semi")
    )
    first_landed = Window.partitionBy(*_RECORD).orderBy("ingest_time", "ingest_batch")
    first_of = twice.withColumn("__nth", F.row_number().over(first_landed)).where("__nth = 1")
    inserted = one_of.select(*names).unionByName(first_of.select(*names)).withColumn("__delete", F.lit(False))
    return inserted.unionByName(of_files.unionByName(of_records), allowMissingColumns=True)


def _copied_records(bronze: DataFrame) -> DataFrame:
    """Kafka records with more than one row: their place, and `rows`."""
    records = bronze.where(F.col("source_partition").isNotNull()).groupBy(*_RECORD)
    return records.agg(F.count("*").alias("rows")).where("rows > 1")


def content(stream: EventStream) -> Column:
    """A row's event as a number: equal events have equal ones."""
    own = (F.to_json(f.name) if isinstance(f.dataType, MapType) else F.col(f.name) for f in stream.schema)
    return F.xxhash64(*own, "rescued")


def _accepted_lines(lake: Lake, stream: EventStream, sources: Sequence[str]) -> dict[str, int]:
    """How many rows bronze should have of each landing file that is still there: its lines, without those in quarantine."""
    if not sources:
        return {}
    quarantined = lake.read("quarantine").where((F.col("stream") == stream.name) & F.col("source").isin(*sources))
    rejected = {row["source"]: row["count"] for row in quarantined.groupBy("source").count().collect()}
    lines = {source: _lines(lake, source) for source in sources}
    return {source: count - rejected.get(source, 0) for source, count in lines.items() if count is not None}


def _lines(lake: Lake, source: str) -> int | None:
    """How many events the lines of a file are; None where it is gone."""
    try:
        return landed_lines(lake.spark, _GLOB.sub(r"\\\1", unquote(source))).count()
    except AnalysisException:
        return None


def _all(conditions: Sequence[Column]) -> Column:
    return reduce(and_, conditions)
