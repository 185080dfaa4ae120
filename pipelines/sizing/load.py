"""What a load costs at given intervals: processor time, by what it is spent on. docs/scale.md has the formulas in words."""

import math
from dataclasses import asdict, dataclass
from datetime import timedelta

from pipelines.config import Partitioning
from pipelines.sizing.costs import Costs
from pipelines.sizing.demand import Demand

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600

UTILISATION = 0.7
"""How busy cores are planned to be at the peak: garbage collection, skew and retries take the rest."""

FIXED_SHARE = 0.2
"""The most of a trigger's interval that what is fixed in a micro-batch may take."""


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Cores' worth of work at the peak (of settle and of the table that MERGE compares with: over the day, at its end)."""

    ingest: float
    join_events: float
    join_scan: float
    merge: float
    settle: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def state_rows(demand: Demand, trigger: float) -> float:
    """Rows in the join's state at the peak: on-time exposures of `hot_window + watermark_delay`, on-time outcomes of
    `watermark_delay`, and of both those of two triggers: the micro-batch in hand, and the commit by which the watermark follows
    the door."""
    delay = demand.watermark_delay.total_seconds() + 2 * trigger
    held = demand.exposures_per_second * (delay + demand.hot_window.total_seconds()) + demand.outcomes_per_second * delay
    return held * demand.headroom * (1 - demand.late_share)


def busy(demand: Demand, costs: Costs, trigger: float, settle_every: float) -> Busy:
    """Cores' worth of work; `costs` at the speed of the cores, intervals in seconds. None of it falls when a rate rises."""
    state = costs.state(demand.provider)
    events = (demand.exposures_per_second + demand.outcomes_per_second) * demand.headroom
    return Busy(
        ingest=events * costs.ingest_us_per_event / 1e6,
        join_events=events * (1 - demand.late_share) * state.us_per_event / 1e6,
        join_scan=state_rows(demand, trigger) * state.scan_us_per_row / 1e6 / trigger,
        merge=_merge(demand, costs, demand.outcomes_per_second * demand.headroom * trigger, days=1) / trigger,
        settle=_settle(demand, costs, settle_every) / settle_every,
    )


def _merge(demand: Demand, costs: Costs, rows: float, *, days: float) -> float:
    """Core-seconds of one MERGE of so many rows: comparing ids with all of their event dates, at the end of a day."""
    per_row = costs.probe_us_per_row if rows <= costs.merge_broadcast_rows else costs.shuffle_us_per_row
    return demand.outcomes_per_second * DAY_SECONDS * days * per_row / 1e6


def _settle(demand: Demand, costs: Costs, every: float) -> float:
    """Core-seconds of one run: the exposures of the hours that it reaches into, the outcomes, the MERGE."""
    outcomes = demand.outcomes_per_second * demand.settled_share * every
    if not outcomes:
        return 0.0
    per_row = costs.probe_us_per_row if outcomes <= costs.settle_broadcast_outcomes else costs.shuffle_us_per_row
    scan = demand.exposures_per_second * settle_span(demand, every) * per_row
    # Late rows of today reach into yesterday for as long as they come late.
    days = 1 + min(1.0, _late_seconds(demand) / DAY_SECONDS)
    return (scan + outcomes * costs.settle_us_per_outcome) / 1e6 + _merge(demand, costs, outcomes, days=days)


def settle_span(demand: Demand, every: float) -> float:
    """Seconds of event time whose exposures one run of settle reads: the window before its outcomes, in whole hours."""
    return demand.attribution_window.total_seconds() + HOUR_SECONDS + every + _late_seconds(demand)


def _late_seconds(demand: Demand) -> float:
    return demand.late_reach.total_seconds() if demand.late_share else 0.0


def cores(demand: Demand, costs: Costs, trigger: float, settle_every: float) -> float:
    """Cores that all of it needs so that micro-batches end within their trigger and runs of settle within their interval."""
    work = busy(demand, costs, trigger, settle_every)
    streaming = work.ingest + work.join_events + work.join_scan + work.merge
    return streaming / _room(costs.fixed_seconds_per_batch, trigger) + work.settle / _room(
        costs.fixed_seconds_per_settle, settle_every
    )


def _room(fixed: float, every: float) -> float:
    """Of each second of a core, what is there for work after what is fixed."""
    return UTILISATION - min(FIXED_SHARE, fixed / every)


def partitions_for(rate_at_peak: float, us_per_event: float) -> int:
    """Tasks, one core each, that a stream needs at the door."""
    tasks = rate_at_peak * us_per_event / 1e6 / (UTILISATION - FIXED_SHARE)
    return max(1, math.ceil(round(tasks, 6)))


def hours_written(partition_by: Partitioning, demand: Demand) -> int:
    """Partitions of event time that one commit writes to: with `hour`, also those of the late rows."""
    late = timedelta(seconds=_late_seconds(demand)) / timedelta(hours=1)
    return 1 if partition_by == "date" else 1 + int(late)
