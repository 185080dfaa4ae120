"""Gaps: records of a Kafka topic that were due, and that Kafka no longer has (retention, or a topic made anew).

Ingest refuses to start behind a gap until somebody has accepted it. An acceptance is one fact of `control`, and everything
follows from it: ingest goes on with a checkpoint that is named after it, at the offsets that it holds
(`pipelines.ingest.position`), and reconcile no longer counts those records as missing. Pure: no I/O.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from pipelines.control.facts import Fact, Facts


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Offsets `first` to `last` of a partition, both inclusive. `last` is None where the topic was made anew: what it held from
    `first` on, if anything, nobody can tell."""

    partition: int
    first: int
    last: int | None

    @property
    def count(self) -> int:
        """Of what is known to be missing."""
        return 0 if self.last is None else self.last - self.first + 1

    def __str__(self) -> str:
        if self.last is None:
            return f"partition {self.partition}: {self.first} records of it have been read, but it was made anew"
        return f"partition {self.partition}: offsets {self.first} to {self.last} are no longer in Kafka ({self.count:,} records)"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Gaps of a topic that were accepted at `at` (microseconds), and the next offset to read of each partition from there.
    `topic_id` is which of the topics of that name it was then, where Kafka said."""

    id: str
    topic: str
    topic_id: str | None
    gaps: tuple[Gap, ...]
    offsets: Mapping[int, int]
    at: int

    @property
    def made_anew(self) -> bool:
        return any(gap.last is None for gap in self.gaps)

    def __str__(self) -> str:
        return f"topic {self.topic} {'; '.join(map(str, self.gaps))}"


# Where offsets count on: topic, partition, and how often the topic had been accepted as made anew.
Place = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Unproven:
    """So many offsets of a place that ingest has read have no row, and Kafka can no longer tell whether they had a record."""

    topic: str
    partition: int
    generation: int
    count: int

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.generation

    def __str__(self) -> str:
        return (
            f"partition {self.partition}: {self.count:,} offsets have no row, and Kafka can no longer tell if they had a record"
        )


def find_gaps(consumed: Mapping[int, int], held: Mapping[int, tuple[int, int]], *, another: bool = False) -> list[Gap]:
    """What lies between the next offset to read and what Kafka holds (first offset, and the one after the last), by partition.

    A partition that was added later is due from 0. One that ends before what has been read, or is not there, means that the whole
    topic was made anew, as does `another`. What nothing has been read of has no gap.

    >>> find_gaps({0: 5}, {0: (3, 9)})
    []
    >>> for gap in find_gaps({0: 5}, {0: (8, 9), 1: (2, 2)}):
    ...     print(gap)
    partition 0: offsets 5 to 7 are no longer in Kafka (3 records)
    partition 1: offsets 0 to 1 are no longer in Kafka (2 records)
    >>> print(*find_gaps({0: 5}, {0: (0, 2)}))
    partition 0: 5 records of it have been read, but it was made anew
    """
    if not consumed:
        return []
    if another or any(partition not in held or held[partition][1] < ahead for partition, ahead in consumed.items()):
        return [Gap(partition=partition, first=ahead, last=None) for partition, ahead in sorted(consumed.items())]
    due = {partition: consumed.get(partition, 0) for partition in sorted(held)}
    return [Gap(partition=p, first=ahead, last=held[p][0] - 1) for p, ahead in due.items() if held[p][0] > ahead]


def after(gaps: Iterable[Gap], consumed: Mapping[int, int], held: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """The next offset to read of each partition once the gaps are accepted: nothing that Kafka holds is left out.

    >>> after([Gap(partition=0, first=5, last=7)], {0: 5, 1: 4}, {0: (8, 9), 1: (0, 6), 2: (0, 1)})
    {0: 8, 1: 4, 2: 0}
    """
    anew = any(gap.last is None for gap in gaps)
    return {p: first if anew else max(first, consumed.get(p, first)) for p, (first, _) in sorted(held.items())}


def acceptance(stream: str, topic: str, topic_id: str | None, gaps: Iterable[Gap], offsets: Mapping[int, int]) -> Fact:
    """The fact that gaps are accepted; ingest goes on at `offsets`."""
    detail = {
        "id": uuid.uuid4().hex[:12],
        "topic": topic,
        "topic_id": topic_id,
        "gaps": [asdict(gap) for gap in gaps],
        "offsets": {str(partition): offset for partition, offset in offsets.items()},
    }
    return Fact(kind="gap", stream=stream, detail=detail)


def accepted(facts: Facts, stream: str) -> list[Acceptance]:
    """All that was accepted for a stream, the latest last."""
    return [_acceptance(fact) for fact in facts.of_kind("gap", stream)]


def unproven_acceptance(stream: str, unproven: Iterable[Unproven]) -> Fact:
    """The fact that these are given up."""
    return Fact(kind="unproven", stream=stream, detail={"offsets": [asdict(each) for each in unproven]})


def accepted_unproven(facts: Facts, stream: str) -> dict[Place, int]:
    """How many unproven offsets of each place were given up."""
    found: dict[Place, int] = defaultdict(int)
    for fact in facts.of_kind("unproven", stream):
        for each in (Unproven(**each) for each in fact.detail["offsets"]):
            found[each.place] += each.count
    return found


def _acceptance(fact: Fact) -> Acceptance:
    detail = fact.detail
    return Acceptance(
        id=detail["id"],
        topic=detail["topic"],
        topic_id=detail["topic_id"],
        gaps=tuple(Gap(**gap) for gap in detail["gaps"]),
        offsets={int(partition): offset for partition, offset in detail["offsets"].items()},
        at=fact.at,
    )
