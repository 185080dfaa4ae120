"""What a sample of a stream's events tells of it: columns with types, what identifies an event, when it happened. No Spark.

Types are the narrowest of docs/types.md that nearly all values fit. What fits none is left out: events keep it in `rescued`.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from pipelines.config.ddl import parse_ddl
from pipelines.model.names import ATTRIBUTION_COLUMNS, BRONZE_COLUMNS, PARTITION_COLUMNS

Event = dict[str, Any]

_NEARLY_ALL = 0.9
"""Of its values; the others would go to quarantine."""
_UNIQUE = 0.95
"""Distinct ids a value: events may come twice."""
_MOST_FIELDS = 40
_RESERVED = {*BRONZE_COLUMNS, *PARTITION_COLUMNS, *ATTRIBUTION_COLUMNS}
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2})?([.,]\d{1,9})?([Zz]|[+-]\d{2}:?(\d{2})?)")
_LOCAL = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2})?([.,]\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DIGITS = re.compile(r"\d{12,13}")
_TIME_NAMES = (r"event_?time(stamp)?", r"time_?stamp|ts|time", r".*(_at|_time|_ts|timestamp|time)|at|.*date")
_MILLIS = (946_684_800_000, 4_102_444_800_000)  # 2000 to 2100
_SECONDS = (946_684_800, 4_102_444_800)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column as events have it under `key`: `type` is None where it is left out, and `note` says why, or what does not fit.
    `filled`: the share of events with a value; `distinct`: how many values there are."""

    name: str
    key: str
    type: str | None
    note: str = ""
    filled: float = 1.0
    distinct: int = 0


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream as its sample has it; `id` and `event_time` are names of columns, None where none will do, and `why` says what was
    looked for, by which."""

    name: str
    events: Sequence[Event]
    columns: tuple[Column, ...]
    id: str | None
    event_time: str | None
    why: dict[str, str]

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name and c.type), None)

    def values(self, name: str) -> list[Any]:
        """The values of a column, an item an event; null where it has none."""
        key = next(c.key for c in self.columns if c.name == name)
        return [event.get(key) for event in self.events]

    def times(self) -> list[int | None]:
        """Event times in microseconds; null where there is none."""
        return [micros_of(value) for value in self.values(self.event_time)] if self.event_time else []


def infer(name: str, events: Sequence[Event], id: str | None = None, event_time: str | None = None) -> Stream:
    """Infer a stream from a sample of events, in their order of arrival; with `id` and `event_time` where they are known."""
    columns = _columns(events)
    stream = Stream(name=name, events=events, columns=columns, id=id, event_time=event_time, why={})
    time, why_time = (event_time, "as asked for") if event_time else _event_time(stream)
    if time is not None:
        stream = replace(stream, columns=tuple(replace(c, type="TIMESTAMP") if c.name == time else c for c in columns))
    stream = replace(stream, event_time=time)
    found, why_id = (id, "as asked for") if id else _id(stream)
    return replace(stream, id=found, why={"id": why_id, "event_time": why_time})


def micros_of(value: Any) -> int | None:
    """A time as the parser reads it: ISO-8601 with offset, or epoch milliseconds."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str) and _ISO.fullmatch(value):
        text = re.sub(r"[Zz]$", "+00:00", value).replace(",", ".").replace("t", "T")
        text = re.sub(r"\.(\d{1,6})\d*", lambda m: f".{m[1]:0<6}", text)
        text = re.sub(r"([+-]\d{2})(\d{2})?$", lambda m: f"{m[1]}:{m[2] or '00'}", text) if not text.endswith(":00") else text
        try:
            return round(datetime.fromisoformat(text).astimezone(timezone.utc).timestamp() * 1e6)
        except ValueError:
            return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    # Compared as it is: an integer of JSON may be beyond every float.
    return int(value * 1000) if isinstance(value, int | float) and _MILLIS[0] <= value < _MILLIS[1] else None


def written(name: str) -> str:
    """A name as DDL has it: in backticks where it is a word of SQL."""
    try:
        parse_ddl(f"{name} STRING, x STRUCT<{name}: INT>")
    except ValueError:
        return f"`{name}`"
    return name


def type_of(values: Collection[Any]) -> tuple[str | None, str]:
    """The type of values that are not null, None where there is none; and a note.

    >>> type_of([1, 2.0])
    ('BIGINT', '')
    >>> type_of([{"a": 1}, {"a": 0.5}])
    ('STRUCT<a: DOUBLE>', '')
    >>> type_of(["2026-01-31", "2026-02-01"])
    ('DATE', '')
    """
    if not values:
        return None, "has no value in the sample"
    kinds = Counter(map(_kind, values))
    kind, count = kinds.most_common(1)[0]
    if count < _NEARLY_ALL * len(values):
        shares = ", ".join(f"{n / len(values):.0%} {each}" for each, n in kinds.most_common())
        return None, f"has values of several types ({shares})"
    found, note = _TYPES[kind]([value for value in values if _kind(value) == kind])
    others = len(values) - count
    return found, note or (f"{others:,} of {len(values):,} values are not {kind}: they go to quarantine" if others else "")


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "number", float: "number", str: "text", dict: "object", list: "list"}
    return kinds[type(value)]


def _number(values: list[Any]) -> tuple[str | None, str]:
    integral = all(isinstance(v, int) or (math.isfinite(v) and v.is_integer() and abs(v) < 2**53) for v in values)
    if not integral:
        return "DOUBLE", ""
    greatest = max(map(abs, values))
    return ("BIGINT", "") if greatest < 2**63 else ("DECIMAL(38,0)", "") if greatest < 10**38 else (None, "has too large numbers")


def _text(values: list[Any]) -> tuple[str | None, str]:
    for kind, form in (("DATE", _DATE), ("TIMESTAMP", _ISO)):
        fits = sum(form.fullmatch(value) is not None for value in values)
        if fits >= _NEARLY_ALL * len(values):
            left = len(values) - fits
            return kind, f"{left:,} of {len(values):,} values are no {kind}: they go to quarantine" if left else ""
    if all(_LOCAL.fullmatch(value) for value in values):
        return "STRING", f"times without an offset, such as {values[0]}, are of no zone: written with one, they can be TIMESTAMP"
    return "STRING", ""


def _object(values: list[Any]) -> tuple[str | None, str]:
    counts = Counter(key for value in values for key in value)
    if not counts:
        return None, "has no value in the sample"
    named = all(re.fullmatch(r"[^\W\d]\w*", key) and not key.startswith("__") for key in counts)
    if not named or len(counts) > _MOST_FIELDS or len({key.lower() for key in counts}) < len(counts):
        inner, note = type_of([item for value in values for item in value.values() if item is not None])
        return (f"MAP<STRING, {inner}>" if inner else None), note
    fields = {key: type_of([value[key] for value in values if value.get(key) is not None])[0] for key in counts}
    kept = ", ".join(f"{written(key)}: {kind}" for key, kind in fields.items() if kind)
    return (f"STRUCT<{kept}>", "") if kept else (None, "has no field with one type")


def _list(values: list[Any]) -> tuple[str | None, str]:
    inner, note = type_of([item for value in values for item in value if item is not None])
    return (f"ARRAY<{inner}>" if inner else None), note


_TYPES = {"true or false": lambda _: ("BOOLEAN", ""), "number": _number, "text": _text, "object": _object, "list": _list}


def _columns(events: Sequence[Event]) -> tuple[Column, ...]:
    columns, taken = [], set[str]()
    keys = {key: None for event in events for key in event}  # in order
    for key in keys:
        values = [event[key] for event in events if event.get(key) is not None]
        kind, note = type_of(values)
        name = re.sub(r"\W", "_", key) or "_"
        name = f"c{name}" if name[0].isdigit() or name.startswith("__") else name
        name = f"{name}_" if name.lower() in _RESERVED else name
        if name.lower() in taken:
            kind, note = None, "is another column's name but for case or signs"
        taken.add(name.lower())
        distinct = len({repr(value) for value in values})
        columns.append(Column(name=name, key=key, type=kind, note=note, filled=len(values) / len(events), distinct=distinct))
    return tuple(columns)


def _event_time(stream: Stream) -> tuple[str | None, str]:
    best: tuple[float, str, str] | None = None
    for column in stream.columns:
        rank = next((len(_TIME_NAMES) - n for n, form in enumerate(_TIME_NAMES) if re.fullmatch(form, column.name.lower())), 0)
        if column.type not in ("TIMESTAMP", "BIGINT", "STRING", "DOUBLE") or (column.type != "TIMESTAMP" and not rank):
            continue
        values = [value for value in stream.values(column.name) if value is not None]
        times = [at for value in values if (at := micros_of(value)) is not None]
        if not values or len(times) < _NEARLY_ALL * len(values) or column.filled < _NEARLY_ALL:
            continue
        rising = sum(a <= b for a, b in pairwise(times)) / max(1, len(times) - 1)
        score = rank + rising
        if best is None or score > best[0]:
            form = "ISO-8601 with offset" if column.type == "TIMESTAMP" else "epoch milliseconds"
            best = score, column.name, f"{form}, {rising:.0%} of the events not before the one ahead"
    if best is not None:
        return best[1], best[2]
    return None, _no_time(stream)


def _no_time(stream: Stream) -> str:
    for column in stream.columns:
        values = [value for value in stream.values(column.name) if value is not None]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if "without an offset" in column.note:
            return f"{column.key}: {column.note}"
        named = any(re.fullmatch(form, column.name.lower()) for form in _TIME_NAMES)
        if named and numbers and all(_SECONDS[0] <= v < _SECONDS[1] for v in numbers):
            return f"{column.key} looks like epoch seconds: write milliseconds, or ISO-8601 with offset"
    return "no column has ISO-8601 times with offset, or epoch milliseconds and the name of a time"


def _id(stream: Stream) -> tuple[str | None, str]:
    own = stream.name.lower().removesuffix("s")
    best: tuple[float, Column] | None = None
    for column in stream.columns:
        plain = column.type in ("STRING", "BIGINT") or (column.type or "").startswith("DECIMAL")
        if not plain or column.name == stream.event_time or column.filled < _NEARLY_ALL:
            continue
        unique = column.distinct / (column.filled * len(stream.events))
        if unique < _UNIQUE:
            continue
        name = column.name.lower()
        rank = 4 * (name == f"{own}_id") or 3 * (name == "id") or 2 * name.endswith(("_id", "id")) or 1 * name.endswith("key")
        if best is None or rank + unique > best[0]:
            best = rank + unique, column
    if best is None:
        return None, f"no column of text or integers has a value of its own in {_UNIQUE:.0%} of the events"
    column = best[1]
    repeated = round(column.filled * len(stream.events)) - column.distinct
    return (
        column.name,
        f"{column.distinct:,} distinct values, {repeated:,} of them more than once" if repeated else "all distinct",
    )
