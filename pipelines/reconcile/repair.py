"""Make the table what batch says, for the outcomes that differ and no others, in one transaction.

Rows of a differing outcome are deleted wherever they stand and the batch row is written in its partition, by one MERGE: so a
repair is there wholly or not at all, and doing it again changes nothing.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake import Lake, column_list
from pipelines.reconcile.diff import DiffClass
from pipelines.sink import merge


def repair(lake: Lake, compared: DataFrame) -> int:
    """Repair every difference in `compared` (see `diff.compare`); the number of outcomes that were repaired.

    Only rows that still are as they were compared are taken away: what a lane has written since is newer than the comparison.
    The comparison has to be made again afterwards in any case.
    """
    streams = lake.streams
    outcome, names = streams.outcome, streams.attributed_schema.names
    differing = compared.where(F.col("class") != DiffClass.MATCHED.value).select("outcome_id").distinct()
    affected = compared.join(differing, "outcome_id", "left_semi")
    truth = affected.where(F.col("first") & F.col("batch_row").isNotNull())
    insert = truth.select(
        F.lit(False).alias("__delete"),
        F.col("outcome_id").alias("__id"),
        F.lit(None).cast("timestamp").alias("__seen"),
        *(F.col("batch_row").getField(f.name).alias(f.name) for f in streams.candidate_schema),
        F.lit("repair").alias("attributed_by"),
        F.current_timestamp().alias("updated_at"),
    )
    insert = insert.select("*", *outcome.partition_values())
    seen = affected.where(F.col("stream_row").isNotNull()).select(
        F.lit(True).alias("__delete"),
        F.col("outcome_id").alias("__id"),
        F.col("stream_row.updated_at").alias("__seen"),
    )
    # Two kinds of source rows: one matches the rows that were compared and deletes them; the other matches nothing, and is
    # inserted.
    source = insert.unionByName(seen.distinct(), allowMissingColumns=True).persist()
    try:
        count = source.select("__id").distinct().count()
        if count:
            clauses = f"""
                WHEN MATCHED THEN DELETE
                WHEN NOT MATCHED AND NOT s.__delete THEN INSERT ({column_list(names)}) VALUES ({column_list(names, "s.")})
            """
            same = f"s.__delete AND t.`{outcome.id}` = s.__id AND t.updated_at = s.__seen"
            merge(lake, lake.attributed, source, same, clauses)
        return count
    finally:
        source.unpersist()
