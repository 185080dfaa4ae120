"""Checks of the door: did everything that came in land, once, and is all of it accounted for?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add, and_, or_
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.checkpoints import kafka_start
from pipelines.config import KafkaSource
from pipelines.events import EventStream, Streams
from pipelines.gaps import Acceptance, accepted
from pipelines.ingest.position import position
from pipelines.lake import Lake, at
from pipelines.reconcile.copies import files_twice
from pipelines.reconcile.losses import Losses
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class StreamDoor:
    """Rows and files of one stream in bronze as it is now: `accepted` in the dates asked for; `ingested` and `quarantined` (by
    reason) on those dates or while those came in, of any event date. `files_untold` are not there any more, to be held against.
    `rows_copied` are too many, of whatever files; `files_ingested_twice` are those wholly there again; `rows_unsourced` are of
    landing files that do not have them, and `rows_misplaced` in a partition that is not their event time's. What it had once and
    has no more: `data_files_gone`, `rows_lost`, `files_incomplete` (landing files); of Kafka, what all offsets say."""

    stream: str
    accepted: int
    late: int
    files: int
    files_untold: int
    ingested: int
    files_ingested_twice: int
    rows_copied: int
    rows_unsourced: int
    rows_misplaced: int
    data_files_gone: int
    rows_lost: int
    files_incomplete: int
    quarantined: dict[str, int]
    offsets: "Offsets"

    @property
    def mendable(self) -> bool:
        """Whether bronze has rows twice, or too few, or such as it should not have, or not there."""
        lost = self.data_files_gone or self.rows_lost or self.offsets.missing
        return bool(lost or self.rows_copied or self.offsets.twice or self.rows_unsourced or self.rows_misplaced)

    @property
    def quarantine_rate(self) -> float:
        rejected = sum(self.quarantined.values())
        return rejected / (self.ingested + rejected) if rejected else 0.0


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Kafka partitions that a stream has come from; offsets between their first and last, and of those that ingest's checkpoint
    says it has read, that have landed neither in bronze nor in quarantine: `given_up` within an accepted gap, `missing` outside
    of any; records that have landed more than once. A transaction's markers take offsets too: topics written in transactions show
    them as missing."""

    partitions: int = 0
    missing: int = 0
    twice: int = 0
    given_up: int = 0


@dataclass(frozen=True, kw_only=True)
class HourBooks:
    """Distinct outcome ids of an hour of event time (UTC): `landed = attributed + pending` where nothing is lost."""

    event_date: str
    hour: int
    landed: int
    attributed: int
    pending: int

    @property
    def unbalanced(self) -> int:
        return abs(self.landed - self.attributed - self.pending)


@dataclass(frozen=True, kw_only=True)
class Account:
    """The books of all hours; `conflicting` ids have several events."""

    hours: tuple[HourBooks, ...]
    conflicting: int

    @property
    def landed(self) -> int:
        return sum(hour.landed for hour in self.hours)

    @property
    def attributed(self) -> int:
        return sum(hour.attributed for hour in self.hours)

    @property
    def pending(self) -> int:
        return sum(hour.pending for hour in self.hours)

    @property
    def unbalanced(self) -> int:
        """By hour, so that one that has too many does not make up for one that lacks some."""
        return sum(hour.unbalanced for hour in self.hours)

    def as_dict(self) -> dict[str, Any]:
        totals = {name: getattr(self, name) for name in ("landed", "attributed", "pending", "conflicting")}
        return {**totals, "balances": self.unbalanced == 0, "unbalanced_hours": [asdict(h) for h in self.hours if h.unbalanced]}


def stream_door(
    lake: Lake, stream: EventStream, span: Range, losses: Losses, source: KafkaSource | None, *, misplaced: int
) -> StreamDoor:
    """What bronze (in the dates asked for) and quarantine (of what came in with them) hold of a stream; offsets are of all
    dates."""
    rows = lake.read(stream.name)
    bronze = rows.where(span.holds(F.col("event_date")))
    from_files = F.when(F.col("source_partition").isNull(), F.col("source"))
    came = F.unix_micros("ingest_time")
    figures = F.count("*"), F.count_if(F.col("late")), F.count_distinct(from_files), F.min(came), F.max(came)
    accepted, late, files, first, last = bronze.agg(*figures).collect()[0]
    copied = files_twice(bronze, stream, losses.untold)
    rejected, ingested = lake.read("quarantine").where(F.col("stream") == stream.name), accepted
    if not span.is_open:
        # On the dates themselves too: where all is refused nothing comes in.
        meanwhile = span.holds_time(F.col("ingest_time"))
        if first is not None:
            meanwhile = meanwhile | F.col("ingest_time").between(at(first), at(last))
        rejected, ingested = rejected.where(meanwhile), rows.where(meanwhile).count()
    reasons = sorted(rejected.groupBy("reason").count().collect())
    return StreamDoor(
        stream=stream.name,
        accepted=accepted,
        late=late,
        files=files,
        files_untold=files if losses.untold is None else len(losses.untold),
        ingested=ingested,
        files_ingested_twice=losses.twice + len(copied),
        rows_copied=sum(losses.copies.values()) + sum(copied.values()),
        rows_unsourced=sum(losses.unsourced.values()),
        rows_misplaced=misplaced,
        data_files_gone=len(losses.gone),
        rows_lost=losses.rows,
        files_incomplete=len(losses.lines),
        quarantined={row["reason"]: row["count"] for row in reasons},
        offsets=_offsets(lake, stream.name, source) if source else Offsets(),
    )


def lost_offsets(lake: Lake, stream: str, source: KafkaSource) -> dict[int, list[tuple[int, int]]]:
    """By partition, the offsets (both ends inclusive) of the topic as it is now that have landed neither in bronze nor in
    quarantine, of all that ingest has read, outside of accepted gaps."""
    # What ingest has finished first, then what it has written.
    bounds = _read_bounds(lake, stream, source)
    acceptances, topic = accepted(lake, stream), source.topic
    newest, current = _current(acceptances, topic)
    here = _landed_offsets(lake, stream, acceptances, current & _read(bounds)).where(current)
    gaps = _accepted_ranges(acceptances)
    order = Window.partitionBy("source_partition").orderBy("source_offset")
    following = (
        here.select("source_partition", "source_offset").distinct().withColumn("__next", F.lead("source_offset").over(order))
    )
    holes = following.where(F.col("__next") > F.col("source_offset") + 1).collect()
    spans = [(row["source_partition"], row["source_offset"] + 1, row["__next"] - 1) for row in holes]
    extremes = here.groupBy("source_partition").agg(F.min("source_offset").alias("first"), F.max("source_offset").alias("last"))
    landed = {row["source_partition"]: (row["first"], row["last"]) for row in extremes.collect()}
    lost: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for partition, first, last in sorted([*spans, *_edges(bounds, landed)]):
        lost[partition] += _outside(gaps.get((topic, partition, newest), []), first, last)
    return {partition: found for partition, found in lost.items() if found}


def _read_bounds(lake: Lake, stream: str, source: KafkaSource) -> dict[int, tuple[int | None, int]]:
    """By partition, the first offset that ingest was to read (None: nothing tells), and the next after those that it has read."""
    place, base = position(lake, stream, source), lake.checkpoint(f"ingest-{stream}")
    # Behind an accepted gap it has a checkpoint of its own, which begins there.
    starts = kafka_start(lake.spark, base, source.topic) if place.checkpoint == base else {}
    return {partition: (starts.get(partition), end) for partition, end in place.offsets.items()}


def _edges(bounds: Mapping[int, tuple[int | None, int]], landed: Mapping[int, tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(Partition, first, last) of what has been read before the first that has landed, and behind the last."""
    for partition, (start, end) in bounds.items():
        if partition in landed:
            first, last = landed[partition]
            ends = (first if start is None else start, first - 1), (last + 1, end - 1)
            yield from ((partition, a, b) for a, b in ends if a <= b)
        elif start is not None and start < end:
            yield partition, start, end - 1


def _outside(gaps: Sequence[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """What is left of a span without the gaps; all ends inclusive."""
    spans = [(first, last)]
    for gap_first, gap_last in gaps:
        spans = [part for a, b in spans for part in ((a, min(b, gap_first - 1)), (max(a, gap_last + 1), b)) if part[0] <= part[1]]
    return spans


def _current(acceptances: Sequence[Acceptance], topic: str) -> tuple[int, Column]:
    """The generation that a topic's offsets count in now; and whether a row of `_generations` is of it."""
    newest = sum(each.made_anew for each in acceptances if each.topic == topic)
    return newest, (F.col("source") == topic) & (F.col("generation") == newest)


def _read(bounds: Mapping[int, tuple[int | None, int]]) -> Column:
    """Whether an offset of the current topic is among those that ingest has finished."""
    ends = (F.col("source_partition").eqNullSafe(n) & (F.col("source_offset") < end) for n, (_, end) in bounds.items())
    return reduce(or_, ends, F.lit(False))


def _landed_offsets(lake: Lake, stream: str, acceptances: Sequence[Acceptance], finished: Column) -> DataFrame:
    """The offsets in bronze, and those in quarantine that are `finished`, or up to the last in bronze."""
    # Bronze at one version, and quarantine after it: a micro-batch writes quarantine first, so up to the last offset in bronze
    # all is there that ever will be.
    bronze = _generations(lake.read(stream, lake.version(stream)), acceptances)
    quarantine = _generations(lake.read("quarantine").where(F.col("stream") == stream), acceptances)
    reach = bronze.groupBy(*_PLACE).agg(F.max("source_offset").alias("__reach"))
    judged = bronze.unionByName(quarantine).join(F.broadcast(reach), list(_PLACE), how="left")
    return judged.where(F.coalesce(F.col("source_offset") <= F.col("__reach"), F.lit(False)) | finished)


def _offsets(lake: Lake, stream: str, source: KafkaSource) -> Offsets:
    bounds = _read_bounds(lake, stream, source)
    acceptances = accepted(lake, stream)
    gaps = _accepted_ranges(acceptances)
    newest, current = _current(acceptances, source.topic)
    each = (
        _landed_offsets(lake, stream, acceptances, current & _read(bounds))
        .groupBy(*_PLACE)
        .agg(
            F.min("source_offset").alias("first"),
            F.max("source_offset").alias("last"),
            F.count("*").alias("rows"),
            F.count_distinct("source_offset").alias("offsets"),
            F.count_distinct(F.struct("source_offset", "source_time")).alias("records"),
            F.count_distinct(F.when(_within(gaps), F.col("source_offset"))).alias("within"),
        )
        .collect()
    )
    missing = given_up = 0
    for row in each:
        spans = gaps.get((row["source"], row["source_partition"], row["generation"]), [])
        lost = sum(max(0, min(row["last"], last) - max(row["first"], first) + 1) for first, last in spans) - row["within"]
        given_up += lost
        missing += row["last"] - row["first"] + 1 - row["offsets"] - lost
    here = (row for row in each if row["source"] == source.topic and row["generation"] == newest)
    for partition, first, last in _edges(bounds, {row["source_partition"]: (row["first"], row["last"]) for row in here}):
        spans = _outside(gaps.get((source.topic, partition, newest), []), first, last)
        missing += sum(end - begin + 1 for begin, end in spans)
    return Offsets(
        partitions=len({(row["source"], row["source_partition"]) for row in each}),
        missing=missing,
        # The same offset at another time is another record: of a topic that was made anew.
        twice=sum(row["rows"] - row["records"] for row in each),
        given_up=given_up,
    )


# Where offsets count on: a partition, and how often its topic had been accepted as made anew when the row came.
_PLACE = ("source", "source_partition", "generation")
_Place = tuple[str, int, int]


def _generations(rows: DataFrame, acceptances: Sequence[Acceptance]) -> DataFrame:
    anew = [(F.col("source") == each.topic) & (F.col("ingest_time") > at(each.at)) for each in acceptances if each.made_anew]
    generation = reduce(add, (F.when(later, 1).otherwise(0) for later in anew), F.lit(0))
    return rows.select("source", "source_partition", generation.alias("generation"), "source_offset", "source_time")


def _accepted_ranges(acceptances: Sequence[Acceptance]) -> dict[_Place, list[tuple[int, int]]]:
    """The offsets given up at each place, as ranges with both ends inclusive, none overlapping another."""
    ranges: dict[_Place, list[tuple[int, int]]] = defaultdict(list)
    generations: dict[str, int] = defaultdict(int)
    for each in acceptances:
        for gap in each.gaps:
            spans = ranges[(each.topic, gap.partition, generations[each.topic])]
            # Accepted twice at once, the second is the first, or goes on behind it.
            first = max([gap.first, *(end + 1 for _, end in spans)])
            if gap.last is not None and first <= gap.last:
                spans.append((first, gap.last))
        generations[each.topic] += each.made_anew
    return ranges


def _within(ranges: Mapping[_Place, Sequence[tuple[int, int]]]) -> Column:
    inside = [
        reduce(
            and_, (F.col(name) == value for name, value in zip(_PLACE, where, strict=True)), F.col("source_offset").between(*span)
        )
        for where, spans in ranges.items()
        for span in spans
    ]
    return reduce(or_, inside, F.lit(False))


def account(outcomes: DataFrame, table: DataFrame, streams: Streams, final: Column) -> tuple[list[HourBooks], int]:
    """Balance the books, by hour; and how many ids have several events. `outcomes` has one row an id with `__versions`; `final`
    tells which are at or below the bound."""
    time = F.col(streams.outcome.event_time)
    hour = F.to_date(time).cast("string").alias("date"), F.hour(time).alias("hour")
    ids = table.select(F.col(streams.outcome.id).alias("__id"), F.lit(True).alias("__there")).distinct()
    known = outcomes.join(ids, F.col(streams.outcome.id) == F.col("__id"), "left")
    counted = known.groupBy(*hour).agg(
        F.count("*").alias("landed"),
        F.count_if(final & F.col("__there")).alias("attributed"),
        F.count_if(~final).alias("pending"),
        F.count_if(F.col("__versions") > 1).alias("conflicting"),
    )
    rows = sorted(counted.collect(), key=lambda row: (str(row["date"]), row["hour"]))
    names = ("landed", "attributed", "pending")
    books = (HourBooks(event_date=r["date"], hour=r["hour"], **{name: r[name] for name in names}) for r in rows)
    return list(books), sum(r["conflicting"] for r in rows)
