"""How the lines of each stream were judged: read = accepted + quarantined, by reason; and whether most of them are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.reader import TableReader
from pipelines.model.format import share, visible
from pipelines.monitor.lag import Finding

_TOO_MANY = 0.5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All lines of a stream so far: rows of bronze, and rows of quarantine that have not been relanded, the commonest reason
    first; `sample` is what one of these says."""

    stream: str
    accepted: int
    quarantined: dict[str, int]
    sample: str | None = None

    @property
    def read(self) -> int:
        return self.accepted + sum(self.quarantined.values())

    @property
    def findings(self) -> list[Finding]:
        refused = sum(self.quarantined.values())
        if not refused or refused / self.read <= _TOO_MANY:
            return []
        reason = next(iter(self.quarantined))
        problem = f"{self.stream}: {share(refused, self.read)} of {self.read:,} lines are in quarantine, most for {reason}"
        remedy = f"correct streams.{self.stream} or the events, then run `rejoin reland {self.stream} --quarantine`"
        return [Finding(problem=f"{problem}, e.g. {self.sample}", remedy=remedy)]

    def as_dict(self) -> dict[str, Any]:
        return {"read": self.read, "accepted": self.accepted, "quarantined": self.quarantined}

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.quarantined.items())
        refused = f"{sum(self.quarantined.values()):,} quarantined{f' ({reasons})' if reasons else ''}"
        return f"{self.read:,} read = {self.accepted:,} accepted + {refused}"


def read_judged(reader: TableReader, streams: Sequence[str]) -> list[Judged]:
    """One for each stream that has a table."""
    found = []
    for stream in streams:
        if not reader.exists(stream):
            continue
        reasons = pc.value_counts(_reasons(reader, stream)).to_pylist()
        counts = {row["values"]: row["counts"] for row in sorted(reasons, key=lambda row: (-row["counts"], row["values"]))}
        sample = _sample(reader, stream, next(iter(counts))) if counts else None
        found.append(Judged(stream=stream, accepted=reader.count(stream), quarantined=counts, sample=sample))
    return found


def _reasons(reader: TableReader, stream: str) -> pa.ChunkedArray:
    """The reason of each row of quarantine that has not been relanded."""
    if not reader.exists("quarantine"):
        return pa.chunked_array([], pa.string())
    has_mark = "relanded_at" in reader.columns("quarantine")
    names = ["reason", "relanded_at"] if has_mark else ["reason"]
    rows = reader.scan("quarantine", names, [("stream", "=", stream)]).read_all()
    reasons = rows["reason"].cast(pa.string())
    return reasons.filter(pc.is_null(rows["relanded_at"])) if has_mark else reasons


def _sample(reader: TableReader, stream: str, reason: str) -> str | None:
    """What one such row says."""
    has_mark = "relanded_at" in reader.columns("quarantine")
    names = ["detail", "relanded_at"] if has_mark else ["detail"]
    for batch in reader.scan("quarantine", names, [("stream", "=", stream), ("reason", "=", reason)]):
        for row in batch.to_pylist():
            if row.get("relanded_at") is None:
                return visible(str(row["detail"]))
    return None
