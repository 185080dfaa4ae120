"""What bronze has lost is found, counted to the row, and put back from where it came; or nothing is repaired by what is left."""

import json
import random
from collections.abc import Callable, Collection
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow.parquet as pq
import pytest

from pipelines.reconcile.report import planned, to_text
from pipelines.reconcile.span import Range
from tests import oracle
from tests.builders import play, shown
from tests.kafka_replay import KafkaReplay
from tests.kafka_replay import day as day_of
from tests.replay import Frozen, Replay
from tests.test_changes import playbacks_schema

WINDOW = timedelta(hours=6)
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


@pytest.mark.parametrize(("stream", "day"), [("playbacks", "2026-01-11"), ("impressions", "2026-01-10")])
def test_a_data_file_that_is_gone(pipeline: Any, stream: str, day: str) -> None:
    # Where the whole of a landing file is lost, it comes anew, and late.
    told = ("late", "door_watermark", "ingest_time", "ingest_batch") if stream == "impressions" else ()
    before = events(pipeline, stream, told)
    lost = random.Random(day).choice([file for file in data_files(pipeline, stream) if f"event_date={day}" in str(file)])
    rows = pq.read_table(lost).to_pylist()
    lost.unlink()
    found = pipeline.reconcile()
    door = next(door for door in found.doors if door.stream == stream)
    assert (found.verdict, door.data_files_gone, door.rows_lost) == ("differs", 1, len(rows))
    differing = {name: count for name, count in found.counts.items() if count and name != "matched"}
    if stream == "playbacks":
        assert differing == {"extra": len({row["playback_id"] for row in rows})}
    else:
        ids = {row["impression_id"] for row in rows}
        assert differing == {"mismatched": sum(row["exposure_id"] in ids for row in pipeline.rows("attributed_playbacks"))}
    assert found.causes == {"bronze_lost": sum(differing.values())}
    assert f"LOST: {len(rows):,} rows (1 data files are gone)" in to_text(found)
    assert planned(found).startswith(f"--repair would put lost rows back into bronze ({stream} {len(rows)})")

    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded, repaired.repaired) == ("repaired", len(rows), 0)
    assert events(pipeline, stream, told) == before
    assert pipeline.attributed() == truth()
    if stream == "playbacks":
        # A commit that writes dates anew holds what has been joined already: one that begins anew takes it for no arrival.
        pipeline.lose_checkpoint("join")
    more = shown("late", "09:10"), play("late", "09:15"), play("next", "2026-01-11T05:00:00Z")
    pipeline.wave(more[:1], more[1:])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == truth(*more)
    assert pipeline.reconcile().verdict == "agrees"


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


@pytest.mark.parametrize(("delete", "settled_since"), [(delete_file, False), (delete_day, True), (delete_one_of_a_pair, True)])
def test_rows_that_somebody_deleted(pipeline: Any, delete: Callable[[Any], int], settled_since: bool) -> None:
    rows = delete(pipeline)
    if settled_since:
        pipeline.settle(everything=True)
    # What has landed since: the versions that settle had seen lack the rows, and stay so.
    pipeline.wave([shown("since", "2026-01-11T06:00:00Z")], [])
    found = pipeline.reconcile()
    assert (found.verdict, found.doors[0].rows_lost, found.doors[0].data_files_gone) == ("differs", rows, 0)
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.relanded) == ("repaired", rows)
    assert pipeline.attributed() == truth()
    pipeline.settle(everything=True)
    assert (pipeline.attributed(), pipeline.reconcile().verdict) == (truth(), "agrees")


@pytest.mark.parametrize("span", [Range(), Range(first=date(2026, 1, 11), last=date(2026, 1, 11))], ids=["all", "one date"])
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


def test_rows_from_before_a_column_are_the_same_events(pipeline: Any) -> None:
    more = [play(f"m{n}", f"2026-01-11T05:{n}0:00Z", app=f"v{n}") for n in range(5)]
    pipeline.wave([], more)
    pipeline.settle(everything=True)
    pipeline.reconfigure(playbacks_schema(more=", app STRING"))
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
