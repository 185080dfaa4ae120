"""The events that a stream's source still has, as the door would make rows of bronze of them: read again, to be held against
bronze."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.config import Config, FilesSource, KafkaSource
from pipelines.events import EventStream
from pipelines.ingest.door import not_quarantined_before
from pipelines.ingest.files import landed_lines
from pipelines.ingest.kafka import read_kafka_ranges
from pipelines.ingest.parse import parse, rules_of
from pipelines.lake import Lake, at
from pipelines.reconcile.content import comparable, content
from pipelines.references import resolve

OffsetRanges = Mapping[int, Collection[tuple[int, int]]]
"""By Kafka partition: offsets, both ends inclusive."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Landing files and what bronze has of them. `landed` are their events, as rows of bronze; `wanting` those that bronze lacks,
    each as often as it does; `rows` are bronze's, with `__surplus` where a row is one too many."""

    landed: DataFrame
    wanting: DataFrame
    rows: DataFrame


@contextmanager
def held_against_files(lake: Lake, config: Config, stream: EventStream, files: Collection[str]) -> Iterator[Held]:
    """Landing files and bronze, event for event; the frames are good within. Rows of an event that differ are the same one where
    that is for a change of columns: bronze has a value in `rescued` that has a column by now. Only a row that has its like in
    bronze can be one too many: what a file has no more, because somebody has written it anew, is kept."""
    bronze = lake.read(stream.name).where(F.col("source_partition").isNull() & F.col("source").isin(*files))
    landed = _events_of(lake, config, stream, files, bronze)
    mine = _numbered(landed, "__what", content(stream), "event_date").persist()
    # The first to land is the one that stays.
    theirs = _numbered(bronze, "__what", content(stream), "ingest_time", "ingest_batch").persist()
    row = ["source", "__what", "__what_nth"]
    try:
        lacking = mine.join(theirs.select(*row), row, "left_anti")
        over = theirs.join(mine.select(*row), row, "left_anti")
        event = F.struct(stream.id, stream.event_time)
        new, old = (
            _numbered(rows, "__event", event, "__what", "__what_nth").alias(name) for rows, name in ((lacking, "n"), (over, "o"))
        )
        forms = [F.col(f"n.{name}") == F.col(f"o.{name}") for name in ("source", "__event", "__event_nth")]
        pairs = new.join(old, reduce(and_, [*forms, *_same_but_for_columns(stream)]), "inner")
        lacking = lacking.join(pairs.select(*(f"n.{name}" for name in row)), row, "left_anti")
        over = over.join(pairs.select(*(f"o.{name}" for name in row)), row, "left_anti").where("__what_nth > 1")
        flagged = theirs.join(over.select(*row, F.lit(True).alias("__surplus")), row, "left")
        yield Held(
            landed=landed,
            wanting=lacking.select(*landed.columns),
            rows=flagged.select(*bronze.columns, F.coalesce("__surplus", F.lit(False)).alias("__surplus")),
        )
    finally:
        theirs.unpersist()
        mine.unpersist()


def _same_but_for_columns(stream: EventStream) -> Iterator[Column]:
    """Of a new reading `n` and a row `o` of bronze: no column differs but one that the row has not got."""
    rescued = F.col("o.rescued").isNotNull()
    for field in stream.schema:
        one, other = (comparable(field, F.col(f"{side}.{field.name}")) for side in ("n", "o"))
        yield one.eqNullSafe(other) | (F.col(f"o.{field.name}").isNull() & rescued)


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


def _events_of(lake: Lake, config: Config, stream: EventStream, files: Collection[str], bronze: DataFrame) -> DataFrame:
    """The events of landing files, as rows of bronze, which has `bronze` of those files."""
    source = config.streams[stream.name].source
    if not isinstance(source, FilesSource):
        return bronze.where(F.lit(False))
    text = landed_lines(lake.spark, resolve(source.path, f"streams.{stream.name}.source.path"))
    text = text.select("value", F.col("_metadata.file_path").alias("source")).where(F.col("source").isin(*files))
    told = bronze.groupBy("source").agg(
        F.min("ingest_time").alias("ingest_time"),
        F.min("ingest_batch").alias("ingest_batch"),
        F.max("door_watermark").alias("door_watermark"),
    )
    known = text.join(told, "source", "left")
    return _accepted(lake, config, stream, known.select(_of_file(known).alias("__raw")))


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


def _numbered(rows: DataFrame, name: str, what: Column, *order: str) -> DataFrame:
    """Rows with `what` of each under a name, and the row's number among those of its file that are the same in that."""
    named = rows.withColumn(name, what)
    return named.withColumn(f"{name}_nth", F.row_number().over(Window.partitionBy("source", name).orderBy(*order)))
