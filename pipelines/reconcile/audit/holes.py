"""Holes: offsets of Kafka partitions that ingest has read and that have no row. Counts of them, without I/O.

A record was lost there; or there was none to read: a marker or an aborted record of a transaction, or one that compaction
removed. Kafka tells as long as it keeps the offset, so each hole is asked about once: the report remembers up to where, and how
many holes without a record lie below. Any more there are records that were lost since.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.control.gaps import Acceptance, Place, Unproven

Spans = list[tuple[int, int]]
"""Both ends inclusive, none overlapping another."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The holes of a place from `first` to `to` (exclusive): `holes` without a record, and `unproven`, of which Kafka could no
    longer tell."""

    topic: str
    partition: int
    generation: int
    first: int
    to: int
    holes: int = 0
    unproven: int = 0

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.generation


def checked_in(audit: Mapping[str, Any]) -> list[Checked]:
    """What an audit, as a report has it, has checked; nothing where there is none yet."""
    return [Checked(**each) for each in audit.get("offsets", {}).get("checked", ())]


def unaccepted(checked: Iterable[Checked], given_up: Mapping[Place, int]) -> list[Unproven]:
    """The unproven offsets that nobody has given up yet, by place."""
    left = ((each, each.unproven - given_up.get(each.place, 0)) for each in checked)
    return [Unproven(topic=e.topic, partition=e.partition, generation=e.generation, count=n) for e, n in left if n > 0]


@dataclass(frozen=True, kw_only=True)
class Holes:
    """Offsets of a place, up to `end` (exclusive), without a row: `given_up` within accepted gaps, the others `below` what has
    been `checked`, and `above`."""

    checked: Checked
    end: int
    below: int
    above: int
    given_up: int

    def judged(self, missing: int, unproven: int) -> tuple[Checked, int]:
        """What has been checked now, and how many records are missing; of those above, as many as given are `missing` or
        `unproven`."""
        before = self.checked
        holes = min(before.holes, self.below)
        known = min(before.unproven, self.below - holes)
        lost = self.below - holes - known
        if self.end < before.to:  # an earlier checkpoint was put back: ingest will come there again
            return before, lost
        proven = max(0, self.above - missing - unproven)
        return replace(before, to=self.end, holes=holes + proven, unproven=known + unproven), lost + missing

    @property
    def unasked(self) -> "Holes":
        return replace(self, end=self.checked.to, above=0)


@dataclass(frozen=True, kw_only=True)
class Landed:
    """Offsets of a place that have a row: the `first`, the `last`, how many lie `within` accepted gaps, how many `outside`, and
    of the latter how many `below` what has been checked."""

    first: int
    last: int
    within: int
    outside: int
    below: int


def count_holes(
    place: Place, landed: Landed | None, before: Checked | None, gaps: Spans, start: int | None, end: int | None
) -> Holes:
    """`start` is the first offset that ingest was to read and `end` the one that it reads next; None where that is not known, or
    the topic is one of before."""
    if end is None:
        end = max(landed.last + 1 if landed else 0, before.to if before else 0)
    firsts = (start, landed.first if landed else None, before.first if before else None)
    first = min([end, *(each for each in firsts if each is not None)])
    if before is None or first < before.first:
        topic, partition, generation = place
        before = Checked(topic=topic, partition=partition, generation=generation, first=first, to=first)
    due = size(outside(gaps, first, end - 1))
    below = size(outside(gaps, first, min(before.to, end) - 1))
    if landed and before.to > first:
        below -= landed.below
    return Holes(
        checked=before,
        end=end,
        below=below,
        above=due - (landed.outside if landed else 0) - below,
        given_up=end - first - due - (landed.within if landed else 0),
    )


def accepted_spans(acceptances: Sequence[Acceptance]) -> dict[Place, Spans]:
    """The offsets given up at each place."""
    spans: dict[Place, Spans] = defaultdict(list)
    generations: dict[str, int] = defaultdict(int)
    for each in acceptances:
        for gap in each.gaps:
            known = spans[(each.topic, gap.partition, generations[each.topic])]
            # Of two that were accepted at once, the second is the first, or continues it.
            first = max([gap.first, *(end + 1 for _, end in known)])
            if gap.last is not None and first <= gap.last:
                known.append((first, gap.last))
        generations[each.topic] += each.made_anew
    return spans


def outside(gaps: Spans, first: int, last: int) -> Spans:
    """What is left of a span without the gaps."""
    spans = [(first, last)]
    for gap_first, gap_last in gaps:
        spans = [part for a, b in spans for part in ((a, min(b, gap_first - 1)), (max(a, gap_last + 1), b))]
    return spans


def size(spans: Spans) -> int:
    return sum(max(0, last - first + 1) for first, last in spans)
