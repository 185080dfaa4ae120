"""Lateness is decided here, once, and recorded (DESIGN section 3.2).

A row is late when `event_time <= greatest event time of earlier commits - watermark_delay`. The greatest event time *is*
the data of the earlier commits, so it is committed with them, atomically and without bookkeeping of its own: a start
reads it back from bronze. All rows of one micro-batch meet the same watermark, which each of them carries.

A micro-batch writes quarantine, then bronze, then its ledger row, each under a transaction identifier made of the
checkpoint's own id and the batch number. So the replay of a micro-batch writes nothing twice, and a new checkpoint (whose
batches start again at 0) is not mistaken for a replay.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.checkpoints import CheckpointId
from pipelines.durations import micros
from pipelines.events import EventStream
from pipelines.instants import now_us
from pipelines.lake import QUARANTINE_SCHEMA, Lake, at
from pipelines.observe.ledger import Entry, Ledger


@dataclass(kw_only=True)
class Door:
    """The `foreachBatch` function of one ingest query; `parse`d micro-batches go in."""

    lake: Lake
    stream: EventStream
    watermark_delay: timedelta
    checkpoint: CheckpointId
    _max_event_time: int | None = None
    _known: bool = False

    def __call__(self, parsed: DataFrame, batch_id: int) -> None:
        started, clock = now_us(), time.monotonic()
        lake = self.lake.with_session(parsed.sparkSession)
        if not self._known:
            self._max_event_time, self._known = lake.max_event_time(self.stream), True
        watermark = None if self._max_event_time is None else self._max_event_time - micros(self.watermark_delay)
        rows = parsed.persist()
        try:
            figures = self._figures(rows, watermark)
            if figures["rows_quarantined"]:
                self._append(lake, "quarantine", quarantined(rows, self.stream, batch_id), batch_id)
            if figures["rows_out"]:
                self._append(lake, self.stream.name, accepted(rows, self.stream, watermark, batch_id), batch_id)
        finally:
            rows.unpersist()
        newest = figures.pop("max_event_time")
        if newest is not None:
            self._max_event_time = max(newest, self._max_event_time or newest)
        entry = Entry(
            query=f"ingest:{self.stream.name}",
            run_id=self.checkpoint.id,
            batch=batch_id,
            started_at=started,
            watermark=watermark,
            durations_ms={"total": round((time.monotonic() - clock) * 1000)},
            detail={"max_event_time_us": self._max_event_time},
            **figures,
        )
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
        )
        return dict(found.collect()[0].asDict())

    def _append(self, lake: Lake, table: str, rows: DataFrame, batch_id: int) -> None:
        if self.checkpoint.recovers:
            rows = self._not_landed_before(lake, table, rows)
        lake.append(table, rows, transaction=(f"ingest:{self.stream.name}:{self.checkpoint.id}", batch_id))

    def _not_landed_before(self, lake: Lake, table: str, rows: DataFrame) -> DataFrame:
        """Leave out the files that an earlier, lost checkpoint had landed. A file lands whole in one commit, or not at all."""
        landed = lake.read(table).where(F.col("ingest_time") < at(self.checkpoint.created_us))
        if table == "quarantine":
            landed = landed.where(F.col("stream") == self.stream.name)
        return rows.join(landed.select("source").distinct(), "source", "left_anti").select(*rows.columns)


def is_late(event_time: Column, watermark: int | None) -> Column:
    """Late means at or before the watermark; nothing is late before the first commit."""
    return F.lit(False) if watermark is None else event_time <= at(watermark)


def accepted(parsed: DataFrame, stream: EventStream, watermark: int | None, batch_id: int) -> DataFrame:
    """The rows for bronze, in its column order, each with the watermark that it met."""
    event_time = F.col(stream.event_time)
    own = [F.col("__event").getField(f.name).alias(f.name) for f in stream.schema]
    rows = parsed.where(F.col("__reason").isNull()).select(
        *own,
        F.col("__raw.ingest_time").alias("ingest_time"),
        F.lit(batch_id).cast("bigint").alias("ingest_batch"),
        F.col("__raw.source").alias("source"),
        F.col("__raw.source_partition").alias("source_partition"),
        F.col("__raw.source_offset").alias("source_offset"),
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
            F.col("__raw.value").alias("payload"),
            F.col("__raw.ingest_time").alias("ingest_time"),
            F.lit(batch_id).cast("bigint").alias("ingest_batch"),
            F.col("__raw.source").alias("source"),
            F.col("__raw.source_partition").alias("source_partition"),
            F.col("__raw.source_offset").alias("source_offset"),
            F.to_date("__raw.ingest_time").alias("ingest_date"),
        )
        .select(*QUARANTINE_SCHEMA.names)
    )
