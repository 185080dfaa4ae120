"""What a run of settle tells of itself in the ledger: what it looked up and why, what changed, what became final."""

from dataclasses import dataclass, field

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.events import Streams
from pipelines.histogram import Histogram, cumulative
from pipelines.lake import at

DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Outcomes looked up, by cause (an outcome may have several), and of them those whose row was added or changed; and for each
    event date that was final before the run, the same two counts over all causes, `looked_up` and `changed`."""

    causes: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    after_final: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Final:
    """The outcomes that became final in a run; how long after their exposure they came, as a histogram."""

    outcomes: int = 0
    unattributed: int = 0
    settled: int = 0
    delays: dict[str, int] = field(default_factory=dict)


def looked_up(selected: DataFrame, attributed: DataFrame, streams: Streams, stamp: int, previous: int | None) -> Looked:
    """`selected` are outcomes with `__cause`; `attributed` the table after the write, pruned to their dates; rows that this run
    wrote have `updated_at = stamp`. `previous` is the horizon before the run: dates that end at or below it were final."""
    outcome = streams.outcome
    wrote = (F.col("attributed_by") == "settle") & (F.col("updated_at") == at(stamp))
    mine = attributed.where(wrote).select(F.col("event_date").alias("__date"), F.col(outcome.id), F.lit(True).alias("__mine"))
    asked = selected.select(F.to_date(outcome.event_time).alias("__date"), outcome.id, "__cause").distinct()
    figures = F.count("*").alias("looked_up"), F.count("__mine").alias("changed")
    known = asked.join(mine, ["__date", outcome.id], how="left_outer")
    by_cause = known.groupBy("__cause").agg(*figures).collect()
    after_final = {}
    if previous is not None:
        final = (F.unix_date("__date") + 1) * F.lit(DAY_US) <= F.lit(previous + 1)
        once = known.where(final).select("__date", outcome.id, "__mine").distinct()
        by_date = once.groupBy(F.col("__date").cast("string").alias("date")).agg(*figures).collect()
        after_final = {row["date"]: {"looked_up": row["looked_up"], "changed": row["changed"]} for row in by_date}
    return Looked(
        causes={row["__cause"]: row["looked_up"] for row in by_cause},
        changed={row["__cause"]: row["changed"] for row in by_cause},
        after_final=after_final,
    )


def became_final(rows: DataFrame, streams: Streams) -> Final:
    """`rows` are those of the attributed table whose event time the horizon has passed in this run."""
    delay = F.unix_micros(streams.outcome.event_time) - F.unix_micros("exposure_time")
    figures = rows.agg(
        F.count("*"),
        F.count_if(F.col("exposure_time").isNull()),
        F.count_if(F.col("attributed_by") == "settle"),
        cumulative(delay),
    )
    count, unattributed, settled, delays = figures.collect()[0]
    return Final(
        outcomes=count, unattributed=unattributed, settled=settled, delays=dict(Histogram.from_cumulative(delays).counts)
    )
