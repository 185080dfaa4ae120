"""Sizing: more never needs less, every mistake is one line, and the arithmetic is that of docs/scale.md. No Spark."""

import doctest
import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.configfile import load_config
from pipelines.errors import ConfigError
from pipelines.sizing import plan as planning
from pipelines.sizing.costs import MEASURED
from pipelines.sizing.demand import Demand, demand_of
from pipelines.sizing.load import busy, partitions_for, settle_span, state_rows
from pipelines.sizing.plan import Plan, plan
from pipelines.sizing.report import Sizing, size_up
from tests.processes import ROOT, rejoin

PLAYBACK = load_config(ROOT / "conf" / "playback.yml")
KAFKA = {"format": "kafka", "bootstrap_servers": "b:9092", "topic": "t"}


def demand(exposures: float = 1000, outcomes: float | None = None, **others: object) -> Demand:
    return demand_of(PLAYBACK, exposures, outcomes, **others)


def planned(exposures: float = 1000, outcomes: float | None = None, **others: object) -> Plan:
    return plan(demand(exposures, outcomes, **others), MEASURED)


def sized(exposures: float, *overrides: str, **others: object) -> Sizing:
    config = load_config(ROOT / "conf" / "playback.yml", overrides)
    return size_up(demand_of(config, exposures, None, **others), config)


rates = st.one_of(st.just(0.0), st.floats(0, 100), st.floats(0, 5e6))
minutes = st.integers(0, 24 * 60).map(lambda m: timedelta(minutes=m))
demands = st.builds(
    Demand,
    exposures_per_second=rates,
    outcomes_per_second=rates,
    attribution_window=minutes,
    hot_window=minutes,
    watermark_delay=minutes,
    trigger=st.sampled_from([timedelta(0), timedelta(seconds=10), timedelta(minutes=7)]),
    max_trigger=st.sampled_from([timedelta(0), timedelta(minutes=1), timedelta(hours=2)]),
    settle_every=st.sampled_from([timedelta(0), timedelta(minutes=1), timedelta(hours=3)]),
    max_settle_every=st.sampled_from([timedelta(minutes=1), timedelta(hours=1)]),
    late_share=st.floats(0, 1),
    late_reach=minutes,
    cold_share=st.floats(0, 1),
    headroom=st.floats(1, 10),
    core_speed=st.floats(0.1, 10),
    cores_per_executor=st.integers(1, 64),
    provider=st.sampled_from(["rocksdb", "memory"]),
    exposure_partition_by=st.sampled_from(["date", "hour"]),
    outcome_partition_by=st.sampled_from(["date", "hour"]),
)


def needs(found: Plan) -> dict[str, float]:
    kafka = {f"kafka {role}": count for role, count in found.kafka_partitions.items()}
    volumes = {f"bytes {role}": table.bytes for role, table in found.bronze.items()}
    return {"cores": found.cores, "shuffle": found.shuffle_partitions, "output": found.attributed.bytes, **kafka, **volumes}


@settings(max_examples=300, deadline=None)
@given(demands, st.floats(1, 3), st.floats(0, 1e5), st.floats(0, 1e5))
def test_more_events_never_need_less(base: Demand, times: float, exposures: float, outcomes: float) -> None:
    more = replace(
        base,
        exposures_per_second=base.exposures_per_second * times + exposures,
        outcomes_per_second=base.outcomes_per_second * times + outcomes,
    )
    before, after = needs(plan(base, MEASURED)), needs(plan(more, MEASURED))
    assert [name for name in before if after[name] < before[name]] == []


@settings(max_examples=200, deadline=None)
@given(demands)
def test_a_plan_holds_what_it_promises(asked: Demand) -> None:
    found = plan(asked, MEASURED)
    assert found.cores >= 1
    assert found.cores == found.executors * found.cores_per_executor
    assert found.shuffle_partitions >= max(2, found.cores)
    assert found.state.rows_per_partition <= MEASURED.state(asked.provider).rows_per_partition
    assert found.trigger_seconds >= max(10, asked.trigger.total_seconds())
    assert found.settle_every_seconds >= max(60, asked.settle_every.total_seconds())
    assert MEASURED.fixed_seconds_per_batch <= 0.2 * found.trigger_seconds
    assert found.micro_batch_seconds <= found.trigger_seconds
    assert all(math.isfinite(value) for value in needs(found).values())
    assert all(table.files_optimized <= table.files <= table.rows for table in (*found.bronze.values(), found.attributed))


@settings(max_examples=50, deadline=None)
@given(demands)
def test_every_plan_can_be_told_and_is_json(asked: Demand) -> None:
    sizing = size_up(asked, PLAYBACK)
    told = json.loads(sizing.to_json())
    assert list(told) == ["demand", "plan", "settings", "limits", "warnings", "alternatives", "costs"]
    uses = [limit["use"] for limit in told["limits"]]
    assert uses == sorted(uses, reverse=True)
    assert max(len(line) for line in sizing.to_text().splitlines()) < 200
    load_config(ROOT / "conf" / "playback.yml", [f"{key}={value}" for key, value in told["settings"].items()])


@settings(max_examples=100, deadline=None)
@given(demands, st.floats(1, 4))
def test_faster_cores_are_never_more(asked: Demand, times: float) -> None:
    faster = replace(asked, core_speed=asked.core_speed * times)
    assert plan(faster, MEASURED).cores <= plan(asked, MEASURED).cores


def test_nothing_needs_one_core() -> None:
    found = planned(0, 0)
    assert (found.cores, found.shuffle_partitions, set(found.kafka_partitions.values())) == (1, 2, {1})
    assert (found.state.rows, found.bronze["exposures"].files, found.attributed.bytes) == (0, 0, 0)
    assert sum(found.busy.as_dict().values()) == 0


@pytest.mark.parametrize("rate", [1, 10, 100])
def test_a_small_load_needs_one_core_as_configured(rate: float) -> None:
    found = sized(rate)
    assert (found.plan.cores, found.plan.trigger_seconds, found.plan.settle_every_seconds) == (1, 10, 60)
    assert "one core is enough" in found.to_text()
    assert found.advice.alternatives == []


def test_a_million_a_second_is_a_cluster_and_says_what_breaks_first() -> None:
    found = sized(1_000_000)
    assert 300 < found.plan.cores < 3000
    assert (found.plan.trigger_seconds, found.plan.partition_by) == (60, "hour")
    assert 50 < found.plan.kafka_partitions["exposures"] < 200
    assert 2e12 < found.plan.bronze["exposures"].bytes < 4e12
    assert found.advice.limits[0].use >= 1
    assert found.advice.limits[0].name in found.advice.warnings[0]
    fewer = {each.setting: each.cores for each in found.advice.alternatives}
    assert fewer["join.hot_window=5m"] < found.plan.cores
    assert fewer["state_store.provider=memory"] < found.plan.cores


# exposures/s and outcomes/s of W1, each with headroom 1 and nothing late.
W1 = {"exposures_per_second": 5_000_000 / 43_200, "outcomes_per_second": 500_000 / 43_200, "headroom": 1.0, "late_share": 0.0}


@pytest.mark.parametrize(("hot", "measured"), [("30m", 0.5e6), ("6h", 2.9e6)])
def test_state_rows_are_those_that_were_measured(hot: str, measured: float) -> None:
    """FACTS: 220 k events a micro-batch, 10 min of delay; by a watermark of its own, so one micro-batch behind, not two."""
    config = load_config(ROOT / "conf" / "playback.yml", [f"join.hot_window={hot}"])
    asked = Demand(hot_window=config.join.hot_window, watermark_delay=timedelta(minutes=10), **W1)
    batch = 220_000 / (5_500_000 / 43_200)
    assert state_rows(asked, batch / 2) == pytest.approx(measured, rel=0.07)


def test_the_attribution_window_costs_settle_only() -> None:
    short, long = (busy(replace(demand(1000), attribution_window=timedelta(hours=hours)), MEASURED, 10, 60) for hours in (6, 24))
    assert replace(short, settle=0) == replace(long, settle=0)
    assert short.settle < long.settle


def test_the_scan_follows_the_trigger_and_the_hot_window_alone() -> None:
    def share(asked: Demand, trigger: float) -> float:
        work = busy(asked, MEASURED, trigger, 60)
        return work.join_scan / work.join_events

    assert share(demand(10), 10) == pytest.approx(share(demand(1_000_000), 10))
    assert share(demand(10), 60) < share(demand(10), 10) / 5
    assert share(demand(10, watermark_delay=None), 10) > share(replace(demand(10), hot_window=timedelta(0)), 10)


def test_settle_reads_the_window_in_whole_hours_and_what_late_events_reach() -> None:
    asked = demand(1000, late_share=0.0)
    assert settle_span(asked, 60) == 7 * 3600 + 60
    assert settle_span(demand(1000, late_reach=timedelta(hours=2)), 60) == 9 * 3600 + 60


def test_a_kafka_partition_is_a_task() -> None:
    # 20 us an event, half of a core's time left for it: 25,000 events/s.
    assert [partitions_for(rate, 20.0) for rate in (0, 1, 25_000, 25_001, 2_000_000)] == [1, 1, 1, 2, 80]


def test_larger_events_take_more_of_the_lake() -> None:
    usual, large = planned(1000), planned(1000, exposure_bytes=405.0)
    assert large.bronze["exposures"].bytes == pytest.approx(2 * usual.bronze["exposures"].bytes, rel=1e-6)
    assert large.bronze["outcomes"] == usual.bronze["outcomes"]


def test_late_rows_write_to_more_hours() -> None:
    by_date, by_hour = planned(1000, late_reach=timedelta(hours=3)), sized(1000, "partition_by=hour").plan
    assert by_hour.bronze["exposures"].files == 4 * by_date.bronze["exposures"].files


def test_settings_name_a_topics_limit() -> None:
    sources = [f"streams.{name}.source={json.dumps(KAFKA)}" for name in PLAYBACK.streams]
    found = sized(100_000, *sources)
    assert found.advice.settings["streams.impressions.source.max_offsets_per_trigger"] == "12000000"
    assert "streams.impressions.source.max_offsets_per_trigger" not in sized(100_000).advice.settings


def test_a_heap_too_large_is_said() -> None:
    found = sized(1_000_000, "state_store.provider=memory")
    assert any("heap of an executor" in warning for warning in found.advice.warnings)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("exposures_per_second", -1.0, "--impressions-per-second: -1.0 cannot be; allowed: from 0 to"),
        ("exposures_per_second", math.nan, "--impressions-per-second: nan cannot be"),
        ("outcomes_per_second", math.inf, "--playbacks-per-second: inf cannot be"),
        ("headroom", 0.5, "--headroom: 0.5 cannot be; allowed: from 1 to 100"),
        ("core_speed", 0.0, "--core-speed: 0.0 cannot be; allowed: from 0.01 to 100"),
        ("cold_share", 1.5, "--cold-share: 1.5 cannot be; allowed: from 0 to 1"),
        ("late_share", math.nan, "--late-share: nan cannot be; allowed: from 0 to 1"),
        ("cores_per_executor", 0, "--cores-per-executor: 0 cannot be; allowed: from 1 to"),
        ("exposure_bytes", 0.0, "--impression-bytes: 0.0 cannot be; allowed: from 1 to"),
    ],
)
def test_what_cannot_be_is_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        replace(demand(1000), **{field: value})
    assert str(refused.value).startswith(message)


def size(*args: str) -> subprocess.CompletedProcess[str]:
    return rejoin("size", *args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing option '--impressions-per-second'"),
        (["--impressions-per-second", "many"], "--impressions-per-second"),
        (["--impressions-per-second", "-5"], "--impressions-per-second: -5.0 cannot be; allowed: from 0 to 1,000,000,000"),
        (["--impressions-per-second", "1", "--hot-window", "7h"], "join.hot_window: 7h is longer than attribution_window (6h)"),
        (["--impressions-per-second", "1", "--max-trigger", "soon"], "--max-trigger: 'soon' is not a duration"),
        (["--impressions-per-second", "1", "--provider", "disk"], "state_store.provider: "),
    ],
)
def test_misuse_is_exit_2_and_one_line(args: list[str], message: str) -> None:
    done = size(*args)
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")
    assert message in done.stderr


def test_the_command_takes_windows_from_options_and_configuration_without_spark() -> None:
    code = (
        "import sys; from pipelines.cli import app\n"
        "app(['size', '--impressions-per-second', '1000', '--hot-window', '5m', '--set', 'join.watermark_delay=1m',"
        " '--format', 'json'], standalone_mode=False)\n"
        "assert not {'pyspark', 'pandas', 'great_expectations'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["demand"]["hot_window"], told["demand"]["watermark_delay"]) == (300.0, 60.0)
    assert told["demand"]["outcomes_per_second"] == 100.0


def test_docstrings_are_true() -> None:
    assert doctest.testmod(planning).failed == 0
