"""What the tables of a lake look like: columns, partitions, properties, constraints (DESIGN section 5)."""

from dataclasses import dataclass

from pyspark.sql.types import BooleanType, DateType, IntegerType, LongType, StringType, StructField, StructType, TimestampType

from pipelines.model.events import Streams

QUARANTINE_SCHEMA = StructType(
    [
        StructField("stream", StringType(), False),
        StructField("reason", StringType(), False),
        StructField("detail", StringType()),
        StructField("payload", StringType()),
        StructField("ingest_time", TimestampType(), False),
        StructField("ingest_batch", LongType(), False),
        StructField("source", StringType()),
        StructField("source_partition", IntegerType()),
        StructField("source_offset", LongType()),
        StructField("source_time", TimestampType()),
        StructField("relanded_at", TimestampType()),
        StructField("ingest_date", DateType(), False),
    ]
)

LEDGER_SCHEMA = StructType(
    [
        StructField("run_date", DateType(), False),
        StructField("query", StringType(), False),
        StructField("run_id", StringType(), False),
        StructField("batch", LongType()),
        StructField("started_at", TimestampType()),
        StructField("finished_at", TimestampType(), False),
        StructField("consumed", StringType()),
        StructField("rows_in", LongType()),
        StructField("rows_out", LongType()),
        StructField("rows_late", LongType()),
        StructField("rows_quarantined", LongType()),
        StructField("rows_dropped_by_watermark", LongType()),
        StructField("watermark", TimestampType()),
        StructField("horizon", TimestampType()),
        StructField("state_rows", LongType()),
        StructField("state_bytes", LongType()),
        StructField("durations_ms", StringType()),
        StructField("detail", StringType()),
    ]
)

CONTROL_SCHEMA = StructType(
    [
        StructField("kind", StringType(), False),
        StructField("stream", StringType()),
        StructField("event_time", TimestampType()),
        StructField("version", LongType()),
        StructField("detail", StringType()),
        StructField("at", TimestampType(), False),
    ]
)

RECONCILIATIONS_SCHEMA = StructType(
    [
        StructField("run_date", DateType(), False),
        StructField("run_id", StringType(), False),
        StructField("started_at", TimestampType(), False),
        StructField("finished_at", TimestampType(), False),
        StructField("from_date", DateType()),
        StructField("to_date", DateType()),
        StructField("verdict", StringType(), False),
        StructField("repaired", LongType()),
        StructField("report", StringType()),
        StructField("summary", StringType(), False),
    ]
)

DIFFS_SCHEMA = StructType(
    [
        StructField("run_date", DateType(), False),
        StructField("run_id", StringType(), False),
        StructField("class", StringType(), False),
        StructField("outcome_id", StringType()),
        StructField("event_time", TimestampType()),
        StructField("columns", StringType()),
        StructField("stream_row", StringType()),
        StructField("batch_row", StringType()),
        StructField("cause", StringType()),
        StructField("detail", StringType()),
        StructField("repaired", BooleanType()),
    ]
)

LANES = ("join", "settle", "repair")


@dataclass(frozen=True)
class TableSpec:
    """How a table is created; `schema` is also what one that exists must be able to take. `log_days`: for how long its log is
    kept, where that is not for the configuration to say."""

    schema: StructType
    partitions: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    checks: tuple[tuple[str, str], ...] = ()
    log_days: int | None = None


# For tables that nobody reads as of an earlier version: each commit leaves files in the log's directory, which every read lists.
_LATEST_ONLY = 1


def table_specs(streams: Streams) -> dict[str, TableSpec]:
    """Every table of the lake of these streams, by name."""
    specs = {
        "quarantine": TableSpec(QUARANTINE_SCHEMA, ("ingest_date",), log_days=_LATEST_ONLY),
        "ledger": TableSpec(LEDGER_SCHEMA, ("run_date",), log_days=_LATEST_ONLY),
        "control": TableSpec(CONTROL_SCHEMA, log_days=_LATEST_ONLY),
        "reconciliations": TableSpec(RECONCILIATIONS_SCHEMA, ("run_date",), log_days=_LATEST_ONLY),
        "reconciliation_diffs": TableSpec(DIFFS_SCHEMA, ("run_date",), log_days=_LATEST_ONLY),
    }
    for stream in streams.both:
        properties = (
            # settle reads what landed between two versions
            ("delta.enableChangeDataFeed", "true"),
            ("delta.dataSkippingStatsColumns", f"{stream.event_time},ingest_time,ingest_batch,source_offset"),
        )
        checks = (("rejoin_batch", "ingest_batch >= 0"),)
        specs[stream.name] = TableSpec(stream.bronze_schema, stream.partition_columns, properties, checks)
    outcome = streams.outcome
    lanes = ", ".join(f"'{lane}'" for lane in LANES)
    properties = (
        ("delta.enableDeletionVectors", "true"),
        ("delta.dataSkippingStatsColumns", f"{outcome.id},{outcome.event_time},exposure_time,updated_at"),
    )
    checks = (("rejoin_lane", f"attributed_by IN ({lanes})"),)
    specs[streams.attributed_name] = TableSpec(streams.attributed_schema, outcome.partition_columns, properties, checks)
    return specs
