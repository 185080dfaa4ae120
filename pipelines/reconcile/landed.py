"""The events that a stream's source still has, as the door would make rows of bronze of them: read again, to be held against
bronze."""

from collections.abc import Collection, Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.config import Config, FilesSource, KafkaSource
from pipelines.events import EventStream
from pipelines.ingest.door import not_quarantined_before
from pipelines.ingest.files import landed_lines
from pipelines.ingest.kafka import read_kafka_ranges
from pipelines.ingest.parse import parse, rules_of
from pipelines.lake import Lake, at
from pipelines.reconcile.copies import content
from pipelines.references import resolve

OffsetRanges = Mapping[int, Collection[tuple[int, int]]]
"""By Kafka partition: offsets, both ends inclusive."""


def wanting_of_files(lake: Lake, config: Config, stream: EventStream, lines: Mapping[str, int]) -> DataFrame:
    """The events of landing files that bronze has not got, in its columns, each as often as it is wanting. `lines` are the files,
    and how many lines bronze and quarantine lack of each (of which quarantine may have been cleaned)."""
    source, where = config.streams[stream.name].source, f"streams.{stream.name}.source"
    bronze = lake.read(stream.name).where(F.col("source_partition").isNull() & F.col("source").isin(*lines))
    if not isinstance(source, FilesSource):
        return bronze.where(F.lit(False))
    text = landed_lines(lake.spark, resolve(source.path, f"{where}.path"))
    text = text.select("value", F.col("_metadata.file_path").alias("source")).where(F.col("source").isin(*lines))
    files = bronze.groupBy("source").agg(
        F.min("ingest_time").alias("ingest_time"),
        F.min("ingest_batch").alias("ingest_batch"),
        F.max("door_watermark").alias("door_watermark"),
    )
    known = text.join(files, "source", "left")
    landed = _accepted(lake, config, stream, known.select(_of_file(known).alias("__raw")))
    exact = _without(landed, bronze, content(stream))
    many = F.count("*").over(Window.partitionBy("source"))
    exact = exact.withColumn("__many", many)
    lacking = F.element_at(F.create_map(*(F.lit(each) for pair in lines.items() for each in pair)), F.col("source"))
    # More are wanting than lines are lacking: bronze has the events in another form, from before a change of columns. Then id and
    # time tell which they are.
    changed = exact.where(F.col("__many") > lacking).select("source").distinct()
    by_id = _without(landed, bronze, F.struct(stream.id, stream.event_time)).join(changed, "source", "left_semi")
    same = exact.where(F.col("__many") <= lacking)
    return same.select(*landed.columns).unionByName(by_id.select(*landed.columns))


def events_at(lake: Lake, config: Config, stream: EventStream, offsets: OffsetRanges) -> DataFrame:
    """The accepted events at offsets of the stream's topic, in bronze's columns, as far as Kafka has them."""
    source = config.streams[stream.name].source
    if not isinstance(source, KafkaSource) or not any(offsets.values()):
        return lake.read(stream.name).where(F.lit(False))
    records = read_kafka_ranges(lake.spark, source, f"streams.{stream.name}.source", offsets)
    raw = F.col("__raw")
    for name, kind in {"ingest_batch": "bigint", "door_watermark": "timestamp"}.items():
        raw = raw.withField(name, F.lit(None).cast(kind))
    return _accepted(lake, config, stream, records.withColumn("__raw", raw))


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
    # No later than what the door has promised: the join's heartbeats go by it.
    now = lake.door_watermark(stream, lake.version(stream.name))
    anew = F.lit(None).cast("timestamp") if now is None else at(now)
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


def _without(landed: DataFrame, bronze: DataFrame, what: Column) -> DataFrame:
    """What is left of `landed` where bronze's rows are taken away, one for one, by file and `what`."""
    of_one = Window.partitionBy("source", "__what").orderBy("event_date")
    mine, theirs = (rows.withColumn("__what", what).withColumn("__nth", F.row_number().over(of_one)) for rows in (landed, bronze))
    return mine.join(theirs.select("source", "__what", "__nth"), ["source", "__what", "__nth"], "left_anti")
