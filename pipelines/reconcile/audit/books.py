"""The books of the outcomes: what has landed is in the output table or pending."""

from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.model.events import Streams


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
class Books:
    """The books of all hours; `conflicting` ids have several events."""

    hours: tuple[HourBooks, ...]
    conflicting: int

    @property
    def landed(self) -> int:
        return sum(hour.landed for hour in self.hours)

    @property
    def unbalanced(self) -> int:
        """The sum of the hours', so that an hour with too many does not make up for one that lacks some."""
        return sum(hour.unbalanced for hour in self.hours)

    def as_dict(self) -> dict[str, Any]:
        totals = {name: sum(getattr(hour, name) for hour in self.hours) for name in ("landed", "attributed", "pending")}
        unbalanced = [asdict(hour) for hour in self.hours if hour.unbalanced]
        return {**totals, "conflicting": self.conflicting, "balances": not unbalanced, "unbalanced_hours": unbalanced}


def balance(outcomes: DataFrame, table: DataFrame, streams: Streams, final: Column) -> Books:
    """Balance the books. `outcomes` has one row an id with `__versions`; `final`: which are at or below the bound."""
    id, time = F.col(streams.outcome.id), F.col(streams.outcome.event_time)
    ids = table.select(id.alias("__id"), F.lit(True).alias("__there")).distinct()
    counted = (
        outcomes.join(ids, id == F.col("__id"), "left")
        .groupBy(F.to_date(time).cast("string").alias("event_date"), F.hour(time).alias("hour"))
        .agg(
            F.count("*").alias("landed"),
            F.count_if(final & F.col("__there")).alias("attributed"),
            F.count_if(~final).alias("pending"),
            F.count_if(F.col("__versions") > 1).alias("conflicting"),
        )
        .orderBy("event_date", "hour")
    )
    rows = [row.asDict() for row in counted.collect()]
    conflicting = sum(row.pop("conflicting") for row in rows)
    return Books(hours=tuple(HourBooks(**row) for row in rows), conflicting=conflicting)
