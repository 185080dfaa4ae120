"""How the lines of each stream were judged: read = accepted + quarantined, by reason; and whether most of them are refused."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.reader import Condition, TableReader
from pipelines.model.format import judged, share, visible
from pipelines.model.paths import location
from pipelines.model.reasons import Reason
from pipelines.monitor.lag import Finding

_TOO_MANY = 0.5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All lines of a stream so far: rows of bronze, and rows of quarantine that have not been relanded, the commonest reason
    first. Where these are too many, `sample` is what one of that reason says; `unreadable` is a landing file that cannot be
    read."""

    stream: str
    accepted: int
    quarantined: dict[str, int]
    sample: str | None = None
    unreadable: str | None = None

    @property
    def refused(self) -> int:
        return sum(self.quarantined.values())

    @property
    def read(self) -> int:
        return self.accepted + self.refused

    @property
    def has_too_many(self) -> bool:
        return self.refused > _TOO_MANY * self.read

    @property
    def findings(self) -> list[Finding]:
        found = []
        if self.has_too_many:
            most = f"{share(self.refused, self.read)} of {self.read:,} lines are in quarantine, most for"
            problem = f"{self.stream}: {most} {next(iter(self.quarantined))}, e.g. {self.sample}"
            remedy = f"correct streams.{self.stream} or the events, then run `rejoin reland {self.stream} --quarantine`"
            found.append(Finding(problem=problem, remedy=remedy))
        if self.unreadable is not None:
            count = self.quarantined[Reason.UNREADABLE_FILE.value]
            problem = f"{self.stream}: {count:,} landing files cannot be read, e.g. {self.unreadable}"
            remedy = f"mend them in place, or put empty ones there to give them up; then run `rejoin reland {self.stream}`"
            found.append(Finding(problem=problem, remedy=remedy))
        return found

    def as_dict(self) -> dict[str, Any]:
        return {"read": self.read, "accepted": self.accepted, "quarantined": self.quarantined}

    def __str__(self) -> str:
        return judged(self.accepted, self.refused, self.quarantined)


def read_judged(reader: TableReader, streams: Sequence[str]) -> list[Judged]:
    """One for each stream that has a table."""
    found = []
    for stream in streams:
        if not reader.exists(stream):
            continue
        reasons = Counter[str]()
        for values in _in_quarantine(reader, stream, "reason"):
            reasons.update({row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()})
        ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
        each = Judged(stream=stream, accepted=reader.count(stream), quarantined=ordered)
        if each.has_too_many:
            each = replace(each, sample=_sample(reader, stream, "detail", next(iter(ordered))))
        if Reason.UNREADABLE_FILE.value in ordered:
            each = replace(each, unreadable=location(_sample(reader, stream, "source", Reason.UNREADABLE_FILE.value)))
        found.append(each)
    return found


def _sample(reader: TableReader, stream: str, column: str, reason: str) -> str:
    """What a row of quarantine for a reason, of which there is one, has in a column of text."""
    found = _in_quarantine(reader, stream, column, ("reason", "=", reason))
    return visible(str(next(value for values in found for value in values)))


def _in_quarantine(reader: TableReader, stream: str, column: str, *more: Condition) -> Iterator[pa.Array]:
    """A column of text of the rows that have not been relanded."""
    if not reader.exists("quarantine"):
        return
    marks = [name for name in reader.columns("quarantine") if name == "relanded_at"]  # none before a lane has added it
    for batch in reader.scan("quarantine", [column, *marks], [("stream", "=", stream), *more]):
        values = batch.column(column).cast(pa.string())  # delta-rs's own views of text cannot be filtered
        yield values.filter(pc.is_null(batch.column("relanded_at"))) if marks else values
