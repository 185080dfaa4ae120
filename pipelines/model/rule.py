"""The attribution rule: what an outcome's answer depends on (DESIGN section 6, "Changing a running pipeline")."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from pipelines.model.durations import format_duration, parse_duration

PROPERTY = "rejoin.rule"
"""The property of the output table that has a `RegisteredRule`."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Keys that must be equal, the attribution window (ends inclusive), the carried columns in the order that breaks ties."""

    keys: tuple[str, ...]
    window: timedelta
    carry: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Rule":
        """Read what `as_dict` gives."""
        keys, window, carry = (values[name] for name in ("join.keys", "join.attribution_window", "join.carry"))
        return cls(keys=tuple(keys), window=parse_duration(window), carry=tuple(carry))

    def as_dict(self) -> dict[str, Any]:
        """By key path of the configuration, JSON-ready."""
        window = format_duration(self.window)
        return {"join.keys": list(self.keys), "join.attribution_window": window, "join.carry": list(self.carry)}

    def differences(self, now: "Rule") -> list[str]:
        """What differs from this rule in another, by key path: `join.attribution_window: 6h -> 3h`."""
        before, after = self.as_dict(), now.as_dict()
        return [f"{key}: {_text(before[key])} -> {_text(after[key])}" for key in before if before[key] != after[key]]


@dataclass(frozen=True, kw_only=True)
class RegisteredRule:
    """The rule that an output table's rows are attributed by.

    `since` is the first event date (UTC) that a backfill attributed by it; earlier dates may have rows of an earlier rule, so
    reconcile does not judge them. None: the rule holds for every date. `backfilling`: a backfill to it has begun and not ended.
    """

    rule: Rule
    since: date | None = None
    backfilling: bool = False

    def as_json(self) -> str:
        since = None if self.since is None else str(self.since)
        return json.dumps({**self.rule.as_dict(), "since": since, "backfilling": self.backfilling}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "RegisteredRule":
        values = json.loads(text)
        since = values.get("since")
        return cls(
            rule=Rule.from_dict(values),
            since=None if since is None else date.fromisoformat(since),
            backfilling=bool(values.get("backfilling")),
        )


def _text(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
