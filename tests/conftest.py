"""One Spark session for all tests, and an empty lake that each test gets a copy of."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.config import Config, SparkConfig
from pipelines.configfile import load_config
from pipelines.generate.broker import Broker, local_broker
from pipelines.lake import Lake
from pipelines.session import spark_session
from tests.kafka_replay import KafkaReplay
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
}


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = spark_session(SparkConfig(master="local[2]", shuffle_partitions=2, driver_memory="3g", conf=FOR_FEW_ROWS))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(CONF / "playback.yml")


@pytest.fixture(scope="session")
def empty_lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tables of the default configuration, empty. Delta tables name their files relatively, so a copy is a lake."""
    root = tmp_path_factory.mktemp("template") / "lake"
    lake = Lake(spark, load_config(CONF / "playback.yml", [f"lake={root}"]))
    lake.ensure(*lake.tables, "heartbeats")
    return root


@pytest.fixture
def replay(spark: SparkSession, empty_lake: Path, tmp_path: Path) -> Callable[..., Replay]:
    """Makes pipelines over lakes of their own: `replay("join.hot_window=0")`."""
    made = 0

    def make(*overrides: str) -> Replay:
        nonlocal made
        made += 1
        root = tmp_path / f"run-{made}"
        shutil.copytree(empty_lake, root / "lake")
        return Replay(spark, root, overrides)

    return make


@pytest.fixture(scope="module")
def first_replay(spark: SparkSession, empty_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """A pipeline for a module's tests to begin with (`Replay.freeze`)."""
    root = tmp_path_factory.mktemp("first") / "run"
    shutil.copytree(empty_lake, root / "lake")
    return Replay(spark, root)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with local_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def kafka(spark: SparkSession, tmp_path: Path, broker: Broker) -> Callable[..., KafkaReplay]:
    return lambda *overrides: KafkaReplay(spark, tmp_path / "lake", broker, overrides)
