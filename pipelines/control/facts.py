"""The facts of table `control`, as values: whoever reads the table's rows, through Spark or without a JVM, gets the same.

A row is one `Fact`; rows are appended, and the latest, or the greatest, counts:

- `horizon`: `event_time` up to which (inclusive) the join has finished;
- `handoff`: `event_time` up to which (inclusive) a start of the join left landed data to settle; `bytes` by stream;
- `distrust`: `event_time` up to which (inclusive) settle takes no row of the join for an answer, for the join dropped rows;
- `join`: a start of the join with its `hot_window`;
- `settled`: what a run of settle had seen (`Settled`); `version` is the output table's at the end of the run;
- `idle`: `stream`'s watermark was raised to `event_time` although it has no such event;
- `ingest`: the state of `stream`'s writer, where no commit of bronze carries it (`pipelines.ingest.writer`);
- `gap`: records of `stream` that Kafka no longer has and that somebody gave up;
- `unproven`: offsets of `stream` without a row, of which Kafka can no longer tell, and that somebody gave up;
- `lease`: who may do what only one may do, until when;
- `streams`: the streams' names, ids, times and partitions, which never change;
- `configuration`: the file that a lane was last started with.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from pipelines.lake.reader import TableReader, rows_of
from pipelines.model.durations import parse_duration
from pipelines.model.time import now_us

_GREATEST = ("horizon", "handoff", "distrust", "idle", "settled", "lease")
NEWEST_ONLY = ("horizon", "handoff", "distrust", "settled", "idle", "ingest", "lease", "streams", "configuration")
"""Kinds of which one row for each stream or name is enough."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Times are microseconds since the epoch. `stream` also names what is leased."""

    kind: str
    stream: str | None = None
    event_time: int | None = None
    version: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    at: int = field(default_factory=now_us)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What run number `run` of settle had seen: bronze versions (inclusive), the horizon (microseconds). `all`: pending too."""

    run: int = -1
    exposure_version: int = -1
    outcome_version: int = -1
    horizon: int | None = None
    all: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settled":
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Facts:
    """All facts that a process knows, oldest first."""

    rows: tuple[Fact, ...] = ()

    def with_fact(self, fact: Fact) -> "Facts":
        """With one more; of kinds of which the newest is enough, instead of those that it replaces."""
        kept = self.rows
        known = self._greatest(fact.kind, fact.stream) if fact.kind in _GREATEST else None
        if known is not None and _order(known) > _order(fact):
            return self
        if fact.kind in NEWEST_ONLY:
            kept = tuple(row for row in kept if (row.kind, row.stream) != (fact.kind, fact.stream))
        return Facts((*kept, fact))

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Facts":
        """From rows of the table: times in microseconds, `detail` as JSON text."""
        facts = [Fact(**{**row, "detail": json.loads(row["detail"] or "{}")}) for row in rows]
        found = cls()
        for fact in sorted(facts, key=lambda fact: fact.at):
            found = found.with_fact(fact)
        return found

    def of_kind(self, kind: str, stream: str | None = None) -> list[Fact]:
        return [row for row in self.rows if row.kind == kind and stream in (None, row.stream)]

    def last(self, kind: str, stream: str | None = None) -> Fact | None:
        return next(reversed(self.of_kind(kind, stream)), None)

    @property
    def horizon(self) -> int | None:
        """The event time up to which (inclusive) the join has finished, or left to settle; None before it has finished any."""
        known = [row.event_time for row in self.rows if row.kind in ("horizon", "handoff") and row.event_time is not None]
        settled = self.settled.horizon
        return max([*known, *([] if settled is None else [settled])], default=None)

    @property
    def handoff(self) -> Fact | None:
        """The last backlog that a start of the join left to settle."""
        return self._greatest("handoff")

    @property
    def distrusted_to(self) -> int | None:
        """The event time up to which (inclusive) the join may not have read all that matters."""
        known = (self._greatest("handoff"), self._greatest("distrust"))
        return max((row.event_time for row in known if row and row.event_time is not None), default=None)

    @property
    def settled(self) -> Settled:
        """What the last run of settle that wrote a fact had seen; a later one may stand in the output table's log only
        (`pipelines.control.position`)."""
        row = self.last("settled")
        return Settled() if row is None else Settled.from_dict(row.detail)

    def floor(self, stream: str) -> int | None:
        """What `stream`'s watermark must never fall below again, as far as these facts tell."""
        idle = self._greatest("idle", stream)
        known = [self.horizon, idle.event_time if idle else None]
        return max((value for value in known if value is not None), default=None)

    def narrowest_hot_window(self, since: int | None, configured: timedelta) -> timedelta:
        """The narrowest hot window that the join ran with at or after `since` (microseconds; None: ever), or is configured."""
        starts = self.of_kind("join")
        before = 0 if since is None else sum(row.at < since for row in starts)
        windows = [parse_duration(row.detail["hot_window"]) for row in starts[max(0, before - 1) :]]
        return min([*windows, configured])

    def _greatest(self, kind: str, stream: str | None = None) -> Fact | None:
        return max(self.of_kind(kind, stream), key=_order, default=None)


def _order(fact: Fact) -> int:
    """Of kinds that never fall: what the greatest is taken by."""
    numbers = {"settled": "run", "lease": "number"}
    return int(fact.detail[numbers[fact.kind]]) if fact.kind in numbers else fact.event_time or 0


def facts_in(reader: TableReader) -> Facts:
    """The facts of table `control`; none for a lake in which no lane has started yet."""
    return Facts.of(rows_of(reader.scan("control"))) if reader.exists("control") else Facts()
