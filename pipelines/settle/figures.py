"""What a run of settle tells of itself in the ledger: what it looked up and why, what changed, what became final."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake.tables import at
from pipelines.model.events import Streams
from pipelines.model.histogram import Histogram, cumulative
from pipelines.model.time import EPOCH

DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class LookupStats:
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


def lookup_stats(selected: DataFrame, attributed: DataFrame, streams: Streams, stamp: int, previous: int | None) -> LookupStats:
    """`selected` are outcomes with `__cause`; `attributed` the table after the write, pruned to their dates; rows that this run
    wrote have `updated_at = stamp`. `previous` is the horizon before the run: dates that end at or below it were final."""
    outcome = streams.outcome
    wrote = (F.col("attributed_by") == "settle") & (F.col("updated_at") == at(stamp))
    mine = attributed.where(wrote).select(F.col("event_date").alias("__date"), F.col(outcome.id), F.lit(True).alias("__mine"))
    date = F.to_date(outcome.event_time).alias("__date")
    asked = selected.groupBy(date, outcome.id).agg(F.array_sort(F.collect_set("__cause")).alias("__causes"))
    known = asked.join(mine.distinct(), ["__date", outcome.id], how="left_outer")
    counted = known.groupBy("__date", "__causes").agg(F.count("*").alias("looked_up"), F.count("__mine").alias("changed"))
    causes, changed = Counter[str](), Counter[str]()
    after_final: dict[str, Counter[str]] = defaultdict(Counter)
    for row in counted.collect():
        for cause in row["__causes"]:
            causes[cause] += row["looked_up"]
            changed[cause] += row["changed"]
        day_ends = (row["__date"] - EPOCH.date()).days * DAY_US + DAY_US
        if previous is not None and day_ends <= previous + 1:
            after_final[str(row["__date"])].update(looked_up=row["looked_up"], changed=row["changed"])
    return LookupStats(
        causes=dict(causes), changed=dict(changed), after_final={day: dict(counts) for day, counts in after_final.items()}
    )


def became_final(rows: DataFrame, streams: Streams) -> Final:
    """`rows` are those of the attributed table whose event time the horizon has passed in this run."""
    delay = f"(unix_micros(`{streams.outcome.event_time}`) - unix_micros(exposure_time))"
    figures = rows.agg(
        F.count("*"),
        F.count_if(F.col("exposure_time").isNull()),
        F.count_if(F.col("attributed_by") == "settle"),
        F.expr(cumulative(delay)),
    )
    count, unattributed, settled, delays = figures.collect()[0]
    return Final(
        outcomes=count, unattributed=unattributed, settled=settled, delays=dict(Histogram.from_cumulative(delays).counts)
    )
