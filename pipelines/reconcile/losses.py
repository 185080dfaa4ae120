"""What had landed, and is in bronze no more: data files that are gone, and rows that their source says should be there.

A landing file that ingest has read has each of its lines in bronze or in quarantine; lines that are in neither are lost. Of Kafka
the offsets tell (`pipelines.reconcile.door`). Where a landing file is gone too, nothing is left to hold bronze against, but for
the table's own log, which knows how many rows its data files have.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import PurePosixPath
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.checkpoints import files_read
from pipelines.config import Config, FilesSource
from pipelines.events import EventStream
from pipelines.ingest.files import landed_lines
from pipelines.lake import Lake
from pipelines.reconcile.landed import wanting_of_files
from pipelines.references import resolve

_IGNORE = "spark.sql.files.ignoreMissingFiles"
_COUNT_BY_LOG = "spark.databricks.delta.optimizeMetadataQuery.enabled"


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one stream: the data files that its table's log names and that are not there, with the rows they had, and `lines`, how
    many events of which landing file bronze lacks, `on_gone_dates` of them on event dates of such data files. `sources_there`:
    every landing file that ingest has read is still there to tell."""

    gone: tuple[str, ...] = ()
    gone_rows: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)
    on_gone_dates: int = 0
    sources_there: bool = False

    @property
    def rows(self) -> int:
        """How many rows are known to be lost: of what landing files tell, those on the dates of data files that are gone are
        among the rows that these had."""
        return sum(self.lines.values()) + max(0, self.gone_rows - self.on_gone_dates)

    @property
    def gone_dates(self) -> set[date]:
        """The event dates (partitions) of the data files that are gone."""
        return _dates(self.gone)


def find_losses(lake: Lake, config: Config, stream: EventStream, since: date | None) -> Losses:
    """What bronze of a stream lacks: data files of all dates; lines of the landing files that appeared, or were read, since the
    day before `since` (None: of all that are there)."""
    gone = _gone_files(lake, stream)
    with reading_around(lake, gone):
        wanting, sources_there = _wanting(lake, config, stream, None if gone else since)
        lines: Counter[str] = Counter()
        for (source, _), count in wanting.items():
            lines[source] += count
        return Losses(
            gone=gone,
            gone_rows=_count(lake, stream, by_log=True) - _count(lake, stream, by_log=False) if gone else 0,
            lines=dict(lines),
            on_gone_dates=sum(count for (_, day), count in wanting.items() if day in _dates(gone)),
            sources_there=sources_there,
        )


@contextmanager
def reading_around(lake: Lake, gone: Sequence[str]) -> Iterator[None]:
    """Within, tables are read as far as their data files are there, if any are known to be `gone`. The setting is the
    session's."""
    if not gone:
        yield
        return
    lake.spark.conf.set(_IGNORE, "true")
    try:
        yield
    finally:
        lake.spark.conf.unset(_IGNORE)


def _gone_files(lake: Lake, stream: EventStream) -> tuple[str, ...]:
    """The data files of the table's latest version that its directory does not have; paths as the log has them, decoded."""
    needed = {_name(path): unquote(path) for path in lake.read(stream.name).inputFiles()}
    if not needed:
        return ()
    listed = lake.spark.read.format("binaryFile").option("recursiveFileLookup", "true").option("pathGlobFilter", "*.parquet")
    there = {_name(row[0]) for row in listed.load(lake.location(stream.name)).select("path").collect()}
    return tuple(sorted(path for name, path in needed.items() if name not in there))


def _name(path: str) -> str:
    """A data file's own name: unique in its table, whatever directory and encoding it is told with."""
    return unquote(path).rsplit("/", 1)[-1]


def _count(lake: Lake, stream: EventStream, *, by_log: bool) -> int:
    """The table's rows: how many its log says that there are, without a look at any data file; or how many can be read."""
    before = lake.spark.conf.get(_COUNT_BY_LOG, None)
    lake.spark.conf.set(_COUNT_BY_LOG, str(by_log).lower())
    try:
        return lake.read(stream.name).count()
    finally:
        if before is None:
            lake.spark.conf.unset(_COUNT_BY_LOG)
        else:
            lake.spark.conf.set(_COUNT_BY_LOG, before)


def _wanting(lake: Lake, config: Config, stream: EventStream, since: date | None) -> tuple[dict[tuple[str, date], int], bool]:
    """By landing file and event date, how many events bronze lacks; and whether every file is there that could tell."""
    source = config.streams[stream.name].source
    if not isinstance(source, FilesSource):
        return {}, False
    # What ingest has finished first, then what it has written: so a file that it is just writing is not asked for.
    passed = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}"))
    bronze = lake.read(stream.name).where(F.col("source_partition").isNull() & F.col("source").isNotNull())
    if since is not None:
        earliest = F.to_timestamp(F.lit(str(since - timedelta(days=1))))
        bronze = bronze.where(F.col("ingest_time") >= earliest)
        passed = passed.where(F.col("modified") >= earliest)
    read = {_place(row["source"]) for row in passed.select("source").collect()}
    have = _by_source(bronze)
    rejected = _by_source(lake.read("quarantine").where(F.col("stream") == stream.name))
    wanted = read | set(map(_place, have))
    try:
        lines = landed_lines(lake.spark, resolve(source.path, f"streams.{stream.name}.source.path"))
        counts = _by_source(lines.select(F.col("_metadata.file_path").alias("source")))
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        return {}, False
    sources_there = bool(read) and wanted <= set(map(_place, counts))
    lacking = {path: n - have.get(path, 0) - rejected.get(path, 0) for path, n in counts.items() if _place(path) in wanted}
    suspects = {path: count for path, count in lacking.items() if count > 0}
    if not suspects:
        return {}, sources_there
    # Of lines that are in neither, some may be no events: quarantine may be cleaned of what is old.
    found = wanting_of_files(lake, config, stream, suspects).groupBy("source", "event_date").count().collect()
    return {(row["source"], row["event_date"]): row["count"] for row in found}, sources_there


def _dates(gone: Sequence[str]) -> set[date]:
    parts = (part for name in gone for part in PurePosixPath(name).parts)
    return {date.fromisoformat(part.split("=", 1)[1]) for part in parts if part.startswith("event_date=")}


def _place(uri: str) -> str:
    """Where a landing file is, however its URI is written: decoded, with one slash behind the scheme."""
    return re.sub(r"^(\w+):/+", r"\1:/", unquote(uri))


def _by_source(rows: DataFrame) -> Counter[str]:
    return Counter({row["source"]: row["count"] for row in rows.groupBy("source").count().collect()})
