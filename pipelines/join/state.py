"""Which checkpoint the join runs from: one for each shape of its state.

Spark stores an operator's state in the shape that the plan has, over as many partitions as it began with, and restarts from it
in no other. So what state depends on is part of the checkpoint's path. On a change the next start takes a new checkpoint, and
fills it from bronze (`pipelines.join.reading`): nothing below the horizon is needed, and what lies above goes through the join
again, into the same rows.

A start that finds a long backlog takes a new one too (`pipelines.join.backlog`).

Which checkpoint is in use is in the ledger (query `checkpoint:join`), numbered: a configuration that comes back later starts
anew too, and not from a state that has missed what was in between.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from pipelines.config import Config
from pipelines.durations import format_duration, parse_duration
from pipelines.lake import Lake
from pipelines.observe.ledger import Entry, Ledger

QUERY = "checkpoint:join"

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class StateShape:
    """What the join's state depends on, by name."""

    parts: dict[str, str]

    @classmethod
    def of(cls, lake: Lake, config: Config) -> "StateShape":
        streams = lake.streams
        # As the tables have them: Spark's state knows whether a column can be null.
        outcome, exposure = (
            {f.name: f"{f.dataType.simpleString()}{'' if f.nullable else ' not null'}" for f in lake.read(stream.name).schema}
            for stream in (streams.outcome, streams.exposure)
        )
        # Columns that were carried once are in the state too, without values.
        held = [streams.exposure.id, streams.exposure.event_time, *config.join.carry, *streams.exposure.keys]
        empty = [name for name in streams.carry if name not in config.join.carry]
        return cls(
            parts={
                "join.keys": ", ".join(streams.outcome.keys),
                "join.hot_window": format_duration(config.join.hot_window),
                f"columns of {streams.outcome.name}": ", ".join(f"{f.name} {outcome[f.name]}" for f in streams.outcome.schema),
                f"columns of {streams.exposure.name}": ", ".join(
                    [*(f"{name} {exposure[name]}" for name in held), *(f"{name} {exposure[name]}, empty" for name in empty)]
                ),
                "state_store.provider": config.state_store.provider,
                "spark.shuffle_partitions": str(lake.spark.conf.get("spark.sql.shuffle.partitions")),
                "Spark": lake.spark.version,
            }
        )

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, earlier: dict[str, str]) -> list[str]:
        names = sorted({*self.parts, *earlier})
        pairs = [(name, earlier.get(name, "nothing"), self.parts.get(name, "nothing")) for name in names]
        return [f"{name}: {before} -> {now}" for name, before, now in pairs if before != now]


def join_checkpoint(lake: Lake, config: Config) -> str:
    """The location of the checkpoint for this configuration's state; where that is a new one, it is recorded, and told why."""
    shape, last = StateShape.of(lake, config), next(reversed(_in_order(lake)), None)
    if last is not None and last["detail"]["parts"] == shape.parts:
        return lake.checkpoint(last["detail"]["path"])
    if last is not None:
        log.info("join takes a new checkpoint, and its state from bronze", changed=shape.differences(last["detail"]["parts"]))
    return _new(lake, shape, last)


def new_checkpoint(lake: Lake, config: Config, *why: Entry) -> str:
    """The location of a checkpoint that nothing has been read with, in use from now on; recorded in one commit with `why`."""
    return _new(lake, StateShape.of(lake, config), next(reversed(_in_order(lake)), None), *why)


def _new(lake: Lake, shape: StateShape, last: dict[str, Any] | None, *why: Entry) -> str:
    number = 0 if last is None else last["batch"] + 1
    path = f"join/{number}-{shape.fingerprint}"
    entry = Entry(query=QUERY, batch=number, detail={"path": path, "parts": shape.parts})
    Ledger(lake).write([*why, entry], transaction=(QUERY, number))
    return lake.checkpoint(path)


def narrowest_hot_window(lake: Lake, since: int | None, default: timedelta) -> timedelta:
    """The narrowest hot window that the join has run with since a time (microseconds; None: ever): a match within it is the
    nearest, whichever run it is of. `default` where no run is known."""
    entries = _in_order(lake)
    before = 0 if since is None else sum(entry["finished_at"] < since for entry in entries)
    recent = entries[max(0, before - 1) :]
    return min((parse_duration(entry["detail"]["parts"]["join.hot_window"]) for entry in recent), default=default)


def superseded(lake: Lake) -> list[str]:
    """The locations of the checkpoints that no run will read again."""
    return [lake.checkpoint(entry["detail"]["path"]) for entry in _in_order(lake)[:-1]]


def _in_order(lake: Lake) -> list[dict[str, Any]]:
    return sorted(Ledger(lake).entries(QUERY), key=lambda entry: int(entry["batch"]))
