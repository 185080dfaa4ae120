"""Landing nothing twice where the number of a micro-batch does not tell what has landed.

That is so where a checkpoint was lost, or put back to an earlier state, and for the one micro-batch that a kill interrupted: the
query reads again what may be in bronze, or in quarantine, already. Then each micro-batch is anti-joined with both by where its
lines came from, until the checkpoint has passed all that the source held when that began.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.config.secrets import resolve
from pipelines.config.sources import FILE_NAMES, FilesSource, KafkaSource
from pipelines.ingest.landing import below
from pipelines.ingest.offsets import files_read
from pipelines.ingest.position import Position, landed_offsets
from pipelines.lake.merge import merge
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream
from pipelines.model.paths import location
from pipelines.model.sql import quoted

# What a line came from: a file, or a place in Kafka. A topic that was made again counts offsets from 0: so the time, too.
ORIGIN = ("source", "source_partition", "source_offset", "source_time")


@dataclass(kw_only=True)
class Recovery:
    """`files` are landing files, and `offsets` the next offset of each Kafka partition, that the checkpoint has yet to pass.
    `landing` as in `WriterState`: of a directory that was moved a line is known by its file's path below that, and by its
    content, for another directory may have files of the same names."""

    stream: EventStream
    landing: Sequence[str] = ()
    files: set[str] = field(default_factory=set)
    offsets: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, lake: Lake, stream: EventStream, source: FilesSource | KafkaSource, place: Position, landing: Sequence[str]
    ) -> "Recovery":
        """Look at what the source holds, or has held, that the query has not read at its `place`."""
        if isinstance(source, KafkaSource):
            landed = landed_offsets(lake, stream, source.topic)
            return cls(stream=stream, offsets={p: end for p, end in landed.items() if place.offsets.get(p, 0) < end})
        path = resolve(source.path, f"streams.{stream.name}.source.path")
        here = {location(row[0]) for row in lake.listed(path, FILE_NAMES).collect()}
        read = {location(row[0]) for row in files_read(lake.spark, place.checkpoint).select("source").collect()}
        return cls(stream=stream, landing=landing, files=here - read)

    @property
    def over(self) -> bool:
        return not self.files and not self.offsets

    def leave_out(self, lake: Lake, parsed: DataFrame) -> DataFrame:
        """A micro-batch without the accepted lines that are in bronze or quarantine, and the rejected ones that are in
        quarantine; what it reads no longer counts as ahead of the checkpoint."""
        named = [*(F.col(f"__raw.{name}") for name in ORIGIN[:3]), _file("__raw.source", self.landing).alias("file")]
        extremes = F.min("source_offset").alias("first"), F.max("source_offset").alias("last")
        read = parsed.select(*named).groupBy("source", "file", "source_partition").agg(*extremes).collect()
        self.files -= {location(row["source"]) for row in read}
        for row in read:
            partition = row["source_partition"]
            if partition is not None and row["last"] + 1 >= self.offsets.get(partition, row["last"] + 2):
                del self.offsets[partition]
        rejected = lake.read("quarantine").where(F.col("stream") == self.stream.name)
        here = _file("source", self.landing).isin([row["file"] for row in read])
        bronze, rejected = (rows.where(here) for rows in (lake.read(self.stream.name), rejected))
        offsets = [row[name] for row in read for name in ("first", "last") if row[name] is not None]
        if offsets:
            within = F.col("source_offset").between(min(offsets), max(offsets))
            bronze, rejected = bronze.where(within), rejected.where(within)
        ok = F.col("__reason").isNull()
        accepted = not_quarantined_before(rejected, parsed.where(ok), self.landing)
        refused = self._without(parsed.where(~ok), rejected, {"payload": payload(parsed)})
        return self._without_events(accepted, bronze).unionByName(refused)

    def _without_events(self, lines: DataFrame, bronze: DataFrame) -> DataFrame:
        id, time = (F.col(f"__event.`{name}`") for name in (self.stream.id, self.stream.event_time))
        # What was in `rescued` is in a column once the schema has it: then the content is another, of the same event.
        same = content(self.stream, "__event.", "__rescued").eqNullSafe(F.col("what"))
        alike = same | F.col("more") | F.col("__rescued").isNotNull()
        landed = bronze.select(
            *ORIGIN,
            F.col(f"`{self.stream.id}`").alias("id"),
            F.col(f"`{self.stream.event_time}`").alias("time"),
            content(self.stream).alias("what"),
            F.col("rescued").isNotNull().alias("more"),
        )
        return self._without(lines, landed, {"id": id, "time": time}, alike)

    def _without(self, lines: DataFrame, landed: DataFrame, own: Mapping[str, Column], alike: Column | None = None) -> DataFrame:
        """The lines of which their file has not landed; of a directory that was moved those that have not landed themselves."""
        same = _same_origin(self.landing)
        if len(self.landing) < 2:
            return lines.join(landed.select(*ORIGIN).distinct(), same, "left_anti").select(*lines.columns)
        same = reduce(and_, (column.eqNullSafe(F.col(name)) for name, column in own.items()), same)
        return lines.join(landed, same if alike is None else same & alike, "left_anti").select(*lines.columns)


def not_quarantined_before(rejected: DataFrame, accepted: DataFrame, landing: Sequence[str] = ()) -> DataFrame:
    """Leave out accepted lines that are in quarantine (`rejected`): a clock that was ahead once would be in time by now. The same
    line is known by its file, or by its place in Kafka: a record that was sent again is another one."""
    judged = rejected.select(*ORIGIN, "payload").distinct()
    same = _same_origin(landing) & (payload(accepted) == F.col("payload"))
    return accepted.join(judged, same, "left_anti").select(*accepted.columns)


def content(stream: EventStream, prefix: str = "", rescued: str = "rescued") -> Column:
    """An event as a number: equal events have equal ones. Maps cannot be hashed, so they are taken as text."""
    columns = ((F.col(f"{prefix}`{f.name}`"), f.dataType.simpleString()) for f in stream.schema)
    return F.xxhash64(*(F.to_json(F.struct(column)) if "map<" in kind else column for column, kind in columns), rescued)


def in_quarantine(lake: Lake, stream: str) -> DataFrame:
    """The rows of quarantine that have not been relanded."""
    return lake.read("quarantine").where((F.col("stream") == stream) & F.col("relanded_at").isNull())


def mark_relanded(lake: Lake, stream: EventStream, rows: DataFrame) -> None:
    """Mark the rows of quarantine that have the values of one of `rows`, in all of its columns."""
    same_row = " AND ".join(f"t.{name} <=> s.{name}" for name in rows.columns)
    condition = f"t.stream = {quoted(stream.name)} AND t.relanded_at IS NULL AND {same_row}"
    merge(lake, "quarantine", rows, condition, "WHEN MATCHED THEN UPDATE SET t.relanded_at = current_timestamp()")


def payload(parsed: DataFrame) -> Column:
    """The event as it came; base64 of it where its bytes are no text."""
    if "encoded" in _raw_fields(parsed):
        return F.base64("__raw.encoded")
    value = F.col("__raw.value")
    return F.when(F.is_valid_utf8(value), value).otherwise(F.base64(value.cast("binary")))


def _same_origin(landing: Sequence[str]) -> Column:
    rest = (F.col(f"__raw.{name}").eqNullSafe(F.col(name)) for name in ORIGIN[1:])
    return reduce(and_, rest, _file("__raw.source", landing).eqNullSafe(_file("source", landing)))


def _file(source: str, landing: Sequence[str]) -> Column:
    """What a file is known by; of a directory that was never moved its path as it stands, by which a table can be searched."""
    return below(F.col(source), landing) if len(landing) > 1 else F.col(source)


def _raw_fields(parsed: DataFrame) -> list[str]:
    return list(getattr(parsed.schema["__raw"].dataType, "names", []))
