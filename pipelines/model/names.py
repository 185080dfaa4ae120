"""The names that Rejoin itself gives: roles of streams, columns that the lake adds, tables beside those of the streams."""

from typing import Literal

Role = Literal["exposure", "outcome"]

# The columns that the lake adds to an event's own (DESIGN section 5), and those of an attributed row.
PARTITION_COLUMNS = ("event_date", "event_hour")
BRONZE_COLUMNS = (
    "late",
    "door_watermark",
    "ingest_time",
    "ingest_batch",
    "source",
    "source_partition",
    "source_offset",
    "source_time",
    "rescued",
)
ATTRIBUTION_COLUMNS = ("exposure_id", "exposure_time", "attributed_by", "updated_at")
INTERNAL_TABLES = ("quarantine", "control", "ledger", "reconciliations", "reconciliation_diffs")
