"""Landing the micro-batches of one stream in bronze and quarantine; lateness is decided here, once (DESIGN section 3.2).

A row is late when `event_time <= greatest event time of earlier commits - watermark_delay`. All rows of a micro-batch meet the
same watermark, which each of them carries.

A micro-batch is one commit of bronze, then one of quarantine where lines were rejected. The bronze commit carries the state that
it met (`pipelines.ingest.state`), so a start knows which micro-batch has landed; where that does not tell, lines are compared
with what has landed (`pipelines.ingest.recovery`).
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.ingest.landings import Landings
from pipelines.ingest.offsets import begin_lineage, lineage
from pipelines.ingest.parse.json import is_decoded
from pipelines.ingest.position import Position
from pipelines.ingest.recovery import ORIGIN, Recovery, payload
from pipelines.ingest.state import StreamProgress, WriterState
from pipelines.lake.history import INGEST
from pipelines.lake.tables import Lake, at
from pipelines.model.durations import micros
from pipelines.model.events import EventStream
from pipelines.model.format import judged
from pipelines.model.histogram import Histogram, cumulative
from pipelines.model.reasons import Reason
from pipelines.model.schemas import QUARANTINE_SCHEMA
from pipelines.model.time import now_us
from pipelines.monitor.ledger import Entry, Ledger
from pipelines.monitor.phases import Laps
from pipelines.session import behind_connect

# One lock a stream and process: held while a micro-batch lands. In the module, not in the writer, because Spark Connect pickles a
# `foreachBatch` function.
_LOCKS: dict[str, threading.RLock] = defaultdict(threading.RLock)

_NEVER = 2**62


@dataclass(kw_only=True)
class Totals:
    """How the lines of a run were judged; `reasons` of those in quarantine."""

    accepted: int = 0
    late: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return judged(self.accepted, self.quarantined, dict(self.reasons.most_common()), f"{self.late:,} late")


@dataclass(kw_only=True)
class BronzeWriter:
    """The `foreachBatch` function of one ingest query: takes `parse`d micro-batches.

    `progress` is how far the stream had come at the start, `consumes` what is read (for a topic: name and id), `landing` as in
    `WriterState`. `still_there` raises where the source is no longer what it was; `around` reads a micro-batch again without the
    landing files that cannot be read, None where all can be. `totals` and `accepted_at` (monotonic seconds) are of this run;
    `entries` are for the ledger; `unreadable`: whether there are files that could not be read;
    `found_unreadable`: whether one was found that nobody has been told of.
    """

    lake: Lake
    stream: EventStream
    source: FilesSource | KafkaSource
    place: Position
    watermark_delay: timedelta
    progress: StreamProgress
    consumes: Mapping[str, str | None] = field(default_factory=dict)
    landing: Sequence[str] = ()
    still_there: Callable[[], None] = lambda: None
    around: Callable[[Lake, int], DataFrame | None] = lambda _, __: None
    landings: Landings = field(default_factory=Landings)
    totals: Totals = field(default_factory=Totals)
    accepted_at: float = field(default_factory=time.monotonic)
    entries: list[Entry] = field(default_factory=list)
    unreadable: bool = False
    found_unreadable: bool = False
    _state: WriterState | None = None
    _floor: int | None = None
    _begun: bool = False
    _elsewhere: bool = False
    _lineage: str | None = None
    _offset: int = 0
    _recovery: Recovery | None = None
    _earliest: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.progress.state
        # Of an ingest before directories were noted: it is still where it was then.
        landing = known.landing or self.landing if known else ()
        self._state = known and replace(known, delay=micros(self.watermark_delay), landing=landing, stopped=False)
        self._floor = self.progress.floor
        self.unreadable = known is not None and known.unreadable

    @property
    def lock(self) -> threading.RLock:
        """Held while a micro-batch lands: between two commits who holds it may raise the stream's watermark."""
        return _LOCKS[f"{self.lake.root}/{self.stream.name}"]

    @property
    def state(self) -> WriterState | None:
        """After the last micro-batch that landed; None before the first of a stream."""
        return self._state

    @property
    def newest(self) -> int | None:
        """The greatest event time accepted so far, in microseconds."""
        return None if self._state is None else self._state.max_event_time

    @property
    def watermark(self) -> int | None:
        """What the next commit meets, in microseconds; it never falls."""
        return self._floor if self._state is None else self._state.next_watermark(self._floor)

    @property
    def has_accepted(self) -> bool:
        """Whether this run has landed an event."""
        return self.totals.accepted > 0 or self._elsewhere

    def ran_elsewhere(self, progress: StreamProgress) -> None:
        """Take over what a copy of this writer has landed in a process of Spark Connect, as bronze tells it."""
        self._elsewhere = progress.version > self.progress.version
        self._state = progress.state

    def raise_floor(self, value: int) -> None:
        self._floor = max(value, self._floor or value)

    def __call__(self, parsed: DataFrame, micro_batch: int) -> None:
        lake = self.lake.with_session(parsed.sparkSession)
        with self.lock, self.landings.landing():
            self._land(lake, parsed, micro_batch)
        if behind_connect(lake.spark):  # in a process of its own, which nobody asks for entries
            ledger = Ledger(lake)
            ledger.add(*self.entries)
            ledger.flush()
            self.entries.clear()

    def _begin(self, lake: Lake, micro_batch: int) -> None:
        """The first micro-batch of a run tells whether the checkpoint goes on where bronze is."""
        known = self._state
        if known is None:
            return
        self._lineage = lineage(lake.spark, self.place.checkpoint)
        again = self._lineage != known.lineage or micro_batch <= known.micro_batch
        # `batch` never falls: a checkpoint that counts from an earlier number is counted on from here.
        self._offset = known.batch - known.micro_batch if not again else known.batch + 1 - micro_batch
        if again:
            self._lineage = begin_lineage(lake.spark, self.place.checkpoint)
        moved = bool(known.landing) and known.landing[-1] != self.landing[-1]
        if again or known.recovering or moved:
            self._recovery = Recovery.begin(lake, self.stream, self.source, self.place, self.landing)

    def _land(self, lake: Lake, parsed: DataFrame, micro_batch: int) -> None:
        started, laps, first = now_us(), Laps(), not self._begun
        if first:
            self._begin(lake, micro_batch)
        try:
            held, met, figures = self._accept(lake, parsed, micro_batch)
        except Exception:
            readable = self.around(lake, micro_batch)
            if readable is None:
                raise
            held, met, figures = self._accept(lake, readable, micro_batch)
        self._begun = True
        laps.lap("bronze")
        try:
            if figures["rows_quarantined"] and not (first and not figures["rows_out"] and self._is_quarantined(lake, met.batch)):
                self._quarantine(lake, held, met.batch)
                laps.lap("quarantine")
        finally:
            held.unpersist()
        if self._recovery is not None and self._recovery.over:
            self._recovery = None
        self._note(figures, met, started, laps)

    def _accept(self, lake: Lake, parsed: DataFrame, micro_batch: int) -> tuple[DataFrame, WriterState, dict[str, Any]]:
        """Land what is accepted; the lines, persisted, the state that they met, and the figures of the micro-batch."""
        known = self._state
        rows = self._recovery.leave_out(lake, parsed) if self._recovery is not None else parsed
        met = WriterState(
            micro_batch=micro_batch,
            batch=micro_batch + self._offset,
            watermark=self.watermark,
            max_event_time=None if known is None else known.max_event_time,
            delay=micros(self.watermark_delay),
            lineage=self._lineage,
            recovering=self._recovery is not None and not self._recovery.over,
            topic=self.consumes.get("topic"),
            topic_id=self.consumes.get("topic_id"),
            landing=self.landing,
            unreadable=self.unreadable,
        )
        held = _without_accepted_payloads(rows).persist()
        try:
            self.still_there()
            return held, met, self._append(lake, held, met)
        except BaseException:
            held.unpersist()
            raise

    def _append(self, lake: Lake, held: DataFrame, met: WriterState) -> dict[str, Any]:
        """Append the accepted rows to bronze; the figures of the micro-batch, which the same job observes."""
        observation = Observation(f"{self.stream.name}-{met.batch}")
        observed = held.observe(observation, *self._figures(met))
        lake.append(self.stream.name, accepted(observed, self.stream, met.watermark, met.batch), metadata={INGEST: met.as_dict()})
        return dict(observation.get)

    def _quarantine(self, lake: Lake, held: DataFrame, batch: int) -> None:
        observation = Observation(f"{self.stream.name}-{batch}-rejected")
        counts = [F.count_if(F.col("reason") == reason.value).alias(reason.value) for reason in Reason]
        lake.append("quarantine", quarantined(held, self.stream, batch).observe(observation, *counts))
        reasons = {reason: count for reason, count in observation.get.items() if count}
        self.totals.reasons.update(reasons)
        if Reason.UNREADABLE_FILE.value in reasons:
            self.unreadable = self.found_unreadable = True

    def _is_quarantined(self, lake: Lake, batch: int) -> bool:
        """Whether a kill came between quarantine and the end of a micro-batch of which nothing is in bronze."""
        rows = lake.read("quarantine").where(F.col("stream") == self.stream.name)
        return not rows.where(F.col("ingest_batch") == batch).isEmpty()

    def _figures(self, met: WriterState) -> list[Column]:
        """What is observed of a micro-batch while it is appended. SQL text: built in each micro-batch, it is one call each."""
        ok, at_us = "__reason IS NULL", f"unix_micros(__event.`{self.stream.event_time}`)"
        behind = "0" if met.max_event_time is None else f"{met.max_event_time} - {at_us}"
        figures = {
            "rows_in": "count(*)",
            "rows_out": f"count_if({ok})",
            "rows_late": f"count_if({ok} AND {is_late(at_us, met.watermark)})",
            "rows_quarantined": "count_if(__reason IS NOT NULL)",
            "newest": f"max(CASE WHEN {ok} THEN {at_us} END)",
            "earliest": f"min(CASE WHEN {ok} THEN {at_us} END)",
            "lateness": cumulative(f"(CASE WHEN {ok} THEN {behind} END)"),
        }
        return [F.expr(sql).alias(name) for name, sql in figures.items()]

    def _note(self, figures: dict[str, Any], met: WriterState, started: int, laps: Laps) -> None:
        """Keep in memory what the micro-batch changed, and its entry for the ledger."""
        newest, earliest, reached = figures.pop("newest"), figures.pop("earliest"), met.max_event_time
        lateness = Histogram.from_cumulative(figures.pop("lateness"))
        if newest is not None:
            reached = max(newest, reached or newest)
            self.accepted_at = time.monotonic()
        self.totals.accepted += figures["rows_out"]
        self.totals.late += figures["rows_late"]
        self.totals.quarantined += figures["rows_quarantined"]
        self._earliest[met.batch] = _NEVER if earliest is None else earliest
        self._state = replace(met, max_event_time=reached, unreadable=self.unreadable)
        entry = Entry(
            query=f"ingest:{self.stream.name}",
            run_id=self.place.checkpoint.rpartition("/")[2],
            batch=met.batch,
            started_at=started,
            consumed=self.consumes,
            watermark=met.watermark,
            durations_ms=laps.durations_ms(),
            detail={"max_event_time_us": reached, "watermark_delay_us": met.delay, "lateness": lateness.counts},
            **figures,
        )
        self.entries.append(entry)

    def earliest_of(self, batches: Collection[int]) -> int | None:
        """The least event time that landed in some batches, in microseconds; None where one of them is not of this run. What is
        asked for is forgotten, with what is older."""
        found = [self._earliest.get(batch) for batch in batches]
        self._earliest = {batch: at for batch, at in self._earliest.items() if batch > max(batches, default=-1)}
        known = [at for at in found if at is not None]
        return min(known) if known and len(known) == len(found) else None


def _without_accepted_payloads(parsed: DataFrame) -> DataFrame:
    """Without the payloads that quarantine does not need: most of the bytes, and all of a micro-batch is held in memory."""
    raw, kept = F.col("__raw"), F.col("__reason").isNotNull()
    for name in ("value", "encoded") if is_decoded(parsed) else ("value",):
        raw = raw.withField(name, F.when(kept, F.col(f"__raw.{name}")))
    return parsed.withColumn("__raw", raw)


def _origin(batch_id: int) -> list[Column]:
    """Where a row came from, and when: the same columns in bronze and in quarantine."""
    names = ("ingest_time", *ORIGIN)
    return [*(F.col(f"__raw.{name}").alias(name) for name in names), F.lit(batch_id).cast("bigint").alias("ingest_batch")]


def is_late(event_time_us: str, watermark: int | None) -> str:
    """SQL: late means at or before the watermark (microseconds, as the event time); nothing is late before the first commit."""
    return "false" if watermark is None else f"{event_time_us} <= {watermark}"


def accepted(parsed: DataFrame, stream: EventStream, watermark: int | None, batch_id: int) -> DataFrame:
    """The rows for bronze, in its column order, each with the watermark that it met."""
    own = [F.col("__event").getField(f.name).alias(f.name) for f in stream.schema]
    rows = parsed.where(F.col("__reason").isNull()).select(
        *own,
        *_origin(batch_id),
        F.col("__rescued").alias("rescued"),
    )
    met = F.lit(None).cast("timestamp") if watermark is None else at(watermark)
    late = F.expr(is_late(f"unix_micros(`{stream.event_time}`)", watermark)).alias("late")
    return rows.select("*", late, met.alias("door_watermark"), *stream.partition_values()).select(*stream.bronze_schema.names)


def quarantined(parsed: DataFrame, stream: EventStream, batch_id: int) -> DataFrame:
    """The rows for quarantine: the whole payload as it came, and why it is there."""
    return (
        parsed.where(F.col("__reason").isNotNull())
        .select(
            F.lit(stream.name).alias("stream"),
            F.col("__reason").alias("reason"),
            F.col("__detail").alias("detail"),
            payload(parsed).alias("payload"),
            *_origin(batch_id),
            F.lit(None).cast("timestamp").alias("relanded_at"),
            F.to_date("__raw.ingest_time").alias("ingest_date"),
        )
        .select(*QUARANTINE_SCHEMA.names)
    )
