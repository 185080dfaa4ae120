"""Why the row of one outcome is what it is."""

from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from pipelines.bookkeeping import last_settled
from pipelines.config import Config
from pipelines.durations import format_duration, micros
from pipelines.errors import RejoinError
from pipelines.inforce import Rule, rules_in_force
from pipelines.lake import Lake, as_text_times
from pipelines.observe.ledger import Ledger

_SHOWN = 20


def explain(lake: Lake, config: Config, outcome_id: str) -> str:
    """The outcome's events as landed, its row, the exposures that match it, and what is still open. Raises RejoinError."""
    streams = lake.streams
    outcome, exposure = streams.outcome, streams.exposure
    lake.require(outcome.name, exposure.name, lake.attributed)
    kind = outcome.schema[outcome.id].dataType
    wanted = F.lit(outcome_id).try_cast(kind)
    landed = lake.read(outcome.name).where(F.col(outcome.id) == wanted)
    first = landed.select(F.unix_micros(F.min(outcome.event_time))).collect()[0][0]
    if first is None:
        raise RejoinError(f"{outcome_id}: no event of {outcome.name} has this {outcome.id}; is it in quarantine?")
    rows = as_text_times(lake.read(lake.attributed).where(F.col(outcome.id) == wanted)).collect()
    lines = [f"{outcome.name} {outcome_id}", "", "events as landed"]
    for event in as_text_times(landed).orderBy(outcome.event_time).collect():
        met = f"the door's watermark was {event['door_watermark']}" if event["door_watermark"] else "the first commit"
        lines.append(f"  {event[outcome.event_time]}  {'late' if event['late'] else 'on time'} ({met}), from {event['source']}")
    lines += ["", "row in the table"]
    lines += [f"  {_describe(row)}" for row in rows] or ["  none yet"]
    rule = rules_in_force(lake, config).rule_for(first)
    lines += ["", f"exposures with the same {', '.join(rule.keys)} within {format_duration(rule.window)} before it"]
    found = _matches(lake, landed, rule).collect()
    lines += [f"  {_candidate(row, exposure.id, exposure.event_time, config)}" for row in found] or ["  none"]
    lines += ["", _standing(lake, first)]
    return "\n".join(lines)


def _matches(lake: Lake, landed: DataFrame, rule: Rule) -> DataFrame:
    """The exposures that match the first of the landed events, the answer first."""
    streams = lake.streams.under(rule.keys, rule.carry)
    exposure, outcome = streams.exposure, streams.outcome
    one = landed.orderBy(outcome.event_time).limit(1)
    asked = one.select(*outcome.keys_aside(), F.unix_micros(outcome.event_time).alias("__at"))
    rows = lake.read(exposure.name)
    behind = F.col("__at") - F.unix_micros(F.col(exposure.event_time))
    matches = (behind >= 0) & (behind <= F.lit(micros(rule.window))) & exposure.same_keys()
    found = rows.join(F.broadcast(asked), matches, "inner").select(*rows.columns, behind.alias("__behind"))
    best = found.orderBy(F.col("__behind"), F.desc(exposure.id), *(F.desc_nulls_last(c) for c in rule.carry))
    return as_text_times(best.limit(_SHOWN))


def _candidate(row: Row, identity: str, event_time: str, config: Config) -> str:
    where = "hot" if row["__behind"] <= micros(config.join.hot_window) else "from the lake"
    return f"{row[event_time]}  {row[identity]}  {row['__behind'] / 1e6:,.3f} s before, {where}{', late' if row['late'] else ''}"


def _describe(row: Row) -> str:
    values: dict[str, Any] = {k: v for k, v in row.asDict().items() if k.startswith("exposure_") and v is not None}
    answer = ", ".join(f"{k}={v}" for k, v in values.items()) or "unattributed"
    return f"{row['event_date']}: {answer}; by {row['attributed_by']} at {row['updated_at']}"


def _standing(lake: Lake, event_time: int) -> str:
    horizon, settled = Ledger(lake).horizon(), last_settled(lake)
    if horizon is None or event_time > horizon:
        return "pending: the join's horizon has not reached it; only `settle --all` answers earlier"
    if settled.horizon is None or event_time > settled.horizon:
        return "joined, and not settled yet: run `rejoin settle --once`"
    return "final, unless a late event arrives for it"
