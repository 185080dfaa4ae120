"""A configuration that changes under a running pipeline: tables, rules, the join's state; and what is refused."""

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from pipelines.config.streams import rule_of
from pipelines.context import open_context
from pipelines.control.rule import registered_rule
from pipelines.jobs.backfill import backfill
from pipelines.jobs.settle import open_settle
from pipelines.lake.evolution import alterations
from pipelines.model.errors import ConfigError, LakeError
from pipelines.model.rule import RegisteredRule
from tests import oracle
from tests.builders import play, shown
from tests.replay import Replay

WINDOW = timedelta(hours=6)
CARRIED = ("row_id", "position", "device", "model_version")
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
def test_changes_by_restart_with_late_data_in_between(spark: SparkSession, tmp_path: Path) -> None:
    """An optional column, wider types, other shuffle partitions, hot window, delay and provider: nothing is computed again."""
    settings = ["join.hot_window=5m", "join.watermark_delay=2m", impressions_schema(), playbacks_schema()]
    pipeline = Replay(spark, tmp_path / "run", settings)
    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    impressions: list[Any] = []
    playbacks: list[Any] = []
    read: list[int] = []
    try:
        for n in range(4):
            if n == 1:
                pipeline.reconfigure(playbacks_schema(more=", app STRING"), "join.hot_window=10m")
            if n == 2:
                pipeline.reconfigure(impressions_schema("BIGINT"), playbacks_schema("BIGINT", ", app STRING"))
            if n == 3:
                spark.conf.set("spark.sql.shuffle.partitions", "3")
                pipeline.reconfigure("state_store.provider=memory", "join.watermark_delay=3m")
            more = hour(10 + n, **({"app": f"v{n}"} if n else {}))
            if n >= 2:
                more[0][0]["position"] = more[1][0]["seconds_watched"] = 2**40 + n
            if n:
                late = f"{9 + n}:{4 * n:02d}"
                more[0].append(shown(f"late{n}", late, who="w8"))
                more[1].append(play(f"lateplay{n}", f"{late}:10", who="w8", app="late"))
            impressions += more[0]
            playbacks += more[1]
            pipeline.wave(*more)
            pipeline.join()
            pipeline.settle()
            read.append(sum(r["rows_in"] for r in pipeline.rows("ledger", "query = 'join'")))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert pipeline.dropped() == 0
    pipeline.settle(everything=True)
    assert pipeline.reconcile().verdict == "agrees"
    filled = [{"app": None, **p} for p in playbacks]
    assert pipeline.attributed() == oracle.attribute(filled, impressions, window=WINDOW)
    # A start reads what lies above the horizon and one hot window before it, not all of bronze again.
    again = [now - earlier for earlier, now in pairwise(read)]
    assert max(again) <= 2.5 * read[0], again


DAYS = ("2026-01-08", "2026-01-09", "2026-01-10")


def on_days() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of each day an impression two hours, and one of another title some minutes, before two playbacks."""
    impressions = [shown(f"far{d}", f"{d}T10:00:00Z") for d in DAYS]
    impressions += [shown(f"near{d}", f"{d}T11:50:00Z", what="heat", position=None) for d in DAYS]
    playbacks = [play(f"p{d}", f"{d}T12:00:00Z") for d in DAYS] + [play(f"q{d}", f"{d}T12:00:10Z", what="heat") for d in DAYS]
    return impressions, playbacks


RULE_CHANGES = [
    pytest.param(
        ["join.attribution_window=1h"], r"join.attribution_window: 6h -> 1h", {"window": timedelta(hours=1)}, id="window"
    ),
    pytest.param(
        ["join.keys=[profile_id]"],
        r"join.keys: profile_id, title_id -> profile_id",
        {"keys": ("profile_id",)},
        marks=pytest.mark.slow,
        id="keys",
    ),
    pytest.param(
        ["join.carry=[row_id]"],
        r"join.carry: row_id, position, device, model_version -> row_id",
        {"carry": ("row_id",)},
        marks=pytest.mark.slow,
        id="carry",
    ),
]


@pytest.mark.parametrize(("changes", "said", "how"), RULE_CHANGES)
def test_a_change_of_rule_needs_a_backfill(replay: Any, changes: list[str], said: str, how: dict[str, Any]) -> None:
    pipeline = replay("join.hot_window=10m", "join.watermark_delay=2m")
    impressions, playbacks = on_days()
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    pipeline.settle(everything=True)
    before = pipeline.attributed()
    pipeline.reconfigure(*changes)
    for stage in (pipeline.join, pipeline.settle):
        with pytest.raises(LakeError, match=said + r".*run `rejoin backfill --from D`"):
            stage()
    assert pipeline.attributed() == before
    lines = list(backfill(pipeline.lake, pipeline.config, date(2026, 1, 9), None))
    assert [line.partition(":")[0] for line in lines[:-1]] == list(DAYS[1:])
    assert registered_rule(pipeline.lake) == RegisteredRule(rule=rule_of(pipeline.config), since=date(2026, 1, 9))
    # Late ones of a date before and of one after, and events that are on time.
    more = (
        [shown("late8", "2026-01-08T11:55:00Z"), shown("late9", "2026-01-09T11:55:00Z"), shown("new", "13:00")],
        [play("after", "13:05")],
    )
    pipeline.wave(*more)
    pipeline.join()
    pipeline.settle(everything=True)
    expected = {
        id: {**{f"exposure_{c}": None for c in CARRIED}, **row}
        for id, row in oracle.attribute(playbacks + more[1], impressions + more[0], **{"window": WINDOW, **how}).items()
    }
    rows = pipeline.attributed()
    assert {id: row for id, row in rows.items() if row["event_date"] >= DAYS[1]} == {
        id: row for id, row in expected.items() if row["event_date"] >= DAYS[1]
    }
    # Before the first date of the backfill: rows of the old rule, but for what late events have touched since.
    untouched = f"q{DAYS[0]}"
    if how.get("keys") is None:
        assert rows[untouched] == before[untouched]
    assert rows[f"p{DAYS[0]}"]["exposure_id"] == "late8"


@pytest.mark.slow
def test_a_backfill_that_was_killed_goes_on_and_lanes_wait_for_it(replay: Any) -> None:
    pipeline = replay()
    impressions, playbacks = on_days()
    pipeline.wave(impressions, playbacks)
    pipeline.join()
    pipeline.settle(everything=True)
    pipeline.reconfigure("join.attribution_window=1h")
    begun = backfill(pipeline.lake, pipeline.config, date(2026, 1, 8), None)
    assert next(begun).startswith("2026-01-08: ")
    del begun
    with pytest.raises(LakeError, match=r"a backfill has not ended; run `rejoin backfill --from 2026-01-08` again"):
        pipeline.settle()
    with pytest.raises(ConfigError, match="run it from there"):
        list(backfill(pipeline.lake, pipeline.config, date(2026, 1, 9), None))
    lines = list(backfill(pipeline.lake, pipeline.config, date(2026, 1, 8), None))
    assert lines[:3] == ["2026-01-08: written before", "2026-01-09: 2 outcomes", "2026-01-10: 2 outcomes"]
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=1))
    # Again, without a change: the same table, and a date may be chosen.
    ninth = date(2026, 1, 9)
    assert list(backfill(pipeline.lake, pipeline.config, ninth, ninth))[:-1] == ["2026-01-09: 2 outcomes"]
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=1))


@pytest.mark.slow
def test_a_lane_that_still_runs_by_another_rule_stops_and_what_it_wrote_is_written_again(replay: Any, monkeypatch: Any) -> None:
    pipeline = replay()
    impressions, playbacks = on_days()
    pipeline.wave(impressions, playbacks)
    pipeline.settle(everything=True)
    old = Replay.__new__(Replay)
    old.__dict__.update(pipeline.__dict__)
    pipeline.reconfigure("join.attribution_window=1h")
    with open_context(old.lake, old.config) as context:
        lane = open_settle(context)
        wrote = 0
        for line in backfill(pipeline.lake, pipeline.config, date(2026, 1, 8), None):
            if line.startswith("2026-01-08") and wrote < 2:
                # A date that is written already gets rows by the other rule; once more when it has been written again.
                wrote += 1
                pipeline.lake.spark.sql(
                    f"DELETE FROM {pipeline.lake.identifier(pipeline.lake.attributed)} WHERE playback_id LIKE 'p%'"
                )
                lane.run(everything=True)
        with pytest.raises(LakeError, match=r"join.attribution_window: 1h -> 6h"):
            context.require_same_rule()
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=1))


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
    """The column stays in bronze, null from then on."""
    pipeline = replay("join.watermark_delay=2m", "join.carry=[row_id, device]")
    pipeline.wave([shown("i1", "10:00", position=7)], [play("p1", "10:01"), play("p2", "10:02")])
    pipeline.join()
    pipeline.reconfigure(
        "streams.impressions.schema=impression_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, profile_id STRING, "
        "title_id STRING, row_id STRING, device STRING",
        "streams.impressions.aliases={profile_id: [account]}",
    )
    renamed = shown("i2", "10:01:30", position=8)
    renamed["account"] = renamed.pop("profile_id")
    pipeline.wave([renamed], [play("p3", "10:03")])
    pipeline.join()
    pipeline.settle(everything=True)
    assert {p: i for p, (i, _) in pipeline.answers().items()} == {"p1": "i1", "p2": "i2", "p3": "i2"}
    assert [r["rescued"] for r in pipeline.rows("impressions", "impression_id = 'i2'")] == ['{"model_version":"m1","position":8}']
    assert {r["impression_id"]: r["position"] for r in pipeline.rows("impressions")} == {"i1": 7, "i2": None}
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
    with pytest.raises(LakeError, match="does not have the columns of this configuration yet"):
        pipeline.reconcile()
    assert pipeline.read("playbacks").schema["seconds_watched"].dataType.simpleString() == "int"
