"""Why an outcome differs, where that can be proven; `unknown` is the alarm.

Proofs are taken from Delta's own history: a commit that no lane of Rejoin makes, before which the row was right, is the reason
why it is wrong now. What is said of a row holds for its outcome.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.events import EventStream
from pipelines.inforce import Rules
from pipelines.lake import Lake, is_gone
from pipelines.reconcile.batch import attribute
from pipelines.reconcile.commits import ForeignCommit, dates_written_anew, foreign_commits
from pipelines.reconcile.diff import DiffClass, compare
from pipelines.reconcile.losses import Losses

# Each look at an earlier version reads the table once more.
_COMMITS_LOOKED_AT = 20


class Cause(str, Enum):
    """`late_outcome`, `late_exposure`, `not_settled`: settle has never run, and the answer needs it (the event, or the exposure,
    came late; or neither). `conflicting_events`: several different events of one id, on several dates. `table_changed`: a commit
    that no lane made changed the row. `bronze_changed`: one took the event, or the exposure of the row, out of bronze.
    `bronze_lost`: that has gone from bronze, and data files of its date are not there. `table_lost`: the row is missing, and
    data files of its date are not there in the table, or were not when a repair began. `configuration_changed`: the row is right
    by a rule that holds for other outcomes."""

    LATE_OUTCOME = "late_outcome"
    LATE_EXPOSURE = "late_exposure"
    NOT_SETTLED = "not_settled"
    CONFLICTING_EVENTS = "conflicting_events"
    TABLE_CHANGED = "table_changed"
    BRONZE_CHANGED = "bronze_changed"
    BRONZE_LOST = "bronze_lost"
    TABLE_LOST = "table_lost"
    CONFIGURATION_CHANGED = "configuration_changed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """What the comparison read: both bronze tables as pinned, the table's version, and whether settle has ever run."""

    outcomes: DataFrame
    exposures: DataFrame
    attributed_version: int
    settled: bool


def with_causes(lake: Lake, differing: DataFrame, pinned: Pinned, rules: Rules, losses: Mapping[str, Losses]) -> DataFrame:
    """`differing` (rows of `diff.compare`, none of them matched) with `cause`, and `detail` where there is more to say. `losses`
    are those of each stream's bronze, and the data files that are, or were, gone from the attributed table."""
    found = [
        *_conflicts(differing),
        *(_unsettled(lake, differing, pinned) if not pinned.settled else ()),
        *_changed_table(lake, differing, pinned),
        *_lost_table(lake, differing, losses[lake.attributed]),
        *_changed_bronze(lake, differing, pinned),
        *_lost_bronze(lake, differing, pinned, losses),
        *_other_rules(lake, differing, pinned, rules),
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
    told = differing.join(first, F.col("outcome_id").eqNullSafe(F.col("__id")), "left")
    cause = F.coalesce("why.cause", F.lit(Cause.UNKNOWN.value)).alias("cause")
    return told.select(*differing.columns, cause, F.col("why.detail").alias("detail"))


_Proof = tuple[DataFrame, Cause, str | None]


def _conflicts(differing: DataFrame) -> Iterator[_Proof]:
    yield differing.where(F.col("class") == DiffClass.CONFLICTING_DUPLICATE.value), Cause.CONFLICTING_EVENTS, None


def _unsettled(lake: Lake, differing: DataFrame, pinned: Pinned) -> Iterator[_Proof]:
    """What only settle answers, where it has never run: a row that is missing, or has not got its exposure yet."""
    open_ones = differing.where(F.col("class").isin(DiffClass.MISSING.value, DiffClass.MISMATCHED.value))
    streams = lake.streams
    for stream, rows, id, cause in (
        (streams.outcome, pinned.outcomes, F.col("outcome_id"), Cause.LATE_OUTCOME),
        (streams.exposure, pinned.exposures, F.col("batch_row.exposure_id"), Cause.LATE_EXPOSURE),
    ):
        late = rows.where("late").select(F.col(stream.id).alias("__late")).distinct()
        yield open_ones.join(late, id == F.col("__late"), "left_semi"), cause, None
    yield open_ones, Cause.NOT_SETTLED, "run `rejoin settle --once`"


def _changed_table(lake: Lake, differing: DataFrame, pinned: Pinned) -> Iterator[_Proof]:
    """The outcomes that were right before a commit that no lane makes."""
    streams, table = lake.streams, lake.attributed
    id = streams.outcome.id
    # Each row of an outcome has the batch row beside it.
    wanted = differing.where(F.col("batch_row").isNotNull()).dropDuplicates(["outcome_id"]).select("batch_row.*")
    # Each cut off from what it was made of: plans that contain one another grow beyond what can be planned.
    ids = differing.select(F.col("outcome_id").alias("__id")).distinct().localCheckpoint()
    for commit in _commits(lake, table, pinned.attributed_version, appends=False):
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
        yield ids.join(wrong, "__id", "left_anti").withColumnRenamed("__id", "outcome_id"), Cause.TABLE_CHANGED, commit.told
        ids = ids.join(wrong, "__id", "left_semi").localCheckpoint()


def _changed_bronze(lake: Lake, differing: DataFrame, pinned: Pinned) -> Iterator[_Proof]:
    """The outcomes whose event, or whose row's exposure, was in bronze before a commit that only takes away."""
    for stream, gone, id, _ in _without_origin(lake, differing, pinned):
        for commit in _commits(lake, stream.name, lake.version(stream.name), appends=True):
            proof = _was_there(lake, stream, commit, gone, id)
            if proof is not None:
                yield proof, Cause.BRONZE_CHANGED, f"{stream.name}: {commit.told}"


def _lost_bronze(lake: Lake, differing: DataFrame, pinned: Pinned, losses: Mapping[str, Losses]) -> Iterator[_Proof]:
    """The outcomes whose event, or whose row's exposure, is not in bronze, on a date of which data files are gone."""
    for stream, gone, _, time in _without_origin(lake, differing, pinned):
        lost = losses[stream.name]
        if lost.gone:
            yield gone.where(F.to_date(time).isin(*lost.gone_dates)), Cause.BRONZE_LOST, _told(stream.name, lost)


def _lost_table(lake: Lake, differing: DataFrame, lost: Losses) -> Iterator[_Proof]:
    """The outcomes without a row, on a date of which the table's data files are gone; or were, when a repair that has not ended
    wrote it anew."""
    missing = differing.where(F.col("class") == DiffClass.MISSING.value)
    if lost.gone:
        yield missing.where(F.col("event_date").isin(*lost.gone_dates)), Cause.TABLE_LOST, _told(lake.attributed, lost)
    anew = dates_written_anew(lake, lake.attributed)
    if anew:
        told = "a repair has let go of data files of this date that were not there"
        yield missing.where(F.col("event_date").isin(*anew)), Cause.TABLE_LOST, told


def _told(table: str, lost: Losses) -> str:
    return f"{table}: {len(lost.gone)} data files are not there, the first is {lost.gone[0]}"


def _without_origin(lake: Lake, differing: DataFrame, pinned: Pinned) -> Iterator[tuple[EventStream, DataFrame, Column, Column]]:
    """Of each stream the rows whose event, or exposure, is not in bronze as pinned; that one's id and time."""
    outcome, exposure = lake.streams.outcome, lake.streams.exposure
    row = F.col("stream_row")
    for stream, rows, id, time in (
        (outcome, pinned.outcomes, F.col("outcome_id"), row.getField(outcome.event_time)),
        (exposure, pinned.exposures, row.getField("exposure_id"), row.getField("exposure_time")),
    ):
        there = rows.select(F.col(stream.id).alias("__now"))
        yield stream, differing.where(id.isNotNull()).join(there, id == F.col("__now"), "left_anti"), id, time


def _was_there(lake: Lake, stream: EventStream, commit: ForeignCommit, gone: DataFrame, id: Column) -> DataFrame | None:
    try:
        before = lake.read(stream.name, commit.version - 1).select(F.col(stream.id).alias("__then"))
        found = gone.join(before, id == F.col("__then"), "left_semi").localCheckpoint()
        return None if found.isEmpty() else found
    except Exception as error:  # as above
        if is_gone(error):
            return None
        raise


def _other_rules(lake: Lake, differing: DataFrame, pinned: Pinned, rules: Rules) -> Iterator[_Proof]:
    """The outcomes whose row is right by a rule of the history that does not hold for them."""
    if len(rules.all) < 2:
        return
    streams = lake.streams
    names = [f.name for f in streams.exposure_columns]
    mismatched = differing.where(F.col("class") == DiffClass.MISMATCHED.value)
    events = mismatched.select(*(F.col("batch_row").getField(f.name).alias(f.name) for f in streams.outcome.schema))
    for rule in rules:
        answered = attribute(events, pinned.exposures, streams, Rules((rule.for_all(),)))
        other = answered.select(F.col(streams.outcome.id).alias("__id"), F.struct(*names).alias("__other"))
        same = [F.col("stream_row").getField(n).eqNullSafe(F.col("__other").getField(n)) for n in names]
        equal = reduce(lambda a, b: a & b, same)
        right = mismatched.join(other, F.col("outcome_id") == F.col("__id"), "inner").where(equal)
        yield (
            right.select("outcome_id"),
            Cause.CONFIGURATION_CHANGED,
            f"right by keys {', '.join(rule.keys)} within {rule.window}",
        )


def _commits(lake: Lake, table: str, through: int, *, appends: bool) -> list[ForeignCommit]:
    return foreign_commits(lake, table, through=through, appends=appends, limit=_COMMITS_LOOKED_AT)
