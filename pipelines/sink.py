"""The one keyed writer of attributed rows (DESIGN section 3.4). Every lane writes through it.

A *candidate* is an outcome with one exposure that it may be attributed to, or with none. For each outcome id within an
event date the table keeps

1. the outcome's event that comes first by (event time, canonical JSON), and
2. of the exposures offered to that event, the greatest by (time, id, carried values).

Both are choices of an extreme: associative, commutative, idempotent. So a replay, a duplicate, two lanes meeting or any
order of writes ends in the same row, and no bookkeeping is needed for that. Only `replace`, which reconcile's repair uses,
may take an exposure away again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import Column, DataFrame, Observation, Window
from pyspark.sql import functions as F

from pipelines.config.streams import rule_of
from pipelines.control.rule import require_same_rule
from pipelines.lake.files import USER_METADATA
from pipelines.lake.merge import merge
from pipelines.lake.tables import Lake, at, column_list
from pipelines.model.events import Streams
from pipelines.model.rule import PROPERTY
from pipelines.session import behind_connect, on_databricks, set_within

# The source of a MERGE is materialised already: Delta would do it once more. Databricks refuses to be told so.
_MATERIALISED = {"spark.databricks.delta.merge.materializeSource": "none"}


@dataclass(frozen=True)
class SinkResult:
    """Rows inserted and updated; seconds in all, and of them the seconds of the MERGE. The rest is the candidates' own plan."""

    inserted: int
    updated: int
    seconds: float
    merge_seconds: float = 0.0


class AttributedSink:
    """Writes candidates into `attributed_<outcome stream>` of one lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.streams = lake.streams

    def write(
        self,
        candidates: DataFrame,
        *,
        lane: str,
        metadata: Mapping[str, Any] | None = None,
        stamp: int | None = None,
        first_events: bool = False,
    ) -> SinkResult:
        """Merge candidates (columns of `candidate_schema`, any number for an outcome) in one commit; `first_events` as for
        `resolve`.

        The plan of `candidates` is executed fully, exactly once, before the table is touched: a stateful plan needs that
        also where there is nothing to write. It is cut off from what it wrote: a block that is lost fails the write, and runs
        no stateful plan again. `metadata` is committed with the rows; `stamp` (microseconds) is the `updated_at` of those that
        change, the time of the commit if None.
        """
        clock, observation = time.monotonic(), Observation()
        resolved = resolve(candidates, self.streams, first_events=first_events)
        dates_of = F.collect_set(F.col("event_date").cast("string")).alias("dates")
        updates = resolved.observe(observation, dates_of).localCheckpoint(eager=True)
        # Of a checkpoint, Spark Connect does not report what was observed.
        apart = behind_connect(updates.sparkSession)
        dates = sorted(_dates(updates) if apart else observation.get["dates"])
        inserted = updated = 0
        merging = time.monotonic()
        if dates:
            inserted, updated = self._merge(updates, lane, dates, stamp, metadata or {})
        merged = time.monotonic()
        return SinkResult(inserted, updated, merged - clock, merged - merging)

    def _merge(
        self, updates: DataFrame, lane: str, dates: list[str], stamp: int | None, metadata: Mapping[str, Any]
    ) -> tuple[int, int]:
        streams, outcome = self.streams, self.streams.outcome
        new_event, old_event = outcome.event_rank("s."), outcome.event_rank("t.")
        new_exposure, old_exposure = streams.exposure_rank("s."), streams.exposure_rank("t.")
        fresh = [f.name for f in streams.exposure_columns] + ["attributed_by", "updated_at"]
        names = streams.attributed_schema.names
        # Columns that were carried once are null in rows that are attributed again.
        retired = [name for name in self.lake.columns(self.lake.attributed) if name.startswith("exposure_") and name not in names]
        clauses = f"""
            WHEN MATCHED AND {new_event} < {old_event} THEN UPDATE SET {_assignments(names, retired)}
            WHEN MATCHED AND {new_event} = {old_event} AND s.exposure_time IS NOT NULL
              AND (t.exposure_time IS NULL OR {new_exposure} > {old_exposure}) THEN UPDATE SET {_assignments(fresh, retired)}
            WHEN NOT MATCHED THEN INSERT ({column_list(names)}) VALUES ({column_list(names, "s.")})
        """
        keys = f"t.event_date = s.event_date AND t.`{outcome.id}` = s.`{outcome.id}`"
        literals = ", ".join(f"DATE'{date}'" for date in dates)
        when = F.current_timestamp() if stamp is None else at(stamp)
        stamped = updates.withColumn("attributed_by", F.lit(lane)).withColumn("updated_at", when)
        own = rule_of(self.lake.config)
        settings = {} if on_databricks() else _MATERIALISED
        details = json.dumps({**metadata, PROPERTY: own.as_dict()}, sort_keys=True)
        with set_within(updates.sparkSession, {**settings, USER_METADATA: details}):
            again = partial(require_same_rule, self.lake, self.lake.config)
            condition = f"t.event_date IN ({literals}) AND {keys}"
            return merge(self.lake, self.lake.attributed, stamped, condition, clauses, again=again)


def _dates(updates: DataFrame) -> list[str]:
    return [str(row[0]) for row in updates.select("event_date").distinct().collect()]


def resolve(candidates: DataFrame, streams: Streams, *, first_events: bool = False) -> DataFrame:
    """Candidates to one row for each (event date, outcome id): rules 1 and 2 above, plus the partition columns. With
    `first_events`, rule 1 has been applied already: all candidates of an id on one date are of the same event."""
    outcome = streams.outcome
    events = [] if first_events else [F.expr(outcome.event_rank()).asc()]
    greatest = F.expr(streams.exposure_rank()).desc_nulls_last()
    placed = candidates.select("*", *outcome.partition_values())
    return _first(placed, outcome.id, [*events, greatest]).select(*candidates.columns, *outcome.partition_columns)


def first_events(events: DataFrame, streams: Streams) -> DataFrame:
    """Of outcome events those that count by rule 1: one for each (event date, outcome id)."""
    outcome = streams.outcome
    placed = events.select("*", *outcome.partition_values())
    return _first(placed, outcome.id, [F.expr(outcome.event_rank()).asc()]).select(*events.columns)


def _first(rows: DataFrame, identity: str, order: list[Column]) -> DataFrame:
    # One sort. An aggregation of structs would sort too, before and after its shuffle.
    place = Window.partitionBy(identity, "event_date").orderBy(*order)
    return rows.withColumn("__rank", F.row_number().over(place)).where("__rank = 1")


def _assignments(names: list[str], nulled: list[str]) -> str:
    return ", ".join([*(f"t.`{name}` = s.`{name}`" for name in names), *(f"t.`{name}` = NULL" for name in nulled)])
