"""Put back into bronze what it has lost, from where it came: the landing files, or Kafka.

One commit for a table: it writes the event dates concerned anew, of what their data files still have and of the rows put back.
Data files that are gone leave the table's log by that. The join's stream passes such a commit over, and what it tells of nobody
has to settle: where the answer is another, the comparison that follows shows it.
"""

from collections.abc import Collection, Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.config import Config, FilesSource, KafkaSource
from pipelines.events import EventStream
from pipelines.ingest.door import not_quarantined_before
from pipelines.ingest.files import landed_lines
from pipelines.ingest.kafka import read_kafka_ranges
from pipelines.ingest.parse import parse, rules_of
from pipelines.lake import MENDED, Lake, at, conflict_retries
from pipelines.reconcile.copies import content
from pipelines.reconcile.losses import Losses, reading_around
from pipelines.references import resolve
from pipelines.sink import user_metadata

OffsetRanges = Mapping[int, Collection[tuple[int, int]]]
"""By Kafka partition: offsets, both ends inclusive."""


def reland(lake: Lake, config: Config, stream: EventStream, losses: Losses, offsets: OffsetRanges) -> int:
    """Put back the lost lines of landing files, and the records at `offsets` of the stream's topic; the number of rows.

    Where the sources have fewer than the data files that are gone had, nothing is changed: those are still to be brought back.
    """
    with reading_around(lake, losses.gone):
        rows = _rows(lake, config, stream, losses, offsets).persist()
        try:
            found = rows.count()
            if found < losses.gone_rows:
                return 0
            dates = {row[0] for row in rows.select("event_date").distinct().collect()} | losses.gone_dates
            if dates:
                _write(lake, stream, rows, sorted(map(str, dates)), found)
            return found
        finally:
            rows.unpersist()


def _write(lake: Lake, stream: EventStream, rows: DataFrame, dates: Collection[str], count: int) -> None:
    listed = ", ".join(f"DATE'{date}'" for date in dates)
    where = f"event_date IN ({listed})"
    with user_metadata(lake.spark, {MENDED: {"rows": -count}}):
        for attempt in conflict_retries():
            with attempt:
                # Read within the transaction that replaces it: what lands meanwhile is in neither, and stays.
                kept = lake.read(stream.name).where(where)
                writer = kept.unionByName(rows).write.format("delta").mode("overwrite").option("replaceWhere", where)
                lake.save(writer, stream.name)


def _rows(lake: Lake, config: Config, stream: EventStream, losses: Losses, offsets: OffsetRanges) -> DataFrame:
    """What is to be put back, in bronze's columns."""
    source, where = config.streams[stream.name].source, f"streams.{stream.name}.source"
    bronze, found = lake.read(stream.name), []
    if isinstance(source, FilesSource) and losses.lines:
        path = resolve(source.path, f"{where}.path")
        lines = landed_lines(lake.spark, path).select("value", F.col("_metadata.file_path").alias("source"))
        files = (
            bronze.where("source_partition IS NULL")
            .groupBy("source")
            .agg(
                F.min("ingest_time").alias("ingest_time"),
                F.min("ingest_batch").alias("ingest_batch"),
                F.max("door_watermark").alias("door_watermark"),
            )
        )
        lost = lines.where(F.col("source").isin(*losses.lines)).join(files, "source", "left")
        landed = _accepted(lake, config, stream, lost.select(_of_file(lost).alias("__raw")))
        found.append(_not_there(landed, bronze, stream, losses.lines))
    if isinstance(source, KafkaSource) and any(offsets.values()):
        records = read_kafka_ranges(lake.spark, source, where, offsets)
        unknown = {"ingest_batch": "bigint", "door_watermark": "timestamp"}
        raw = F.col("__raw")
        for name, kind in unknown.items():
            raw = raw.withField(name, F.lit(None).cast(kind))
        found.append(_accepted(lake, config, stream, records.withColumn("__raw", raw)))
    return reduce(DataFrame.unionByName, found) if found else bronze.where(F.lit(False))


def _of_file(lines: DataFrame) -> Column:
    """`__raw` (see `pipelines.ingest.sources`) of a line, with what the door had said of the rest of its file, where that is
    known."""
    landed = F.coalesce("ingest_time", F.current_timestamp())
    nothing = {"source_partition": "int", "source_offset": "bigint", "source_time": "timestamp"}
    return F.struct(
        "value",
        "source",
        *(F.lit(None).cast(kind).alias(name) for name, kind in nothing.items()),
        landed.alias("record_time"),
        landed.alias("ingest_time"),
        "ingest_batch",
        "door_watermark",
    )


def _accepted(lake: Lake, config: Config, stream: EventStream, raw: DataFrame) -> DataFrame:
    """The rows of bronze that the door would make of `__raw`. Of a file that is in bronze in part, just as it had made them: a
    file lands in one commit. Any other is as if it came now, and so late: the join will not read it."""
    parsed = not_quarantined_before(lake, stream, parse(raw, stream, rules_of(config)))
    time, told = F.col("__event").getField(stream.event_time), F.col("__raw.ingest_batch").isNotNull()
    now = lake.door_watermark(stream, lake.version(stream.name))
    anew = time if now is None else F.greatest(time, at(now))
    known = F.col("__raw.door_watermark")
    own = [F.col("__event").getField(f.name).alias(f.name) for f in stream.schema]
    return (
        parsed.where(F.col("__reason").isNull())
        .select(
            *own,
            *(f"__raw.{name}" for name in ("ingest_time", "source", "source_partition", "source_offset", "source_time")),
            F.coalesce("__raw.ingest_batch", F.lit(0)).cast("bigint").alias("ingest_batch"),
            F.col("__rescued").alias("rescued"),
            F.when(told, F.coalesce(time <= known, F.lit(False))).otherwise(F.lit(True)).alias("late"),
            F.when(told, known).otherwise(anew).alias("door_watermark"),
        )
        .select("*", *stream.partition_values())
        .select(*stream.bronze_schema.names)
    )


def _not_there(landed: DataFrame, bronze: DataFrame, stream: EventStream, lines: Mapping[str, int]) -> DataFrame:
    """Of the events of some files those that bronze has not got, each as often as it is wanting. None of a file of which more are
    wanting than it has lost: then bronze has its events in another form (a change of columns), and they are no loss."""
    of_one = Window.partitionBy("source", "__content").orderBy("event_date")
    numbered = [
        rows.withColumn("__content", content(stream)).withColumn("__nth", F.row_number().over(of_one))
        for rows in (landed, bronze.where(F.col("source").isin(*lines)))
    ]
    wanting = numbered[0].join(numbered[1], ["source", "__content", "__nth"], "left_anti")
    expected = F.create_map(*(F.lit(each) for pair in lines.items() for each in pair))
    many = F.count("*").over(Window.partitionBy("source"))
    right = wanting.withColumn("__many", many).where(F.col("__many") == F.element_at(expected, F.col("source")))
    return right.select(*landed.columns)
