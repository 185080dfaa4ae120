"""From two inferred streams to a configuration: which is the outcome, which columns are the keys, each with its evidence."""

import json
import re
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import yaml

from pipelines.config.infer import Stream, written
from pipelines.model.errors import RejoinError

_SHARED = 0.3
"""Of the values of a key in the one stream, as many are in the other."""
_FEW = 10
"""A column with fewer values tells events apart too little to be a key."""
_HOURS = (0.5, 6, 24)
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """`within`: of the outcomes, the share with an exposure of equal keys in so many hours before; `backwards`, in the
    longest, were the roles exchanged. `why`: of each shared column, why it is a key or is not."""

    exposure: Stream
    outcome: Stream
    keys: tuple[str, ...]
    carry: tuple[str, ...]
    within: dict[float, float]
    backwards: float
    why: dict[str, str]


def propose(streams: Sequence[Stream], keys: Sequence[str] = (), outcome: str | None = None) -> Proposal:
    """Propose roles and keys; `keys` and the name of the `outcome` stream where they are known. Raises RejoinError, with what to
    give, where the samples do not tell."""
    for stream in streams:
        for what, option in (("id", "--id"), ("event_time", "--event-time")):
            if getattr(stream, what) is None:
                raise RejoinError(f"{stream.name}: no {what} found ({stream.why[what]}); name it: {option} {stream.name}=COLUMN")
            _require(option, getattr(stream, what), stream)
    found, why = _keys(*streams)
    chosen = tuple(keys) or found
    if not chosen:
        told = "; ".join(f"{name}: {text}" for name, text in why.items()) or "the two have no column in common"
        raise RejoinError(f"no keys found ({told}); name them: --keys COLUMN,COLUMN")
    for name in chosen:
        for stream in streams:
            _require("--keys", name, stream)
    forward, backward = (_within(a, b, chosen) for a, b in (streams, streams[::-1]))
    longest = max(_HOURS)
    if outcome is None:
        fewer = len(streams[0].events) >= len(streams[1].events)
        swap = forward[longest] < backward[longest] if forward[longest] != backward[longest] else not fewer
    else:
        swap = outcome == streams[0].name
    exposure, result = streams[::-1] if swap else streams
    return Proposal(
        exposure=exposure,
        outcome=result,
        keys=chosen,
        carry=_carry(exposure, result, chosen),
        within=backward if swap else forward,
        backwards=(forward if swap else backward)[longest],
        why=why,
    )


def _require(option: str, name: str, stream: Stream) -> None:
    if stream.column(name) is None:
        known = ", ".join(c.name for c in stream.columns if c.type)
        raise RejoinError(f"{option}: {name} is not a column of {stream.name} ({known})")


def _keys(a: Stream, b: Stream) -> tuple[tuple[str, ...], dict[str, str]]:
    keys, why = [], {}
    for column in a.columns:
        other = b.column(column.name)
        if column.type is None or other is None or column.name in (a.event_time, b.event_time):
            continue
        if column.type != other.type or column.type not in ("STRING", "BIGINT", "DATE", "BOOLEAN", "DECIMAL(38,0)"):
            why[column.name] = f"no key: {column.type} and {other.type}"
        elif column.name == a.id == b.id:
            why[column.name] = "no key: identifies the events of both"
        else:
            one, two = ({repr(v) for v in s.values(column.name) if v is not None} for s in (a, b))
            share = len(one & two) / max(1, min(len(one), len(two)))
            fewest = min(len(one), len(two))
            told = f"{share:.0%} of {fewest:,} values are in both"
            if share < _SHARED:
                why[column.name] = f"no key: {told}"
            elif fewest < _FEW:
                why[column.name] = f"no key: {fewest} values only"
            else:
                keys.append(column.name)
                why[column.name] = f"key: {told}"
    return tuple(keys), why


def _within(exposure: Stream, outcome: Stream, keys: Sequence[str]) -> dict[float, float]:
    """By hours, the share of outcomes with an exposure of equal keys in so many before."""
    at: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for shown, key in zip(exposure.times(), _key_values(exposure, keys), strict=True):
        if shown is not None:
            at[key].append(shown)
    for times in at.values():
        times.sort()
    found = dict.fromkeys(_HOURS, 0)
    for played, key in zip(outcome.times(), _key_values(outcome, keys), strict=True):
        if played is None or None in key:
            continue
        times = at.get(key, [])
        for hours in _HOURS:
            found[hours] += bisect_right(times, played) > bisect_left(times, played - round(hours * _HOUR_US))
    return {hours: count / max(1, len(outcome.events)) for hours, count in found.items()}


def _key_values(stream: Stream, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(map(_hashable, stream.values(key)) for key in keys), strict=True))


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else value


def _carry(exposure: Stream, outcome: Stream, keys: Sequence[str]) -> tuple[str, ...]:
    taken = {c.name.lower() for c in outcome.columns}
    own = (exposure.id, exposure.event_time, *keys)
    columns = [c for c in exposure.columns if c.type and "MAP<" not in c.type and c.name not in own]
    return tuple(c.name for c in columns if f"exposure_{c.name}".lower() not in taken)


def to_yaml(proposal: Proposal, sources: dict[str, dict[str, str]], lake: str) -> str:
    """The configuration as commented YAML; `sources` by stream."""
    within = ", ".join(f"{share:.0%} within {hours:g} h" for hours, share in proposal.within.items())
    lines = [
        "# Proposed by `rejoin init` from samples of both streams. docs/configuration.md has every key.",
        f"lake: {lake}",
        "",
    ]
    lines.append("streams:")
    for stream, role in ((proposal.exposure, "exposure"), (proposal.outcome, "outcome")):
        lines += _stream_lines(stream, role, sources[stream.name])
    lines += ["", "join:"]
    lines += [f"  # {name}: {text}" for name, text in proposal.why.items()]
    lines.append(f"  keys: [{', '.join(map(_text, proposal.keys))}]")
    lines += [
        f"  # Of the outcomes in the sample, with an exposure of equal keys before: {within}.",
        "  attribution_window: 6h      # how long before an outcome an exposure may count",
        "  hot_window: 30m             # how much of it is kept as state; the rest is looked up in the lake",
        f"  # {_out_of_order(proposal)}",
        "  watermark_delay: 10m        # how far out of order an event may come and still be on time",
        f"  carry: [{', '.join(map(_text, proposal.carry))}]",
        "",
        "trigger: {every: 10s}",
    ]
    return "\n".join(lines) + "\n"


def _stream_lines(stream: Stream, role: str, source: dict[str, str]) -> list[str]:
    named = [c for c in stream.columns if c.type]
    ddl = ", ".join(f"{written(c.name)} {c.type}{' NOT NULL' if c.name in (stream.id, stream.event_time) else ''}" for c in named)
    aliases = {c.name: c.key for c in named if c.name != c.key}
    lines = [f"  {_text(stream.name)}:", f"    role: {role}"]
    lines += [f"    {what}: {_text(getattr(stream, what))}  # {stream.why[what]}" for what in ("id", "event_time")]
    lines += ["    schema: >-", *wrap(ddl, 110, initial_indent=" " * 6, subsequent_indent=" " * 6, break_long_words=False)]
    lines += [
        f"    # {_text(c.key)} {c.note}{'' if c.type else '; left out, and kept in `rescued`'}" for c in stream.columns if c.note
    ]
    if aliases:
        lines += ["    aliases:", *(f"      {_text(name)}: [{_text(key)}]" for name, key in aliases.items())]
    return [*lines, f"    source: {{{', '.join(f'{name}: {_text(value)}' for name, value in source.items())}}}"]


def _text(value: str) -> str:
    """Text as YAML, in double quotes where it would be read as something else."""
    try:
        plain = re.fullmatch(r"[\w./-]+", value) is not None and yaml.safe_load(value) == value
    except ValueError:  # of what looks like a date
        plain = False
    return value if plain else json.dumps(value)


def _out_of_order(proposal: Proposal) -> str:
    parts = []
    for stream in (proposal.exposure, proposal.outcome):
        now = time.time() * 1e6  # clocks ahead of ours are quarantined
        newest, behind, known = 0, 0, [at for at in stream.times() if at is not None and at <= now]
        for at in known:
            behind += at <= newest - 600_000_000
            newest = max(newest, at)
        parts.append(f"{behind / max(1, len(known)):.1%} of {stream.name}")
    return f"Ten minutes or more behind an event ahead of them in the sample: {', '.join(parts)}."
