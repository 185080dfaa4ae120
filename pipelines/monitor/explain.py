"""Why the row of one outcome is what it is."""

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from pipelines.config.model import Config, StreamConfig
from pipelines.config.streams import rule_of
from pipelines.control.facts import facts_in
from pipelines.lake.reader import Condition, TableReader, require, rows_of
from pipelines.model.durations import format_duration, micros
from pipelines.model.errors import RejoinError
from pipelines.model.format import visible
from pipelines.model.rule import Rule
from pipelines.model.time import EPOCH, iso

_SHOWN = 20
_INTEGERS = {"TINYINT", "SMALLINT", "INT", "BIGINT"}
_FILTERED = {"STRING", *_INTEGERS}

Row = Mapping[str, Any]


def explain(reader: TableReader, config: Config, outcome_id: str) -> str:
    """The outcome's events as landed, its row, the exposures that match it, and what is still open. Raises RejoinError."""
    outcome = config.outcome
    name, exposures = config.stream_name("outcome"), config.stream_name("exposure")
    attributed = f"attributed_{name}"
    require(reader, name, exposures, attributed)
    identity = _typed(outcome_id, _type(outcome, outcome.id))
    wanted: list[Condition] = [(outcome.id, "=", identity)]
    landed = [] if identity is None else rows_of(reader.scan(name, None, wanted))
    if not landed:
        raise RejoinError(f"{outcome_id}: no event of {name} has this {outcome.id}; is it in quarantine?")
    landed.sort(key=lambda event: int(event[outcome.event_time]))
    first, rule = landed[0], rule_of(config)
    lines = [f"{name} {outcome_id}", "", "events as landed"]
    for event in landed:
        met = f"the stream's watermark was {iso(event['door_watermark'])}" if event["door_watermark"] else "the first commit"
        late = "late" if event["late"] else "on time"
        lines.append(f"  {iso(event[outcome.event_time])}  {late} ({met}), from {event['source']}")
    lines += ["", "row in the table"]
    lines += [f"  {_describe(row)}" for row in rows_of(reader.scan(attributed, None, wanted))] or ["  none yet"]
    lines += ["", f"exposures with the same {', '.join(rule.keys)} within {format_duration(rule.window)} before it"]
    lines += [f"  {_candidate(row, config)}" for row in _matches(reader, config, rule, first)] or ["  none"]
    lines += ["", _state(reader, first[outcome.event_time])]
    return "\n".join(map(visible, lines))


def _matches(reader: TableReader, config: Config, rule: Rule, event: Row) -> list[dict[str, Any]]:
    """The exposures that match the event, the answer first, each with `__behind`: microseconds before it."""
    exposure, at = config.exposure, event[config.outcome.event_time]
    if any(event[key] is None for key in rule.keys):
        return []
    since, until = (EPOCH + timedelta(microseconds=micros_at) for micros_at in (at - micros(rule.window), at))
    times: list[Condition] = [("event_date", ">=", since.date()), ("event_date", "<=", until.date())]
    times += [(exposure.event_time, ">=", since), (exposure.event_time, "<=", until)]
    keys = [(key, "=", event[key]) for key in rule.keys if _type(exposure, key) in _FILTERED]
    found = rows_of(reader.scan(config.stream_name("exposure"), None, [*times, *keys]))
    found = [row for row in found if all(row[key] == event[key] for key in rule.keys)]
    found.sort(key=lambda row: _ordered([row[name] for name in (exposure.event_time, exposure.id, *rule.carry)]), reverse=True)
    return [{**row, "__behind": at - row[exposure.event_time]} for row in found[:_SHOWN]]


def _ordered(value: Any) -> Any:
    """As Spark compares structs: nulls smallest, fields in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return (value is not None, tuple(map(_ordered, value)) if isinstance(value, list) else value)


def _typed(text: str, kind: str) -> str | int | Decimal | None:
    """A value of an id column's type; None for a text that cannot be one."""
    try:
        return int(text) if kind in _INTEGERS else Decimal(text) if kind.startswith("DECIMAL") else text
    except (ValueError, InvalidOperation):
        return None


def _type(stream: StreamConfig, name: str) -> str:
    column = stream.column(name)
    return column.type if column else ""


def _candidate(row: Row, config: Config) -> str:
    where = "hot" if row["__behind"] <= micros(config.join.hot_window) else "from the lake"
    time, identity = iso(row[config.exposure.event_time]), row[config.exposure.id]
    return f"{time}  {identity}  {row['__behind'] / 1e6:,.3f} s before, {where}{', late' if row['late'] else ''}"


def _describe(row: Row) -> str:
    times = {name: iso(row[name]) for name in ("exposure_time", "updated_at")}
    values = {name: times.get(name, value) for name, value in row.items() if name.startswith("exposure_") and value is not None}
    answer = ", ".join(f"{name}={value}" for name, value in values.items()) or "unattributed"
    day: date = row["event_date"]
    return f"{day}: {answer}; by {row['attributed_by']} at {times['updated_at']}"


def _state(reader: TableReader, event_time: int) -> str:
    facts = facts_in(reader)
    if facts.horizon is None or event_time > facts.horizon:
        return "pending: the join's horizon has not reached it; only `settle --all` answers earlier"
    if facts.settled.horizon is None or event_time > facts.settled.horizon:
        return "joined, and not settled yet: run `rejoin settle --once`"
    return "final, unless a late event arrives for it"
