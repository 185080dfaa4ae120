"""Which configuration is in force for which outcomes.

What an outcome's answer depends on may change under a running pipeline: the keys, the attribution window, the carried columns.
A change holds for the outcomes after it: those whose event time lies above the greatest one that had landed when a lane first
started with it. Whatever comes later for an outcome at or before that time, late events or a repair, is judged as the outcome
was: so a row is a function of the events and of this history, and no row has to be computed again.

The history is in the ledger: one entry of the query `configuration` a change, written once, by the lane that starts first.
What a change must not touch, because rows are known and placed by it (ids, event times, partitions, the streams' names), is
refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog
from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.durations import format_duration, parse_duration
from pipelines.errors import LakeError, RejoinError
from pipelines.instants import iso
from pipelines.lake import Lake, at
from pipelines.observe.ledger import Entry, Ledger

QUERY = "configuration"

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the outcomes with `after < event_time <= until` (microseconds; None: unbounded) are attributed."""

    keys: tuple[str, ...]
    window: timedelta
    carry: tuple[str, ...]
    after: int | None = None
    until: int | None = None

    def holds(self, event_time: Column) -> Column:
        above = F.lit(True) if self.after is None else event_time > at(self.after)
        return above if self.until is None else above & (event_time <= at(self.until))

    def for_all(self) -> "Rule":
        """The same for outcomes of any time."""
        return replace(self, after=None, until=None)


@dataclass(frozen=True)
class Rules:
    """The rules of all outcomes, in order of time; the last is the one that new outcomes meet."""

    all: tuple[Rule, ...]

    @classmethod
    def of(cls, config: Config) -> "Rules":
        """One rule for all outcomes."""
        return _rules([Change(definition=definition(config))])

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.all)

    @property
    def current(self) -> Rule:
        return self.all[-1]

    @property
    def longest(self) -> timedelta:
        """The longest attribution window of any."""
        return max(rule.window for rule in self.all)

    def rule_for(self, event_time: int) -> Rule:
        """The one that holds for an event time (microseconds)."""
        return next(r for r in self.all if r.until is None or event_time <= r.until)

    def between(self, first: int, last: int) -> "Rules":
        """Those that hold for some event time in the interval (microseconds, inclusive)."""
        reach = (r for r in self.all if (r.after is None or r.after < last) and (r.until is None or r.until >= first))
        return Rules(tuple(reach))


@dataclass(frozen=True, kw_only=True)
class Change:
    """One entry of the history: a configuration, and the outcomes that it holds for (`after`, as in `Rule`)."""

    definition: Mapping[str, Any]
    after: int | None = None

    @property
    def rule(self) -> Rule:
        keys, window, carry = (self.definition[f"join.{name}"] for name in ("keys", "attribution_window", "carry"))
        return Rule(keys=tuple(keys), window=parse_duration(window), carry=tuple(carry), after=self.after)


def rules_in_force(lake: Lake, config: Config) -> Rules:
    """What the ledger says; where it says nothing, this configuration for all outcomes."""
    history = _history(lake)
    return _rules(history) if history else Rules.of(config)


def put_in_force(lake: Lake, config: Config, *tables: str) -> Rules:
    """At the start of a lane: judge this configuration, make the tables what it says, and record it where it is not the one in
    force; tell what has changed.

    Raises LakeError, before anything is touched, for a change that is refused.
    """
    history = _history(lake) if lake.exists("ledger") else []
    now = definition(config)
    before = history[-1].definition if history else now
    _refuse(before, now)
    known = bool(history) and before == now
    since = lake.max_event_time(lake.streams.outcome) if history and not known else None
    rules = _rules(history if known else [*history, Change(definition=now, after=since)])
    _require_columns(lake, rules)
    lake.ensure("ledger", *tables)
    if known:
        return rules
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    changed = [f"{key}: {_text(before.get(key))} -> {_text(now.get(key))}" for key in differing]
    number = len(history)
    entry = Entry(query=QUERY, batch=number, detail={"definition": now, "after": since, "changed": changed})
    # Two lanes that start at once write the same number: one of them finds it taken, and what it would have said, said.
    Ledger(lake).write([entry], transaction=(QUERY, number))
    if changed:
        log.info("configuration changed", changed=changed, for_outcomes_after=iso(since))
    history = _history(lake)
    _require_own(history, config)
    return _rules(history)


def require_in_force(lake: Lake, config: Config) -> None:
    """Raise RejoinError where another process has put other rules in force since this one started."""
    _require_own(_history(lake), config)


def _require_own(history: Sequence[Change], config: Config) -> None:
    own = Change(definition=definition(config)).rule
    if history and _judges_as(history[-1].rule) != _judges_as(own):
        raise RejoinError("the configuration was changed by another process since this one started: start it again with the same")


def _history(lake: Lake) -> list[Change]:
    found = Ledger(lake).entries(QUERY)
    numbered = {entry["batch"]: entry["detail"] for entry in found}
    return [Change(definition=numbered[n]["definition"], after=numbered[n]["after"]) for n in sorted(numbered)]


def _rules(history: Sequence[Change]) -> Rules:
    """Each rule ends where the next begins; what changes nothing for an outcome, or holds for none, makes no rule."""
    rules: list[Rule] = []
    for change in history:
        rule = change.rule
        if rules and _judges_as(rules[-1]) == _judges_as(rule):
            continue
        if rules and rules[-1].after == rule.after:
            rules.pop()
        elif rules:
            rules[-1] = replace(rules[-1], until=rule.after)
        rules.append(rule)
    return Rules(tuple(rules))


def _judges_as(rule: Rule) -> tuple[Any, ...]:
    return rule.keys, rule.window, rule.carry


def definition(config: Config) -> dict[str, Any]:
    """What is recorded of a configuration, by key path: all that an answer, a table or the join's state depends on."""
    join = config.join
    values: dict[str, Any] = {
        "join.keys": list(join.keys),
        "join.attribution_window": format_duration(join.attribution_window),
        "join.carry": list(join.carry),
        "join.hot_window": format_duration(join.hot_window),
        "join.watermark_delay": format_duration(join.watermark_delay),
    }
    for name, stream in config.streams.items():
        values[f"streams.{name}.schema"] = [f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in stream.columns]
        values[f"streams.{name}.role"] = stream.role
        values[f"streams.{name}.id"] = stream.id
        values[f"streams.{name}.event_time"] = stream.event_time
        values[f"streams.{name}.partition_by"] = stream.partition_by or config.partition_by
    return values


def _refuse(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    fixed = [key for key in sorted({*before, *now}) if key.rpartition(".")[2] in ("role", "id", "event_time", "partition_by")]
    for key in fixed:
        if before.get(key) != now.get(key):
            raise LakeError(
                f"{key}: was {_text(before.get(key))} when this lake was made, now {_text(now.get(key))}; its rows are known and "
                "placed by that, so set it back, or use another lake"
            )


def _require_columns(lake: Lake, rules: Rules) -> None:
    """Late events of outcomes under an earlier rule are matched by that rule's keys."""
    for stream in lake.declared.both:
        for key in (key for rule in rules for key in rule.keys):
            if key not in stream.schema.names:
                raise LakeError(
                    f"streams.{stream.name}.schema: column {key} has gone, but outcomes before the change are matched by it; "
                    "leave it in the schema, without NOT NULL"
                )


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    return ", ".join(value) if isinstance(value, list) else str(value)
