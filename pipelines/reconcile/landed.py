"""The events that a stream's source still has, as the door would make rows of bronze of them: read again, to be held against
bronze."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import and_
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType

from pipelines.checkpoints import files_read
from pipelines.config import Config, FilesSource, KafkaSource
from pipelines.events import EventStream
from pipelines.ingest.door import not_quarantined_before
from pipelines.ingest.files import FILE_NAMES, landed_lines
from pipelines.ingest.kafka import read_kafka_ranges
from pipelines.ingest.parse import parse, rules_of
from pipelines.lake import Lake, at
from pipelines.reconcile.content import comparable, content, id_in_text, payload_text
from pipelines.references import resolve

OffsetRanges = Mapping[int, Collection[tuple[int, int]]]
"""By Kafka partition: offsets, both ends inclusive."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Landing files and what bronze has of them. `landed` are their events, as rows of bronze; `wanting` those that bronze lacks,
    each as often as it does; `rows` are bronze's, with `__surplus` where a row is one too many, and `__unsourced` where it is
    that because its file does not have it at all."""

    landed: DataFrame
    wanting: DataFrame
    rows: DataFrame


@contextmanager
def held_against_files(lake: Lake, config: Config, stream: EventStream, files: Collection[str]) -> Iterator[Held]:
    """Landing files and bronze, event for event; the frames are good within. Rows of an event that differ are the same one where
    that is for a change of columns: one of them has a value in `rescued` that has a column in the other, or in a narrower type.

    A row is too many where it has its like in bronze more often than in its file. One that its file does not have is that only
    where nobody has written the file since ingest read it: what somebody has taken out of a file by writing it anew is kept. So
    is an event that stricter rules would refuse today, and one that somebody has taken over from quarantine.
    """
    bronze = lake.read(stream.name).where(F.col("source_partition").isNull() & F.col("source").isin(*files))
    lines = _lines_of(lake, config, stream, files, bronze)
    # The first to land is the one that stays.
    theirs = _numbered(bronze, "__what", content(stream), "ingest_time", "ingest_batch").persist()
    mine = _numbered(lines, "__what", F.when(_is_event(), content(stream)), "event_date").persist()
    row = ["source", "__what", "__what_nth"]
    try:
        mine.count()  # read before anybody asks which files are there: one that is taken away meanwhile tells nothing
        landed = mine.where(_is_event())
        lacking = landed.join(theirs.select(*row), row, "left_anti")
        over = theirs.join(landed.select(*row), row, "left_anti")
        event = F.struct(stream.id, stream.event_time)
        new, old = (
            _numbered(rows, "__event", event, "__what", "__what_nth").alias(name) for rows, name in ((lacking, "n"), (over, "o"))
        )
        forms = [F.col(f"n.{name}") == F.col(f"o.{name}") for name in ("source", "__event", "__event_nth")]
        pairs = new.join(old, reduce(and_, [*forms, *_same_but_for_columns(stream)]), "inner")
        lacking = lacking.join(pairs.select(*(f"n.{name}" for name in row)), row, "left_anti")
        over = over.join(pairs.select(*(f"o.{name}" for name in row)), row, "left_anti")
        refused = mine.where(~_is_event()).select("source", F.col("__refused_id").alias("__id"))
        refused = refused.unionByName(_quarantined_ids(lake, stream, files))
        flagged = theirs.join(_too_many(over, refused, stream, _as_read(lake, config, stream, files)), row, "left")
        names = stream.bronze_schema.names
        flags = (F.coalesce(name, F.lit(False)).alias(name) for name in ("__surplus", "__unsourced"))
        yield Held(
            landed=landed.select(*names),
            wanting=lacking.select(*names),
            rows=flagged.select(*names, *flags),
        )
    finally:
        mine.unpersist()
        theirs.unpersist()


def _is_event() -> Column:
    """Whether a line that was read again is one."""
    return F.col("__refused_id").isNull()


def _too_many(over: DataFrame, refused: DataFrame, stream: EventStream, as_read: DataFrame) -> DataFrame:
    """Of rows that the lines do not have, the keys of those that are too many, flagged."""
    refused = refused.distinct().withColumn("__refused", F.lit(True))
    judged = over.withColumn("__id", F.col(stream.id).cast("string"))
    judged = judged.join(refused, ["source", "__id"], "left").join(F.broadcast(as_read), "source", "left")
    # A file that is as it was read, and that was not put there after the row had come from it.
    told = F.col("__refused").isNull() & (F.col("__modified") <= F.col("ingest_time"))
    row, is_copy = ("source", "__what", "__what_nth"), F.col("__what_nth") > 1
    found = judged.withColumn("__unsourced", ~is_copy & F.coalesce(told, F.lit(False)))
    return found.where(is_copy | F.col("__unsourced")).select(*row, F.lit(True).alias("__surplus"), "__unsourced")


def _quarantined_ids(lake: Lake, stream: EventStream, files: Collection[str]) -> DataFrame:
    rejected = lake.read("quarantine").where((F.col("stream") == stream.name) & F.col("source").isin(*files))
    return rejected.select("source", id_in_text(payload_text(), stream).alias("__id"))


def unwritten(lake: Lake, config: Config, stream: EventStream) -> dict[str, int]:
    """The landing files that nobody has written since ingest has read them, by its checkpoint: by `location`, the time of their
    last change in milliseconds."""
    now, then = _changed(lake, config, stream)
    return dict(now.items() & then)


def _changed(lake: Lake, config: Config, stream: EventStream) -> tuple[dict[str, int], set[tuple[str, int]]]:
    """When each landing file was last changed (milliseconds), by `location`; and when it had been, when ingest read it."""
    source = config.streams[stream.name].source
    assert isinstance(source, FilesSource)
    there = lake.listed(resolve(source.path, f"streams.{stream.name}.source.path"), FILE_NAMES)
    read = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}"))
    now, then = (
        {(location(row[0]), row[1]) for row in rows.collect()}
        for rows in (
            there.select("path", F.unix_millis("modificationTime")),
            read.select("source", F.unix_millis("modified")),
        )
    )
    return dict(now), then


def _as_read(lake: Lake, config: Config, stream: EventStream, files: Collection[str]) -> DataFrame:
    """Those of the files that are as ingest has read them, or of which its checkpoint, which has begun anew, does not know:
    `source`, `__modified`."""
    now, then = _changed(lake, config, stream)
    known = {path for path, _ in then}
    modified = {path: at for path, at in now.items() if (path, at) in then or path not in known}
    unchanged = [(file, modified[location(file)]) for file in files if location(file) in modified]
    found = lake.spark.createDataFrame(unchanged, "source string, at bigint")
    return found.select("source", F.timestamp_millis("at").alias("__modified"))


def location(uri: str) -> str:
    """Where a file is, however its URI is written: decoded, with one slash behind the scheme."""
    return re.sub(r"^(\w+):/+", r"\1:/", unquote(uri))


def _same_but_for_columns(stream: EventStream) -> Iterator[Column]:
    """Of a new reading `n` and a row `o` of bronze: no column differs but one that either has not got (it was rescued), or that
    was FLOAT."""
    for field in stream.schema:
        one, other = (comparable(field, F.col(f"{side}.{field.name}")) for side in ("n", "o"))
        same = one.eqNullSafe(other)
        for side in ("n", "o"):
            same = same | (F.col(f"{side}.{field.name}").isNull() & F.col(f"{side}.rescued").isNotNull())
        yield same | one.cast("float").eqNullSafe(other) if isinstance(field.dataType, DoubleType) else same


def events_at(lake: Lake, config: Config, stream: EventStream, offsets: OffsetRanges) -> DataFrame:
    """The accepted events at offsets of the stream's topic, in bronze's columns, as far as Kafka has them."""
    source = config.streams[stream.name].source
    if not isinstance(source, KafkaSource) or not any(offsets.values()):
        return lake.read(stream.name).where(F.lit(False))
    records = read_kafka_ranges(lake.spark, source, f"streams.{stream.name}.source", offsets)
    raw = F.col("__raw")
    for name, kind in {"ingest_batch": "bigint", "door_watermark": "timestamp"}.items():
        raw = raw.withField(name, F.lit(None).cast(kind))
    return _as_bronze(lake, config, stream, records.withColumn("__raw", raw)).where(_is_event()).drop("__refused_id")


def _lines_of(lake: Lake, config: Config, stream: EventStream, files: Collection[str], bronze: DataFrame) -> DataFrame:
    """The lines of landing files (see `_as_bronze`), of which bronze has `bronze`."""
    source = config.streams[stream.name].source
    assert isinstance(source, FilesSource)
    text = landed_lines(lake.spark, resolve(source.path, f"streams.{stream.name}.source.path"))
    text = text.select("value", F.col("_metadata.file_path").alias("source")).where(F.col("source").isin(*files))
    told = bronze.groupBy("source").agg(
        F.min("ingest_time").alias("ingest_time"),
        F.min("ingest_batch").alias("ingest_batch"),
        F.max("door_watermark").alias("door_watermark"),
    )
    known = text.join(told, "source", "left")
    return _as_bronze(lake, config, stream, known.select(_of_file(known).alias("__raw")))


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


def _as_bronze(lake: Lake, config: Config, stream: EventStream, raw: DataFrame) -> DataFrame:
    """The rows of bronze that the door would make of `__raw`. Of a file that is in bronze in part, just as it had made them: a
    file lands in one commit. Any other is as if it came now, and so late: the join will not read it. Of what the door would
    refuse there is a `__refused_id`, empty where no id is to be seen in it, and nothing else that counts."""
    parsed = not_quarantined_before(lake, stream, parse(raw, stream, rules_of(config)))
    time, told = F.col("__event").getField(stream.event_time), F.col("__raw.ingest_batch").isNotNull()
    # No later than what the door has promised: the join's heartbeats go by it.
    now = lake.door_watermark(stream, lake.version(stream.name))
    anew = F.lit(None).cast("timestamp") if now is None else at(now)
    known = F.col("__raw.door_watermark")
    own = [F.col("__event").getField(f.name).alias(f.name) for f in stream.schema]
    id = F.coalesce(id_in_text(F.col("__raw.value"), stream), F.lit(""))
    return (
        parsed.select(
            F.when(F.col("__reason").isNotNull(), id).alias("__refused_id"),
            *own,
            *(f"__raw.{name}" for name in ("ingest_time", "source", "source_partition", "source_offset", "source_time")),
            F.coalesce("__raw.ingest_batch", F.lit(0)).cast("bigint").alias("ingest_batch"),
            F.col("__rescued").alias("rescued"),
            F.when(told, F.coalesce(time <= known, F.lit(False))).otherwise(F.lit(True)).alias("late"),
            F.when(told, known).otherwise(anew).alias("door_watermark"),
        )
        .select("*", *stream.partition_values())
        .select(*stream.bronze_schema.names, "__refused_id")
    )


def _numbered(rows: DataFrame, name: str, what: Column, *order: str) -> DataFrame:
    """Rows with `what` of each under a name, and the row's number among those of its file that are the same in that."""
    named = rows.withColumn(name, what)
    return named.withColumn(f"{name}_nth", F.row_number().over(Window.partitionBy("source", name).orderBy(*order)))
