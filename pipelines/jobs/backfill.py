"""Backfill: attribute landed outcomes again by the configuration's rule, one commit an event date.

It is what a change of rule needs (DESIGN section 6), and how a date is computed again. The answer is the one that reconcile
compares with (`pipelines.reconcile.compare.batch`). Restartable: dates that a backfill has written are not written again.
"""

from collections.abc import Iterator
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.streams import rule_of
from pipelines.context import Context, open_context
from pipelines.control.position import BACKFILL
from pipelines.control.rule import register_rule, registered_rule
from pipelines.jobs.settle import open_settle
from pipelines.lake.retry import conflict_retries
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError
from pipelines.model.rule import PROPERTY, RegisteredRule, Rule
from pipelines.reconcile.compare.batch import attribute, outcome_events
from pipelines.reconcile.span import Range


def backfill(lake: Lake, config: Config, first: date, last: date | None) -> Iterator[str]:
    """Write the dates from `first` to `last` (inclusive; None: to the last with outcomes); a line for each.

    Where the configuration has another rule than the output table, that rule is registered, and `last` must be None: from `first`
    on the table is then a function of the events and the new rule. Raises ConfigError where `last` is given with a new rule.
    """
    with open_context(lake, config) as context:
        own = rule_of(config)
        lake.ensure(*(stream.name for stream in lake.streams.both), lake.attributed)
        known = registered_rule(lake)
        changed = known is not None and (known.rule != own or known.backfilling)
        if changed and last is not None:
            raise ConfigError("--to: cannot go with a change of rule, which holds for every later date; leave it out")
        if known is not None and known.backfilling and known.rule == own and known.since and first > known.since:
            raise ConfigError(f"--from: {first} lies after {known.since}, from which on a backfill has begun; run it from there")
        begun = _begin(lake, own, first, known)
        written = _written(lake, own, begun)
        dates = _dates(lake, first, last)
        for day in dates:
            if day in written:
                yield f"{day}: written before"
                continue
            yield f"{day}: {_write(context, own, day):,} outcomes"
        if changed or known is None:
            # Of a lane that still ran with another rule meanwhile, rows may have come after a date was written. It stops within a
            # minute (`Context.tick`), so this ends.
            seen, now = begun, lake.version(lake.attributed)
            while others := sorted(_written_by_others(lake, own, seen) & set(dates)):
                seen, now = now, lake.version(lake.attributed)
                for day in others:
                    yield f"{day}: {_write(context, own, day):,} outcomes, again: a lane wrote by another rule"
            register_rule(lake, RegisteredRule(rule=own, since=first if changed else None))
        elif known.since is not None and first < known.since and (last is None or last >= known.since - timedelta(days=1)):
            register_rule(lake, RegisteredRule(rule=own, since=first))
        # What the dates were computed from, settle has seen: reconcile compares with that.
        open_settle(context).run()
        yield f"{len(dates)} dates by {', '.join(own.keys)} within {config.join.attribution_window}"


def _begin(lake: Lake, own: Rule, first: date, known: RegisteredRule | None) -> int:
    """Register that a backfill to this rule has begun; the version from which on its commits count."""
    if known is not None and known.rule == own:
        if not known.backfilling:
            return lake.version(lake.attributed)
        return next((c.version for c in lake.newest_commits(lake.attributed) if c.operation == "SET TBLPROPERTIES"), 0)
    register_rule(lake, RegisteredRule(rule=own, since=first, backfilling=True))
    return lake.version(lake.attributed)


def _written(lake: Lake, own: Rule, begun: int) -> set[date]:
    """The dates that commits after a version have written by this rule."""
    found = (commit.ours(BACKFILL) for commit in lake.commits(lake.attributed, begun))
    return {date.fromisoformat(each["date"]) for each in found if each and each["rule"] == own.as_dict()}


def _written_by_others(lake: Lake, own: Rule, begun: int) -> set[date]:
    """The event dates of rows that lanes wrote after a version by another rule."""
    others = [c for c in lake.commits(lake.attributed, begun) if (c.ours(PROPERTY) or own.as_dict()) != own.as_dict()]
    if not others:
        return set()
    since = F.timestamp_micros(F.lit(min(commit.at for commit in others) - 60_000_000))
    rows = lake.read(lake.attributed).where((F.col("updated_at") >= since) & (F.col("attributed_by") != "repair"))
    return {row[0] for row in rows.select("event_date").distinct().collect()}


def _dates(lake: Lake, first: date, last: date | None) -> list[date]:
    """The event dates of landed outcomes and of rows, in order."""
    found = set[date]()
    for table in (lake.streams.outcome.name, lake.attributed):
        dates = lake.read(table).where(Range(first=first, last=last).holds(F.col("event_date")))
        found |= {row[0] for row in dates.select("event_date").distinct().collect()}
    return sorted(found)


def _write(context: Context, rule: Rule, day: date) -> int:
    """Replace one date of the output table by the batch answer, in one commit; the number of outcomes."""
    lake = context.lake
    where = f"event_date = DATE'{day}'"
    metadata = {BACKFILL: {"date": str(day), "rule": rule.as_dict()}, PROPERTY: rule.as_dict()}
    for attempt in conflict_retries():
        with attempt:
            rows = _answers(lake, rule, day).persist()
            try:
                count = rows.count()
                lake.replace(lake.attributed, rows, where, metadata=metadata)
            finally:
                rows.unpersist()
    return count


def _answers(lake: Lake, rule: Rule, day: date) -> DataFrame:
    """The rows of an event date: of the outcomes whose event, among all of their id, lies on it."""
    streams, outcome = lake.streams, lake.streams.outcome
    here = lake.read(outcome.name).where(F.col("event_date") == F.lit(day))
    # Of ids with events on other dates too, the first event counts, wherever it lies.
    ids = here.select(outcome.id).distinct()
    events = outcome_events(lake.read(outcome.name).join(ids, outcome.id, "left_semi"), streams)
    events = events.where(F.to_date(outcome.event_time) == F.lit(day)).drop("__versions")
    reach = Range(first=day, last=day).reaching_back(rule.window)
    exposures = lake.read(streams.exposure.name).where(reach.holds(F.col("event_date")))
    answered = attribute(events, exposures, streams, rule)
    lane, at = F.lit("repair").alias("attributed_by"), F.current_timestamp().alias("updated_at")
    rows = answered.select("*", lane, at, *outcome.partition_values())
    return rows.select(*streams.attributed_schema.names)
