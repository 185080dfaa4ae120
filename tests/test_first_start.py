"""Several processes begin at once on an empty lake: whoever is second finds what the first has made, and goes on."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Timer

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from pipelines.config.load import load_config
from pipelines.lake.tables import Lake
from pipelines.model.errors import LakeError
from pipelines.model.schemas import TableSpec
from tests.conftest import CONF

TABLES = ("control", "quarantine")


def lake_at(spark: SparkSession, root: Path) -> Lake:
    return Lake(spark, load_config(CONF / "playback.yml", [f"lake={root}"]))


def test_three_lanes_create_the_same_tables_at_once(spark: SparkSession, tmp_path: Path) -> None:
    together = Barrier(3)

    def start(lake: Lake) -> list[int]:
        together.wait()
        lake.ensure(*TABLES)
        return [lake.version(table) for table in TABLES]

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(start, [lake_at(spark, tmp_path / "lake") for _ in range(3)]))
    assert found == [[0, 0]] * 3


def test_a_table_that_another_process_makes_after_the_look_is_judged_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Lake._create

    def second(lake: Lake, table: str, spec: TableSpec) -> None:
        older = StructType([field for field in spec.schema if field.name != "relanded_at"])
        create(lake, table, replace(spec, schema=older))
        create(lake, table, spec)

    monkeypatch.setattr(Lake, "_create", second)
    lake = lake_at(spark, tmp_path / "lake")
    lake.ensure("quarantine")
    assert "relanded_at" in lake.columns("quarantine")


def test_a_log_without_a_commit_is_waited_for(spark: SparkSession, empty_lake: Path, tmp_path: Path) -> None:
    lake = lake_at(spark, tmp_path / "lake")
    log = Path(lake.path("control")) / "_delta_log"
    log.mkdir(parents=True)
    Timer(0.5, lambda: shutil.copytree(empty_lake / "control" / "_delta_log", log, dirs_exist_ok=True)).start()
    lake.ensure("control")
    assert lake.version("control") == 0


@pytest.mark.parametrize("left", ["notes.txt", "_delta_log"])
def test_a_directory_that_is_no_table_is_named(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr("pipelines.lake.retry._CREATION_SECONDS", 0.0)
    lake = lake_at(spark, tmp_path / "lake")
    (Path(lake.path("control")) / left).mkdir(parents=True)
    with pytest.raises(LakeError, match="control: is not empty, and no Delta table"):
        lake.ensure("control")
