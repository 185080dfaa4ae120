"""DESIGN section 2 in plain Python. Shares no code with the pipeline: not even the configuration.

Events are dictionaries as they were sent, all of them acceptable, `event_time` in ISO-8601 UTC or epoch milliseconds. The
answer is a dictionary by outcome id of rows with times in microseconds since the epoch.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def micros(time: str | int) -> int:
    if isinstance(time, int):
        return time * 1000
    return (datetime.fromisoformat(time.replace("Z", "+00:00")) - EPOCH) // timedelta(microseconds=1)


def attribute(
    outcomes: Iterable[dict[str, Any]],
    exposures: Iterable[dict[str, Any]],
    *,
    window: timedelta,
    outcome_id: str = "playback_id",
    exposure_id: str = "impression_id",
    outcome_time: str = "event_time",
    exposure_time: str = "event_time",
    keys: tuple[str, ...] = ("profile_id", "title_id"),
    carry: tuple[str, ...] = ("row_id", "position", "device", "model_version"),
) -> dict[Any, dict[str, Any]]:
    shown = defaultdict(list)
    for exposure in exposures:
        key = tuple(exposure.get(k) for k in keys)
        if None not in key:
            shown[key].append(exposure)
    chosen: dict[Any, dict[str, Any]] = {}
    for outcome in outcomes:
        known = chosen.get(outcome[outcome_id])
        if known is None or _event_rank(outcome, outcome_time) < _event_rank(known, outcome_time):
            chosen[outcome[outcome_id]] = outcome
    rows = {}
    reach = window // timedelta(microseconds=1)
    for id, outcome in chosen.items():
        at = micros(outcome[outcome_time])
        key = tuple(outcome.get(k) for k in keys)
        matches = [e for e in shown.get(key, ()) if at - reach <= micros(e[exposure_time]) <= at]
        best = max(matches, key=lambda e: _exposure_rank(e, exposure_time, exposure_id, carry), default=None)
        row = {**outcome, outcome_time: at}
        row["exposure_id"] = best[exposure_id] if best else None
        row["exposure_time"] = micros(best[exposure_time]) if best else None
        row.update({f"exposure_{c}": best.get(c) if best else None for c in carry})
        row["event_date"] = str((EPOCH + timedelta(microseconds=at)).date())
        rows[id] = row
    return rows


def of_waves(waves: Iterable[tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> dict[Any, dict[str, Any]]:
    """Of impressions and playbacks of several waves, over the default configuration's window."""
    impressions, playbacks = ([event for events in side for event in events] for side in zip(*waves, strict=True))
    return attribute(playbacks, impressions, window=timedelta(hours=6))


def _event_rank(event: dict[str, Any], time: str) -> tuple[int, str]:
    return micros(event[time]), json.dumps(event, sort_keys=True, separators=(",", ":"))


def _exposure_rank(event: dict[str, Any], time: str, id: str, carry: tuple[str, ...]) -> tuple[Any, ...]:
    # None before every value, as Spark orders nulls in structs.
    return (micros(event[time]), event[id], *((event.get(c) is not None, event.get(c)) for c in carry))
