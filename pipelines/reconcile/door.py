"""Checks of the door: did everything that came in land, once, and is all of it accounted for?"""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.events import Streams
from pipelines.lake import Lake


@dataclass(frozen=True, kw_only=True)
class StreamDoor:
    """Rows and files of one stream in bronze as pinned."""

    stream: str
    accepted: int
    late: int
    files: int
    files_ingested_twice: int
    quarantined: dict[str, int]

    @property
    def quarantine_rate(self) -> float:
        rejected = sum(self.quarantined.values())
        return rejected / (self.accepted + rejected) if rejected else 0.0


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


def stream_door(lake: Lake, stream: str, bronze: DataFrame) -> StreamDoor:
    """What bronze (pinned, in the dates asked for) and quarantine hold of a stream."""
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
    )


def account(outcomes: DataFrame, table: DataFrame, streams: Streams, final: Column) -> Account:
    """Balance the books. `outcomes` has one row an id with `__versions`; `final` tells which are at or below the bound."""
    counted = outcomes.select(final.alias("final"), "__versions").agg(
        F.count("*"), F.count_if(~F.col("final")), F.count_if(F.col("__versions") > 1)
    )
    landed, pending, conflicting = counted.collect()[0]
    ids = table.select(streams.outcome.id).distinct()
    attributed = outcomes.where(final).join(ids, streams.outcome.id, "left_semi").count()
    return Account(landed=landed, attributed=attributed, pending=pending, conflicting=conflicting)
