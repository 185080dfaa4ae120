"""What had landed, and is in bronze no more, or more often than it came: data files that are gone, and rows that their source
tells of.

A landing file that ingest has read has each of its lines in bronze or in quarantine, once; lines that are in neither are lost. Of
Kafka the offsets tell (`pipelines.reconcile.door`). Where a landing file is gone too, nothing is left to hold bronze against, but
for the table's own log, which knows how many rows its data files have.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import reduce
from pathlib import PurePosixPath
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.checkpoints import files_read
from pipelines.config import Config, FilesSource
from pipelines.events import EventStream
from pipelines.gaps import accepted
from pipelines.ingest.files import landed_lines
from pipelines.lake import Lake
from pipelines.reconcile.content import id_in_text, payload_text
from pipelines.reconcile.landed import held_against_files, location, unwritten
from pipelines.reconcile.span import Range
from pipelines.references import resolve
from pipelines.session import set_within

_IGNORE = "spark.sql.files.ignoreMissingFiles"
_COUNT_BY_LOG = "spark.databricks.delta.optimizeMetadataQuery.enabled"


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one stream: the data files that its table's log names and that are not there, with the rows they had; `lines`, how many
    events of which landing file bronze lacks, `on_gone_dates` of them on event dates of such data files; `copies`, how many rows
    of which it has too often, `twice` of these files wholly; `unsourced`, how many it has as of which that the file does not
    have. `untold` are the files in bronze that are not there to be held against (None: no landing directory is).
    `sources_there`: each landing file that ingest has read is; with `sources_whole` all that ever came can be read again from
    where it came: these files are as they were read, or of Kafka no offset was ever given up."""

    gone: tuple[str, ...] = ()
    gone_rows: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)
    on_gone_dates: int = 0
    copies: Mapping[str, int] = field(default_factory=dict)
    twice: int = 0
    unsourced: Mapping[str, int] = field(default_factory=dict)
    untold: frozenset[str] | None = None
    sources_there: bool = False
    sources_whole: bool = False

    @property
    def rows(self) -> int:
        """How many rows are known to be lost: of what landing files tell, those on the dates of data files that are gone are
        among the rows that these had."""
        return sum(self.lines.values()) + max(0, self.gone_rows - self.on_gone_dates)

    @property
    def blind(self) -> bool:
        """Whether bronze has rows of landing files that are not there any more."""
        return self.untold is None or bool(self.untold)

    @property
    def gone_dates(self) -> set[date]:
        """The event dates (partitions) of the data files that are gone."""
        return dates_of(self.gone)


def find_losses(lake: Lake, config: Config, stream: EventStream, span: Range, *, deeply: bool) -> Losses:
    """What bronze of a stream lacks, or has too often: data files of all dates; events of the landing files that appeared, or
    were read, since the day before the range, or that have rows in it: of the files whose figures differ, or `deeply` of all."""
    gone = gone_files(lake, stream.name)
    with reading_around(lake, gone):
        told = _held_against_landing(lake, config, stream, Range() if gone else span, gone, deeply=deeply)
        known, readable = (_count(lake, stream, by_log=by_log) for by_log in (True, False)) if gone else (0, 0)
        return replace(told, gone=gone, gone_rows=known - readable)


def reading_around(lake: Lake, gone: Sequence[str]) -> AbstractContextManager[None]:
    """Within, tables are read as far as their data files are there, if any are known to be `gone`. The setting is the
    session's."""
    return set_within(lake.spark, {_IGNORE: "true"} if gone else {})


def gone_files(lake: Lake, table: str) -> tuple[str, ...]:
    """The data files of a table's latest version that are not where its log has them; paths as the log has them, decoded."""
    depth = len(lake.partitions(table)) + 1
    needed = {_within_table(unquote(path), depth): unquote(path) for path in lake.read(table).inputFiles()}
    if not needed:
        return ()
    listed = lake.listed(lake.location(table), "*.parquet").select("path").collect()
    there = {_within_table(row["path"], depth) for row in listed}
    return tuple(sorted(path for name, path in needed.items() if name not in there))


def _within_table(path: str, depth: int) -> str:
    """A data file's partitions and name, in whatever directory the table is."""
    return "/".join(path.split("/")[-depth:])


def _count(lake: Lake, stream: EventStream, *, by_log: bool) -> int:
    """The table's rows: how many its log says that there are, without a look at any data file; or how many can be read."""
    with set_within(lake.spark, {_COUNT_BY_LOG: str(by_log).lower()}):
        return lake.read(stream.name).count()


def _held_against_landing(
    lake: Lake, config: Config, stream: EventStream, span: Range, gone: Sequence[str], *, deeply: bool
) -> Losses:
    """What landing files tell (`Losses` without what the table's log tells)."""
    source = config.streams[stream.name].source
    if not isinstance(source, FilesSource):
        return Losses(sources_there=True, sources_whole=not accepted(lake, stream.name))
    # What ingest has finished first, then what it has written: so a file that it is just writing is not asked for.
    passed = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}"))
    bronze = lake.read(stream.name).where(F.col("source_partition").isNull() & F.col("source").isNotNull())
    if span.first is not None:
        earliest = F.to_timestamp(F.lit(str(span.first - timedelta(days=1))))
        bronze = bronze.where((F.col("ingest_time") >= earliest) | span.holds(F.col("event_date")))
        passed = passed.where(F.col("modified") >= earliest)
    read = {location(row["source"]) for row in passed.select("source").collect()}
    rejected = lake.read("quarantine").where(F.col("stream") == stream.name)
    try:
        lines = landed_lines(lake.spark, resolve(source.path, f"streams.{stream.name}.source.path"))
        path = F.col("_metadata.file_path").alias("source")
        have, away, there = _figures(
            bronze.select("source", F.col(stream.id).cast("string").alias("id")),
            rejected.select("source", id_in_text(payload_text(), stream).alias("id")),
            lines.select(path, id_in_text(F.col("value"), stream).alias("id")),
        )
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        return Losses()
    wanted = read | set(map(location, have))
    # A change of values shows in no figure.
    suspects = [
        path for path in there if location(path) in wanted and (deeply or there[path] != _sum(have.get(path), away.get(path)))
    ]
    found = _event_for_event(lake, config, stream, suspects, dates_of(gone)) if suspects else Losses()
    known = set(map(location, there))
    untold = frozenset(path for path in have if location(path) not in known)
    whole = bool(gone) and wanted <= unwritten(lake, config, stream).keys()
    return replace(found, untold=untold, sources_there=wanted <= known, sources_whole=whole)


def _event_for_event(
    lake: Lake, config: Config, stream: EventStream, files: Sequence[str], gone_dates: Collection[date]
) -> Losses:
    with held_against_files(lake, config, stream, files) as held:
        rows = held.rows
        sides = {
            "landed": held.landed,
            "wanting": held.wanting,
            "copies": rows.where("__surplus AND NOT __unsourced"),
            "unsourced": rows.where("__unsourced"),
        }
        told = (rows.select(F.lit(name).alias("side"), "source", "event_date") for name, rows in sides.items())
        found: dict[str, Counter[str]] = {name: Counter() for name in sides}
        on_gone_dates = 0
        for row in reduce(DataFrame.unionByName, told).groupBy("side", "source", "event_date").count().collect():
            found[row["side"]][row["source"]] += row["count"]
            on_gone_dates += row["count"] if row["side"] == "wanting" and row["event_date"] in gone_dates else 0
    copies = found["copies"]
    return Losses(
        lines=dict(found["wanting"]),
        on_gone_dates=on_gone_dates,
        copies=dict(copies),
        twice=sum(rows >= found["landed"][source] for source, rows in copies.items()),
        unsourced=dict(found["unsourced"]),
    )


def dates_of(gone: Sequence[str]) -> set[date]:
    """The event dates (partitions) of data files."""
    parts = (part for name in gone for part in PurePosixPath(name).parts)
    return {date.fromisoformat(part.split("=", 1)[1]) for part in parts if part.startswith("event_date=")}


@dataclass(frozen=True)
class _Figures:
    """Of the events of a file: how many, and a number that their ids come to, whatever their order."""

    events: int
    ids: int


def _figures(*sides: DataFrame) -> list[dict[str, _Figures]]:
    """Of each side, by `source`, of events with an `id`: two sides that have the same events have the same figures. So most files
    need no look at their events."""
    # 32 bits of each hash: their sum stays within 64.
    ids = F.shiftrightunsigned(F.xxhash64("id"), 32)
    counted = [
        events.groupBy(F.lit(number).alias("side"), "source").agg(F.count("*").alias("events"), F.sum(ids).alias("ids"))
        for number, events in enumerate(sides)
    ]
    found: list[dict[str, _Figures]] = [{} for _ in sides]
    for row in reduce(DataFrame.unionByName, counted).collect():
        found[row["side"]][row["source"]] = _Figures(row["events"], row["ids"])
    return found


def _sum(*figures: _Figures | None) -> _Figures:
    there = [each for each in figures if each]
    return _Figures(sum(each.events for each in there), sum(each.ids for each in there))
