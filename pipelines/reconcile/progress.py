"""How far a run by hour has come, so that one that ended half-way goes on there, on the same versions.

A file beside the reports. Two runs never write it at once (`pipelines.reconcile.lock`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.inforce import definition
from pipelines.instants import now_us
from pipelines.lake import Lake
from pipelines.reconcile.comparison import Pins
from pipelines.reconcile.diff import HourSummary
from pipelines.reconcile.door import HourBooks
from pipelines.reconcile.since import changed_since
from pipelines.reconcile.span import Slice

# Older progress is of another night; and VACUUM may have been by since.
_MAX_AGE_US = 24 * 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was found in one slice: `before`, rows by class before any repair; the rest as it is after it."""

    hours: list[HourSummary]
    books: list[HourBooks]
    conflicting: int
    before: dict[str, int]
    causes: dict[str, int]
    sample: list[dict[str, str]]
    repaired: int


class Progress:
    """The file, and what is in it; `pins` is None for a run that begins."""

    def __init__(self, path: Path, purpose: str, still_holds: Callable[[dict[str, Any]], bool]) -> None:
        self._path, self._purpose = path, purpose
        self._found = _read(path, purpose)
        if self._found and not still_holds(self._found["pins"]):
            self._found = None

    @classmethod
    def of(cls, reports: Path, lake: Lake, config: Config, purpose: Mapping[str, Any]) -> "Progress":
        """For runs with this purpose (what is asked for), over these tables, by this configuration. What a run found before
        somebody changed a table, or reconcile mended bronze, is not what there is."""
        tables = [lake.table_id(name) for name in (*(stream.name for stream in lake.streams.both), lake.attributed)]
        whole = {
            **purpose,
            "tables": tables,
            "configuration": definition(config),
            "reconcile": config.reconcile.model_dump(mode="json"),
        }
        return cls(_file(reports), json.dumps(whole, sort_keys=True, default=str), lambda pins: not changed_since(lake, pins))

    @property
    def pins(self) -> Pins | None:
        return Pins(**self._found["pins"]) if self._found else None

    @property
    def started_us(self) -> int | None:
        """When the run began that is gone on with."""
        return int(self._found["started_us"]) if self._found else None

    def begin(self, pins: Pins) -> None:
        if not self._found:
            self._found = {"purpose": self._purpose, "started_us": now_us(), "pins": asdict(pins), "parts": {}}
            self._write()

    def get(self, part: Slice) -> Part | None:
        found = self._found["parts"].get(str(part)) if self._found else None
        if found is None:
            return None
        hours, books = [HourSummary(**h) for h in found["hours"]], [HourBooks(**b) for b in found["books"]]
        return Part(**{**found, "hours": hours, "books": books})

    def add(self, part: Slice, done: Part) -> None:
        assert self._found is not None
        self._found["parts"][str(part)] = asdict(done)
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(self._found, default=str))
        beside.replace(self._path)


def forget_progress(reports: Path) -> None:
    """After a run that has come to its end, of whatever dates: what one before it had found is of no use."""
    _file(reports).unlink(missing_ok=True)


def _file(reports: Path) -> Path:
    return reports / "in-progress.json"


def _read(path: Path, purpose: str) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    fits = isinstance(found, dict) and found.get("purpose") == purpose and now_us() - found["started_us"] < _MAX_AGE_US
    return found if fits else None
