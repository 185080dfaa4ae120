"""Landing nothing twice where the number of a micro-batch does not tell what has landed.

That is so where a checkpoint was lost, or put back to an earlier state, and for the one micro-batch that a kill interrupted: the
query reads again what may be in bronze, or in quarantine, already. Then each micro-batch is anti-joined with both by where its
lines came from, until the checkpoint has passed all that the source held when that began.
"""

import re
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import FILE_NAMES, FilesSource, KafkaSource
from pipelines.config.secrets import resolve
from pipelines.ingest.offsets import files_read
from pipelines.ingest.position import Position, landed_offsets
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream

# What a line came from: a file, or a place in Kafka. A topic that was made again counts offsets from 0: so the time, too.
ORIGIN = ("source", "source_partition", "source_offset", "source_time")


@dataclass(kw_only=True)
class Recovery:
    """`files` are landing files, and `offsets` the next offset of each Kafka partition, that the checkpoint has yet to pass."""

    stream: EventStream
    files: set[str] = field(default_factory=set)
    offsets: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, lake: Lake, stream: EventStream, source: FilesSource | KafkaSource, place: Position) -> "Recovery":
        """Look at what the source holds, or has held, that the query has not read at its `place`."""
        if isinstance(source, KafkaSource):
            landed = landed_offsets(lake, stream, source.topic)
            return cls(stream=stream, offsets={p: end for p, end in landed.items() if place.offsets.get(p, 0) < end})
        path = resolve(source.path, f"streams.{stream.name}.source.path")
        here = {location(row[0]) for row in lake.listed(path, FILE_NAMES).collect()}
        read = {location(row[0]) for row in files_read(lake.spark, place.checkpoint).select("source").collect()}
        return cls(stream=stream, files=here - read)

    @property
    def over(self) -> bool:
        return not self.files and not self.offsets

    def leave_out(self, lake: Lake, parsed: DataFrame) -> DataFrame:
        """A micro-batch without the accepted lines that are in bronze or quarantine, and the rejected ones that are in
        quarantine; what it reads no longer counts as ahead of the checkpoint."""
        places = parsed.select("__raw.source", "__raw.source_partition", "__raw.source_offset")
        extremes = F.min("source_offset").alias("first"), F.max("source_offset").alias("last")
        read = places.groupBy("source", "source_partition").agg(*extremes).collect()
        here = [row["source"] for row in read]
        self.files -= set(map(location, here))
        for row in read:
            partition = row["source_partition"]
            if partition is not None and row["last"] + 1 >= self.offsets.get(partition, row["last"] + 2):
                del self.offsets[partition]
        rejected = lake.read("quarantine").where(F.col("stream") == self.stream.name)
        bronze, rejected = (rows.where(F.col("source").isin(here)) for rows in (lake.read(self.stream.name), rejected))
        offsets = [row[name] for row in read for name in ("first", "last") if row[name] is not None]
        if offsets:
            within = F.col("source_offset").between(min(offsets), max(offsets))
            bronze, rejected = bronze.where(within), rejected.where(within)
        ok = F.col("__reason").isNull()
        accepted = _without(not_quarantined_before(rejected, parsed.where(ok)), bronze)
        return accepted.unionByName(_without(parsed.where(~ok), rejected))


def not_quarantined_before(rejected: DataFrame, accepted: DataFrame) -> DataFrame:
    """Leave out accepted lines that are in quarantine (`rejected`): a clock that was ahead once would be in time by now. The same
    line is known by its file, or by its place in Kafka: a record that was sent again is another one."""
    judged = rejected.select(*ORIGIN, "payload").distinct()
    same = _same_origin() & (payload(accepted) == F.col("payload"))
    return accepted.join(judged, same, "left_anti").select(*accepted.columns)


def in_quarantine(lake: Lake, stream: str) -> DataFrame:
    """The rows of quarantine that have not been relanded."""
    return lake.read("quarantine").where((F.col("stream") == stream) & F.col("relanded_at").isNull())


def payload(parsed: DataFrame) -> Column:
    """The event as it came; base64 of it where its bytes are no text."""
    if "encoded" in _raw_fields(parsed):
        return F.base64("__raw.encoded")
    value = F.col("__raw.value")
    return F.when(F.is_valid_utf8(value), value).otherwise(F.base64(value.cast("binary")))


def location(uri: str) -> str:
    """Where a file is, however its URI is written: decoded, with one slash behind the scheme."""
    return re.sub(r"^(\w+):/+", r"\1:/", unquote(uri))


def _without(parsed: DataFrame, landed: DataFrame) -> DataFrame:
    return parsed.join(landed.select(*ORIGIN).distinct(), _same_origin(), "left_anti").select(*parsed.columns)


def _same_origin() -> Column:
    return reduce(and_, (F.col(f"__raw.{name}").eqNullSafe(F.col(name)) for name in ORIGIN))


def _raw_fields(parsed: DataFrame) -> list[str]:
    return list(getattr(parsed.schema["__raw"].dataType, "names", []))
