"""A configuration that changes under a running pipeline: tables, rules, the join's state; and what is refused."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from pipelines.errors import LakeError, RejoinError
from pipelines.evolution import alterations
from pipelines.inforce import Rule, Rules, put_in_force, require_in_force, rules_in_force
from tests import oracle
from tests.builders import play, shown
from tests.replay import Replay

WINDOW = timedelta(hours=6)
IMPRESSIONS = (
    "impression_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, profile_id STRING, title_id STRING, row_id STRING, "
    "position {position}, device STRING, model_version STRING{more}"
)
PLAYBACKS = (
    "playback_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, profile_id STRING, title_id STRING, device STRING, "
    "seconds_watched {seconds}{more}"
)


def impressions_schema(position: str = "INT", more: str = "") -> str:
    return "streams.impressions.schema=" + IMPRESSIONS.format(position=position, more=more)


def playbacks_schema(seconds: str = "INT", more: str = "") -> str:
    return "streams.playbacks.schema=" + PLAYBACKS.format(seconds=seconds, more=more)


BASE = "id STRING NOT NULL, n INT, s STRUCT<a: INT>, event_date DATE"
ALTERATIONS = [
    (BASE, []),
    ("id STRING NOT NULL, x STRING, n INT, s STRUCT<a: INT>, event_date DATE", ["ADD COLUMNS (`x` string AFTER `id`)"]),
    ("id STRING NOT NULL, n BIGINT, s STRUCT<a: INT>, event_date DATE", ["ALTER COLUMN `n` TYPE bigint"]),
    ("id STRING NOT NULL, n DOUBLE, s STRUCT<a: INT>, event_date DATE", ["ALTER COLUMN `n` TYPE double"]),
    ("n INT, s STRUCT<a: INT>, event_date DATE", ["ALTER COLUMN `id` DROP NOT NULL"]),
    ("id STRING, n INT, s STRUCT<a: INT>, event_date DATE", ["ALTER COLUMN `id` DROP NOT NULL"]),
    ("id STRING NOT NULL, n INT NOT NULL, event_date DATE", []),
]
REFUSALS = [
    ("id STRING NOT NULL, n SMALLINT", "column n is INT, but the configuration says SMALLINT: a narrower type"),
    ("id INT NOT NULL", "column id is STRING, but the configuration says INT: another type"),
    ("id STRING NOT NULL, n FLOAT", "column n is INT, but the configuration says FLOAT: another type"),
    ("id STRING NOT NULL, s STRUCT<a: INT, b: INT>", "column s is STRUCT<A:INT>, but the configuration says STRUCT<A:INT,B:INT>"),
    ("ID STRING NOT NULL", "column id is spelt ID in the configuration; spell it as the table does"),
    ("id STRING NOT NULL, x INT NOT NULL", "has no column x, so what has landed has no value for it: it cannot be NOT NULL"),
    ("id STRING NOT NULL, event_hour INT", "is not partitioned by event_hour, which this configuration's partition_by asks for"),
]


def schema(ddl: str) -> StructType:
    found = StructType.fromDDL(ddl)
    assert isinstance(found, StructType)
    return found


@pytest.mark.parametrize(("needed", "clauses"), ALTERATIONS)
def test_a_table_is_altered_in_place(spark: SparkSession, needed: str, clauses: list[str]) -> None:
    assert alterations("t", schema(needed), schema(BASE)) == clauses


@pytest.mark.parametrize(("needed", "said"), REFUSALS)
def test_what_cannot_be_altered_is_refused_with_the_reason(spark: SparkSession, needed: str, said: str) -> None:
    with pytest.raises(LakeError, match="table t: ") as error:
        alterations("t", schema(needed), schema(BASE))
    assert said in str(error.value)


def hour(n: int, **more: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """An hour of events, two minutes apart: playbacks half a minute after their impression, some hours after it, some never."""
    at = [f"{n:02d}:{m:02d}" for m in range(0, 60, 2)]
    impressions = [shown(f"i{time}", time, who=f"w{k % 7}", position=k) for k, time in enumerate(at)]
    who = [f"w{k % 7}" if k % 3 else ("w8" if k % 2 else "nobody") for k in range(len(at))]
    playbacks = [play(f"p{time}", f"{time}:30", who=who[k], **more) for k, time in enumerate(at)]
    return [*impressions, shown(f"i{n}-w8", f"{n:02d}:00", who="w8")], playbacks


@pytest.mark.slow
def test_four_changes_with_late_data_in_between(spark: SparkSession, tmp_path: Path) -> None:
    """An optional column, a carried column, wider types, other shuffle partitions: as if each had been so for all outcomes
    after it, and nothing is computed from the start again."""
    carry = "join.carry=[row_id, position, device]"
    settings = ["join.hot_window=5m", "join.watermark_delay=2m", carry, impressions_schema(), playbacks_schema()]
    pipeline = Replay(spark, tmp_path / "run", settings)
    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    impressions: list[Any] = []
    playbacks: list[Any] = []
    changes: list[int] = []
    read: list[int] = []
    try:
        for n in range(6):
            if n == 1:
                pipeline.reconfigure(playbacks_schema(more=", app STRING"))
            if n == 2:
                changes.append(max(oracle.micros(p["event_time"]) for p in playbacks))
                pipeline.reconfigure("join.carry=[row_id, position, device, model_version]")
            if n == 3:
                pipeline.reconfigure(impressions_schema("BIGINT"), playbacks_schema("BIGINT", ", app STRING"))
            if n == 4:
                spark.conf.set("spark.sql.shuffle.partitions", "3")
            more = hour(10 + n, **({"app": f"v{n}"} if n else {}))
            if n >= 3:
                more[0][0]["position"] = more[1][0]["seconds_watched"] = 2**40 + n
            # A playback after the change of an impression before it, which is in the state.
            more[1].append(play(f"first{n}", f"{10 + n}:00:05", who=f"w{29 % 7}", **({"app": "x"} if n else {})))
            # Late ones, for outcomes before the last change and after it.
            if n:
                late = f"{9 + n}:{4 * n:02d}"
                more[0].append(shown(f"late{n}", late, who="w8"))
                more[1].append(play(f"lateplay{n}", f"{late}:10", who="w8", **({"app": "late"} if n else {})))
            impressions += more[0]
            playbacks += more[1]
            pipeline.wave(*more)
            pipeline.join()
            pipeline.settle()
            read.append(sum(r["rows_in"] for r in pipeline.rows("ledger", "query = 'join'")))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert pipeline.dropped() == 0
    assert pipeline.reconcile().verdict == "agrees"
    pipeline.settle(everything=True)
    assert pipeline.reconcile().verdict == "agrees"
    filled = [{"app": None, **p} for p in playbacks]
    by_all = oracle.attribute(filled, impressions, window=WINDOW)
    expected = {
        id: {**row, "exposure_model_version": row["exposure_model_version"] if row["event_time"] > changes[0] else None}
        for id, row in by_all.items()
    }
    assert pipeline.attributed() == expected
    # Four shapes of state beside the first; a new one reads what lies above the horizon, not all of bronze again.
    used = pipeline.rows("ledger", "query = 'checkpoint:join'")
    assert sorted(r["batch"] for r in used) == [0, 1, 2, 3, 4]
    again = [now - earlier for earlier, now in pairwise(read)]
    assert max(again) <= 2.5 * read[0], again


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        ["join.attribution_window=1h", "join.keys=[profile_id]"],
        *(pytest.param([change], marks=pytest.mark.soak) for change in ("join.attribution_window=24h", "join.keys=[profile_id]")),
    ],
)
def test_what_decides_an_answer_changes_for_the_outcomes_after(replay: Any, changes: list[str]) -> None:
    pipeline = replay("join.hot_window=10m", "join.watermark_delay=2m", "join.attribution_window=3h")
    first = [shown("far", "02:00"), shown("i1", "09:00"), shown("i2", "11:58", what="heat")]
    early = [play("p1", "11:00"), play("p2", "12:00"), play("p3", "12:01", what="heat")]
    pipeline.wave(first, early)
    pipeline.join()
    pipeline.settle(everything=True)
    at = max(oracle.micros(p["event_time"]) for p in early)
    pipeline.reconfigure(*changes)
    # For outcomes before and after the change: some on time, some late.
    second = [shown("i3", "10:30"), shown("i4", "14:00", what="heat"), shown("i5", "11:59:30")]
    more = [
        play("p4", "12:00:30"),
        play("p5", "12:01:30"),
        play("p6", "14:00:10"),
        play("p7", "23:00", what="heat"),
        play("p8", "12:00"),
    ]
    pipeline.wave(second, more)
    pipeline.join()
    pipeline.settle()
    assert pipeline.reconcile().verdict == "agrees"
    pipeline.wave([shown("late", "10:45")], [play("p9", "11:30"), play("p10", "14:30")])
    pipeline.join()
    pipeline.settle(everything=True)
    impressions = [*first, *second, shown("late", "10:45")]
    playbacks = [*early, *more, play("p9", "11:30"), play("p10", "14:30")]
    changed = dict(change.split("=") for change in changes)
    window = {"1h": timedelta(hours=1), "24h": timedelta(hours=24)}.get(
        changed.get("join.attribution_window", ""), timedelta(hours=3)
    )
    keys = ("profile_id",) if "join.keys" in changed else ("profile_id", "title_id")
    before = oracle.attribute(playbacks, impressions, window=timedelta(hours=3))
    after = oracle.attribute(playbacks, impressions, window=window, keys=keys)
    expected = {id: before[id] if row["event_time"] <= at else row for id, row in after.items()}
    assert pipeline.attributed() == expected
    assert pipeline.reconcile().verdict == "agrees"
    assert [rule.after for rule in rules_in_force(pipeline.lake, pipeline.config)] == [None, at]
    # A lane that still runs with the old configuration must not go on.
    old = pipeline.config.model_copy(update={"join": pipeline.config.join.model_copy(update={"attribution_window": WINDOW})})
    with pytest.raises(RejoinError, match="changed by another process"):
        require_in_force(pipeline.lake, old)


def test_what_rows_are_known_by_cannot_change(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([shown("i", "10:00")], [play("p", "10:01")])
    for change, said in (
        ("streams.playbacks.id=device", "streams.playbacks.id: was playback_id when this lake was made, now device"),
        ("partition_by=hour", "partition_by: was date when this lake was made, now hour"),
        (playbacks_schema("SMALLINT"), "table playbacks: column seconds_watched is INT, but the configuration says SMALLINT"),
    ):
        held = pipeline.config, pipeline.lake, list(pipeline._settings)
        pipeline.reconfigure(change)
        for stage in (pipeline.ingest, pipeline.join, pipeline.settle):
            with pytest.raises(LakeError) as error:
                stage()
            assert said in str(error.value)
        pipeline.config, pipeline.lake, pipeline._settings = held
    pipeline.ingest()


@pytest.mark.slow
def test_a_column_leaves_and_a_field_is_renamed(replay: Any) -> None:
    """The column stays in the tables, null from then on; what rows said before they say still, until their answer changes."""
    pipeline = replay("join.watermark_delay=2m")
    pipeline.wave([shown("i1", "10:00", position=7)], [play("p1", "10:01"), play("p2", "10:02")])
    pipeline.join()
    pipeline.reconfigure(
        "join.carry=[row_id, device]",
        "streams.impressions.schema=impression_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, profile_id STRING, "
        "title_id STRING, row_id STRING, device STRING",
        "streams.impressions.aliases={profile_id: [account]}",
    )
    renamed = shown("i2", "10:01:30", position=8)
    renamed["account"] = renamed.pop("profile_id")
    pipeline.wave([renamed], [play("p3", "10:03")])
    pipeline.join()
    pipeline.settle(everything=True)
    rows = {r["playback_id"]: (r["exposure_id"], r["exposure_position"]) for r in pipeline.rows(pipeline.lake.attributed)}
    assert rows == {"p1": ("i1", 7), "p2": ("i2", None), "p3": ("i2", None)}
    assert [r["rescued"] for r in pipeline.rows("impressions", "impression_id = 'i2'")] == ['{"model_version":"m1","position":8}']
    assert pipeline.reconcile().verdict == "agrees"
    # It comes back: what was null because of that stays null, what was there is there still.
    pipeline.reconfigure(
        "join.carry=[row_id, position, device]",
        "streams.impressions.schema=impression_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, profile_id STRING, "
        "title_id STRING, row_id STRING, position INT, device STRING",
    )
    pipeline.wave([shown("i3", "10:00:30", position=9)], [play("p4", "10:04")])
    pipeline.join()
    pipeline.settle(everything=True)
    rows = {r["playback_id"]: (r["exposure_id"], r["exposure_position"]) for r in pipeline.rows(pipeline.lake.attributed)}
    assert rows == {"p1": ("i3", 9), "p2": ("i2", None), "p3": ("i2", None), "p4": ("i2", None)}
    assert pipeline.reconcile().verdict == "agrees"


@pytest.mark.slow
def test_settle_trusts_no_match_beyond_the_narrowest_hot_window(replay: Any) -> None:
    """A match that the join made with a wide window need not be the nearest, where it finished with a narrow one."""
    pipeline = replay("join.watermark_delay=2m", "join.hot_window=30m")
    pipeline.wave([shown("far", "10:00")], [play("p", "10:20")])
    pipeline.join()
    assert pipeline.answers() == {"p": ("far", "join")}
    pipeline.reconfigure("join.hot_window=5m")
    pipeline.wave([shown("near", "10:10"), shown("x", "10:40", what="x")], [play("y", "10:40", what="x")])
    pipeline.join()
    assert pipeline.answers()["p"] == ("far", "join")
    pipeline.reconfigure("join.hot_window=30m")
    pipeline.settle()
    assert pipeline.answers()["p"] == ("near", "settle")
    assert pipeline.reconcile().verdict == "agrees"


@pytest.mark.slow
def test_a_shorter_delay_over_a_backlog_drops_nothing(replay: Any) -> None:
    pipeline = replay("join.watermark_delay=20m", "trigger.join_max_files=1")
    waves = [
        ([shown("a", "12:00")], [play("p", "12:00")]),
        ([shown("b", "12:01")], [play("q", "12:01")]),
        ([shown("c", "11:50")], [play("r", "11:55")]),
        ([shown("d", "12:30")], [play("s", "12:30")]),
    ]
    pipeline.wave(*waves[0])
    pipeline.join()
    for wave in waves[1:3]:
        pipeline.wave(*wave)
    pipeline.reconfigure("join.watermark_delay=1m")
    pipeline.wave(*waves[3])
    pipeline.join()
    assert pipeline.dropped() == 0
    pipeline.settle(everything=True)
    impressions, playbacks = ([e for wave in waves for e in wave[side]] for side in (0, 1))
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)


@pytest.mark.slow
def test_a_refused_change_touches_nothing(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([], [play("p", "10:01")])
    held = pipeline.config, pipeline.lake
    pipeline.reconfigure(playbacks_schema("BIGINT"), "streams.playbacks.id=device")
    with pytest.raises(LakeError, match="id: was playback_id"):
        pipeline.ingest()
    pipeline.config, pipeline.lake = held
    pipeline.wave([], [play("q", "10:02")])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.reconcile().verdict == "agrees"
    assert pipeline.read("playbacks").schema["seconds_watched"].dataType.simpleString() == "int"
    # Nor does one that looks only.
    pipeline._settings = pipeline._settings[:-2]
    pipeline.reconfigure(playbacks_schema("BIGINT"))
    with pytest.raises(LakeError, match="has not got the columns that this configuration says"):
        pipeline.reconcile()
    assert pipeline.read("playbacks").schema["seconds_watched"].dataType.simpleString() == "int"


def test_two_lanes_that_start_at_once_record_one_change(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave([], [play("p", "10:01")])
    pipeline.reconfigure("join.attribution_window=2h")
    for _ in range(2):
        put_in_force(pipeline.lake, pipeline.config)
    rules = rules_in_force(pipeline.lake, pipeline.config)
    at = oracle.micros(play("p", "10:01")["event_time"])
    carry = pipeline.config.join.carry
    keys = pipeline.config.join.keys
    assert rules == Rules(
        (
            Rule(keys=keys, window=WINDOW, carry=carry, until=at),
            Rule(keys=keys, window=timedelta(hours=2), carry=carry, after=at),
        )
    )
    assert rules.between(at + 1, at + 2) == Rules((rules.current,))
    assert rules.rule_for(at) != rules.current
