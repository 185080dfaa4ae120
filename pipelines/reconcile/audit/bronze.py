"""What bronze of a stream lacks, has twice, or has in a wrong partition, from metadata and bronze's own columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.config.streams import rule_of
from pipelines.ingest.landing import below, landings_of
from pipelines.ingest.offsets import files_read
from pipelines.ingest.recovery import in_quarantine
from pipelines.ingest.reland import changed_files, files_without_rows
from pipelines.ingest.unreadable import waiting
from pipelines.lake.files import gone_files, reading_around, unreadable_rows
from pipelines.lake.tables import Lake, at
from pipelines.model.events import EventStream
from pipelines.reconcile.audit.history import BronzeHistory, ForeignCommit, bronze_history
from pipelines.reconcile.audit.holes import checked_in
from pipelines.reconcile.audit.offsets import Offsets, audit_offsets
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong, and what repairs it; each the part of a sentence."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class StreamAudit:
    """The figures of one stream's bronze as it is now.

    `accepted`, `late` and `files` are of the dates asked for; `ingested` and `quarantined` (by reason) of what was ingested on
    these dates or while their rows were. `files_without_rows` were read by ingest and are neither in bronze nor in quarantine;
    `files_unreadable` could not be read; `files_changed` were written again after they had been.
    `rows_lost` are those of `gone`, the data files that the log names and that are not there. Files and misplaced rows are those
    that the dates may depend on; data files, commits and offsets those of all dates.
    """

    stream: str
    table: str
    accepted: int
    late: int
    files: int
    ingested: int
    quarantined: dict[str, int]
    files_ingested_twice: int
    files_without_rows: int
    files_unreadable: int
    files_changed: int
    rows_misplaced: int
    gone: tuple[str, ...]
    rows_lost: int
    history: BronzeHistory
    offsets: Offsets

    @property
    def lacks_rows(self) -> bool:
        """Whether rows are lost, changed, or not where they are looked for: then batch has the wrong answer."""
        lost = self.files_without_rows or self.files_unreadable or self.files_changed or self.gone or self.offsets.missing
        return bool(lost or self.rows_misplaced or self.history.foreign)

    @property
    def quarantine_rate(self) -> float:
        rejected = sum(self.quarantined.values())
        return rejected / (self.ingested + rejected) if rejected else 0.0

    @property
    def findings(self) -> list[Finding]:
        reland = f"run `rejoin reland {self.stream}`"
        counted = {
            f"{len(self.gone):,} data files that the log names are gone, with {self.rows_lost:,} rows": len(self.gone),
            f"{self.files_without_rows:,} landing files that ingest has read have no row": self.files_without_rows,
            f"{self.files_unreadable:,} landing files cannot be read": self.files_unreadable,
            f"{self.files_changed:,} landing files were written again after ingest had read them": self.files_changed,
            f"{self.offsets.missing:,} Kafka offsets that ingest has read have no row": self.offsets.missing,
            f"{self.files_ingested_twice:,} landing files were ingested twice": self.files_ingested_twice,
            f"{self.offsets.twice:,} Kafka records were ingested twice": self.offsets.twice,
            f"{self.rows_misplaced:,} rows are in the partition of another event time": self.rows_misplaced,
        }
        found = [Finding(what=f"{self.stream}: {what}", remedy=reland) for what, count in counted.items() if count]
        found += [Finding(what=f"{self.stream}: {what}", remedy=remedy) for what, remedy in self._unproven()]
        return [*found, *(Finding(what=f"{self.stream}: {each}", remedy=self._undo(each)) for each in self.history.foreign)]

    def _unproven(self) -> Iterator[tuple[str, str]]:
        """Offsets at which records may have been lost, or there were none; and what to do."""
        offsets, read = self.offsets, "Kafka offsets that ingest has read have no row, and Kafka"
        if offsets.unproven:
            none = "markers and aborted records of transactions, and compaction, leave offsets without a record"
            what = f"{offsets.unproven:,} {read} no longer keeps them: it cannot be proven that no records were lost ({none})"
            yield what, f"compare with what the producers sent; `rejoin accept-gap {self.stream} --yes` gives them up"
        if offsets.unasked:
            what = f"{offsets.unasked:,} {read} was not asked about them: it cannot be proven that no records were lost"
            yield f"{what} ({offsets.why})", "put that right, then run `rejoin reconcile` again"

    def _undo(self, commit: ForeignCommit) -> str:
        restore = f"run `RESTORE TABLE {self.table} TO VERSION AS OF {commit.version - 1}`"
        if commit.only_removes:
            return f"run `rejoin reland {self.stream}`, or {restore}"
        later = f", then `rejoin reland {self.stream}` for what landed since" if commit.version < self.history.version else ""
        return f"{restore}{later}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `history` (of an earlier report) is what `BronzeHistory` continues from."""
        figures = {name: getattr(self, name) for name in _FIGURES}
        return {
            **figures,
            "quarantine_rate": self.quarantine_rate,
            "data_files_gone": len(self.gone),
            "offsets": asdict(self.offsets),
            "history": {**asdict(self.history), "foreign": [asdict(each) for each in self.history.foreign]},
            "findings": [asdict(each) for each in self.findings],
        }


_COUNTS = ("stream", "accepted", "late", "files", "ingested", "quarantined", "rows_lost", "rows_misplaced")
_FIGURES = (*_COUNTS, "files_ingested_twice", "files_without_rows", "files_unreadable", "files_changed")


def audit_bronze(lake: Lake, config: Config, span: Range, last: Mapping[str, Any] | None) -> list[StreamAudit]:
    """Audit both streams, the outcomes first. `last` is the report of the last run: the log is read from where that had ended."""
    reach = {"outcome": span, "exposure": span.reaching_back(rule_of(config).window)}
    known = {each["stream"]: each for each in (last or {}).get("bronze", ())}
    both = lake.streams.outcome, lake.streams.exposure
    return [_audit(lake, config, stream, span, reach[stream.role], known.get(stream.name, {})) for stream in both]


def _audit(lake: Lake, config: Config, stream: EventStream, span: Range, reach: Range, before: Mapping[str, Any]) -> StreamAudit:
    source = config.streams[stream.name].source
    # What ingest has finished first, then bronze: so a file is not missed that is just being written.
    read = files_read(lake.spark, lake.checkpoint(f"ingest-{stream.name}")) if isinstance(source, FilesSource) else None
    landing = landings_of(lake, config, stream)
    gone = gone_files(lake, stream.name)
    with reading_around(lake, gone):
        figures = _figures(lake, stream, span, reach, read, landing)
        suspects = figures.pop("suspects")
        without = files_without_rows(lake, config, stream, landing, suspects) if suspects else []
        offsets = audit_offsets(lake, stream, source, checked_in(before)) if isinstance(source, KafkaSource) else Offsets()
        quarantined, ingested = _meanwhile(lake, stream, span, figures)
    return StreamAudit(
        stream=stream.name,
        table=lake.identifier(stream.name),
        accepted=figures["accepted"],
        late=figures["late"],
        files=figures["files"],
        ingested=ingested,
        quarantined=quarantined,
        files_ingested_twice=figures["twice"],
        files_without_rows=len(without),
        files_unreadable=len(waiting(lake, config, stream)),
        files_changed=len(changed_files(lake, config, stream)),
        rows_misplaced=figures["misplaced"],
        gone=gone,
        rows_lost=unreadable_rows(lake, stream.name, gone),
        history=_history(lake, stream.name, before.get("history")),
        offsets=offsets,
    )


def _figures(
    lake: Lake, stream: EventStream, span: Range, reach: Range, read: DataFrame | None, landing: Sequence[str]
) -> dict[str, Any]:
    """One pass over bronze's rows of the dates, and of what was ingested since the day before them; `suspects` are the files
    that were `read` in that time and have no row in it."""
    time, ingested = F.col(stream.event_time), F.col("ingest_time")
    scope, recent = F.lit(True), F.lit(True)
    if reach.first is not None:
        earliest = F.lit(str(reach.first - timedelta(days=1))).cast("timestamp")
        recent = F.col("modified") >= earliest
        scope = (ingested >= earliest) | reach.holds(F.col("event_date")) | reach.holds_time(time)
    asked, of_file = span.holds(F.col("event_date")), F.col("source_partition").isNull()
    commit = F.struct("ingest_time", "ingest_batch")
    misplaced = (reach.holds(F.col("event_date")) | reach.holds_time(time)) & ~F.expr(stream.is_placed())
    by_source = (
        lake.read(stream.name)
        .where(scope)
        .groupBy("source", of_file.alias("of_file"))
        .agg(
            F.count_if(asked).alias("accepted"),
            F.count_if(asked & F.col("late")).alias("late"),
            F.count_if(misplaced).alias("misplaced"),
            (F.min(commit) != F.max(commit)).alias("twice"),
            F.min(F.when(asked, F.unix_micros(ingested))).alias("first"),
            F.max(F.when(asked, F.unix_micros(ingested))).alias("last"),
        )
        .withColumn("is_read", F.lit(False))
    )
    if read is not None:
        by_source = by_source.unionByName(
            read.where(recent).select("source", F.lit(True).alias("of_file"), F.lit(True).alias("is_read")),
            allowMissingColumns=True,
        )
    merged = by_source.groupBy(below(F.col("source"), landing).alias("__at"), "of_file").agg(
        *(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in ("accepted", "late", "misplaced")),
        F.max(F.coalesce("twice", F.lit(False))).alias("twice"),
        F.min("first").alias("first"),
        F.max("last").alias("last"),
        F.every("is_read").alias("lacking"),
    )
    found = merged.agg(
        *(F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in ("accepted", "late", "misplaced")),
        F.count_if(F.col("of_file") & (F.col("accepted") > 0) & F.col("__at").isNotNull()).alias("files"),
        F.count_if(F.col("of_file") & F.col("twice") & F.col("__at").isNotNull()).alias("twice"),
        F.min("first").alias("first"),
        F.max("last").alias("last"),
        F.collect_list(F.when(F.col("lacking"), F.col("__at"))).alias("suspects"),
    )
    return dict(found.collect()[0].asDict())


def _meanwhile(lake: Lake, stream: EventStream, span: Range, figures: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """What was quarantined, by reason, and accepted, on the dates asked for or while their rows were ingested."""
    rejected, ingested = in_quarantine(lake, stream.name), figures["accepted"]
    if not span.is_open:
        # On the dates themselves too: where all is refused nothing is accepted.
        meanwhile = span.holds_time(F.col("ingest_time"))
        if figures["first"] is not None:
            meanwhile = meanwhile | F.col("ingest_time").between(at(figures["first"]), at(figures["last"]))
        rejected, ingested = rejected.where(meanwhile), lake.read(stream.name).where(meanwhile).count()
    reasons = sorted(rejected.groupBy("reason").count().collect())
    return {row["reason"]: row["count"] for row in reasons}, ingested


def _history(lake: Lake, table: str, before: Mapping[str, Any] | None) -> BronzeHistory:
    version, known = lake.version(table), BronzeHistory(version=-1)
    if before is not None and before["version"] <= version:
        foreign = tuple(ForeignCommit(**each) for each in before["foreign"])
        known = BronzeHistory(version=before["version"], foreign=foreign, marked=before["marked"])
    commits = (commit for commit in lake.commits(table, known.version) if commit.version <= version)
    return bronze_history(commits, version, known)
