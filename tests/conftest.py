"""One Spark session for all tests, and an empty lake that each test gets a copy of."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from pyspark.sql import SparkSession

from pipelines.cli import main
from pipelines.config.load import load_config
from pipelines.config.model import Config, SparkConfig
from pipelines.demo.broker import Broker, local_broker
from pipelines.lake.tables import Lake
from pipelines.model.rule import PROPERTY
from pipelines.session import spark_session
from tests.kafka_replay import KafkaReplay
from tests.processes import Command
from tests.replay import Replay

CONF = Path(__file__).parent.parent / "conf"


# Hundreds of small plans over a handful of rows: compiling each, or planning it anew between its stages, costs more than running
# it. The tests that start whole processes, and the demo, run as users do.
FOR_FEW_ROWS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.default.parallelism": "1",
    # VACUUM lists directories in so many tasks.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    # What has been done is kept for a page that nobody opens: thousands of plans.
    "spark.sql.ui.retainedExecutions": "5",
    "spark.ui.retainedJobs": "20",
    "spark.ui.retainedStages": "20",
    "spark.ui.retainedTasks": "100",
}


# Where a run is cut off after some time, it proves nothing. So the longer proofs that have not begun by then are left out, and
# counted as skipped; the others always run. Unset, nothing is left out.
MINUTES = os.environ.get("REJOIN_TEST_MINUTES")
_STARTED = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    late = MINUTES and time.monotonic() - _STARTED > 60 * float(MINUTES)
    if late and item.get_closest_marker("slow"):
        pytest.skip(f"not begun within {MINUTES} minutes (REJOIN_TEST_MINUTES); `make slow` runs it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that have longer proofs only come last."""
    quick = {item.path for item in items if not item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in quick)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    settings = SparkConfig(master="local[2]", shuffle_partitions=2, driver_memory="4g", conf=FOR_FEW_ROWS)
    # A JVM that runs all of Spark's code for an hour: nothing of that compiled twice. Not for the processes that tests start.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JDK_JAVA_OPTIONS", "-XX:ReservedCodeCacheSize=512m")
        session = spark_session(settings)
    _forget_what_no_test_needs(session)
    yield session
    session.stop()


def _forget_what_no_test_needs(session: SparkSession) -> None:
    """Every scan and write takes a copy of Hadoop's settings along, a thousand of them; those for a local file system are few."""
    jvm, settings = session.sparkContext._jvm, session.sparkContext._jsc.hadoopConfiguration()
    assert jvm is not None
    # Classes that bring defaults of their own, which would all come again.
    jvm.org.apache.hadoop.mapred.JobConf()
    jvm.org.apache.hadoop.yarn.conf.YarnConfiguration()
    names, entries = [], settings.iterator()
    while entries.hasNext():
        names.append(entries.next().getKey())
    for name in names:
        if name.startswith(("yarn.", "mapreduce.", "ipc.", "ha.", "fs.s3a.", "fs.abfs.", "fs.azure.", "fs.viewfs.", "fs.gs.")):
            settings.unset(name)


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(CONF / "playback.yml")


@pytest.fixture(scope="session")
def empty_lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tables of the default configuration, empty. Delta tables name their files relatively, so a copy is a lake."""
    root = tmp_path_factory.mktemp("template") / "lake"
    lake = Lake(spark, load_config(CONF / "playback.yml", [f"lake={root}"]))
    lake.ensure(*lake.tables)
    # Of any rule: the first lane of a test registers its own.
    spark.sql(f"ALTER TABLE {lake.identifier(lake.attributed)} UNSET TBLPROPERTIES ('{PROPERTY}')")
    return root


@pytest.fixture
def replay(spark: SparkSession, empty_lake: Path, tmp_path: Path) -> Callable[..., Replay]:
    """Makes pipelines over lakes of their own: `replay("join.hot_window=0")`. Join state is on the heap, which is a second less a
    start; test_changes.py, test_run.py and those of the command line have it in RocksDB, as shipped."""
    made = 0

    def make(*overrides: str) -> Replay:
        nonlocal made
        made += 1
        root = tmp_path / f"run-{made}"
        shutil.copytree(empty_lake, root / "lake")
        return Replay(spark, root, ["state_store.provider=memory", *overrides])

    return make


@pytest.fixture(scope="module")
def first_replay(spark: SparkSession, empty_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """A pipeline for a module's tests to begin with (`Replay.freeze`)."""
    root = tmp_path_factory.mktemp("first") / "run"
    shutil.copytree(empty_lake, root / "lake")
    return Replay(spark, root)


@pytest.fixture
def command(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, over the session that is there, as spark-submit does."""
    on_stop = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["rejoin", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, said.out, said.err)

    yield run
    for number, handler in on_stop.items():
        signal.signal(number, handler)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with local_broker(tmp_path_factory.mktemp("broker"), {"log.cleaner.backoff.ms": "500"}) as running:
        yield running


@pytest.fixture
def kafka(spark: SparkSession, tmp_path: Path, broker: Broker) -> Callable[..., KafkaReplay]:
    return lambda *overrides: KafkaReplay(spark, tmp_path / "lake", broker, overrides)
