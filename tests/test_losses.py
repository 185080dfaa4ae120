"""What bronze has lost is found, counted to the row, and put back from where it came; or nothing is repaired by what is left."""

import json
import random
import shutil
from collections.abc import Callable, Collection
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow.parquet as pq
import pytest

from pipelines.jobs.reconcile import run_reconcile
from pipelines.reconcile import run
from pipelines.reconcile.copies import TakenOut, files_twice, take_out_surplus
from pipelines.reconcile.losses import Losses
from pipelines.reconcile.place import misplaced
from pipelines.reconcile.report import planned, to_text
from pipelines.reconcile.since import since_last
from pipelines.reconcile.span import Range
from tests import oracle
from tests.builders import play, shown
from tests.kafka_replay import KafkaReplay
from tests.kafka_replay import day as day_of
from tests.replay import Frozen, Replay, differences
from tests.test_changes import playbacks_schema

pytestmark = pytest.mark.slow
WINDOW = timedelta(hours=6)
# What the door says of a row. Where the whole of a landing file is lost, it comes anew, and late.
TOLD = ("late", "door_watermark", "ingest_time", "ingest_batch")
IMPRESSIONS = [shown(f"i{n}", f"{8 + n:02d}:00") for n in range(8)]
PLAYBACKS = [play(f"p{n}", f"{8 + n:02d}:20") for n in range(8)]
NEXT = [play(f"n{n}", f"2026-01-11T0{n}:30:00Z") for n in range(3)]


@pytest.fixture(scope="module")
def settled(first_replay: Replay) -> Frozen:
    """Two landing files a stream, one of them with a line twice and one that is quarantined; all settled."""
    first_replay.wave(IMPRESSIONS[:4], PLAYBACKS[:5])
    first_replay.wave([*IMPRESSIONS[4:], IMPRESSIONS[4], "{"], [*PLAYBACKS[5:], *NEXT, NEXT[0], "{"])
    first_replay.join()
    first_replay.settle(everything=True)
    return first_replay.freeze()


@pytest.fixture
def pipeline(settled: Frozen) -> Replay:
    return settled.thawed()


def truth(*more: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    return oracle.attribute(
        [*PLAYBACKS, *NEXT, *(e for e in more if "playback_id" in e)],
        [*IMPRESSIONS, shown("since", "2026-01-11T06:00:00Z"), *more[:1]],
        window=WINDOW,
    )


def events(pipeline: Any, stream: str, told: Collection[str] = ()) -> list[str]:
    """The rows of bronze, without what the door has `told` of them."""
    return sorted(str({name: value for name, value in row.items() if name not in told}) for row in pipeline.rows(stream))


def data_files(pipeline: Any, stream: str) -> list[Path]:
    return sorted(Path(unquote(urlparse(name).path)) for name in pipeline.read(stream).inputFiles())


def test_data_files_that_are_gone(pipeline: Any) -> None:
    before = {"playbacks": events(pipeline, "playbacks"), "impressions": events(pipeline, "impressions", TOLD)}
    lost, rows = {"playbacks": "2026-01-11", "impressions": "2026-01-10"}, {}
    for stream, day in lost.items():
        file = random.Random(day).choice([file for file in data_files(pipeline, stream) if f"event_date={day}" in str(file)])
        rows[stream] = pq.read_table(file).to_pylist()
        file.unlink()
    found = pipeline.reconcile()
    assert found.verdict == "differs"
    assert {d.stream: (d.data_files_gone, d.rows_lost) for d in found.doors} == {s: (1, len(rows[s])) for s in lost}
    extra, shown_then = (
        {row[id] for row in rows[s]} for s, id in (("playbacks", "playback_id"), ("impressions", "impression_id"))
    )
    without = [
        r for r in pipeline.rows("attributed_playbacks") if r["exposure_id"] in shown_then and r["playback_id"] not in extra
    ]
    assert differences(found) == {"extra": len(extra), "mismatched": len(without)}
    assert found.causes == {"bronze_lost": found.differences}
    for count in map(len, rows.values()):
        assert f"LOST: {count:,} rows (1 data files are gone)" in to_text(found)
    told = ", ".join(f"{s} {len(rows[s])}" for s in ("playbacks", "impressions"))
    assert planned(found).startswith(f"--repair would put lost rows back into bronze ({told})")

    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.repaired) == ("repaired", sum(map(len, rows.values())), 0)
    assert repaired.mended.data_files == 2
    assert events(pipeline, "playbacks") == before["playbacks"]
    assert events(pipeline, "impressions", TOLD) == before["impressions"]
    assert pipeline.attributed() == truth()
    # A commit that writes dates anew holds what has been joined already: a checkpoint that begins anew takes it for no arrival.
    pipeline.lose_checkpoint("join")
    more = shown("late", "09:10"), play("late", "09:15"), play("next", "2026-01-11T05:00:00Z")
    pipeline.wave(more[:1], more[1:])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == truth(*more)
    assert pipeline.reconcile().verdict == "agrees"


def test_a_data_file_that_is_gone_and_had_copies_only(pipeline: Any) -> None:
    before, there = events(pipeline, "playbacks", TOLD), set(data_files(pipeline, "playbacks"))
    table = pipeline.lake.identifier("playbacks")
    pipeline.lake.spark.sql(f"INSERT INTO {table} SELECT * FROM {table} WHERE source LIKE '%file-0002%'")
    copies = set(data_files(pipeline, "playbacks")) - there
    rows = sum(pq.read_metadata(file).num_rows for file in copies)
    for file in copies:
        file.unlink()
    repaired = pipeline.reconcile(fix=True)
    assert (rows, repaired.verdict, repaired.refused) == (5, "repaired", False)
    assert (repaired.mended.relanded, repaired.mended.copies, repaired.mended.data_files) == (0, 0, len(copies))
    assert (events(pipeline, "playbacks", TOLD), pipeline.attributed()) == (before, truth())


def test_data_files_of_the_table_that_are_gone(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A day of it, by somebody who has tidied up.
    shutil.rmtree(Path(pipeline.lake.path("attributed_playbacks")) / "event_date=2026-01-11")
    found = pipeline.reconcile()
    assert (differences(found), found.causes) == ({"missing": len(NEXT)}, {"table_lost": len(NEXT)})
    assert found.table_files_gone >= 1
    assert "data files of the table are not there" in to_text(found)
    assert since_last(pipeline.lake) == Range()
    # Of one more date there is another, which nobody has asked for; and the repair does not come to its end.
    other = next(file for file in data_files(pipeline, "attributed_playbacks") if "2026-01-10" in str(file))
    rows = pq.read_metadata(other).num_rows
    other.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(run, "_compare_all", _killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.reconcile(Range(first=date(2026, 1, 11)), fix=True)
    assert since_last(pipeline.lake) == Range()
    repaired = pipeline.reconcile(Range(first=date(2026, 1, 11)), fix=True)
    assert (repaired.verdict, repaired.repaired, repaired.table_files_gone) == ("repaired", len(NEXT) + rows, 0)
    assert (repaired.mended.data_files, repaired.causes) == (1, {"table_lost": len(NEXT) + rows})
    assert pipeline.attributed() == truth()
    # The lanes can read it again.
    pipeline.wave(playbacks=[play("more", "2026-01-11T00:40:00Z")])
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(
        [*PLAYBACKS, *NEXT, play("more", "2026-01-11T00:40:00Z")], IMPRESSIONS, window=WINDOW
    )


def test_copies_in_bronze_hide_no_fault_of_the_table(pipeline: Any) -> None:
    # They are commits that settle has not seen; with nothing new in them all outcomes are judged, as before.
    playbacks, attributed = (pipeline.lake.identifier(name) for name in ("playbacks", "attributed_playbacks"))
    pipeline.lake.spark.sql(f"INSERT INTO {playbacks} SELECT * FROM {playbacks} WHERE source LIKE '%file-0004%'")
    pipeline.lake.spark.sql(f"DELETE FROM {attributed} WHERE playback_id = 'n2'")
    found = pipeline.reconcile(Range(first=date(2026, 1, 11), last=date(2026, 1, 11)))
    assert (differences(found), found.pins.bound) == ({"missing": 1}, None)
    door = found.doors[0]
    # What came in with the date's rows, and what was refused meanwhile.
    assert (door.accepted, door.quarantined) == (8, {"not_json": 1})
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.repaired, repaired.mended.copies) == ("repaired", 1, 7)
    assert pipeline.attributed() == truth()


def test_changes_of_bronze_that_nothing_can_prove(pipeline: Any) -> None:
    landing = sorted((pipeline.root / "landing" / "playbacks").iterdir())
    for file in landing:
        file.rename(file.with_name(f".{file.name}"))
    assert pipeline.reconcile().verdict == "agrees"
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE playback_id = 'p3'")
    pipeline.settle(everything=True)
    refused = pipeline.reconcile(fix=True)
    assert (refused.verdict, refused.refused, refused.unchecked_changes) == ("differs", True, 1)
    assert differences(refused) == {"extra": 1}
    assert "NOT REPAIRED: somebody has changed bronze" in to_text(refused)
    assert planned(refused).startswith("--repair would repair nothing: somebody has changed bronze")
    assert pipeline.attributed() == truth()
    # On purpose: so it is said, and done.
    pipeline.reconfigure("reconcile.expectations.unchecked_changes=warn")
    assert pipeline.reconcile(fix=True).verdict == "repaired"
    assert "p3" not in pipeline.attributed()


def delete_file(pipeline: Any) -> int:
    """A landing file's rows, all of them."""
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE source LIKE '%file-0004%'")
    return 7


def delete_day(pipeline: Any) -> int:
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE event_date = '2026-01-11'")
    return 4


def delete_one_of_a_pair(pipeline: Any) -> int:
    pair = pipeline.read("playbacks").where("playback_id = 'n0'")
    one = pair.limit(1).collect()
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE playback_id = 'n0'")
    again = pipeline.lake.spark.createDataFrame(one, pair.schema)
    again.write.format("delta").mode("append").save(pipeline.lake.path("playbacks"))
    return 1


@pytest.mark.parametrize(
    ("delete", "settled_since"),
    [
        (delete_file, False),
        *(pytest.param(how, True, marks=pytest.mark.soak) for how in (delete_day, delete_one_of_a_pair)),
    ],
)
def test_rows_that_somebody_deleted(pipeline: Any, delete: Callable[[Any], int], settled_since: bool) -> None:
    rows = delete(pipeline)
    if settled_since:
        pipeline.settle(everything=True)
    # What has landed since settle, whose versions lack the rows, and stay so.
    pipeline.wave([shown("since", "2026-01-11T06:00:00Z")], [])
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.mended.data_files) == ("repaired", rows, 0)
    assert pipeline.attributed() == truth()
    if not settled_since:
        assert pipeline.reconcile().verdict == "agrees", "also before settle runs again"
    pipeline.settle(everything=True)
    assert (pipeline.attributed(), pipeline.reconcile().verdict) == (truth(), "agrees")


@pytest.mark.parametrize(
    "span",
    [pytest.param(Range(), marks=pytest.mark.soak), Range(first=date(2026, 1, 11), last=date(2026, 1, 11))],
    ids=["all", "one date"],
)
def test_rows_of_one_file_of_which_some_are_gone_and_others_twice(pipeline: Any, span: Range) -> None:
    before = events(pipeline, "playbacks", ["late"])
    table = pipeline.lake.identifier("playbacks")
    copy = pipeline.read("playbacks").where("playback_id IN ('p5', 'p6', 'n2')").persist()
    assert copy.count() == 3
    # As many of the file, which spans midnight, are there as before; of the line that it has twice, both are gone.
    pipeline.lake.spark.sql(f"DELETE FROM {table} WHERE playback_id IN ('n0', 'p7')")
    copy.write.format("delta").mode("append").save(pipeline.lake.path("playbacks"))
    copy.unpersist()
    found = pipeline.reconcile(span)
    door = found.doors[0]
    assert (found.verdict, door.rows_lost, door.rows_copied, door.files_ingested_twice) == ("differs", 3, 3, 0)
    assert "LOST: 3 rows; TWICE: 3 rows" in to_text(found)
    assert planned(found) == (
        "--repair would put lost rows back into bronze (playbacks 3), as far as their source has them, "
        "and take copied rows out of bronze (playbacks 3) and compare again"
    )
    repaired = pipeline.reconcile(span, fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.mended.copies, repaired.repaired) == ("repaired", 3, 3, 0)
    assert events(pipeline, "playbacks", ["late"]) == before
    pipeline.settle(everything=True)
    assert (pipeline.attributed(), pipeline.reconcile().verdict) == (truth(), "agrees")


def changed_by_hand(pipeline: Any) -> None:
    """Two events of the first file, two of the second; each by another column."""
    table = pipeline.lake.identifier("playbacks")
    for change in (
        "device = 'fridge' WHERE playback_id = 'p1'",
        "seconds_watched = seconds_watched + 1 WHERE playback_id = 'p4'",
        "event_time = event_time + INTERVAL 1 DAY, event_date = event_date + INTERVAL 1 DAY WHERE playback_id = 'p6'",
        "playback_id = 'made-up' WHERE playback_id = 'n1'",
    ):
        pipeline.lake.spark.sql(f"UPDATE {table} SET {change}")


@pytest.mark.parametrize("settled_since", [pytest.param(False, marks=pytest.mark.soak), True])
def test_rows_that_somebody_changed(pipeline: Any, settled_since: bool) -> None:
    before = events(pipeline, "playbacks", ["late"])
    changed_by_hand(pipeline)
    if settled_since:
        pipeline.settle(everything=True)
        # What stricter rules would refuse today has been accepted all the same.
        pipeline.reconfigure("ingest.earliest_event_time=2026-01-10T10:00:00Z")
    found = pipeline.reconcile()
    lost, unsourced = (3, 3) if settled_since else (4, 4)
    door = found.doors[0]
    assert (door.rows_lost, door.rows_unsourced, door.rows_copied) == (lost, unsourced, 0)
    assert (found.verdict, f"LOST: {lost} rows; NOT IN THEIR SOURCE: {unsourced} rows" in to_text(found)) == ("differs", True)
    if settled_since:
        pipeline.reconfigure("ingest.earliest_event_time=2000-01-01T00:00:00Z")
    pipeline.lose_checkpoint("ingest-playbacks")
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.mended.unsourced, repaired.mended.copies) == (
        "repaired",
        4,
        4,
        0,
    )
    assert events(pipeline, "playbacks", ["late"]) == before
    assert pipeline.attributed() == truth()
    assert pipeline.reconcile().verdict == "agrees", "and a look at every event of the files finds nothing"


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_rows_of_bronze_in_another_partition(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = events(pipeline, "impressions")
    table = pipeline.lake.identifier("impressions")
    for id, where in (("i2", "2026-01-12"), ("i6", "2026-01-05")):
        pipeline.lake.spark.sql(f"UPDATE {table} SET event_date = DATE'{where}' WHERE impression_id = '{id}'")
    # By where they are, or by where they belong and may matter to the dates.
    for span, rows in (
        (Range(first=date(2026, 1, 11)), 2),
        (Range(first=date(2026, 1, 12)), 1),
        (Range(last=date(2026, 1, 9)), 1),
        (Range(first=date(2026, 1, 7), last=date(2026, 1, 9)), 0),
        (Range(), 2),
    ):
        assert misplaced(pipeline.lake, pipeline.lake.streams.exposure, span.reaching_back(WINDOW)) == rows
    found = pipeline.reconcile(Range(first=date(2026, 1, 11)))
    assert ([door.rows_misplaced for door in found.doors], found.verdict) == ([0, 2], "differs")
    assert planned(found).startswith("--repair would bring rows of bronze back to their partition (impressions 2)")
    with monkeypatch.context() as patched:
        patched.setattr(run, "_compare_all", _killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.reconcile(Range(first=date(2026, 1, 11)), fix=True)
    assert events(pipeline, "impressions") == before
    again = pipeline.reconcile(Range(first=date(2026, 1, 11)), fix=True)
    assert (again.range, again.verdict) == (Range(), "agrees"), "what the first one has brought back may matter to any date"
    assert (events(pipeline, "impressions"), pipeline.attributed()) == (before, truth())
    pipeline.wave([shown("since", "2026-01-11T06:00:00Z")], [])
    pipeline.join()
    pipeline.settle(everything=True)
    assert (pipeline.attributed(), pipeline.reconcile().verdict) == (truth(), "agrees")


def test_a_data_file_that_was_moved_is_gone_from_where_it_was(pipeline: Any) -> None:
    assert pipeline.reconcile().verdict == "agrees"
    before = events(pipeline, "playbacks", TOLD)
    moved = next(file for file in data_files(pipeline, "playbacks") if "event_date=2026-01-10" in str(file))
    moved.rename(moved.parent.with_name("event_date=2026-01-11") / moved.name)
    assert since_last(pipeline.lake) == Range(), "nobody knows what it had"
    repaired = run_reconcile(pipeline.lake, pipeline.config, None, fix=True)[0]
    assert (repaired.verdict, repaired.mended.data_files) == ("repaired", 1)
    assert (events(pipeline, "playbacks", TOLD), pipeline.attributed()) == (before, truth())


def test_an_event_taken_over_from_quarantine_stays(pipeline: Any) -> None:
    pipeline.wave([], [play("in-time", "2026-01-11T05:00:00Z"), play("ahead", "3000-01-01T00:00:00Z")])
    table = pipeline.lake.identifier("playbacks")
    values = ", ".join({"playback_id": "'ahead'"}.get(name, f"`{name}`") for name in pipeline.read("playbacks").columns)
    pipeline.lake.spark.sql(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE playback_id = 'in-time'")
    door = pipeline.reconcile(fix=True).doors[0]
    assert (door.rows_unsourced, door.rows_copied, door.rows_lost) == (0, 0, 0)
    assert len(pipeline.rows("playbacks", "playback_id = 'ahead'")) == 1


def test_rows_without_a_landing_file_are_copies_only_beside_their_like(pipeline: Any) -> None:
    table = pipeline.lake.identifier("playbacks")
    columns = pipeline.read("playbacks").columns

    def insert(where: str, **other: str) -> None:
        values = ", ".join(other.get(name, f"`{name}`") for name in columns)
        pipeline.lake.spark.sql(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE {where}")

    of_kafka = {"source": "'topic'", "source_partition": "0", "source_offset": "7", "source_time": "event_time"}
    of_file = {"source": "'file:/gone.jsonl'"}
    later = {"ingest_time": "ingest_time + INTERVAL 1 MINUTE"}
    insert("playback_id = 'p1'", **of_kafka)
    insert("playback_id = 'p1' AND source_offset = 7", **later)
    insert("playback_id = 'p1' AND source_offset = 7 LIMIT 1", device="'radio'")
    insert("playback_id IN ('p2', 'p3')", **of_file)
    insert("playback_id = 'p2' AND source LIKE '%gone%'", **later)
    insert("playback_id = 'p4'", **of_file, ingest_time="ingest_time + INTERVAL 2 MINUTES")
    stream = pipeline.lake.streams.outcome
    bronze = pipeline.read("playbacks")
    assert files_twice(bronze, stream, {"file:/gone.jsonl"}) == {"file:/gone.jsonl": 1}
    losses = Losses(untold=frozenset({"file:/gone.jsonl"}))
    assert take_out_surplus(pipeline.lake, pipeline.config, stream, losses) == TakenOut(copies=2)
    left = pipeline.rows("playbacks", "source_offset = 7 OR source LIKE '%gone%'")
    assert sorted((row["playback_id"], row["device"]) for row in left) == [
        ("p1", "radio"),
        ("p1", "tv"),
        ("p2", "tv"),
        ("p3", "tv"),
        ("p4", "tv"),
    ]


def test_rows_from_before_a_column_are_the_same_events(pipeline: Any) -> None:
    more = [play(f"m{n}", f"2026-01-11T05:{n}0:00Z", app=f"v{n}", score=0.1 + n) for n in range(5)]
    pipeline.reconfigure(playbacks_schema(more=", score FLOAT"))
    pipeline.wave([], more)
    pipeline.settle(everything=True)
    pipeline.reconfigure(playbacks_schema(more=", score DOUBLE, app STRING"))
    pipeline.wave([], [play("new", "2026-01-11T07:00:00Z", app="v9")])
    pipeline.settle(everything=True)
    table = pipeline.lake.identifier("playbacks")
    pipeline.lake.spark.sql(f"INSERT INTO {table} SELECT * FROM {table} WHERE playback_id IN ('m1', 'm4')")
    pipeline.lake.spark.sql(f"DELETE FROM {table} WHERE playback_id = 'm2'")
    found = pipeline.reconcile()
    assert (found.doors[0].rows_lost, found.doors[0].rows_copied) == (1, 2)
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.mended.relanded, repaired.mended.copies) == (1, 2)
    there = pipeline.rows("playbacks", "playback_id LIKE 'm%'")
    assert sorted(row["playback_id"] for row in there) == [event["playback_id"] for event in more]
    assert pipeline.reconcile().verdict == "agrees"


def test_a_landing_file_that_was_written_anew_takes_nothing_out_of_bronze(pipeline: Any) -> None:
    # By somebody who has taken the first lines for old ones, and has put another behind the last: ingest reads no file again.
    file = pipeline.root / "landing" / "playbacks" / "file-0002.jsonl"
    added = play("added", "10:30")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[3:]) + json.dumps(added) + "\n")
    pipeline.ingest()
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.mended.copies) == ("repaired", 1, 0)
    assert pipeline.attributed() == oracle.attribute([*PLAYBACKS, *NEXT, added], IMPRESSIONS, window=WINDOW)


def test_nothing_is_repaired_by_a_bronze_that_cannot_be_made_whole(pipeline: Any) -> None:
    lost = data_files(pipeline, "playbacks")[0]
    rows = pq.read_table(lost).num_rows
    away = pipeline.root / "away"
    lost.rename(away)
    landing = sorted((pipeline.root / "landing" / "playbacks").iterdir())
    for file in landing:
        file.rename(file.with_name(f".{file.name}"))
    refused = pipeline.reconcile(fix=True)
    assert (refused.verdict, refused.refused, refused.mended.relanded, refused.repaired) == ("differs", True, 0, 0)
    assert refused.doors[0].rows_lost == rows
    assert "NOT REPAIRED: bronze has lost rows" in to_text(refused)
    assert pipeline.attributed() == truth()
    away.rename(lost)
    assert pipeline.reconcile(fix=True).verdict == "agrees"


def test_what_has_not_been_read_yet_is_not_lost_nor_is_what_quarantine_was_cleaned_of(pipeline: Any) -> None:
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('quarantine')}")
    pipeline.land("playbacks", [play("soon", "10:00")])
    assert pipeline.reconcile().verdict == "agrees"
    pipeline.ingest()
    # Nor is it when ingest starts anew, and finds by itself what it has read.
    pipeline.lose_checkpoint("ingest-playbacks")
    assert pipeline.reconcile().verdict == "agrees"


@pytest.mark.slow
@pytest.mark.kafka
def test_records_of_a_topic_are_read_again(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka()
    impressions, playbacks = day_of(0, 30)
    pipeline.wave(impressions[:20], [*playbacks[:20], "{", playbacks[3]])
    pipeline.wave(impressions[20:], playbacks[20:])
    pipeline.join()
    pipeline.settle(everything=True)
    expected = oracle.attribute(playbacks, impressions, window=WINDOW)
    last = pipeline.ends("playbacks")[0] - 1
    # The middle of a partition, and what is behind it stays; the last record of one would look like one that has not come yet.
    gone = f"source_partition = 0 AND source_offset BETWEEN 2 AND {last - 2}"
    lost = pipeline.read("playbacks").where(gone).count()
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE {gone}")
    pipeline.settle(everything=True)
    found = pipeline.reconcile()
    assert (found.verdict, found.doors[0].offsets.missing) == ("differs", lost)
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.doors[0].offsets.missing) == ("repaired", lost, 0)
    assert pipeline.attributed() == expected
    # A data file that is gone, with the records of both partitions in it.
    data_files(pipeline, "playbacks")[0].unlink()
    assert pipeline.reconcile(fix=True).verdict == "repaired"
    assert pipeline.attributed() == expected
    pipeline.settle(everything=True)
    assert (pipeline.attributed(), pipeline.reconcile().verdict) == (expected, "agrees")
    # Records that Kafka has no more: nothing is repaired by what is left.
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE {gone}")
    pipeline.delete_records("playbacks", pipeline.ends("playbacks"))
    pipeline.lake.spark.sql(f"UPDATE {pipeline.lake.identifier('attributed_playbacks')} SET device = 'fridge'")
    refused = pipeline.reconcile(fix=True)
    assert (refused.verdict, refused.refused, refused.repaired) == ("differs", True, 0)
    assert refused.doors[0].offsets.missing == lost
