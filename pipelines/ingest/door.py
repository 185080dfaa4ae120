"""Lateness is decided here, once, and recorded (DESIGN section 3.2).

A row is late when `event_time <= greatest event time of earlier commits - watermark_delay`. The greatest event time *is*
the data of the earlier commits, so it is committed with them, atomically and without bookkeeping of its own: a start
reads it back from bronze. All rows of one micro-batch meet the same watermark, which each of them carries.

A micro-batch writes quarantine, then bronze, then its ledger row, each under a transaction identifier made of the
checkpoint's own id and the batch number: so the replay of a micro-batch writes nothing twice, and a new checkpoint (whose
batches start again at 0) is not mistaken for a replay. Where a checkpoint has been lost, or put back to an earlier state, batch
numbers say nothing; there each file is held against what has landed.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from operator import and_
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.checkpoints import CheckpointId
from pipelines.durations import micros
from pipelines.events import EventStream
from pipelines.heartbeats import promised
from pipelines.histogram import Histogram, cumulative
from pipelines.ingest.parse import is_decoded
from pipelines.instants import now_us
from pipelines.lake import Lake, at
from pipelines.observe.ledger import Entry, Ledger
from pipelines.observe.phases import Laps
from pipelines.schemas import QUARANTINE_SCHEMA
from pipelines.session import interpreted

# One lock a stream and process: between two commits of a stream its door can be held shut. In the module, not in the Door,
# because Spark Connect pickles a `foreachBatch` function.
_LOCKS: dict[str, threading.RLock] = defaultdict(threading.RLock)
# A micro-batch of up to so many lines is written by interpreted plans. The number is chosen, not measured.
_FEW_ROWS = 10_000
# What a line came from: a file, or a place in Kafka.
ORIGIN = ("source", "source_partition", "source_offset", "source_time")


@dataclass(kw_only=True)
class Door:
    """The `foreachBatch` function of one ingest query; `parse`d micro-batches go in.

    `consumes` says in the ledger what is being read; `still_there` raises where that is no longer what it was: it is called
    between the reading of a micro-batch and its landing. `accepted_rows` and `accepted_at` (monotonic seconds) tell of this run.
    """

    lake: Lake
    stream: EventStream
    watermark_delay: timedelta
    checkpoint: CheckpointId
    consumes: Mapping[str, str | None] = field(default_factory=dict)
    still_there: Callable[[], None] = lambda: None
    accepted_rows: int = 0
    accepted_at: float = field(default_factory=time.monotonic)
    _max_event_time: int | None = None
    _floor: int | None = None
    _last_batch: int | None = None
    _rewound: bool = False
    _known: bool = False

    def shut(self) -> AbstractContextManager[bool]:
        """While held, no micro-batch of the stream passes."""
        return _LOCKS[f"{self.lake.root}/{self.stream.name}"]

    def newest(self) -> int | None:
        """The greatest event time accepted so far, in microseconds."""
        self._learn(self.lake)
        return self._max_event_time

    def watermark(self) -> int | None:
        """What the next commit meets: it never falls, also where `watermark_delay` has been made longer meanwhile."""
        self._learn(self.lake)
        reached = None if self._max_event_time is None else self._max_event_time - micros(self.watermark_delay)
        return max((mark for mark in (reached, self._floor) if mark is not None), default=None)

    def raise_floor(self, value: int) -> None:
        self._floor = max(value, self._floor or value)

    def __call__(self, parsed: DataFrame, batch_id: int) -> None:
        with self.shut():
            self._pass(self.lake.with_session(parsed.sparkSession), parsed, batch_id)

    def _learn(self, lake: Lake) -> None:
        """At a start: how far the stream has come is in bronze; what its door has promised, in heartbeats and the ledger."""
        if self._known:
            return
        self._max_event_time = lake.max_event_time(self.stream)
        entry = Ledger(lake).last(f"ingest:{self.stream.name}")
        met = self._met_since(lake, entry["started_at"] if entry else None)
        for mark in (promised(lake, self.stream.name), entry["watermark"] if entry else None, met):
            if mark is not None:
                self.raise_floor(mark)
        own = Ledger(lake).last(f"ingest:{self.stream.name}", run_id=self.checkpoint.id)
        self._last_batch = own["batch"] if own else None
        self._known = True

    def _met_since(self, lake: Lake, started: int | None) -> int | None:
        """The greatest watermark that rows met since the ledger's last entry: a commit whose entry was never written has them."""
        bronze = lake.read(self.stream.name)
        if started is not None:
            bronze = bronze.where(F.col("ingest_time") >= at(started))
        found = bronze.agg(F.unix_micros(F.max("door_watermark"))).collect()[0][0]
        return None if found is None else int(found)

    def _pass(self, lake: Lake, parsed: DataFrame, batch_id: int) -> None:
        started, laps = now_us(), Laps()
        self._learn(lake)
        watermark = self.watermark()
        # Batch numbers that the ledger has already: a replay, or a checkpoint that was put back to an earlier state. What they
        # hold may have landed, or be new; so may all that a checkpoint meets that was made over a lake with data in it.
        self._rewound = self._rewound or (self._last_batch is not None and batch_id < self._last_batch)
        again = self.checkpoint.recovers or self._rewound or batch_id == self._last_batch
        rows = _lightened(not_quarantined_before(lake, self.stream, parsed) if again else parsed).persist()
        try:
            figures = self._figures(rows, watermark)
            self.still_there()
            laps.lap("read")
            # A replay is held against all that has landed.
            few = figures["rows_in"] <= _FEW_ROWS and not again
            with interpreted(lake.spark) if few else nullcontext():
                if figures["rows_quarantined"]:
                    self._append(lake, "quarantine", quarantined(rows, self.stream, batch_id), batch_id, again=again)
                    laps.lap("quarantine")
                if figures["rows_out"]:
                    self._append(lake, self.stream.name, accepted(rows, self.stream, watermark, batch_id), batch_id, again=again)
                    laps.lap("bronze")
        finally:
            rows.unpersist()
        newest, lateness = figures.pop("max_event_time"), Histogram.from_cumulative(figures.pop("lateness"))
        if newest is not None:
            self._max_event_time = max(newest, self._max_event_time or newest)
            self.accepted_rows += figures["rows_out"]
            self.accepted_at = time.monotonic()
        if watermark is not None:
            self.raise_floor(watermark)
        entry = Entry(
            query=f"ingest:{self.stream.name}",
            run_id=self.checkpoint.id,
            batch=batch_id,
            started_at=started,
            consumed=self.consumes,
            watermark=watermark,
            durations_ms=laps.durations_ms(),
            detail={
                "max_event_time_us": self._max_event_time,
                "watermark_delay_us": micros(self.watermark_delay),
                "lateness": lateness.counts,
            },
            **figures,
        )
        with interpreted(lake.spark):
            Ledger(lake).write([entry], transaction=(f"ledger:{entry.query}:{entry.run_id}", batch_id))

    def _figures(self, rows: DataFrame, watermark: int | None) -> dict[str, Any]:
        event_time = F.col("__event").getField(self.stream.event_time)
        ok = F.col("__reason").isNull()
        found = rows.select(
            F.count("*").alias("rows_in"),
            F.count_if(ok).alias("rows_out"),
            F.count_if(ok & is_late(event_time, watermark)).alias("rows_late"),
            F.count_if(~ok).alias("rows_quarantined"),
            F.unix_micros(F.max(F.when(ok, event_time))).alias("max_event_time"),
            cumulative(F.when(ok, self._behind(event_time))).alias("lateness"),
        )
        return dict(found.collect()[0].asDict())

    def _behind(self, event_time: Column) -> Column:
        """How far an event comes behind the newest one of earlier commits, in microseconds; 0 or less where it does not."""
        newest = self._max_event_time
        return F.lit(0) if newest is None else F.lit(newest) - F.unix_micros(event_time)

    def _append(self, lake: Lake, table: str, rows: DataFrame, batch_id: int, *, again: bool) -> None:
        transaction = (f"ingest:{self.stream.name}:{self.checkpoint.id}", batch_id)
        if again:
            rows = self._not_landed_before(lake, table, rows)
        lake.append(table, rows, transaction=None if again else transaction)

    def _not_landed_before(self, lake: Lake, table: str, rows: DataFrame) -> DataFrame:
        """Leave out what the table has already: a file lands whole in one commit of it, or not at all; a Kafka record is known by
        topic, partition, offset and timestamp, for a topic that was made anew counts from 0 again."""
        landed = lake.read(table)
        if table == "quarantine":
            landed = landed.where(F.col("stream") == self.stream.name)
        first, last = rows.select(F.min("source_offset"), F.max("source_offset")).collect()[0]
        if first is not None:
            landed = landed.where(F.col("source_offset").between(first, last))
        known = landed.select(*ORIGIN).distinct().alias("known")
        same = [F.col(f"here.{name}").eqNullSafe(F.col(f"known.{name}")) for name in known.columns]
        return rows.alias("here").join(known, reduce(and_, same), "left_anti").select(*(f"here.{name}" for name in rows.columns))


def not_quarantined_before(lake: Lake, stream: EventStream, parsed: DataFrame) -> DataFrame:
    """Leave out the accepted lines that are in quarantine: a clock that was ahead once would be in time by now. What is the same
    line is told by its file, or by its place in Kafka: a record that was sent again is another one."""
    judged = lake.read("quarantine").where(F.col("stream") == stream.name).select(*ORIGIN, "payload").distinct()
    origin = reduce(and_, (F.col(f"__raw.{name}").eqNullSafe(F.col(name)) for name in ORIGIN))
    same = origin & (_payload(parsed) == F.col("payload")) & F.col("__reason").isNull()
    return parsed.join(judged, same, "left_anti").select(*parsed.columns)


def _lightened(parsed: DataFrame) -> DataFrame:
    """Without the payloads that quarantine will not need: most of the bytes, and all of a micro-batch is held in memory."""
    raw, kept = F.col("__raw"), F.col("__reason").isNotNull()
    for name in ("value", "encoded") if is_decoded(parsed) else ("value",):
        raw = raw.withField(name, F.when(kept, F.col(f"__raw.{name}")))
    return parsed.withColumn("__raw", raw)


def _payload(parsed: DataFrame) -> Column:
    """The event as it came; base64 of it where its bytes are no text."""
    if is_decoded(parsed):
        return F.base64("__raw.encoded")
    value = F.col("__raw.value")
    return F.when(F.is_valid_utf8(value), value).otherwise(F.base64(value.cast("binary")))


def _origin(batch_id: int) -> list[Column]:
    """Where a row came from, and when: the same columns in bronze and in quarantine."""
    names = ("ingest_time", *ORIGIN)
    return [*(F.col(f"__raw.{name}").alias(name) for name in names), F.lit(batch_id).cast("bigint").alias("ingest_batch")]


def is_late(event_time: Column, watermark: int | None) -> Column:
    """Late means at or before the watermark; nothing is late before the first commit."""
    return F.lit(False) if watermark is None else event_time <= at(watermark)


def accepted(parsed: DataFrame, stream: EventStream, watermark: int | None, batch_id: int) -> DataFrame:
    """The rows for bronze, in its column order, each with the watermark that it met."""
    event_time = F.col(stream.event_time)
    own = [F.col("__event").getField(f.name).alias(f.name) for f in stream.schema]
    rows = parsed.where(F.col("__reason").isNull()).select(
        *own,
        *_origin(batch_id),
        F.col("__rescued").alias("rescued"),
    )
    door = F.lit(None).cast("timestamp") if watermark is None else at(watermark)
    return rows.select(
        "*", is_late(event_time, watermark).alias("late"), door.alias("door_watermark"), *stream.partition_values()
    ).select(*stream.bronze_schema.names)


def quarantined(parsed: DataFrame, stream: EventStream, batch_id: int) -> DataFrame:
    """The rows for quarantine: the whole payload as it came, and why it is there."""
    return (
        parsed.where(F.col("__reason").isNotNull())
        .select(
            F.lit(stream.name).alias("stream"),
            F.col("__reason").alias("reason"),
            F.col("__detail").alias("detail"),
            _payload(parsed).alias("payload"),
            *_origin(batch_id),
            F.to_date("__raw.ingest_time").alias("ingest_date"),
        )
        .select(*QUARANTINE_SCHEMA.names)
    )
