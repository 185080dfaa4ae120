"""Logs of tables: how long they are kept, and what goes on without them."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import LakeError
from pipelines.jobs.maintain import maintain
from pipelines.observe import doctor
from tests import oracle
from tests.builders import play, shown
from tests.replay import Replay

RETENTION = ("delta.logRetentionDuration", "delta.deletedFileRetentionDuration")


def log_of(pipeline: Replay, table: str) -> Path:
    return Path(pipeline.lake.path(table), "_delta_log")


def first_commit(pipeline: Replay, table: str) -> int:
    return min(int(file.stem) for file in log_of(pipeline, table).glob("*.json"))


def age(pipeline: Replay, table: str, days: int) -> None:
    """As if the last commit were so many days old."""
    then = time.time() - days * 86_400
    for second, file in enumerate(sorted(log_of(pipeline, table).glob("0*"))):
        os.utime(file, (then + second, then + second))


def kept(pipeline: Replay, table: str) -> tuple[str | None, ...]:
    detail = pipeline.lake.spark.sql(f"DESCRIBE DETAIL {pipeline.lake.identifier(table)}").collect()[0]
    return tuple(detail["properties"].get(name) for name in RETENTION)


@pytest.mark.slow
def test_all_goes_on_where_logs_have_been_cleaned_of_what_the_join_had_not_read(replay: Any) -> None:
    pipeline = replay()
    waves = [([shown(f"i{n}", f"{10 + n}:00")], [play(f"p{n}", f"{10 + n}:05"), play(f"q{n}", f"{10 + n}:50")]) for n in range(8)]

    def land(numbers: range) -> None:
        for number in numbers:
            pipeline.wave(*waves[number])

    for number in range(2):
        land(range(number, number + 1))
        pipeline.join()
        pipeline.settle()
    read = {table: pipeline.lake.version(table) for table in ("impressions", "playbacks")}
    for table in ("ledger", *read):
        # Logs are cleaned where a checkpoint of the table is written.
        pipeline.lake.spark.sql(
            f"ALTER TABLE {pipeline.lake.identifier(table)} SET TBLPROPERTIES ('delta.checkpointInterval' = '2')"
        )
    land(range(2, 4))
    for table, days in {"ledger": 3, "impressions": 40, "playbacks": 40}.items():
        age(pipeline, table, days)
    land(range(4, 7))
    assert first_commit(pipeline, "ledger") > 0
    assert all(first_commit(pipeline, table) > version + 1 for table, version in read.items())
    pipeline.join()
    land(range(7, 8))
    pipeline.join()
    assert len(pipeline.rows("ledger", "query = 'checkpoint:join'")) == 2  # what it went on with the second time is what it took
    # What settle had seen when the table was what it says can be read no more.
    with pytest.raises(LakeError, match=r"run `rejoin settle --once`, then reconcile again"):
        pipeline.reconcile()
    pipeline.settle()
    assert pipeline.reconcile().agrees
    pipeline.settle(everything=True)
    impressions, playbacks = ([event for wave in waves for event in wave[side]] for side in (0, 1))
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert pipeline.dropped() == 0


@pytest.mark.slow
@pytest.mark.parametrize("retention", ["0s", "7d"])
def test_what_vacuum_took_while_a_lane_was_down_is_known(replay: Any, retention: str) -> None:
    pipeline = replay(f"tables.vacuum_retention={retention}")
    waves = [([shown(f"i{n}", f"{10 + n}:00")], [play(f"p{n}", f"{10 + n}:05"), play(f"q{n}", f"{10 + n}:50")]) for n in range(6)]
    pipeline.wave(*waves[0])
    pipeline.join()
    pipeline.settle()
    for wave in waves[1:5]:
        pipeline.wave(*wave)
    versions = {table: pipeline.lake.version(table) for table in ("impressions", "playbacks")}
    for table in versions:
        pipeline.lake.spark.sql(f"OPTIMIZE {pipeline.lake.identifier(table)}")
    list(maintain(pipeline.lake))
    gone = retention == "0s"
    assert [pipeline.lake.tells(table, version) for table, version in versions.items()] == [not gone, not gone]
    if gone:
        with pytest.raises(Exception, match="FAILED_READ_FILE|FILE_NOT_EXIST|FileNotFound"):
            pipeline.lake.read("playbacks", versions["playbacks"]).collect()
        # What settle had seen cannot be read, though the log has it.
        with pytest.raises(LakeError, match=r"or its files vacuumed\); run `rejoin settle --once`, then reconcile again"):
            pipeline.reconcile()
    pipeline.join()
    pipeline.wave(*waves[5])
    pipeline.join()
    assert len(pipeline.rows("ledger", "query = 'checkpoint:join'")) == (2 if gone else 1)
    pipeline.settle()
    assert pipeline.reconcile().agrees
    pipeline.settle(everything=True)
    impressions, playbacks = ([event for wave in waves for event in wave[side]] for side in (0, 1))
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert pipeline.dropped() == 0


def test_maintain_gives_a_table_the_properties_of_a_new_one(replay: Any) -> None:
    pipeline = replay()
    spark, lake = pipeline.lake.spark, pipeline.lake
    assert kept(pipeline, "ledger") == ("interval 1 days", "interval 1 days")
    assert kept(pipeline, "impressions") == ("interval 30 days", "interval 7 days")
    # As an earlier version made it.
    spark.sql(f"ALTER TABLE {lake.identifier('ledger')} UNSET TBLPROPERTIES ('delta.deletedFileRetentionDuration')")
    spark.sql(f"ALTER TABLE {lake.identifier('ledger')} SET TBLPROPERTIES ('delta.logRetentionDuration' = 'interval 30 days')")
    pipeline.wave([shown("a", "10:00")], [play("p", "10:05")])
    pipeline.join()
    pipeline.reconfigure("tables.log_retention=3d")
    told = {line.split(":")[0]: line for line in maintain(pipeline.lake)}
    assert all(name in told[table] for table in ("ledger", "impressions", "playbacks") for name in RETENTION)
    assert "set" not in told["quarantine"]
    assert kept(pipeline, "ledger") == ("interval 1 days", "interval 1 days")
    assert kept(pipeline, "impressions") == ("interval 3 days", "interval 3 days")
    assert kept(pipeline, "heartbeats") == ("interval 3 days", "interval 3 days")
    assert not any("set" in line for line in list(maintain(pipeline.lake)))
    # Longer again, and files for another time than the log.
    pipeline.reconfigure("tables.log_retention=30d", "tables.vacuum_retention=36h")
    told = {line.split(":")[0]: line for line in maintain(pipeline.lake)}
    assert "keeping 1d12h" in told["impressions"]
    assert "keeping 1d" in told["ledger"]
    assert kept(pipeline, "impressions") == ("interval 30 days", "interval 129600 seconds")
    assert kept(pipeline, "heartbeats") == ("interval 30 days", "interval 129600 seconds")
    assert kept(pipeline, "ledger") == ("interval 1 days", "interval 1 days")
    # Neither the queries, where they go on, nor reconcile take that for a change.
    pipeline.wave([shown("b", "11:00")], [play("q", "11:05")])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.answers() == {"p": ("a", "join"), "q": ("b", "join")}
    assert pipeline.reconcile().agrees


def test_doctor_names_a_log_that_is_too_long(replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = replay()
    pipeline.wave([shown("a", "10:00")])

    def about_logs() -> doctor.Finding:
        findings = doctor.examine(lambda: pipeline.config, lambda _: pipeline.lake)
        return next(finding for finding in findings if "logs of tables" in finding.what)

    assert about_logs().ok
    files = {table: len(list(log_of(pipeline, table).iterdir())) for table in (*pipeline.lake.tables, "heartbeats")}
    monkeypatch.setattr(doctor, "_MANY_LOG_FILES", max(files.values()) - 1)
    found = about_logs()
    assert found.ok  # slow, but right
    assert f"{max(files.values())} files" in found.what
    assert "tables.log_retention" in found.fix
