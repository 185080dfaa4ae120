"""Reland from quarantine: payloads judged again by today's schema and rules; what passes lands as late events do.

Two commits, which may be repeated: bronze, then a mark on the rows of quarantine (`relanded_at`). After a kill between them the
next run finds the events in bronze, and marks what is left to mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.sources import KafkaSource
from pipelines.ingest.landing import landings_of
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.ingest.recovery import ORIGIN, in_quarantine, mark_relanded
from pipelines.ingest.reland import as_late_rows, of_files, same, unmatched_lines
from pipelines.ingest.sources.kafka import values
from pipelines.lake.history import QUARANTINE
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream
from pipelines.model.reasons import Reason

_ROW = ("ingest_date", "ingest_batch", *ORIGIN, "payload")


@dataclass(frozen=True, kw_only=True)
class Rejudged:
    """Payloads that were looked at, and of them those that pass by now; the rows that landed; and by reason what stays."""

    looked_at: int
    passing: int
    landed: int
    left: dict[str, int]


def reland_quarantine(
    lake: Lake, config: Config, stream: EventStream, *, reason: str | None = None, since: date | None = None
) -> Rejudged:
    """Judge again what is in quarantine for a `reason` (None: any), ingested on or after a date (UTC; None: ever). Of files that
    could not be read there is no payload to judge (`pipelines.ingest.unreadable`)."""
    rejected = in_quarantine(lake, stream.name).where(F.col("reason") != Reason.UNREADABLE_FILE.value)
    if reason is not None:
        rejected = rejected.where(F.col("reason") == reason)
    if since is not None:
        rejected = rejected.where(F.col("ingest_date") >= F.lit(since))
    parsed = parse(rejected.select(_raw(config, stream)), stream, rules_of(config)).localCheckpoint()
    passing = parsed.where(F.col("__reason").isNull())
    left = {row["__reason"]: row["count"] for row in parsed.groupBy("__reason").count().collect()}
    count = left.pop(None, 0)
    if not count:
        return Rejudged(looked_at=sum(left.values()), passing=0, landed=0, left=left)
    events = as_late_rows(passing, stream)
    landing = landings_of(lake, config, stream)
    lacking = _lacking(lake.read(stream.name), events, stream, landing).localCheckpoint()
    landed = lacking.count()
    if landed:
        lake.append(stream.name, lacking, metadata={QUARANTINE: {"rows": landed}})
    mark_relanded(lake, stream, passing.select(*(f"__raw.{name}" for name in _ROW)).distinct().localCheckpoint())
    return Rejudged(looked_at=count + sum(left.values()), passing=count, landed=landed, left=left)


def _raw(config: Config, stream: EventStream) -> Column:
    """`__raw` (`pipelines.ingest.sources`) of a row of quarantine; the payload is base64 where its bytes were no text."""
    source = config.streams[stream.name].source
    if isinstance(source, KafkaSource) and source.value.format == "avro":
        value = values(source, f"streams.{stream.name}.source", F.try_to_binary("payload", F.lit("base64")))
    else:
        text = F.try_to_binary("payload", F.lit("base64")).cast("string")
        value = [F.when(F.col("reason") == Reason.NOT_UTF8.value, text).otherwise(F.col("payload")).alias("value")]
    fields = (*ORIGIN, "ingest_time", "ingest_batch", "ingest_date", "payload")
    record_time = F.coalesce("source_time", "ingest_time").alias("record_time")
    return F.struct(*value, *fields, record_time, F.lit(None).cast("timestamp").alias("met")).alias("__raw")


def _lacking(bronze: DataFrame, events: DataFrame, stream: EventStream, landing: Sequence[str]) -> DataFrame:
    """The events that bronze does not have: of Kafka by their place; of files by their content, as often as a file has it, among
    the rows that have come from quarantine. Those are late, and have met no watermark."""
    names = stream.bronze_schema.names
    records = events.where(F.col("source_partition").isNotNull())
    left = records.alias("n").join(bronze.alias("o"), same(ORIGIN), "left_anti").select(*(f"n.{name}" for name in names))
    lines = of_files(events)
    relanded = of_files(bronze).where("late AND door_watermark IS NULL")
    there = relanded.join(F.broadcast(lines.select("source").distinct()), "source", "left_semi").select(*bronze.columns)
    return left.unionByName(unmatched_lines(lines, there, stream, landing))
