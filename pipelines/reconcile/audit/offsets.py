"""Kafka offsets of a stream: which of those that ingest has read landed, in bronze or in quarantine, once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import KafkaSource
from pipelines.control.gaps import Acceptance, accepted
from pipelines.control.store import read_facts
from pipelines.ingest.recovery import in_quarantine
from pipelines.ingest.reland import consumed_offsets
from pipelines.lake.tables import Lake, at
from pipelines.model.events import EventStream


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Kafka partitions that a stream was read from. Of the offsets that ingest's checkpoint says it has read, those that landed
    neither in bronze nor in quarantine: `given_up` within an accepted gap, `missing` outside of any; `twice`: records that landed
    more than once. A transaction's markers take offsets too: topics written in transactions show them as missing."""

    partitions: int = 0
    missing: int = 0
    twice: int = 0
    given_up: int = 0


_Spans = list[tuple[int, int]]
# Where offsets count on: topic, partition, and how often the topic had been accepted as made anew when the row landed.
_Place = tuple[str, int, int]
_PLACE = ("source", "source_partition", "generation")


def audit_offsets(lake: Lake, stream: EventStream, source: KafkaSource) -> Offsets:
    """Audit the offsets of all dates, outside of none."""
    # What ingest has finished first, then what it has written: so none is missed that is being written.
    facts = read_facts(lake)
    bounds = consumed_offsets(lake, stream, source, facts)
    acceptances = accepted(facts, stream.name)
    gaps = _accepted_spans(acceptances)
    newest = sum(each.made_anew for each in acceptances if each.topic == source.topic)
    landed = _landed(lake, stream.name, acceptances, _finished(bounds, source.topic, newest))
    each = (
        landed.groupBy(*_PLACE)
        .agg(
            F.min("source_offset").alias("first"),
            F.max("source_offset").alias("last"),
            F.count("*").alias("rows"),
            F.count_distinct("source_offset").alias("offsets"),
            # The same offset at another time is another record: of a topic that was made anew.
            F.count_distinct(F.struct("source_offset", "source_time")).alias("records"),
            F.count_distinct(F.when(_within(gaps), F.col("source_offset"))).alias("within"),
        )
        .collect()
    )
    missing = given_up = 0
    found: dict[_Place, tuple[int, int]] = {}
    for row in each:
        place = row["source"], row["source_partition"], row["generation"]
        first, last = found[place] = row["first"], row["last"]
        gap = _size([(max(first, a), min(last, b)) for a, b in gaps.get(place, [])]) - row["within"]
        given_up += gap
        missing += last - first + 1 - row["offsets"] - gap
    for partition, (start, end) in bounds.items():
        place = source.topic, partition, newest
        first, last = found.get(place, (end, end - 1))
        edges = [(first if start is None else start, first - 1), (last + 1, end - 1)]
        missing += _size([span for edge in edges for span in _outside(gaps.get(place, []), *edge)])
    twice = sum(row["rows"] - row["records"] for row in each)
    return Offsets(partitions=len({place[:2] for place in found}), missing=missing, twice=twice, given_up=given_up)


def _landed(lake: Lake, stream: str, acceptances: Sequence[Acceptance], finished: Column) -> DataFrame:
    """The offsets in bronze and in quarantine of micro-batches that have finished."""
    both = (_with_generation(rows, acceptances) for rows in (lake.read(stream), in_quarantine(lake, stream)))
    return reduce(DataFrame.unionByName, both).where(finished)


def _with_generation(rows: DataFrame, acceptances: Sequence[Acceptance]) -> DataFrame:
    later = [(F.col("source") == each.topic) & (F.col("ingest_time") > at(each.at)) for each in acceptances if each.made_anew]
    generation = reduce(add, (F.when(condition, 1).otherwise(0) for condition in later), F.lit(0))
    of_kafka = rows.where(F.col("source_partition").isNotNull())
    return of_kafka.select("source", "source_partition", generation.alias("generation"), "source_offset", "source_time")


def _finished(bounds: Mapping[int, tuple[int | None, int]], topic: str, generation: int) -> Column:
    """Whether an offset is among those that ingest has finished; of another topic, or of one that was replaced, each is."""
    ends = [(F.col("source_partition") == number) & (F.col("source_offset") < end) for number, (_, end) in bounds.items()]
    current = (F.col("source") == topic) & (F.col("generation") == generation)
    return ~current | reduce(or_, ends, F.lit(False))


def _accepted_spans(acceptances: Sequence[Acceptance]) -> dict[_Place, _Spans]:
    """The offsets given up at each place, as spans with both ends inclusive, none overlapping another."""
    spans: dict[_Place, _Spans] = defaultdict(list)
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


def _within(gaps: Mapping[_Place, _Spans]) -> Column:
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
