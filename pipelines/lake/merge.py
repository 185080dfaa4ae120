"""MERGE into a table of the lake."""

import uuid
from collections.abc import Callable

from pyspark.sql import DataFrame

from pipelines.lake.retry import conflict_retries
from pipelines.lake.tables import Lake


def merge(
    lake: Lake, table: str, source: DataFrame, condition: str, clauses: str, *, again: Callable[[], object] = lambda: None
) -> tuple[int, int]:
    """MERGE `source` (alias s) into `table` (alias t), again where another writer was first; rows inserted and updated.

    `source` must be materialised or deterministic: a retry reads it again. `again` is called before a retry.
    """
    spark, view = source.sparkSession, f"rejoin_{uuid.uuid4().hex}"
    source.createOrReplaceTempView(view)
    statement = f"MERGE INTO {lake.identifier(table)} AS t USING {view} AS s ON {condition} {clauses}"
    try:
        for attempt in conflict_retries():
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    again()
                row = spark.sql(statement).collect()[0].asDict()
    finally:
        spark.catalog.dropTempView(view)
    return int(row.get("num_inserted_rows") or 0), int(row.get("num_updated_rows") or 0)
