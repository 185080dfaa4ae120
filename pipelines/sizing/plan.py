"""From a load to a plan: cores, intervals, partitions, limits to configure, volumes of a day."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from pipelines.config import Partitioning
from pipelines.sizing.costs import Costs, Provider
from pipelines.sizing.demand import Demand
from pipelines.sizing.load import DAY_SECONDS, FIXED_SHARE, Busy, busy, cores, hours_written, partitions_for, state_rows

FRESHNESS = 1.1
"""How many times the fewest cores a plan may take, to have its intervals shorter than the fewest would allow."""

_T = TypeVar("_T")

MIB, GIB = 2**20, 2**30
_TRIGGERS = (10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1800, 3600)
_SETTLES = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
_LEAST_OFFSETS = 100_000
_LEAST_JOIN_BYTES = 32 * MIB
_LEAST_JOIN_FILES = 1000


@dataclass(frozen=True, kw_only=True)
class State:
    """The join's state at the peak. `bytes` are where the provider keeps them: on local disk (rocksdb), on the heap (memory)."""

    provider: Provider
    rows: int
    bytes: int
    rows_per_partition: int
    bytes_per_partition: int
    bytes_per_core: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a day adds to a table: rows, bytes, files as they are written, and files once OPTIMIZE has been over them."""

    rows: int
    bytes: int
    files: int
    files_optimized: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rates are events per second, intervals seconds, `*_bytes` bytes. `busy` is in cores; `cores` are those to have."""

    events_per_second: float
    events_per_second_at_peak: float
    busy: Busy
    cores: int
    executors: int
    cores_per_executor: int
    memory_bytes_per_executor: int
    disk_bytes_per_executor: int
    trigger_seconds: float
    settle_every_seconds: float
    micro_batch_seconds: float
    state: State
    shuffle_partitions: int
    kafka_partitions: dict[str, int]
    max_offsets_per_trigger: dict[str, int]
    join_max_bytes: int
    join_max_files: int
    settle_backlog_bytes: int
    partition_by: Partitioning
    kafka_bytes_per_day: int
    bronze: dict[str, Table]
    attributed: Table
    ledger_rows_per_day: int
    commits_per_second: float


def plan(demand: Demand, costs: Costs) -> Plan:
    """The plan for a demand. With a higher rate it never has fewer cores, shuffle partitions or Kafka partitions."""
    costs = costs.at_speed(demand.core_speed)
    slots, trigger, every = _cores_and_intervals(demand, costs)
    executors = -(-slots // demand.cores_per_executor)
    each = min(slots, demand.cores_per_executor)
    shuffle = _shuffle_partitions(demand, costs, slots)
    kafka = _by_stream(demand, lambda rate, _: partitions_for(rate * demand.headroom, costs.ingest_us_per_event))
    bronze = {role: _bronze(demand, costs, role, trigger, kafka[role]) for role in ("exposures", "outcomes")}
    work, state = busy(demand, costs, trigger, every), _state(demand, costs, trigger, shuffle, slots)
    memory, disk = _footprint(costs, state, shuffle, executors, each)
    per_second = demand.exposures_per_second + demand.outcomes_per_second
    streaming = work.ingest + work.join_events + work.join_scan + work.merge
    batches = 3 * DAY_SECONDS / trigger + DAY_SECONDS / every
    return Plan(
        events_per_second=per_second,
        events_per_second_at_peak=per_second * demand.headroom,
        busy=work,
        cores=slots,
        executors=executors,
        cores_per_executor=each,
        memory_bytes_per_executor=memory,
        disk_bytes_per_executor=disk,
        trigger_seconds=trigger,
        settle_every_seconds=every,
        micro_batch_seconds=costs.fixed_seconds_per_batch + trigger * streaming / slots,
        state=state,
        shuffle_partitions=shuffle,
        kafka_partitions=kafka,
        max_offsets_per_trigger=_by_stream(
            demand, lambda rate, _: max(_LEAST_OFFSETS, rounded_up(rate * demand.headroom * trigger))
        ),
        join_max_bytes=_join_max_bytes(demand, costs, trigger),
        join_max_files=max(_LEAST_JOIN_FILES, 4 * max(kafka.values())),
        settle_backlog_bytes=_settle_backlog_bytes(demand, costs),
        partition_by="hour" if bronze["exposures"].bytes >= 24 * GIB else "date",
        kafka_bytes_per_day=round(sum(_by_stream(demand, lambda rate, json: rate * json * DAY_SECONDS).values())),
        bronze=bronze,
        attributed=_attributed(demand, costs, trigger, every),
        ledger_rows_per_day=round(batches),
        commits_per_second=batches / DAY_SECONDS,
    )


def _cores_and_intervals(demand: Demand, costs: Costs) -> tuple[int, float, float]:
    """Cores, and the freshest intervals that they carry: the shortest trigger first, then the shortest interval of settle.

    Over a fixed set of intervals, each of which needs no fewer cores when a rate rises, the least needs no fewer either.
    """
    triggers = _ladder(
        _TRIGGERS,
        max(demand.trigger.total_seconds(), costs.fixed_seconds_per_batch / FIXED_SHARE),
        demand.max_trigger.total_seconds(),
    )
    settles = _ladder(_SETTLES, max(demand.settle_every.total_seconds(), 60.0), demand.max_settle_every.total_seconds())
    needs = {(t, s): cores(demand, costs, t, s) for t, s in product(triggers, settles)}
    slots = in_executors(max(1, math.ceil(min(needs.values()) * FRESHNESS)), demand.cores_per_executor)
    trigger, every = min(at for at, need in needs.items() if need <= slots)
    return slots, trigger, every


def _ladder(steps: tuple[int, ...], least: float, most: float) -> list[float]:
    return [least, *(float(step) for step in steps if least < step <= most)]


def in_executors(count: int, each: int) -> int:
    """On one machine as many cores as are needed; on several whole executors.

    >>> [in_executors(count, 8) for count in (1, 7, 9)]
    [1, 7, 16]
    """
    return count if count <= each else -(-count // each) * each


def _shuffle_partitions(demand: Demand, costs: Costs, slots: int) -> int:
    """A partition a core; more, a multiple of an executor's cores, where one would hold too many rows of state. Counted with the
    longest trigger, so that it does not depend on which is chosen."""
    longest = max(demand.max_trigger.total_seconds(), demand.trigger.total_seconds(), costs.fixed_seconds_per_batch / FIXED_SHARE)
    for_rows = math.ceil(state_rows(demand, longest) / costs.state(demand.provider).rows_per_partition)
    return max(2, slots, in_executors(for_rows, demand.cores_per_executor))


def _state(demand: Demand, costs: Costs, trigger: float, partitions: int, slots: int) -> State:
    rows = state_rows(demand, trigger)
    size = rows * costs.state(demand.provider).bytes_per_row
    return State(
        provider=demand.provider,
        rows=math.ceil(rows),
        bytes=math.ceil(size),
        rows_per_partition=math.ceil(rows / partitions),
        bytes_per_partition=math.ceil(size / partitions),
        bytes_per_core=math.ceil(size / slots),
    )


def _footprint(costs: Costs, state: State, partitions: int, executors: int, each: int) -> tuple[int, int]:
    """Memory of an executor, all in, and local disk: RocksDB needs as much again while it compacts."""
    work = each * costs.memory_bytes_per_core
    if state.provider == "memory":
        return math.ceil(work + state.bytes / executors), 0
    stores = math.ceil(partitions / executors) * costs.stores_per_partition
    return math.ceil(work + stores * costs.rocksdb_bytes_per_store), math.ceil(2 * state.bytes / executors)


def _by_stream(demand: Demand, of: Callable[[float, float], _T]) -> dict[str, _T]:
    """What `of` says of each stream's rate (events per second) and size (bytes of an event as JSON)."""
    return {
        "exposures": of(demand.exposures_per_second, demand.exposure_bytes),
        "outcomes": of(demand.outcomes_per_second, demand.outcome_bytes),
    }


def _bronze_bytes(demand: Demand, costs: Costs) -> tuple[float, float]:
    """Bytes of an exposure and of an outcome in bronze: as measured, in proportion to the size of the events."""
    exposure = costs.exposure_bronze_bytes * demand.exposure_bytes / costs.exposure_json_bytes
    return exposure, costs.outcome_bronze_bytes * demand.outcome_bytes / costs.outcome_json_bytes


def _bronze(demand: Demand, costs: Costs, role: str, trigger: float, partitions: int) -> Table:
    exposure, outcome = _bronze_bytes(demand, costs)
    exposures = role == "exposures"
    rows = (demand.exposures_per_second if exposures else demand.outcomes_per_second) * DAY_SECONDS
    by = demand.exposure_partition_by if exposures else demand.outcome_partition_by
    files = DAY_SECONDS / trigger * partitions * hours_written(by, demand)
    return _table(costs, rows, rows * (exposure if exposures else outcome), files, by)


def _attributed(demand: Demand, costs: Costs, trigger: float, every: float) -> Table:
    """One file for each partition of event time that a MERGE writes to (Delta repartitions before it writes)."""
    rows = demand.outcomes_per_second * DAY_SECONDS
    size = rows * costs.attributed_bytes * demand.outcome_bytes / costs.outcome_json_bytes
    by = demand.outcome_partition_by
    return _table(costs, rows, size, DAY_SECONDS / trigger + DAY_SECONDS / every * hours_written(by, demand), by)


def _table(costs: Costs, rows: float, size: float, files: float, by: Partitioning) -> Table:
    parts = 1 if by == "date" else 24
    written = min(math.ceil(files), math.ceil(rows))
    return Table(
        rows=math.ceil(rows),
        bytes=round(size),
        files=written,
        files_optimized=min(written, max(parts, math.ceil(size / costs.optimized_file_bytes))),
    )


def _join_max_bytes(demand: Demand, costs: Costs, trigger: float) -> int:
    """Twice what the greater stream lands in a trigger at its peak, so that the join catches up; whole MiB."""
    exposure, outcome = _bronze_bytes(demand, costs)
    greater = max(demand.exposures_per_second * exposure, demand.outcomes_per_second * outcome)
    return max(_LEAST_JOIN_BYTES, math.ceil(2 * greater * demand.headroom * trigger / MIB) * MIB)


def _settle_backlog_bytes(demand: Demand, costs: Costs) -> int:
    """What lands within the time that state holds: a shorter backlog costs the join less than filling its state anew."""
    held = (demand.hot_window + demand.watermark_delay).total_seconds()
    exposure, outcome = _bronze_bytes(demand, costs)
    greater = max(demand.exposures_per_second * exposure, demand.outcomes_per_second * outcome)
    return max(_LEAST_JOIN_BYTES, math.ceil(greater * held / MIB) * MIB)


def rounded_up(value: float) -> int:
    """To two digits.

    >>> [rounded_up(value) for value in (0, 7, 1234.5, 100)]
    [0, 7, 1300, 100]
    """
    if value <= 0:
        return 0
    unit = int(10 ** max(0, math.floor(math.log10(value)) - 1))
    return math.ceil(value / unit) * unit
