"""Checks of the door: did everything that came in land, once, and is all of it accounted for?"""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.events import Streams
from pipelines.lake import Lake


@dataclass(frozen=True, kw_only=True)
class StreamDoor:
    """Rows and files of one stream in bronze as pinned; and, of a stream from Kafka, what all its offsets say."""

    stream: str
    accepted: int
    late: int
    files: int
    files_ingested_twice: int
    quarantined: dict[str, int]
    offsets: "Offsets"

    @property
    def quarantine_rate(self) -> float:
        rejected = sum(self.quarantined.values())
        return rejected / (self.accepted + rejected) if rejected else 0.0


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Kafka partitions that a stream has come from; offsets between their first and last that have landed neither in bronze nor
    in quarantine; offsets that have landed more than once. A transaction's markers take offsets too: topics written in
    transactions show them as missing."""

    partitions: int = 0
    missing: int = 0
    twice: int = 0


@dataclass(frozen=True, kw_only=True)
class Account:
    """Distinct outcome ids: `landed = attributed + pending` where nothing is lost; `conflicting` have several events."""

    landed: int
    attributed: int
    pending: int
    conflicting: int

    @property
    def balances(self) -> bool:
        return self.landed == self.attributed + self.pending


def stream_door(lake: Lake, stream: str, bronze: DataFrame, *, from_kafka: bool) -> StreamDoor:
    """What bronze (pinned, in the dates asked for) and quarantine hold of a stream; offsets are of all dates."""
    # A file is one commit's: rows of one file with two ingest times are of a file that was ingested twice.
    files = bronze.where("source_partition IS NULL").groupBy("source").agg(F.count_distinct("ingest_time").alias("times"))
    totals = bronze.agg(F.count("*"), F.count_if(F.col("late"))).collect()[0]
    seen = files.agg(F.count("*"), F.count_if(F.col("times") > 1)).collect()[0]
    reasons = lake.read("quarantine").where(F.col("stream") == stream).groupBy("reason").count().orderBy("reason").collect()
    return StreamDoor(
        stream=stream,
        accepted=totals[0],
        late=totals[1],
        files=seen[0],
        files_ingested_twice=seen[1],
        quarantined={row["reason"]: row["count"] for row in reasons},
        offsets=_offsets(lake, stream) if from_kafka else Offsets(),
    )


def _offsets(lake: Lake, stream: str) -> Offsets:
    # Bronze at one version, and quarantine after it: a micro-batch writes quarantine first, so up to the last offset in bronze
    # all is there that ever will be.
    bronze = lake.read(stream, lake.version(stream))
    quarantine = lake.read("quarantine").where(F.col("stream") == stream)
    place = ("source", "source_partition")
    reach = bronze.groupBy(*place).agg(F.max("source_offset").alias("__reach"))
    landed = bronze.select(*place, "source_offset").unionByName(quarantine.select(*place, "source_offset"))
    judged = landed.join(F.broadcast(reach), list(place), how="inner").where(F.col("source_offset") <= F.col("__reach"))
    each = judged.groupBy(*place).agg(
        (F.max("source_offset") - F.min("source_offset") + 1).alias("span"),
        F.count("*").alias("rows"),
        F.count_distinct("source_offset").alias("different"),
    )
    partitions, missing, twice = each.agg(
        F.count("*"), F.sum(F.col("span") - F.col("different")), F.sum(F.col("rows") - F.col("different"))
    ).collect()[0]
    return Offsets(partitions=partitions, missing=missing or 0, twice=twice or 0)


def account(outcomes: DataFrame, table: DataFrame, streams: Streams, final: Column) -> Account:
    """Balance the books. `outcomes` has one row an id with `__versions`; `final` tells which are at or below the bound."""
    counted = outcomes.select(final.alias("final"), "__versions").agg(
        F.count("*"), F.count_if(~F.col("final")), F.count_if(F.col("__versions") > 1)
    )
    landed, pending, conflicting = counted.collect()[0]
    ids = table.select(streams.outcome.id).distinct()
    attributed = outcomes.where(final).join(ids, streams.outcome.id, "left_semi").count()
    return Account(landed=landed, attributed=attributed, pending=pending, conflicting=conflicting)
