"""Why an outcome differs, where that can be proven; `unknown` is the alarm.

Proofs are taken from Delta's history: a commit that Rejoin did not make, before which the row was right, is the reason why it is
wrong now. What is said of a row holds for its outcome.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.lake.files import dates_of
from pipelines.lake.history import REPAIR
from pipelines.lake.retry import is_gone
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream
from pipelines.reconcile.audit.bronze import StreamAudit
from pipelines.reconcile.audit.history import foreign_table_commits
from pipelines.reconcile.compare.comparison import Sides
from pipelines.reconcile.compare.diff import DiffClass, compare

# Each look at an earlier version reads the table once more.
_COMMITS_LOOKED_AT = 20


class Cause(str, Enum):
    """`late_outcome`, `late_exposure`, `not_settled`: settle has never run, and the answer needs it (the event, or the exposure,
    was late; or neither). `conflicting_events`: several different events of one id, on several dates. `table_changed`: a foreign
    commit changed the row. `bronze_changed`: one removed the event, or the exposure of the row, from bronze. `bronze_lost`: that
    is not in bronze, and data files of its date are gone. `table_lost`: the row is missing, and data files of its date are gone
    from the output table, or were when a repair began."""

    LATE_OUTCOME = "late_outcome"
    LATE_EXPOSURE = "late_exposure"
    NOT_SETTLED = "not_settled"
    CONFLICTING_EVENTS = "conflicting_events"
    TABLE_CHANGED = "table_changed"
    BRONZE_CHANGED = "bronze_changed"
    BRONZE_LOST = "bronze_lost"
    TABLE_LOST = "table_lost"
    UNKNOWN = "unknown"


_Proof = tuple[DataFrame, Cause, str | None]


def with_causes(
    lake: Lake, differing: DataFrame, sides: Sides, audits: Sequence[StreamAudit], table_gone: Sequence[str]
) -> DataFrame:
    """Add to `differing` (rows of `diff.compare`, none of them matched) `cause`, and `detail` where there is more to say.
    `table_gone`: data files of the output table that are, or were, gone."""
    by_stream = {each.stream: each for each in audits}
    found = [
        (differing.where(F.col("class") == DiffClass.CONFLICTING_DUPLICATE.value), Cause.CONFLICTING_EVENTS, None),
        *(_unsettled(lake, differing, sides) if not sides.pins.settled else ()),
        *_changed_table(lake, differing, sides),
        *_lost_table(lake, differing, table_gone),
        *_without_origin(lake, differing, sides, by_stream),
    ]
    proven = [
        ids.select(
            F.col("outcome_id").alias("__id"),
            F.struct(
                F.lit(n).alias("order"), F.lit(cause.value).alias("cause"), F.lit(detail).cast("string").alias("detail")
            ).alias("why"),
        )
        for n, (ids, cause, detail) in enumerate(found)
    ]
    first = reduce(DataFrame.unionByName, proven).groupBy("__id").agg(F.min("why").alias("why"))
    explained = differing.join(first, F.col("outcome_id").eqNullSafe(F.col("__id")), "left")
    cause = F.coalesce("why.cause", F.lit(Cause.UNKNOWN.value)).alias("cause")
    return explained.select(*differing.columns, cause, F.col("why.detail").alias("detail"))


def _unsettled(lake: Lake, differing: DataFrame, sides: Sides) -> Iterator[_Proof]:
    """What only settle answers, where it has never run: a row that is missing, or has no exposure yet."""
    open_ones = differing.where(F.col("class").isin(DiffClass.MISSING.value, DiffClass.MISMATCHED.value))
    streams = lake.streams
    for stream, rows, id, cause in (
        (streams.outcome, sides.outcomes, F.col("outcome_id"), Cause.LATE_OUTCOME),
        (streams.exposure, sides.exposures, F.col("batch_row.exposure_id"), Cause.LATE_EXPOSURE),
    ):
        late = rows.where("late").select(F.col(stream.id).alias("__late")).distinct()
        yield open_ones.join(late, id == F.col("__late"), "left_semi"), cause, None
    yield open_ones, Cause.NOT_SETTLED, "run `rejoin settle --once`"


def _changed_table(lake: Lake, differing: DataFrame, sides: Sides) -> Iterator[_Proof]:
    """The outcomes that were right before a foreign commit."""
    streams, table = lake.streams, lake.attributed
    id = streams.outcome.id
    # Each row of an outcome has the batch row beside it.
    wanted = differing.where(F.col("batch_row").isNotNull()).dropDuplicates(["outcome_id"]).select("batch_row.*")
    # Checkpointed, as plans that contain one another grow beyond what can be planned.
    ids = differing.select(F.col("outcome_id").alias("__id")).distinct().localCheckpoint()
    for commit in foreign_table_commits(lake, sides.pins.attributed_version, _COMMITS_LOOKED_AT):
        if ids.isEmpty():
            return
        try:
            before = lake.read(table, commit.version - 1).join(ids, F.col(id) == F.col("__id"), "left_semi")
            # Opens the files: here it shows that some have been vacuumed.
            wrong = compare(wanted, before, streams).where(F.col("class") != DiffClass.MATCHED.value)
            wrong = wrong.select(F.col("outcome_id").alias("__id")).localCheckpoint()
        except Exception as error:  # the class differs between classic Spark and Connect
            if is_gone(error):
                return
            raise
        yield ids.join(wrong, "__id", "left_anti").withColumnRenamed("__id", "outcome_id"), Cause.TABLE_CHANGED, str(commit)
        ids = ids.join(wrong, "__id", "left_semi").localCheckpoint()


def _lost_table(lake: Lake, differing: DataFrame, gone: Sequence[str]) -> Iterator[_Proof]:
    """The outcomes without a row, on a date of which the table's data files are gone; or were, when a repair rewrote it."""
    missing = differing.where(F.col("class") == DiffClass.MISSING.value)
    if gone:
        yield missing.where(F.col("event_date").isin(*dates_of(gone))), Cause.TABLE_LOST, _gone(lake.attributed, gone)
    rewritten = _rewritten_dates(lake)
    if rewritten:
        detail = "a repair rewrote this date without data files that were gone"
        yield missing.where(F.col("event_date").isin(*rewritten)), Cause.TABLE_LOST, detail


def _rewritten_dates(lake: Lake) -> set[date]:
    details = (commit.ours(REPAIR) for commit in lake.commits(lake.attributed, 0))
    return {date.fromisoformat(day) for each in details if each for day in each.get("dates", ())}


def _without_origin(lake: Lake, differing: DataFrame, sides: Sides, audits: Mapping[str, StreamAudit]) -> Iterator[_Proof]:
    """The outcomes whose event, or whose row's exposure, is not in bronze as pinned: a foreign commit removed it, or it is on a
    date of which data files are gone."""
    outcome, exposure = lake.streams.outcome, lake.streams.exposure
    row = F.col("stream_row")
    for stream, rows, id, time in (
        (outcome, sides.outcomes, F.col("outcome_id"), row.getField(outcome.event_time)),
        (exposure, sides.exposures, row.getField("exposure_id"), row.getField("exposure_time")),
    ):
        there = rows.select(F.col(stream.id).alias("__now"))
        absent = differing.where(id.isNotNull()).join(there, id == F.col("__now"), "left_anti")
        audit = audits[stream.name]
        for commit in audit.history.foreign[: -_COMMITS_LOOKED_AT - 1 : -1]:
            proof = _was_there(lake, stream, commit.version - 1, absent, id)
            if proof is not None:
                yield proof, Cause.BRONZE_CHANGED, f"{stream.name}: {commit}"
        if audit.gone:
            dated = absent.where(F.to_date(time).isin(*dates_of(audit.gone)))
            yield dated, Cause.BRONZE_LOST, _gone(stream.name, audit.gone)


def _was_there(lake: Lake, stream: EventStream, version: int, absent: DataFrame, id: Column) -> DataFrame | None:
    try:
        before = lake.read(stream.name, version).select(F.col(stream.id).alias("__then"))
        found = absent.join(before, id == F.col("__then"), "left_semi").localCheckpoint()
        return None if found.isEmpty() else found
    except Exception as error:  # as above
        if is_gone(error):
            return None
        raise


def _gone(table: str, files: Sequence[str]) -> str:
    return f"{table}: {len(files)} data files are gone, the first is {files[0]}"
