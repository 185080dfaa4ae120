"""Kafka offsets of a stream: which of those that ingest has read landed, in bronze or in quarantine, once.

An offset without a row is a hole. A record was lost there; or there was none to read: a marker or an aborted record of a
transaction, or one that compaction removed. Kafka tells as long as it keeps the offset, so each hole is asked of it once: the
report remembers up to where, and how many holes without a record lie below. Any more there are records lost since.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add, or_
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from pipelines.config.model import KafkaSource
from pipelines.control.gaps import Acceptance, Place, Unproven, accepted, accepted_unproven
from pipelines.control.store import read_facts
from pipelines.ingest.position import Position, check_continues
from pipelines.ingest.recovery import in_quarantine
from pipelines.ingest.reland import consumed
from pipelines.ingest.sources.kafka import read_kafka_ranges
from pipelines.lake.tables import Lake, at
from pipelines.model.errors import SourceError
from pipelines.model.events import EventStream


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


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Kafka partitions that a stream was read from. Of the offsets that ingest's checkpoint says it has read, those that have no
    row: `holes` without a record; `missing` with one; `unproven`, of which Kafka can no longer tell; `unasked`, of which it did
    not, for the reason `why`; `given_up` within an accepted gap, or unproven and accepted. `twice`: records that landed more than
    once. `checked` is what the next audit continues from."""

    partitions: int = 0
    missing: int = 0
    twice: int = 0
    given_up: int = 0
    holes: int = 0
    unproven: int = 0
    unasked: int = 0
    why: str | None = None
    checked: tuple[Checked, ...] = field(default=(), compare=False)


_Spans = list[tuple[int, int]]
_PLACE = ("source", "source_partition", "generation")


@dataclass(frozen=True, kw_only=True)
class _Count:
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
    def unasked(self) -> "_Count":
        return replace(self, end=self.checked.to, above=0)


def audit_offsets(lake: Lake, stream: EventStream, source: KafkaSource, last: Iterable[Checked]) -> Offsets:
    """Audit the offsets of all dates, outside of none. `last` is what the last audit has checked."""
    # What ingest has finished first, then what it has written: so none is missed that is being written.
    facts = read_facts(lake)
    position, starts = consumed(lake, stream, source, facts)
    acceptances = accepted(facts, stream.name)
    gaps = _accepted_spans(acceptances)
    newest = sum(each.made_anew for each in acceptances if each.topic == source.topic)
    ends = {(source.topic, partition, newest): end for partition, end in position.offsets.items()}
    landed = _landed(lake, stream.name, acceptances, _finished(position.offsets, source.topic, newest))
    known = {each.place: each for each in last}
    rows = {(row["source"], row["source_partition"], row["generation"]): row for row in _figures(landed, gaps, known).collect()}
    counts = {
        place: _count(place, rows.get(place), known.get(place), gaps.get(place, []), starts.get(place[1]), ends.get(place))
        for place in sorted({*rows, *ends})
    }
    # What lies in topics of before, Kafka has no longer.
    missing: dict[Place, int] = {}
    unproven = {place: count.above for place, count in counts.items() if place not in ends}
    asked, unasked, why = {place: counts[place] for place in ends if counts[place].above}, 0, None
    if asked:
        here = landed.where((F.col("source") == source.topic) & (F.col("generation") == newest))
        try:
            missing, gone = _ask(lake, stream, source, position, asked, here, gaps)
            unproven |= gone
        except SourceError as error:
            why, unasked = str(error), sum(count.above for count in asked.values())
            counts |= {place: count.unasked for place, count in asked.items()}
    judged = {place: count.judged(missing.get(place, 0), unproven.get(place, 0)) for place, count in counts.items()}
    checked = [each for each, _ in judged.values()]
    open_ = {each.place: each.count for each in unaccepted(checked, accepted_unproven(facts, stream.name))}
    return Offsets(
        partitions=len({place[:2] for place in rows}),
        missing=sum(lost for _, lost in judged.values()),
        twice=sum(row["rows"] - row["records"] for row in rows.values()),
        given_up=sum(count.given_up for count in counts.values()) + sum(each.unproven for each in checked) - sum(open_.values()),
        holes=sum(each.holes for each in checked),
        unproven=sum(open_.values()),
        unasked=unasked,
        why=why,
        checked=tuple(checked),
    )


def _figures(landed: DataFrame, gaps: Mapping[Place, _Spans], known: Mapping[Place, Checked]) -> DataFrame:
    """What has landed of each place; `outside` of accepted gaps, and of that `below` what has been checked."""
    # The same offset at another time is another record: of a topic that was made anew.
    times = F.count_distinct(F.struct("source_time"))
    by_offset = landed.groupBy(*_PLACE, "source_offset").agg(F.count("*").alias("rows"), times.alias("records"))
    outside, below = ~_within(gaps), _within({place: [(0, each.to - 1)] for place, each in known.items()})
    return by_offset.groupBy(*_PLACE).agg(
        F.min("source_offset").alias("first"),
        F.max("source_offset").alias("last"),
        F.sum("rows").alias("rows"),
        F.sum("records").alias("records"),
        F.count("*").alias("offsets"),
        F.count_if(outside).alias("outside"),
        F.count_if(outside & below).alias("below"),
    )


def _count(place: Place, row: Row | None, known: Checked | None, gaps: _Spans, start: int | None, end: int | None) -> _Count:
    """`row` has the figures of what landed; `start` is the first offset that ingest was to read, `end` the one that it reads
    next, as far as they are known."""
    if end is None:
        end = max(row["last"] + 1 if row else 0, known.to if known else 0)
        start = None
    firsts = (start, row["first"] if row else None, known.first if known else None)
    first = min([end, *(each for each in firsts if each is not None)])
    if known is None or first < known.first:
        topic, partition, generation = place
        known = Checked(topic=topic, partition=partition, generation=generation, first=first, to=first)
    outside, below, within = (row["outside"], row["below"], row["offsets"] - row["outside"]) if row else (0, 0, 0)
    here = _size(_outside(gaps, first, end - 1))
    holes_below = max(0, _size(_outside(gaps, first, min(known.to, end) - 1)) - (below if known.to > first else 0))
    return _Count(
        checked=known,
        end=end,
        below=holes_below,
        above=here - outside - holes_below,
        given_up=max(0, end - first) - here - within,
    )


def _ask(
    lake: Lake,
    stream: EventStream,
    source: KafkaSource,
    position: Position,
    counts: Mapping[Place, _Count],
    landed: DataFrame,
    gaps: Mapping[Place, _Spans],
) -> tuple[dict[Place, int], dict[Place, int]]:
    """Of the holes above what has been checked: how many are records that Kafka has, and how many offsets it no longer keeps.
    Raises SourceError where it does not tell."""
    held = check_continues(stream.name, source, position).held
    spans = {partition: (max(count.checked.to, held[partition][0]), count.end - 1) for (_, partition, _), count in counts.items()}
    ranges = {partition: [span] for partition, span in spans.items() if span[0] <= span[1]}
    missing = {}
    if ranges:
        raw = read_kafka_ranges(lake.spark, source, f"streams.{stream.name}.source", ranges)
        records = raw.select("__raw.source_partition", "__raw.source_offset")
        lacking = records.join(landed, ["source_partition", "source_offset"], "left_anti")
        missing = _by_partition(lacking)
        # What retention has taken meanwhile was not read, and is not taken for holes.
        held = check_continues(stream.name, source, position).held
    old = {place: [(count.checked.to, min(held[place[1]][0], count.end) - 1)] for place, count in counts.items()}
    old = {place: spans for place, spans in old.items() if _size(spans)}
    there = _by_partition(landed.where(_within(old) & ~_within(gaps)).distinct()) if old else {}
    unproven = {place: _size(_outside(gaps.get(place, []), *span)) - there.get(place[1], 0) for place, (span,) in old.items()}
    return {place: missing.get(place[1], 0) for place in counts}, unproven


def _by_partition(rows: DataFrame) -> dict[int, int]:
    return {row["source_partition"]: row["count"] for row in rows.groupBy("source_partition").count().collect()}


def checked_in(audit: Mapping[str, Any]) -> list[Checked]:
    """What an audit, as a report has it, has checked; nothing where there is none yet."""
    return [Checked(**each) for each in audit.get("offsets", {}).get("checked", ())]


def unaccepted(checked: Iterable[Checked], given_up: Mapping[Place, int]) -> list[Unproven]:
    """The unproven offsets that nobody has given up yet, by place."""
    left = ((each, each.unproven - given_up.get(each.place, 0)) for each in checked)
    return [Unproven(topic=e.topic, partition=e.partition, generation=e.generation, count=n) for e, n in left if n > 0]


def _landed(lake: Lake, stream: str, acceptances: Sequence[Acceptance], finished: Column) -> DataFrame:
    """The offsets in bronze and in quarantine of micro-batches that have finished."""
    both = (_with_generation(rows, acceptances) for rows in (lake.read(stream), in_quarantine(lake, stream)))
    return reduce(DataFrame.unionByName, both).where(finished)


def _with_generation(rows: DataFrame, acceptances: Sequence[Acceptance]) -> DataFrame:
    later = [(F.col("source") == each.topic) & (F.col("ingest_time") > at(each.at)) for each in acceptances if each.made_anew]
    generation = reduce(add, (F.when(condition, 1).otherwise(0) for condition in later), F.lit(0))
    of_kafka = rows.where(F.col("source_partition").isNotNull())
    return of_kafka.select("source", "source_partition", generation.alias("generation"), "source_offset", "source_time")


def _finished(bounds: Mapping[int, int], topic: str, generation: int) -> Column:
    """Whether an offset is among those that ingest has finished; of another topic, or of one that was replaced, each is."""
    ends = [(F.col("source_partition") == number) & (F.col("source_offset") < end) for number, end in bounds.items()]
    current = (F.col("source") == topic) & (F.col("generation") == generation)
    return ~current | reduce(or_, ends, F.lit(False))


def _accepted_spans(acceptances: Sequence[Acceptance]) -> dict[Place, _Spans]:
    """The offsets given up at each place, as spans with both ends inclusive, none overlapping another."""
    spans: dict[Place, _Spans] = defaultdict(list)
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


def _within(gaps: Mapping[Place, _Spans]) -> Column:
    here = F.struct(*(F.col(name) for name in _PLACE))
    inside = [
        (here == F.struct(F.lit(topic), F.lit(partition), F.lit(generation))) & F.col("source_offset").between(*span)
        for (topic, partition, generation), spans in gaps.items()
        for span in spans
    ]
    return reduce(or_, inside, F.lit(False))


def _outside(gaps: _Spans, first: int, last: int) -> _Spans:
    """What is left of a span without the gaps."""
    spans = [(first, last)]
    for gap_first, gap_last in gaps:
        spans = [part for a, b in spans for part in ((a, min(b, gap_first - 1)), (max(a, gap_last + 1), b))]
    return spans


def _size(spans: _Spans) -> int:
    return sum(max(0, last - first + 1) for first, last in spans)
