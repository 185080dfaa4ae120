"""Logs of tables: how long they are kept, and what goes on without them."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.control.facts import Fact
from pipelines.control.store import append, prune, read_facts
from pipelines.jobs import doctor
from pipelines.jobs.maintain import maintain
from pipelines.lake.history import Commit, files_taken
from pipelines.model.errors import LakeError
from tests import oracle
from tests.builders import hourly_waves, play, shown
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


def commit(version: int, operation: str, hour: float, **parameters: str) -> Commit:
    return Commit(version, operation, parameters, round(hour * 3_600_000_000), "", {})


def vacuum(version: int, hour: float, kept: float, asked: float | None = None) -> Commit:
    told = {"specified": asked, "default": kept}
    hours = {f"{name}RetentionMillis": str(round(value * 3_600_000)) for name, value in told.items() if value is not None}
    return commit(version, "VACUUM START", hour, retentionCheckEnabled="true", **hours)


@pytest.mark.parametrize(
    ("commits", "taken"),
    [
        ([], False),
        ([commit(1, "WRITE", 0, mode="Append"), vacuum(2, 500, 168)], False),
        ([commit(1, "STREAMING UPDATE", 0, outputMode="Append"), vacuum(2, 500, 168)], False),
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 167, 168)], False),
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 168, 168)], True),
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 169, 168), commit(3, "VACUUM END", 170)], True),
        ([commit(1, "WRITE", 0, mode="Overwrite"), vacuum(2, 169, 168)], True),
        ([commit(1, "DELETE", 0), vacuum(2, 169, 168)], True),
        # What stands in the statement counts where it is less; an unknown retention is none.
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 30, 168, asked=24)], True),
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 30, 168, asked=0)], True),
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 30, 168, asked=500)], False),
        ([commit(1, "OPTIMIZE", 0), commit(2, "VACUUM START", 1)], True),
        # Only what was out of the table by then.
        ([vacuum(1, 169, 0), commit(2, "OPTIMIZE", 169)], False),
        ([commit(1, "OPTIMIZE", 0), vacuum(2, 24, 168), commit(3, "OPTIMIZE", 160), vacuum(4, 180, 168)], True),
        ([commit(1, "OPTIMIZE", 100), vacuum(2, 200, 168), commit(3, "SET TBLPROPERTIES", 201)], False),
    ],
)
def test_which_commits_have_lost_their_files(commits: list[Commit], taken: bool) -> None:
    assert files_taken(commits) is taken
    assert files_taken(commits[::-1]) is taken


@pytest.mark.slow
def test_all_goes_on_where_logs_have_been_cleaned_of_what_the_join_had_not_read(replay: Any) -> None:
    pipeline = replay()
    waves = hourly_waves(6)

    def land(numbers: range) -> None:
        for number in numbers:
            pipeline.wave(*waves[number])

    land(range(1))
    pipeline.join()
    pipeline.settle()
    read = {table: pipeline.lake.version(table) for table in ("impressions", "playbacks")}
    for table in ("ledger", *read):
        # Logs are cleaned where a checkpoint of the table is written.
        pipeline.lake.spark.sql(
            f"ALTER TABLE {pipeline.lake.identifier(table)} SET TBLPROPERTIES ('delta.checkpointInterval' = '2')"
        )
    land(range(1, 3))
    for table, days in {"ledger": 3, "impressions": 40, "playbacks": 40}.items():
        age(pipeline, table, days)
    land(range(3, 5))
    assert first_commit(pipeline, "ledger") > 0
    assert all(first_commit(pipeline, table) > version + 1 for table, version in read.items())
    pipeline.join()
    land(range(5, 6))
    pipeline.join()
    # What settle had seen when the table was what it says can be read no more.
    with pytest.raises(LakeError, match=r"run `rejoin settle --once`, then reconcile again"):
        pipeline.reconcile()
    pipeline.settle()
    assert pipeline.reconcile().agrees
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.of_waves(waves)
    assert pipeline.dropped() == 0


@pytest.mark.slow
def test_what_vacuum_took_while_a_lane_was_down_is_known(replay: Any) -> None:
    pipeline = replay()
    waves = hourly_waves(4)
    pipeline.wave(*waves[0])
    pipeline.join()
    pipeline.settle()
    for wave in waves[1:3]:
        pipeline.wave(*wave)
    versions = {table: pipeline.lake.version(table) for table in ("impressions", "playbacks")}
    for table in versions:
        name = pipeline.lake.identifier(table)
        pipeline.lake.spark.sql(f"OPTIMIZE {name}")
    list(maintain(pipeline.lake))
    assert not any(files_taken(pipeline.lake.commits(table, version)) for table, version in versions.items())
    for table in versions:
        # As if a week had passed.
        name = pipeline.lake.identifier(table)
        pipeline.lake.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('{RETENTION[1]}' = 'interval 0 seconds')")
        pipeline.lake.spark.sql(f"VACUUM {name}")
    assert all(files_taken(pipeline.lake.commits(table, version)) for table, version in versions.items())
    with pytest.raises(Exception, match="FAILED_READ_FILE|FILE_NOT_EXIST|FileNotFound"):
        pipeline.lake.read("playbacks", versions["playbacks"]).collect()
    # What settle had seen cannot be read, though the log has it.
    with pytest.raises(LakeError, match=r"or its files vacuumed\); run `rejoin settle --once`, then reconcile again"):
        pipeline.reconcile()
    pipeline.join()
    pipeline.wave(*waves[3])
    pipeline.join()
    pipeline.settle()
    assert pipeline.reconcile().agrees
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.of_waves(waves)
    assert pipeline.dropped() == 0


@pytest.mark.slow
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
    assert not any("set" in line for line in list(maintain(pipeline.lake)))
    # Longer again, and files for another time than the log.
    pipeline.reconfigure("tables.log_retention=30d", "tables.vacuum_retention=36h")
    told = {line.split(":")[0]: line for line in maintain(pipeline.lake)}
    assert "keeping 1d12h" in told["impressions"]
    assert "keeping 1d" in told["ledger"]
    assert kept(pipeline, "impressions") == ("interval 30 days", "interval 129600 seconds")
    assert kept(pipeline, "ledger") == ("interval 1 days", "interval 1 days")
    # Neither the queries, where they go on, nor reconcile take that for a change.
    pipeline.wave([shown("b", "11:00")], [play("q", "11:05")])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.answers() == {"p": ("a", "join"), "q": ("b", "join")}
    assert pipeline.reconcile().agrees


def test_facts_that_newer_ones_replace_are_deleted(replay: Any) -> None:
    lake, hour = replay().lake, 3_600_000_000
    horizons = [Fact(kind="horizon", event_time=n, at=(100 + 2 * n) * hour) for n in range(3)]
    # Old, and the newest of its kind and stream: it stays, and keeps no other.
    idle = [Fact(kind="idle", stream=stream, event_time=7, at=50 * hour) for stream in ("impressions", "playbacks")]
    starts = [Fact(kind="join", detail={"hot_window": "30m"}, at=n * hour) for n in (1, 200)]
    append(lake, [*horizons, *idle, *starts])
    before = read_facts(lake)
    prune(lake, before)
    assert read_facts(lake) == before
    rows = lake.read("control").groupBy("kind").count().collect()
    assert {row["kind"]: row["count"] for row in rows} == {"horizon": 1, "idle": 2, "join": 2}


def test_doctor_names_a_log_that_is_too_long(replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = replay()
    pipeline.wave([shown("a", "10:00")])

    def about_logs() -> doctor.Finding:
        findings = doctor.examine(lambda: pipeline.config, lambda _: pipeline.lake)
        return next(finding for finding in findings if "logs of tables" in finding.what)

    assert about_logs().ok
    files = {table: len(list(log_of(pipeline, table).iterdir())) for table in pipeline.lake.tables}
    monkeypatch.setattr(doctor, "_MANY_LOG_FILES", max(files.values()) - 1)
    found = about_logs()
    assert found.ok  # slow, but right
    assert f"{max(files.values())} files" in found.what
    assert "tables.log_retention" in found.fix
