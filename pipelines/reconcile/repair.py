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
    """Repair every difference in `compared` (see `diff.compare`); the number of outcomes that were repaired."""
    streams = lake.streams
    outcome, names = streams.outcome, streams.attributed_schema.names
    differing = compared.where(F.col("class") != DiffClass.MATCHED.value).select("outcome_id").distinct()
    truth = compared.where("first").join(differing, "outcome_id", "left_semi")
    rows = truth.select(
        F.col("outcome_id").alias("__id"),
        F.col("batch_row").isNotNull().alias("__keep"),
        *(F.col("batch_row").getField(f.name).alias(f.name) for f in streams.candidate_schema),
        F.lit("repair").alias("attributed_by"),
        F.current_timestamp().alias("updated_at"),
    )
    placed = rows.select("*", *outcome.partition_values())
    # Twice in the source: once to match and delete every row that the table has of the outcome, once, under an id that
    # matches nothing, to be inserted.
    delete = placed.withColumn("__delete", F.lit(True))
    insert = placed.where("__keep").withColumn("__delete", F.lit(False))
    source = delete.unionByName(insert).persist()
    try:
        count = source.where("__delete").count()
        if count:
            clauses = f"""
                WHEN MATCHED THEN DELETE
                WHEN NOT MATCHED AND NOT s.__delete THEN INSERT ({column_list(names)}) VALUES ({column_list(names, "s.")})
            """
            merge(lake, lake.attributed, source, f"s.__delete AND t.`{outcome.id}` = s.__id", clauses)
        return count
    finally:
        source.unpersist()
