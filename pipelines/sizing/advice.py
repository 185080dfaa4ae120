"""What a plan asks for: settings, the limits that it comes near, and what it would be with other windows or another provider."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from pipelines.config import Config, KafkaSource
from pipelines.durations import format_duration
from pipelines.sizing.costs import Costs, Provider
from pipelines.sizing.demand import Demand
from pipelines.sizing.load import UTILISATION
from pipelines.sizing.plan import GIB, MIB, Plan, plan

# Estimates: where others report trouble, not where it was measured here.
_COMMITS_PER_SECOND = 0.5
_FILES_PER_DAY = 100_000
_PARTITIONS = 2_000
_HEAP_BYTES = 32 * GIB
_BATCH_SHARE = 0.5
_FILES_TO_COMPACT = 1_000


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Something that does not grow with the cluster, or grows faster than the load. `use` is `value` of `limit`: from 1 on it is
    reached. `basis` says whether the cost behind it was measured or estimated."""

    name: str
    value: float
    limit: float
    unit: str
    basis: str
    remedy: str

    @property
    def use(self) -> float:
        return self.value / self.limit


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """The same load under another setting; shares of cold and late outcomes are taken to stay."""

    setting: str
    cores: int
    trigger_seconds: float
    settle_every_seconds: float
    state_rows: int
    state_bytes: int
    memory_bytes_per_executor: int


@dataclass(frozen=True, kw_only=True)
class Advice:
    """`limits` are in the order in which they are reached, the first first; `settings` are what to configure, by key."""

    settings: dict[str, str]
    limits: list[Limit]
    warnings: list[str]
    alternatives: list[Alternative]


def advise(demand: Demand, costs: Costs, found: Plan, config: Config) -> Advice:
    limits = sorted(_limits(demand, costs, found), key=lambda limit: -limit.use)
    return Advice(
        settings=_settings(found, config),
        limits=limits,
        warnings=[*_reached(limits), *_warnings(demand, found, config)],
        alternatives=_alternatives(demand, costs, found),
    )


def _limits(demand: Demand, costs: Costs, found: Plan) -> list[Limit]:
    fast, trigger, every = costs.at_speed(demand.core_speed), found.trigger_seconds, found.settle_every_seconds

    def in_batch(busy: float) -> float:
        return busy * trigger / found.cores

    settle = costs.fixed_seconds_per_settle + found.busy.settle * every / found.cores if found.busy.settle else 0.0
    writer = demand.outcomes_per_second * demand.headroom * trigger * fast.write_us_per_row / 1e6
    scan = "a shorter join.hot_window or watermark_delay, a longer trigger"
    scan += ", the memory provider" if demand.provider == "rocksdb" else ""
    limits = [
        Limit(
            name="eviction scan in a micro-batch", value=in_batch(found.busy.join_scan), limit=_BATCH_SHARE * trigger, unit="s",
            basis="measured", remedy=scan,
        ),
        Limit(
            name="MERGE reading the event date", value=in_batch(found.busy.merge), limit=_BATCH_SHARE * trigger, unit="s",
            basis="estimated", remedy="a longer trigger",
        ),
        Limit(
            name="one task writes a MERGE's rows", value=writer, limit=_BATCH_SHARE * trigger, unit="s",
            basis="estimated", remedy="Delta's merge.repartitionBeforeWrite off, or optimized writes",
        ),
        Limit(
            name="a run of settle", value=settle, limit=UTILISATION * every, unit="s",
            basis="estimated", remedy="a longer settle.every, a shorter join.attribution_window",
        ),
        Limit(
            name="commits to the ledger", value=found.commits_per_second, limit=_COMMITS_PER_SECOND, unit="/s",
            basis="estimated", remedy="a longer trigger",
        ),
        Limit(
            name="files written to bronze", value=float(sum(t.files for t in found.bronze.values())), limit=_FILES_PER_DAY,
            unit="/day", basis="estimated", remedy="a longer trigger, fewer Kafka partitions, `rejoin maintain` every night",
        ),
        Limit(
            name="partitions of the state", value=float(found.shuffle_partitions), limit=_PARTITIONS, unit="", basis="estimated",
            remedy="a shorter join.hot_window, another pipeline for a part of the keys",
        ),
    ]  # fmt: skip
    if demand.provider == "memory":
        remedy = "state_store.provider=rocksdb, a shorter join.hot_window, fewer cores in an executor"
        heap = float(found.memory_bytes_per_executor)
        limits.append(Limit(name="heap of an executor", value=heap / GIB, limit=_HEAP_BYTES / GIB, unit="GiB", basis="estimated",
                            remedy=remedy))  # fmt: skip
    return limits


def _reached(limits: list[Limit]) -> list[str]:
    return [f"{limit.name}: {limit.use:.0%} of its limit ({limit.basis}); {limit.remedy}" for limit in limits if limit.use >= 1]


def _warnings(demand: Demand, found: Plan, config: Config) -> list[str]:
    said = []
    if found.trigger_seconds > config.trigger.every.total_seconds():
        why = "so that what is fixed in a micro-batch, and the scan of state, weigh less"
        said.append(f"trigger.every: {_duration(found.trigger_seconds)} rather than {_is(config.trigger.every)}, {why}")
    if found.settle_every_seconds > config.settle.every.total_seconds():
        why = "for each run reads the exposures of the whole window"
        said.append(f"settle.every: {_duration(found.settle_every_seconds)} rather than {_is(config.settle.every)}, {why}")
    if "date" in (demand.exposure_partition_by, demand.outcome_partition_by) and found.partition_by == "hour":
        said.append("partition_by: hour, with more than a GiB of exposures an hour; it cannot be changed once there are tables")
    written = sum(table.files for table in found.bronze.values())
    if written > _FILES_TO_COMPACT:
        left = sum(table.files_optimized for table in found.bronze.values())
        said.append(f"`rejoin maintain` every night: it makes {left:,} files of a day's {written:,} of bronze")
    if found.executors > 1:
        keys = ", ".join(config.join.keys)
        said.append(f"hot keys: all events of one ({keys}) go to one task; no number of cores spreads them")
    return said


def _settings(found: Plan, config: Config) -> dict[str, str]:
    """What to configure, as `--set` takes it."""
    wanted = {
        "trigger.every": _duration(found.trigger_seconds),
        "settle.every": _duration(found.settle_every_seconds),
        "trigger.join_max_bytes": f"{found.join_max_bytes // MIB}MiB",
        "trigger.join_max_files": str(found.join_max_files),
        "trigger.settle_backlog_bytes": f"{found.settle_backlog_bytes // MIB}MiB",
        "spark.shuffle_partitions": str(found.shuffle_partitions),
        "partition_by": found.partition_by,
    }
    for role, name in (("exposures", config.stream_name("exposure")), ("outcomes", config.stream_name("outcome"))):
        if isinstance(config.streams[name].source, KafkaSource):
            wanted[f"streams.{name}.source.max_offsets_per_trigger"] = str(found.max_offsets_per_trigger[role])
    return wanted


def _alternatives(demand: Demand, costs: Costs, found: Plan) -> list[Alternative]:
    if found.cores == 1:
        return []
    five, two = timedelta(minutes=5), timedelta(minutes=2)
    other: Provider = "memory" if demand.provider == "rocksdb" else "rocksdb"
    choices: list[tuple[str, bool, Callable[[], Demand]]] = [
        ("join.hot_window=5m", demand.hot_window > five, lambda: replace(demand, hot_window=five)),
        ("join.watermark_delay=2m", demand.watermark_delay > two, lambda: replace(demand, watermark_delay=two)),
        ("--max-trigger 5m", demand.max_trigger < five, lambda: replace(demand, max_trigger=five)),
        (f"state_store.provider={other}", True, lambda: replace(demand, provider=other)),
    ]
    return [_alternative(setting, plan(changed(), costs)) for setting, applies, changed in choices if applies]


def _alternative(setting: str, found: Plan) -> Alternative:
    return Alternative(
        setting=setting,
        cores=found.cores,
        trigger_seconds=found.trigger_seconds,
        settle_every_seconds=found.settle_every_seconds,
        state_rows=found.state.rows,
        state_bytes=found.state.bytes,
        memory_bytes_per_executor=found.memory_bytes_per_executor,
    )


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=seconds))


def _is(configured: timedelta) -> str:
    return format_duration(configured)
