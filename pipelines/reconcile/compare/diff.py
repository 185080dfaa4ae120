"""Compare the table with the batch result, and name each difference (DESIGN section 8).

Classes of a row of the comparison:

- `matched`: the table has the outcome once, in its partition, every column equal;
- `missing`: batch has the outcome, the table does not;
- `extra`: the table has an outcome that no accepted event explains;
- `mismatched`: both have it, and some column differs (`columns` names which);
- `duplicate`: a further row of an outcome that the table has already;
- `conflicting_duplicate`: a row made from an event that lost against another event of the same id;
- `misplaced`: the row is in a partition that is not that of its event time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from pipelines.config.model import ColumnTolerance
from pipelines.model.durations import micros
from pipelines.model.events import Streams


class DiffClass(str, Enum):
    MATCHED = "matched"
    MISSING = "missing"
    EXTRA = "extra"
    MISMATCHED = "mismatched"
    DUPLICATE = "duplicate"
    MISPLACED = "misplaced"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"


DIFFERENCES = tuple(c for c in DiffClass if c is not DiffClass.MATCHED)


@dataclass(frozen=True, kw_only=True)
class HourSummary:
    """Counts of one hour of event time (UTC): rows by class, and which columns mismatched how often; `unattributed` are outcomes
    that the table has without an exposure."""

    event_date: str
    hour: int
    batch_rows: int
    table_rows: int
    unattributed: int
    counts: dict[str, int]
    columns: dict[str, int]

    @property
    def differences(self) -> int:
        return sum(self.counts.get(c.value, 0) for c in DIFFERENCES)


def compare(
    expected: DataFrame, actual: DataFrame, streams: Streams, tolerances: Mapping[str, ColumnTolerance] | None = None
) -> DataFrame:
    """One row for each expected outcome and for each further row of the table.

    `expected` is the batch result (candidate columns, and `__versions`, how many events an id has), one row an id; `actual` rows
    of the attributed table; columns are equal exactly, or within their tolerance. Returns `class`, `columns` (those that differ),
    `outcome_id`, `event_time`, `event_date`, `hour`, and the rows as structs, `batch_row` and `stream_row` (null where there is
    none).
    """
    outcome = streams.outcome
    versions = F.col("__versions") if "__versions" in expected.columns else F.lit(1)
    batch = expected.select(
        F.col(outcome.id).alias("__id"),
        F.struct(*streams.candidate_schema.names).alias("batch_row"),
        (versions > 1).alias("__conflicting"),
    )
    table = actual.select(F.col(outcome.id).alias("__id"), F.struct("*").alias("stream_row"))
    pairs = batch.join(table, "__id", how="full_outer")
    differing = F.when(
        F.col("batch_row").isNotNull() & F.col("stream_row").isNotNull(),
        F.array_compact(F.array(*(_differs(f, (tolerances or {}).get(f.name)) for f in streams.candidate_schema))),
    )
    judged = pairs.withColumn("columns", differing).withColumn("__placed", _is_placed(F.col("stream_row"), streams))
    # Of several rows of one outcome, the best stands for it; the others are too many.
    whole = F.xxhash64(*(_comparable(field, F.col("stream_row").getField(field.name)) for field in actual.schema))
    best = Window.partitionBy("__id").orderBy(F.col("__placed").desc(), F.size("columns"), whole)
    ranked = judged.withColumn("__nth", F.row_number().over(best))
    same_event = F.col("stream_row").getField(outcome.event_time) == F.col("batch_row").getField(outcome.event_time)
    verdict = (
        F.when(F.col("stream_row").isNull(), DiffClass.MISSING.value)
        .when(F.col("batch_row").isNull(), DiffClass.EXTRA.value)
        .when((F.col("__nth") > 1) & F.col("__conflicting") & ~same_event, DiffClass.CONFLICTING_DUPLICATE.value)
        .when(F.col("__nth") > 1, DiffClass.DUPLICATE.value)
        .when(~F.col("__placed"), DiffClass.MISPLACED.value)
        .when(F.size("columns") > 0, DiffClass.MISMATCHED.value)
        .otherwise(DiffClass.MATCHED.value)
    )
    time = F.coalesce(F.col("batch_row").getField(outcome.event_time), F.col("stream_row").getField(outcome.event_time))
    return ranked.select(
        verdict.alias("class"),
        F.coalesce("columns", F.array().cast("array<string>")).alias("columns"),
        F.col("__id").alias("outcome_id"),
        time.alias("event_time"),
        F.to_date(time).alias("event_date"),
        F.hour(time).alias("hour"),
        (F.col("__nth") == 1).alias("first"),
        "batch_row",
        "stream_row",
    )


def summarise(compared: DataFrame, streams: Streams) -> list[HourSummary]:
    """Full counts by hour, in order of time; small, whatever the size of the day."""
    differs = F.col("class") == DiffClass.MISMATCHED.value
    in_table = F.col("stream_row").isNotNull()
    names = streams.candidate_schema.names
    counted = compared.groupBy(F.col("event_date").cast("string").alias("event_date"), "hour").agg(
        F.count_if(F.col("batch_row").isNotNull() & F.col("first")).alias("batch_rows"),
        F.count_if(in_table).alias("table_rows"),
        F.count_if(F.col("first") & in_table & F.col("stream_row.exposure_time").isNull()).alias("unattributed"),
        F.struct(*(F.count_if(F.col("class") == c.value).alias(c.value) for c in DiffClass)).alias("counts"),
        F.struct(*(F.count_if(differs & F.array_contains("columns", name)).alias(name) for name in names)).alias("columns"),
    )
    rows = [row.asDict(recursive=True) for row in counted.orderBy("event_date", "hour").collect()]
    nonzero = ({name: {k: n for k, n in row[name].items() if n} for name in ("counts", "columns")} for row in rows)
    return [HourSummary(**{**row, **found}) for row, found in zip(rows, nonzero, strict=True)]


def _is_placed(row: Column, streams: Streams) -> Column:
    """Whether a row lies in the partition of its event time (UTC); so does one that is null."""
    time, hourly = row.getField(streams.outcome.event_time), streams.outcome.partition_by == "hour"
    placed = row.getField("event_date").eqNullSafe(F.to_date(time))
    return placed & row.getField("event_hour").eqNullSafe(F.hour(time)) if hourly else placed


def _comparable(field: StructField, value: Column) -> Column:
    """A column's value as something that can be compared and hashed: maps cannot."""
    return F.to_json(F.struct(value)) if "map<" in field.dataType.simpleString() else value


def _differs(field: StructField, tolerance: ColumnTolerance | None) -> Column:
    """The column's name where the two rows differ in it, null where not; two nulls are equal."""
    left, right = F.col("batch_row").getField(field.name), F.col("stream_row").getField(field.name)
    equal = _comparable(field, left).eqNullSafe(_comparable(field, right))
    if tolerance is not None:
        equal = equal | F.coalesce(_near(left, right, tolerance), F.lit(False))
    return F.when(~equal, F.lit(field.name))


def _near(batch: Column, table: Column, tolerance: ColumnTolerance) -> Column:
    """Whether two values are within the tolerance, both ends inclusive; null where one is null."""
    if tolerance.time is not None:
        return F.abs(F.unix_micros(batch) - F.unix_micros(table)) <= micros(tolerance.time)
    allowed = F.greatest(F.lit(tolerance.absolute or 0.0), F.lit(tolerance.relative or 0.0) * F.abs(batch))
    return F.abs(batch - table) <= allowed
