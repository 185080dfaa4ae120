"""Kafka offsets of a stream: which of those that ingest has read landed, in bronze or in quarantine, once; and what the others
are, as far as Kafka tells (`pipelines.reconcile.audit.holes`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.config.sources import KafkaSource
from pipelines.control.gaps import Acceptance, Place, accepted, accepted_unproven
from pipelines.control.store import read_facts
from pipelines.ingest.position import Position, check_continues
from pipelines.ingest.recovery import in_quarantine
from pipelines.ingest.reland import consumed
from pipelines.ingest.sources.kafka import read_kafka_ranges
from pipelines.lake.tables import Lake, at
from pipelines.model.errors import SourceError
from pipelines.model.events import EventStream
from pipelines.reconcile.audit.holes import Checked, Holes, Landed, Spans, accepted_spans, count_holes, outside, size, unaccepted


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


_PLACE = ("source", "source_partition", "generation")
_RECORD = ["source_partition", "source_offset"]


def audit_offsets(lake: Lake, stream: EventStream, source: KafkaSource, last: Iterable[Checked]) -> Offsets:
    """Audit the offsets of all dates, outside of none. `last` is what the last audit has checked."""
    # What ingest has finished first, then what it has written: so none is missed that is being written.
    facts = read_facts(lake)
    position, starts = consumed(lake, stream, source, facts)
    acceptances = accepted(facts, stream.name)
    gaps = accepted_spans(acceptances)
    newest = sum(each.made_anew for each in acceptances if each.topic == source.topic)
    ends = {(source.topic, partition, newest): end for partition, end in position.offsets.items()}
    landed = _landed(lake, stream.name, acceptances, _finished(position.offsets, source.topic, newest))
    known = {each.place: each for each in last}
    figures = _figures(landed, gaps, known).collect()
    there = {tuple(row[n] for n in _PLACE): Landed(**{f.name: row[f.name] for f in fields(Landed)}) for row in figures}
    counts = {}
    for place in sorted({*there, *ends}):
        start = starts.get(place[1]) if place in ends else None
        counts[place] = count_holes(place, there.get(place), known.get(place), gaps.get(place, []), start, ends.get(place))
    missing: dict[Place, int] = {}
    # Kafka has nothing of topics of before.
    unproven = {place: count.above for place, count in counts.items() if place not in ends}
    asked, unasked, why = {place: counts[place] for place in ends if counts[place].above}, 0, None
    if asked:
        try:
            missing, gone = _ask(lake, stream, source, position, asked, landed, gaps)
            unproven |= gone
        except SourceError as error:
            why, unasked = str(error), sum(count.above for count in asked.values())
            counts |= {place: count.unasked for place, count in asked.items()}
    judged = {place: count.judged(missing.get(place, 0), unproven.get(place, 0)) for place, count in counts.items()}
    checked = [each for each, _ in judged.values()]
    open_ = {each.place: each.count for each in unaccepted(checked, accepted_unproven(facts, stream.name))}
    return Offsets(
        partitions=len({place[:2] for place in there}),
        missing=sum(lost for _, lost in judged.values()),
        twice=sum(row["rows"] - row["records"] for row in figures),
        given_up=sum(count.given_up for count in counts.values()) + sum(each.unproven for each in checked) - sum(open_.values()),
        holes=sum(each.holes for each in checked),
        unproven=sum(open_.values()),
        unasked=unasked,
        why=why,
        checked=tuple(checked),
    )


def _figures(landed: DataFrame, gaps: Mapping[Place, Spans], known: Mapping[Place, Checked]) -> DataFrame:
    """What has landed of each place (see `Landed`), in how many `rows`, of how many `records`."""
    # The same offset at another time is another record: of a topic that was made anew.
    times = F.count_distinct(F.struct("source_time"))
    by_offset = landed.groupBy(*_PLACE, "source_offset").agg(F.count("*").alias("rows"), times.alias("records"))
    given_up, below = _within(gaps), _within({place: [(0, each.to - 1)] for place, each in known.items()})
    return by_offset.groupBy(*_PLACE).agg(
        F.min("source_offset").alias("first"),
        F.max("source_offset").alias("last"),
        F.sum("rows").alias("rows"),
        F.sum("records").alias("records"),
        F.count_if(given_up).alias("within"),
        F.count_if(~given_up).alias("outside"),
        F.count_if(~given_up & below).alias("below"),
    )


def _ask(
    lake: Lake,
    stream: EventStream,
    source: KafkaSource,
    position: Position,
    counts: Mapping[Place, Holes],
    landed: DataFrame,
    gaps: Mapping[Place, Spans],
) -> tuple[dict[Place, int], dict[Place, int]]:
    """Of the holes above what has been checked: how many are records that Kafka has, and how many offsets it no longer keeps.
    Raises SourceError where it does not tell."""
    held = check_continues(stream.name, source, position).held
    spans = {place[1]: (max(count.checked.to, held[place[1]][0]), count.end - 1) for place, count in counts.items()}
    ranges = {partition: [span] for partition, span in spans.items() if size([span])}
    there = landed.where(_within({place: [(count.checked.to, count.end - 1)] for place, count in counts.items()}))
    there = there.dropDuplicates(_RECORD)
    missing = {}
    if ranges:
        records = read_kafka_ranges(lake.spark, source, f"streams.{stream.name}.source", ranges)
        lacking = records.select(*(f"__raw.{name}" for name in _RECORD)).join(there, _RECORD, "left_anti")
        missing = _by_partition(lacking)
        # What retention has taken meanwhile was not read, and is not taken for holes.
        held = check_continues(stream.name, source, position).held
    old = {place: (count.checked.to, min(held[place[1]][0], count.end) - 1) for place, count in counts.items()}
    old = {place: span for place, span in old.items() if size([span])}
    rows = there.where(_within({place: [span] for place, span in old.items()}) & ~_within(gaps))
    kept = _by_partition(rows) if old else {}
    unproven = {place: size(outside(gaps.get(place, []), *span)) - kept.get(place[1], 0) for place, span in old.items()}
    return {place: missing.get(place[1], 0) for place in counts}, unproven


def _by_partition(rows: DataFrame) -> dict[int, int]:
    return {row["source_partition"]: row["count"] for row in rows.groupBy("source_partition").count().collect()}


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


def _within(gaps: Mapping[Place, Spans]) -> Column:
    here = F.struct(*(F.col(name) for name in _PLACE))
    inside = [
        (here == F.struct(F.lit(topic), F.lit(partition), F.lit(generation))) & F.col("source_offset").between(*span)
        for (topic, partition, generation), spans in gaps.items()
        for span in spans
    ]
    return reduce(or_, inside, F.lit(False))
