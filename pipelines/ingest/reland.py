"""Reland: read a stream's source again and land what bronze lacks, in one commit.

It reads the landing files, or Kafka offsets, that ingest has read, through the rules of `pipelines.ingest.parse`. An event is
there where bronze or quarantine has it: of a file by the file and its content, as often as the file has it; of Kafka by
partition, offset and record timestamp. What is landed is late, so that settle answers what it touches. A second run finds nothing
to do.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import reduce
from operator import and_
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.sources import FILE_NAMES, FilesSource, KafkaSource
from pipelines.control.facts import Facts
from pipelines.control.gaps import accepted
from pipelines.control.store import read_facts
from pipelines.ingest.landing import below, landings_of
from pipelines.ingest.offsets import files_read, kafka_start
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.ingest.position import Position, position
from pipelines.ingest.recovery import ORIGIN, content, in_quarantine, not_quarantined_before
from pipelines.ingest.sources.files import landed_lines, landing_directory, read_lines
from pipelines.ingest.sources.kafka import read_kafka_ranges
from pipelines.ingest.state import WriterState
from pipelines.lake.files import commit_as, dates_of, gone_files, reading_around, rewrite_dates, unreadable_rows
from pipelines.lake.history import RELAND, Commit
from pipelines.lake.tables import Lake
from pipelines.model.errors import SourceError
from pipelines.model.events import EventStream
from pipelines.model.paths import is_local, location, location_of
from pipelines.model.reasons import Reason

# Of the commits of reland: the files that have no event; and those that were written again, with their times.
_WITHOUT_ROWS, _CHANGED = "without_rows", "changed"

_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Relanded:
    """Rows that were landed, duplicated ones that were removed, those moved to the partition of their event time; `data_files`
    that were gone and that the log no longer names. `quarantined`: lines of files that were written again. `lost`: rows that the
    log counts as removed or gone, beyond those that could be read again from the source."""

    rows: int = 0
    duplicates: int = 0
    misplaced: int = 0
    data_files: int = 0
    quarantined: int = 0
    lost: int = 0

    @property
    def anything(self) -> bool:
        return any(asdict(self).values())


def reland(
    lake: Lake, config: Config, stream: EventStream, unreadable: Collection[str] = (), changed: Mapping[str, int] = _NONE
) -> Relanded:
    """Land what bronze of the stream lacks; `unreadable` are landing files (paths) that cannot be read, `changed` as in
    `changed_files`.

    Event dates are rewritten, and not only appended to, where data files are gone, rows lie in a wrong partition, or a file or
    record was ingested twice. Raises LakeError where events land on such dates too fast, SourceError where Kafka does not answer.
    """
    table = stream.name
    commits = lake.commits(table, -1)
    gone = gone_files(lake, table)
    by_log = unreadable_rows(lake, table, gone) + _removed_since_reland(commits)
    with reading_around(lake, gone):
        bronze = lake.read(table)
        # Checkpointed, as plans that contain one another grow beyond what can be planned.
        repeated = _repeated(bronze, stream).localCheckpoint()
        whole = bronze if repeated.isEmpty() else _without_duplicates(bronze, stream, repeated)
        misplaced = bronze.where(~_is_placed(stream))
        lacking = _lacking(lake, config, stream, whole, unreadable).localCheckpoint()
        rows = lacking.count()
        # Counted within files, for a count of the whole table is taken from the log.
        duplicates = 0 if whole is bronze else _of_repeated(bronze, repeated).count() - _of_repeated(whole, repeated).count()
        done = Relanded(
            rows=rows,
            duplicates=duplicates,
            misplaced=misplaced.count(),
            data_files=len(gone),
            lost=max(0, by_log - rows),
        )
        dates = dates_of(gone) | _dates(_of_repeated(bronze, repeated))
        dates |= _dates(misplaced) | _dates(misplaced.select(*stream.partition_values()))
        if dates:
            dates |= _dates(lacking)

        def rewritten(kept: DataFrame) -> DataFrame:
            kept = kept if whole is bronze else _without_duplicates(kept, stream, repeated)
            return _placed(kept, stream).unionByName(lacking, allowMissingColumns=True)

        without = _without_rows_now(lake, config, stream, lacking)
        with commit_as(lake, RELAND, {**asdict(done), _WITHOUT_ROWS: without, _CHANGED: dict(changed)}):
            if dates:
                rewrite_dates(lake, table, dates, rewritten)
            elif rows:
                lake.append(table, lacking)
            elif done.lost or without or changed:
                # Nothing to land; but the audit knows by the commit that the source was read again.
                lake.spark.sql(f"ALTER TABLE {lake.identifier(table)} SET TBLPROPERTIES ('{RELAND}' = '{len(commits)}')")
    return done


def consumed(lake: Lake, stream: EventStream, source: KafkaSource, facts: Facts) -> tuple[Position, dict[int, int]]:
    """Where ingest goes on; and by partition the first offset that it was to read, where that is known."""
    known = facts.last("ingest", stream.name)
    state = None if known is None else WriterState.from_dict(known.detail)
    place, base = position(lake, stream, source, facts, state), lake.checkpoint(f"ingest-{stream.name}")
    # Behind an accepted gap it has a checkpoint of its own, which begins there.
    starts = kafka_start(lake.spark, base, source.topic) if place.checkpoint == base else {}
    return place, starts


def files_without_rows(
    lake: Lake, config: Config, stream: EventStream, landing: Sequence[str], files: Collection[str], *more: DataFrame
) -> list[str]:
    """Those of the landing files (see `below`) that have rows neither in bronze, nor in quarantine, nor in `more`; without
    empty files, and without those that an earlier reland read again and found no event in."""
    left = _without_rows(lake, config, stream, landing, files, *more)
    if not left:
        return []
    known = {path for commit in lake.commits(stream.name, -1) for path in _reported(commit)}
    return [path for path in left if path not in known]


# What bronze lacks ---------------------------------------------------------------------------------------------------------


def _lacking(lake: Lake, config: Config, stream: EventStream, bronze: DataFrame, unreadable: Collection[str]) -> DataFrame:
    source = config.streams[stream.name].source
    if isinstance(source, KafkaSource):
        return _lacking_records(lake, config, stream, source, bronze)
    return _lacking_lines(lake, config, stream, source, bronze, unreadable)


def _lacking_records(lake: Lake, config: Config, stream: EventStream, source: KafkaSource, bronze: DataFrame) -> DataFrame:
    ranges = {}
    facts = read_facts(lake)
    position, starts = consumed(lake, stream, source, facts)
    starts = {**_known_starts(facts, stream.name, source, bronze), **starts}
    for partition, end in position.offsets.items():
        first = starts.get(partition)
        if first is not None and first < end:
            ranges[partition] = [(first, end - 1)]
    if not ranges:
        return bronze.where(F.lit(False)).select(*stream.bronze_schema.names)
    records = of_no_batch(read_kafka_ranges(lake.spark, source, f"streams.{stream.name}.source", ranges))
    return _as_bronze(lake, config, stream, records).alias("n").join(bronze.alias("o"), same(ORIGIN), "left_anti").select("n.*")


def _known_starts(facts: Facts, stream: str, source: KafkaSource, bronze: DataFrame) -> dict[int, int]:
    """Where a checkpoint does not tell where reading began: where the topic was made anew, or the first offset that landed."""
    anew = [each for each in accepted(facts, stream) if each.topic == source.topic and each.made_anew]
    if anew:
        return dict(anew[-1].offsets)
    first = bronze.where(F.col("source") == source.topic).groupBy("source_partition").agg(F.min("source_offset").alias("first"))
    return {row["source_partition"]: row["first"] for row in first.collect()}


def _lacking_lines(
    lake: Lake,
    config: Config,
    stream: EventStream,
    source: FilesSource,
    bronze: DataFrame,
    unreadable: Collection[str],
) -> DataFrame:
    landing = landings_of(lake, config, stream)
    at = below(F.col("source"), landing).alias("__at")
    there = of_files(bronze).select("*", at)
    rejected = lake.read("quarantine").where(F.col("stream") == stream.name)
    read = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}")).select("source")
    files = reduce(DataFrame.unionByName, (rows.select("source") for rows in (read, there, of_files(rejected))))
    known = files.select(at).distinct()
    # A file lands in one commit: a row of it that comes later carries what the others do, so that it is not taken for a second.
    commits = there.groupBy("__at").agg(
        F.min(F.struct("ingest_time", "ingest_batch")).alias("first"), F.max("door_watermark").alias("met")
    )
    lines = (
        _landed(lake, stream, source, unreadable).select("*", at).join(known, "__at", "left_semi").join(commits, "__at", "left")
    )
    ingested = F.coalesce("first.ingest_time", F.current_timestamp())
    nothing = {"source_partition": "int", "source_offset": "bigint", "source_time": "timestamp"}
    raw = F.struct(
        "value",
        "source",
        *(F.lit(None).cast(kind).alias(name) for name, kind in nothing.items()),
        ingested.alias("record_time"),
        ingested.alias("ingest_time"),
        F.coalesce("first.ingest_batch", F.lit(0).cast("bigint")).alias("ingest_batch"),
        "met",
    )
    events = _as_bronze(lake, config, stream, lines.select(raw.alias("__raw")), landing)
    return unmatched_lines(events, there, stream, landing)


def unmatched_lines(events: DataFrame, there: DataFrame, stream: EventStream, landing: Sequence[str]) -> DataFrame:
    """Of the events of files those that bronze (`there`, its rows of files) does not have, each as often as its file has it."""
    key = ["__at", "__what", "__nth"]
    located = [rows.withColumn("__at", below(F.col("source"), landing)) for rows in (events, there)]
    sides = [
        _numbered(rows.withColumn("__what", content(stream)), "__at", "__what").select(*key, F.struct("*").alias(name))
        for name, rows in zip(("new", "old"), located, strict=True)
    ]
    unmatched = sides[0].join(sides[1], key, "full_outer").where("new IS NULL OR old IS NULL").localCheckpoint()
    # The same event under other columns, from before a change of the schema, is known by its id and time.
    event = ("__at", stream.id, stream.event_time)
    new, old = (_numbered(unmatched.where(f"{name} IS NOT NULL").select(f"{name}.*"), *event) for name in ("new", "old"))
    left = new.alias("n").join(old.alias("o"), same((*event, "__nth")), "left_anti")
    return left.select(*(f"n.{name}" for name in stream.bronze_schema.names))


def _landed(lake: Lake, stream: EventStream, source: FilesSource, unreadable: Collection[str]) -> DataFrame:
    path = landing_directory(source, f"streams.{stream.name}.source")
    if not unreadable:
        return landed_lines(lake.spark, path).select("value", F.col("_metadata.file_path").alias("source"))
    left = {location_of(file) for file in unreadable}
    files = [row["path"] for row in lake.listed(path, FILE_NAMES).collect() if location(row["path"]) not in left]
    return read_lines(lake.spark, [unquote(file) for file in files]).select("__raw.value", "__raw.source")


def _as_bronze(lake: Lake, config: Config, stream: EventStream, raw: DataFrame, landing: Sequence[str] = ()) -> DataFrame:
    """The events of `__raw` that are accepted and were not quarantined, as late rows of bronze."""
    # Checkpointed, as `parse` asks for: it is joined by what the events are.
    parsed = parse(raw, stream, rules_of(config)).where(F.col("__reason").isNull()).localCheckpoint()
    parsed = not_quarantined_before(in_quarantine(lake, stream.name), parsed, landing)
    return as_late_rows(parsed, stream)


def of_no_batch(raw: DataFrame) -> DataFrame:
    """`__raw` of lines that no micro-batch has landed, for `as_late_rows`."""
    stamped = F.col("__raw").withField("ingest_batch", F.lit(0).cast("bigint")).withField("met", F.lit(None).cast("timestamp"))
    return raw.withColumn("__raw", stamped)


def as_late_rows(parsed: DataFrame, stream: EventStream) -> DataFrame:
    """Accepted events as late rows of bronze; `__raw` has the `ingest_batch` and the watermark (`met`) that they are to have."""
    rows = parsed.select(
        *(F.col("__event").getField(f.name).alias(f.name) for f in stream.schema),
        *(f"__raw.{name}" for name in (*ORIGIN, "ingest_time", "ingest_batch")),
        F.col("__rescued").alias("rescued"),
        F.lit(True).alias("late"),
        F.col("__raw.met").alias("door_watermark"),
    )
    return rows.select("*", *stream.partition_values()).select(*stream.bronze_schema.names)


# Rows that are twice in bronze, or in a wrong partition --------------------------------------------------------------------


def of_files(rows: DataFrame) -> DataFrame:
    return rows.where(F.col("source_partition").isNull() & F.col("source").isNotNull())


def _repeated(bronze: DataFrame, stream: EventStream) -> DataFrame:
    """The files with rows of more than one ingest commit, and the Kafka records with several rows alike (columns of ORIGIN)."""
    commit = F.struct("ingest_time", "ingest_batch")
    files = of_files(bronze).groupBy(*ORIGIN).agg((F.min(commit) != F.max(commit)).alias("repeated"))
    records = bronze.where(F.col("source_partition").isNotNull()).groupBy(*ORIGIN, content(stream).alias("__what"))
    alike = records.agg((F.count("*") > 1).alias("repeated"))
    return files.unionByName(alike.drop("__what")).where("repeated").select(*ORIGIN).distinct()


def _of_repeated(bronze: DataFrame, repeated: DataFrame, how: str = "left_semi") -> DataFrame:
    return bronze.alias("n").join(F.broadcast(repeated).alias("o"), same(ORIGIN), how).select("n.*")


def _without_duplicates(bronze: DataFrame, stream: EventStream, repeated: DataFrame) -> DataFrame:
    """Keep, of repeated files and records, the rows of the first ingest, and of later ones what that does not have; all as rows
    of the first."""
    rows = _of_repeated(bronze, repeated).withColumn("__what", content(stream))
    within = Window.partitionBy(*ORIGIN, "__what", "ingest_time", "ingest_batch").orderBy("event_date")
    nth = F.when(F.col("source_offset").isNull(), F.row_number().over(within)).otherwise(1)
    among = Window.partitionBy(*ORIGIN, "__what", "__nth").orderBy("ingest_time", "ingest_batch")
    kept = rows.withColumn("__nth", nth).withColumn("__place", F.row_number().over(among)).where("__place = 1")
    first = F.min(F.struct("ingest_time", "ingest_batch")).over(Window.partitionBy(*ORIGIN))
    first = F.when(F.col("source_offset").isNull(), first).otherwise(F.struct("ingest_time", "ingest_batch"))
    kept = kept.withColumn("__first", first)
    stamped = kept.withColumns({name: F.col("__first").getField(name) for name in ("ingest_time", "ingest_batch")})
    return _of_repeated(bronze, repeated, "left_anti").unionByName(stamped.select(*bronze.columns))


def _is_placed(stream: EventStream) -> Column:
    return F.expr(stream.is_placed())


def _placed(rows: DataFrame, stream: EventStream) -> DataFrame:
    """Move rows to the partition of their event time; those that were elsewhere are late: nobody had found them there."""
    moved = rows.withColumn("late", F.col("late") | ~_is_placed(stream))
    return moved.withColumns({name: F.expr(value) for name, value in stream.partition_sql().items()})


def _dates(rows: DataFrame) -> set[date]:
    found = rows.select(F.col("event_date").cast("string")).distinct().collect()
    return {date.fromisoformat(row[0]) for row in found}


def same(names: Sequence[str]) -> Column:
    return reduce(and_, (F.col(f"n.{name}").eqNullSafe(F.col(f"o.{name}")) for name in names))


def _numbered(rows: DataFrame, *by: str) -> DataFrame:
    """With `__nth`, the row's number among those that are equal in these columns."""
    return rows.withColumn("__nth", F.row_number().over(Window.partitionBy(*by).orderBy("event_date")))


# What the log tells --------------------------------------------------------------------------------------------------------


def _removed_since_reland(commits: Collection[Commit]) -> int:
    """The rows that others have deleted since the last reland or RESTORE, by the metrics of their commits."""
    removed = 0
    for commit in sorted(commits, key=lambda commit: commit.version):
        if commit.operation == "RESTORE" or commit.is_marked(RELAND):
            removed = 0
        elif commit.operation in ("DELETE", "TRUNCATE") and not commit.is_marked():
            removed += int(commit.metrics.get("numDeletedRows", "0"))
    return removed


def _without_rows(
    lake: Lake, config: Config, stream: EventStream, landing: Sequence[str], files: Collection[str], *more: DataFrame
) -> list[str]:
    """Of the files, those without a row in bronze, in quarantine, or in `more`, that are not there empty."""
    source = config.streams[stream.name].source
    if not files or not isinstance(source, FilesSource):
        return []
    tables = lake.read(stream.name), in_quarantine(lake, stream.name), *more
    asked = lake.spark.createDataFrame([(path,) for path in files], "__at string")
    for rows in tables:
        there = of_files(rows).select(below(F.col("source"), landing).alias("__at")).distinct()
        asked = asked.join(there, "__at", "left_anti")
    left = sorted(row[0] for row in asked.collect())
    # Of files elsewhere, only reading them again tells.
    local = is_local(resolve(source.path, f"streams.{stream.name}.source.path"))
    return [path for path in left if not (local and _is_empty(landing[-1], path))]


def _is_empty(landing: str, path: str) -> bool:
    file = Path(landing.removeprefix("file:"), path.removeprefix("file:"))
    return file.is_file() and not file.stat().st_size


def _without_rows_now(lake: Lake, config: Config, stream: EventStream, lacking: DataFrame) -> list[str]:
    """The files that ingest has read and that will have no row either once `lacking` has landed; none that were reported."""
    if not isinstance(config.streams[stream.name].source, FilesSource):
        return []
    read = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}"))
    landing = landings_of(lake, config, stream)
    files = [row[0] for row in read.select(below(F.col("source"), landing)).distinct().collect()]
    return files_without_rows(lake, config, stream, landing, files, lacking)


def changed_files(lake: Lake, config: Config, stream: EventStream) -> dict[str, int]:
    """The landing files (URIs) that have been written again since ingest or a reland read them, with their times (milliseconds);
    none of a directory that is not there."""
    source = config.streams[stream.name].source
    if not isinstance(source, FilesSource):
        return {}
    try:
        listed = lake.listed(landing_directory(source, f"streams.{stream.name}.source"), FILE_NAMES)
    except SourceError:
        return {}
    at, file = F.unix_millis("modified").alias("at"), below(F.col("source"), ()).alias("file")
    read = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}")).groupBy(file).agg(F.max(at).alias("read_at"))
    now = listed.select("path", below(F.col("path"), ()).alias("file"), at)
    changed = {row["path"]: row["at"] for row in now.join(read, "file").where("at != read_at").collect()}
    if not changed:
        return {}
    relanded: dict[str, int] = {}
    for commit in lake.newest_commits(stream.name):
        relanded = {**(commit.ours(RELAND) or {}).get(_CHANGED, {}), **relanded}
    # Those that could not be read have been read since.
    of_files = (F.col("stream") == stream.name) & (F.col("reason") == Reason.UNREADABLE_FILE.value)
    mended = lake.read("quarantine").where(of_files).groupBy("source").agg(F.max(F.unix_millis("relanded_at")).alias("at"))
    read_again = {location(row["source"]): row["at"] for row in mended.where("at IS NOT NULL").collect()}
    return {path: at for path, at in changed.items() if relanded.get(path) != at and at > read_again.get(location(path), at - 1)}


def _reported(commit: Commit) -> list[str]:
    """The files without rows that a commit of reland names."""
    if not commit.is_marked(RELAND):
        return []
    details: dict[str, Any] = json.loads(commit.metadata)[RELAND]
    return list(details.get(_WITHOUT_ROWS, ()))
