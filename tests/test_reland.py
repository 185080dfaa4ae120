"""What bronze lacks or has twice is found by the audit, and put right by `rejoin reland` from the source, once."""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow.parquet as pq
import pytest

from pipelines.ingest.reland import Relanded
from pipelines.ingest.unreadable import Reread
from pipelines.jobs.reland import report_reland
from pipelines.lake.files import commit_as
from pipelines.model.errors import LakeError, RejoinError, SourceError
from pipelines.reconcile.audit.bronze import StreamAudit
from pipelines.reconcile.report import to_html, to_text
from pipelines.reconcile.result import Reconciliation
from tests import oracle
from tests.builders import play, shown
from tests.kafka_replay import KafkaReplay
from tests.kafka_replay import day as day_of
from tests.replay import Frozen, Replay, differences
from tests.test_changes import playbacks_schema

pytestmark = pytest.mark.slow
WINDOW = timedelta(hours=6)
# What ingest stamps on a row. Where the whole of a landing file is lost, it is landed as new, and late.
STAMPS = ("late", "door_watermark", "ingest_time", "ingest_batch")
IMPRESSIONS = [shown(f"i{n}", f"{8 + n:02d}:00") for n in range(8)]
PLAYBACKS = [play(f"p{n}", f"{8 + n:02d}:20") for n in range(8)]
NEXT = [play(f"n{n}", f"2026-01-11T0{n}:30:00Z") for n in range(3)]
TRUTH = oracle.attribute([*PLAYBACKS, *NEXT], IMPRESSIONS, window=WINDOW)


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


def events(pipeline: Any, stream: str, without: Collection[str] = ()) -> list[str]:
    """The rows of bronze as text, without some columns."""
    return sorted(str({name: value for name, value in row.items() if name not in without}) for row in pipeline.rows(stream))


def data_files(pipeline: Any, stream: str) -> list[Path]:
    return sorted(Path(unquote(urlparse(name).path)) for name in pipeline.read(stream).inputFiles())


def sql(pipeline: Any, statement: str, table: str = "playbacks") -> None:
    pipeline.lake.spark.sql(statement.format(t=pipeline.lake.identifier(table)))


@contextmanager
def on_purpose(pipeline: Any) -> Iterator[None]:
    with commit_as(pipeline.lake, "rejoin.accepted", {}):
        yield


def audit_of(run: Reconciliation, stream: str = "playbacks") -> StreamAudit:
    return next(audit for audit in run.audits if audit.stream == stream)


def assert_agrees_once_settled(pipeline: Any) -> None:
    with pytest.raises(LakeError, match=r"rows were put back after settle's last run.*run `rejoin settle --once`"):
        pipeline.reconcile()
    pipeline.settle(everything=True)
    assert pipeline.reconcile().verdict == "agrees"
    assert pipeline.attributed() == TRUTH


def test_data_files_that_are_gone(pipeline: Any) -> None:
    before = {stream: events(pipeline, stream, STAMPS) for stream in ("playbacks", "impressions")}
    rows = {}
    for stream, day in {"playbacks": "2026-01-11", "impressions": "2026-01-10"}.items():
        file = random.Random(day).choice([file for file in data_files(pipeline, stream) if f"event_date={day}" in str(file)])
        rows[stream] = pq.read_metadata(file).num_rows
        file.unlink()
    refused = pipeline.reconcile(fix=True)
    assert (refused.verdict, refused.refused, refused.repaired) == ("differs", True, 0)
    assert {audit.stream: (len(audit.gone), audit.rows_lost) for audit in refused.audits} == {s: (1, n) for s, n in rows.items()}
    assert refused.causes == {"bronze_lost": refused.differences}
    for stream, count in rows.items():
        sentence = f"{stream}: 1 data files that the log names are gone, with {count} rows: run `rejoin reland {stream}`"
        assert sentence in to_text(refused)
        assert sentence.partition(": run")[0] in to_html(refused)
    assert "NOT REPAIRED" in to_text(refused)
    assert pipeline.attributed() == TRUTH
    for stream, count in rows.items():
        assert pipeline.reland(stream) == Relanded(rows=count, data_files=1)
        assert events(pipeline, stream, STAMPS) == before[stream]
        assert pipeline.reland(stream) == Relanded()
    assert_agrees_once_settled(pipeline)
    # The join's stream passes over such a commit, also from a new checkpoint.
    pipeline.lose_checkpoint("join")
    pipeline.wave([shown("since", "2026-01-11T06:00:00Z")], [play("since", "2026-01-11T06:01:00Z")])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.reconcile().verdict == "agrees"


def test_rows_that_somebody_deleted_and_then_restored(pipeline: Any) -> None:
    before = events(pipeline, "playbacks")
    sql(pipeline, "DELETE FROM {t} WHERE source LIKE '%file-0004%'")
    pipeline.settle(everything=True)
    refused = pipeline.reconcile(fix=True)
    audit = audit_of(refused)
    assert (refused.refused, [each.removed for each in audit.history.foreign], audit.files_without_rows) == (True, [7], 0)
    assert (differences(refused), refused.causes) == ({"extra": 6}, {"bronze_changed": 6})
    remedy = audit.findings[0].remedy
    assert remedy.startswith("run `rejoin reland playbacks`, or run `RESTORE TABLE ")
    sql(pipeline, remedy.split("`", 3)[3].rpartition("`")[0])
    assert events(pipeline, "playbacks") == before
    assert_agrees_once_settled(pipeline)


def test_rows_that_somebody_deleted_are_landed_again(pipeline: Any) -> None:
    before = events(pipeline, "playbacks", ["late"])
    # Of a line that the file has twice, both; and some of a file whose other rows stay.
    sql(pipeline, "DELETE FROM {t} WHERE playback_id IN ('n0', 'p2', 'p7')")
    pipeline.settle(everything=True)
    pipeline.wave([shown("since", "2026-01-11T08:00:00Z")], [])
    assert pipeline.reland("playbacks") == Relanded(rows=4)
    assert events(pipeline, "playbacks", ["late"]) == before, "with the stamps of their files"
    assert pipeline.reland("playbacks") == Relanded()
    assert_agrees_once_settled(pipeline)


def test_values_that_somebody_changed_are_found_by_the_commit(pipeline: Any) -> None:
    before = events(pipeline, "playbacks")
    sql(pipeline, "UPDATE {t} SET device = 'fridge' WHERE playback_id IN ('p1', 'p4')")
    # What landed since is landed again after the RESTORE.
    pipeline.wave([], [play("since", "2026-01-11T02:40:00Z")])
    pipeline.settle(everything=True)
    refused = pipeline.reconcile(fix=True)
    assert (refused.refused, [each.changed for each in audit_of(refused).history.foreign]) == (True, [2])
    finding = audit_of(refused).findings[0]
    assert "UPDATE at " in finding.what
    assert "(2 rows changed)" in finding.what
    assert finding.remedy.endswith("`, then `rejoin reland playbacks` for what landed since")
    assert str(finding) in to_text(refused)
    sql(pipeline, finding.remedy.removeprefix("run `").partition("`, then")[0])
    assert events(pipeline, "playbacks") == before
    assert pipeline.reland("playbacks") == Relanded(rows=1)
    pipeline.settle(everything=True)
    assert pipeline.reconcile(fix=True).agrees
    assert pipeline.attributed() == oracle.attribute(
        [*PLAYBACKS, *NEXT, play("since", "2026-01-11T02:40:00Z")], IMPRESSIONS, window=WINDOW
    )


def test_rows_in_another_partition_and_files_ingested_twice(pipeline: Any) -> None:
    before = events(pipeline, "impressions", ["late"])
    later = {"ingest_time": "ingest_time + INTERVAL 5 MINUTES", "ingest_batch": "9"}
    values = ", ".join(later.get(name, f"`{name}`") for name in pipeline.read("impressions").columns)
    copied = f"SELECT {values} FROM {{t}} WHERE source LIKE '%file-0003%'"
    with on_purpose(pipeline):
        sql(pipeline, f"INSERT INTO {{t}} {copied}", "impressions")
    found = pipeline.reconcile(fix=True)
    audit = audit_of(found, "impressions")
    assert (audit.files_ingested_twice, found.refused, found.verdict, differences(found)) == (1, False, "differs", {})
    with on_purpose(pipeline):
        sql(pipeline, "UPDATE {t} SET event_date = DATE'2026-01-05' WHERE impression_id = 'i2'", "impressions")
    found = pipeline.reconcile(fix=True)
    audit = audit_of(found, "impressions")
    assert (audit.rows_misplaced, audit.history.foreign, found.refused) == (1, (), True)
    assert pipeline.reland("impressions") == Relanded(duplicates=5, misplaced=1)
    assert events(pipeline, "impressions", ["late"]) == before
    assert pipeline.reland("impressions") == Relanded()
    assert_agrees_once_settled(pipeline)


def test_of_a_file_ingested_twice_a_row_that_only_the_later_has_stays(pipeline: Any) -> None:
    before = events(pipeline, "playbacks", ["late"])
    later = {"ingest_batch": "9"}
    values = ", ".join(later.get(name, f"`{name}`") for name in pipeline.read("playbacks").columns)
    with on_purpose(pipeline):
        sql(pipeline, f"INSERT INTO {{t}} SELECT {values} FROM {{t}} WHERE source LIKE '%file-0002%'")
        sql(pipeline, "DELETE FROM {t} WHERE playback_id = 'p3' AND ingest_batch != 9")
    (pipeline.root / "landing" / "playbacks" / "file-0002.jsonl").unlink()
    assert pipeline.reland("playbacks") == Relanded(duplicates=4)
    assert events(pipeline, "playbacks", ["late"]) == before
    assert pipeline.reland("playbacks") == Relanded()
    assert_agrees_once_settled(pipeline)


def test_what_the_source_no_longer_has_is_said_to_be_lost(pipeline: Any) -> None:
    lost = next(file for file in data_files(pipeline, "playbacks") if "2026-01-11" in str(file))
    rows = pq.read_metadata(lost).num_rows
    lost.unlink()
    landing = pipeline.root / "landing" / "playbacks"
    landing.rename(landing.with_name("away"))
    with pytest.raises(SourceError, match="does not exist"):
        pipeline.reland("playbacks")  # it may not be mounted: nothing is given up
    landing.mkdir()
    done = pipeline.reland("playbacks")
    assert done == Relanded(data_files=1, lost=rows)
    assert f"{rows} more rows are lost by the log" in report_reland("playbacks", done, Reread())
    assert report_reland("playbacks", pipeline.reland("playbacks"), Reread()).endswith("nothing to do")
    pipeline.settle(everything=True)
    # That has been accepted by the reland: what batch answers from now on is the truth.
    assert differences(pipeline.reconcile()) == {"extra": len(NEXT)}
    assert pipeline.reconcile(fix=True).verdict == "repaired"


def test_landing_files_without_rows(pipeline: Any) -> None:
    pipeline.land("playbacks", [""], "blank.jsonl")
    (pipeline.root / "landing" / "playbacks" / "empty.jsonl").touch()
    pipeline.land("playbacks", ["{"], "rejected.jsonl")
    pipeline.land("playbacks", [play("own", "2026-01-11T02:50:00Z")], "a b+c%20d.jsonl")
    pipeline.ingest()
    pipeline.settle(everything=True)
    assert audit_of(pipeline.reconcile()).files_without_rows == 1, "the blank one: only its content says that it has no event"
    with on_purpose(pipeline):
        sql(pipeline, "DELETE FROM {t} WHERE playback_id = 'own'")
    pipeline.land("playbacks", [play("unread", "2026-01-11T02:51:00Z")], "unread.jsonl")
    found = pipeline.reconcile(fix=True)
    assert (audit_of(found).files_without_rows, found.refused) == (2, True)
    assert pipeline.reland("playbacks") == Relanded(rows=1)
    pipeline.settle(everything=True)
    assert pipeline.reconcile().agrees, "of the blank one reland has found out"


def test_rows_from_before_a_change_of_columns_are_the_same_events(pipeline: Any) -> None:
    more = [play(f"m{n}", f"2026-01-11T05:{n}0:00Z", app=f"v{n}", score=0.1 + n) for n in range(5)]
    pipeline.reconfigure(playbacks_schema(more=", score FLOAT"))
    pipeline.wave([], more)
    pipeline.reconfigure(playbacks_schema(more=", score DOUBLE, app STRING"))
    pipeline.wave([], [play("new", "2026-01-11T07:00:00Z", app="v9")])
    assert pipeline.reland("playbacks") == Relanded()
    sql(pipeline, "DELETE FROM {t} WHERE playback_id = 'm2'")
    assert pipeline.reland("playbacks") == Relanded(rows=1)
    assert sorted(row["playback_id"] for row in pipeline.rows("playbacks", "playback_id LIKE 'm%'")) == [
        f"m{n}" for n in range(5)
    ]


def test_nothing_is_lost_where_nothing_is(pipeline: Any) -> None:
    sql(pipeline, "DELETE FROM {t}", "quarantine")
    pipeline.land("playbacks", [play("soon", "10:00")])
    assert pipeline.reconcile().verdict == "agrees"
    assert pipeline.reland("playbacks") == Relanded()
    pipeline.ingest()
    # Nor when ingest starts with a new checkpoint, and finds by itself what it has read.
    pipeline.lose_checkpoint("ingest-playbacks")
    assert pipeline.reconcile().verdict == "agrees"
    assert pipeline.reland("playbacks") == Relanded()
    with pytest.raises(RejoinError, match="no_such: no such stream; the configuration has impressions, playbacks"):
        pipeline.reland("no_such")


@pytest.mark.kafka
def test_records_of_a_topic_are_landed_again(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka()
    impressions, playbacks = day_of(0, 30)
    pipeline.wave(impressions[:20], [*playbacks[:20], "{", playbacks[3]])
    pipeline.wave(impressions[20:], playbacks[20:])
    pipeline.join()
    pipeline.settle(everything=True)
    expected = oracle.attribute(playbacks, impressions, window=WINDOW)
    last = pipeline.ends("playbacks")[0] - 1
    gone = f"source_partition = 0 AND source_offset BETWEEN 2 AND {last - 2}"
    lost = pipeline.read("playbacks").where(gone).count()
    table = pipeline.lake.identifier("playbacks")
    pipeline.lake.spark.sql(f"DELETE FROM {table} WHERE {gone}")
    with on_purpose(pipeline):
        sql(pipeline, "INSERT INTO {t} SELECT * FROM {t} WHERE source_partition = 0 AND source_offset = 0")
    found = pipeline.reconcile(fix=True)
    assert (found.refused, audit_of(found).offsets.missing, audit_of(found).offsets.twice) == (True, lost, 1)
    assert pipeline.reland("playbacks") == Relanded(rows=lost, duplicates=1)
    pipeline.assert_each_record_landed_once()
    # A data file that is gone, with the records of both partitions in it.
    file = data_files(pipeline, "playbacks")[0]
    rows = pq.read_metadata(file).num_rows
    file.unlink()
    assert pipeline.reland("playbacks") == Relanded(rows=rows, data_files=1)
    pipeline.assert_each_record_landed_once()
    pipeline.settle(everything=True)
    assert (pipeline.attributed(), pipeline.reconcile().verdict) == (expected, "agrees")
    # Records that Kafka no longer has.
    pipeline.lake.spark.sql(f"DELETE FROM {table} WHERE {gone}")
    pipeline.delete_records("playbacks", pipeline.ends("playbacks"))
    assert pipeline.reland("playbacks") == Relanded(lost=lost)
    assert pipeline.reland("playbacks") == Relanded()
