"""Reconcile finds every planted fault in its class, exactly counted, and repairs it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipelines.errors import RejoinError
from pipelines.instants import now_us
from pipelines.jobs.reconcile import run_reconcile
from pipelines.observe.ledger import Entry, Ledger
from pipelines.reconcile import lock
from pipelines.reconcile.lock import only_one
from pipelines.reconcile.report import planned, to_dict, to_html, to_text
from pipelines.reconcile.since import since_last
from pipelines.reconcile.span import Range
from tests import oracle
from tests.browser import Look, look
from tests.builders import play, shown
from tests.processes import ROOT
from tests.replay import Frozen, Replay, differences

IMPRESSIONS = [shown(f"i{n}", f"{8 + n:02d}:00") for n in range(8)]
PLAYBACKS = [play(f"p{n}", f"{8 + n:02d}:20") for n in range(8)]
NEXT_DAY = [play("tomorrow", "2026-01-11T00:30:00Z")]


@pytest.fixture(scope="module")
def settled(first_replay: Replay) -> Frozen:
    first_replay.wave(IMPRESSIONS, PLAYBACKS + NEXT_DAY)
    first_replay.join()
    first_replay.settle(everything=True)
    return first_replay.freeze()


@pytest.fixture
def pipeline(settled: Frozen) -> Replay:
    return settled.thawed()


def sql(pipeline: Any, statement: str) -> None:
    pipeline.lake.spark.sql(statement.format(t=pipeline.lake.identifier("attributed_playbacks")))


def test_every_planted_fault_is_found_in_its_class_and_repaired(pipeline: Any) -> None:
    for fault in (
        "DELETE FROM {t} WHERE playback_id = 'p0'",
        "UPDATE {t} SET exposure_id = 'i0' WHERE playback_id = 'p1'",
        "UPDATE {t} SET exposure_position = exposure_position + 1, device = 'fridge' WHERE playback_id = 'p2'",
        "UPDATE {t} SET event_date = DATE'2026-01-12' WHERE playback_id = 'p3'",
        "INSERT INTO {t} SELECT * FROM {t} WHERE playback_id = 'p4'",
        "UPDATE {t} SET playback_id = 'made-up' WHERE playback_id = 'p5'",
        "UPDATE {t} SET exposure_id = null, exposure_time = null WHERE playback_id = 'tomorrow'",
    ):
        sql(pipeline, fault)
    found = pipeline.reconcile()
    assert found.verdict == "differs"
    expected = {"missing": 2, "mismatched": 2, "misplaced": 1, "duplicate": 1, "extra": 1}
    # Tomorrow's play lies more than six hours behind all impressions: it was unattributed, so that update changed nothing.
    expected["mismatched"] = 2
    assert differences(found) == expected
    columns = {name: n for hour in found.hours for name, n in hour.columns.items()}
    assert columns == {"exposure_id": 1, "exposure_position": 1, "device": 1}
    # Eight outcomes and tomorrow's, of which the hours of p0 and p5 lack one each.
    assert [(hour.hour, hour.unbalanced) for hour in found.account.hours if hour.unbalanced] == [(8, 1), (13, 1)]
    assert found.causes == {"table_changed": 7}
    told = {row["class"]: re.sub(r"version \d+, (\w+) at .*", r"\1", row["detail"]) for row in found.sample}
    assert told == {**dict.fromkeys(expected, "UPDATE"), "missing": "UPDATE", "duplicate": "WRITE"}
    assert planned(found).startswith("--repair would write the batch answer of what differs (missing 2, extra 1, ")

    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, differences(repaired), repaired.before_repair["missing"]) == ("repaired", {}, 2)
    truth = oracle.attribute(PLAYBACKS + NEXT_DAY, IMPRESSIONS, window=timedelta(hours=6))
    assert pipeline.attributed() == truth
    clean = pipeline.reconcile()
    assert (clean.verdict, clean.counts["matched"], differences(clean)) == ("agrees", 9, {})
    lanes = {row["playback_id"]: row["attributed_by"] for row in pipeline.rows("attributed_playbacks")}
    assert {id for id, lane in lanes.items() if lane == "repair"} == {"p0", "p1", "p2", "p3", "p4", "p5"}


@pytest.mark.slow
def test_a_date_range_judges_its_dates_only(pipeline: Any) -> None:
    sql(pipeline, "DELETE FROM {t} WHERE playback_id IN ('p0', 'tomorrow')")
    today = pipeline.reconcile(Range(first=date(2026, 1, 10), last=date(2026, 1, 10)))
    assert (differences(today), today.counts["matched"]) == ({"missing": 1}, 7)
    assert pipeline.reconcile(Range(first=date(2026, 1, 10), last=date(2026, 1, 10)), fix=True).agrees
    tomorrow = pipeline.reconcile(Range(first=date(2026, 1, 11), last=date(2026, 1, 11)))
    assert (differences(tomorrow), tomorrow.counts["matched"]) == ({"missing": 1}, 0)


def test_an_empty_side_never_passes_as_equal(replay: Any) -> None:
    empty = replay()
    report = empty.reconcile()
    assert report.verdict == "differs"
    assert "expectation failed: landed at least 1" in to_text(report)


@pytest.mark.slow
def test_conflicting_outcomes_across_dates_are_reported_and_repaired(replay: Any) -> None:
    pipeline = replay()
    conflict = [play("p", "2026-01-11T00:10:00Z"), play("p", "2026-01-10T23:50:00Z"), play("q", "12:00")]
    pipeline.wave([shown("a", "23:40")], conflict)
    pipeline.join()
    pipeline.settle(everything=True)
    report = pipeline.reconcile()
    assert (differences(report), report.account.conflicting) == ({"conflicting_duplicate": 1}, 1)
    assert pipeline.reconcile(fix=True).verdict == "repaired"
    assert pipeline.attributed() == oracle.attribute(conflict, [shown("a", "23:40")], window=timedelta(hours=6))


@pytest.mark.slow
def test_what_landed_after_settle_is_not_judged_yet(pipeline: Any) -> None:
    pipeline.wave([shown("much-later", "08:19")], [play("news", "18:00"), play("p0-late", "08:30")])
    pipeline.join()
    assert pipeline.reconcile().verdict == "agrees"
    pipeline.settle(everything=True)
    assert pipeline.answers()["p0"] == ("much-later", "settle")
    assert pipeline.reconcile().verdict == "agrees"


def test_the_report_says_the_same_in_every_form(pipeline: Any, tmp_path: Path) -> None:
    sql(pipeline, "UPDATE {t} SET device = '<b>bad</b>' WHERE playback_id = 'p2'")
    report = pipeline.reconcile()
    data = json.loads(json.dumps(to_dict(report)))
    jsonschema.validate(data, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    assert (data["verdict"], data["counts"]["mismatched"], data["differences"]) == ("differs", 1, 1)
    assert data["sample"][0]["outcome_id"] == "p2"
    assert to_text(report).startswith("DIFFERS: 1 of 9 outcomes differ")
    page = to_html(report)
    assert "1 of 9 outcomes differ" in page
    assert "<b>bad</b>" not in page
    assert "http" not in page.replace("http://www.w3.org/", ""), "but for the names of SVG's namespaces, which nobody fetches"
    for width in (400, 1400):
        seen = look(page, width, tmp_path)
        assert seen == Look(width=width, overflow=0, plots=len(re.findall("<figure>", page)), fetched=0, console=[])
        assert seen.plots >= 4
    history = pipeline.rows("reconciliations")
    assert [row["verdict"] for row in history] == ["differs"]
    assert [row["columns"] for row in pipeline.rows("reconciliation_diffs")] == ["device"]


@pytest.mark.slow
def test_a_landing_file_that_stands_several_times_in_bronze_is_found_and_taken_out(replay: Any) -> None:
    pipeline = replay()
    # What came twice by itself is no copy; nor are two lines of a file that are the same.
    pipeline.wave([*IMPRESSIONS, IMPRESSIONS[0]], PLAYBACKS)
    pipeline.wave([IMPRESSIONS[1], IMPRESSIONS[1]], NEXT_DAY)
    pipeline.join()
    pipeline.settle(everything=True)
    table = pipeline.lake.identifier("impressions")
    before = sorted(map(str, pipeline.rows("impressions")))
    given = {"ingest_time": "ingest_time + INTERVAL 5 MINUTES", "ingest_batch": "9"}
    later = ", ".join(given.get(name, f"`{name}`") for name in pipeline.read("impressions").columns)
    # By ingest, from a checkpoint that was lost: the same lines at a later time. By hand: the same rows, ingest time and all.
    rows = f"FROM {table} WHERE source LIKE '%file-0001%'"
    pipeline.lake.spark.sql(f"INSERT INTO {table} SELECT {later} {rows} UNION ALL SELECT * {rows}")
    found = pipeline.reconcile()
    door = next(door for door in found.doors if door.stream == "impressions")
    assert (found.verdict, door.files_ingested_twice, door.rows_copied) == ("differs", 1, 18)
    assert planned(found) == "--repair would take copied rows out of bronze (impressions 18)"
    repaired = pipeline.reconcile(fix=True)
    assert (repaired.verdict, repaired.mended.copies) == ("repaired", 18)
    assert sorted(map(str, pipeline.rows("impressions"))) == before
    # The join's stream goes on over the commit that took rows away.
    pipeline.wave([shown("after", "2026-01-11T01:00:00Z")], [play("after", "2026-01-11T01:01:00Z")])
    pipeline.join()
    pipeline.settle(everything=True)
    assert pipeline.answers()["after"] == ("after", "join")
    assert pipeline.reconcile().verdict == "agrees"


@pytest.mark.slow
def test_causes_are_proven_or_unknown(replay: Any) -> None:
    pipeline = replay()
    pipeline.wave(IMPRESSIONS, PLAYBACKS)
    pipeline.wave([shown("late", "08:10")], [play("late", "08:15"), *NEXT_DAY])
    pipeline.join()
    unsettled = pipeline.reconcile()
    # The two days between the newest events and the others make all of the first wave final, and the second late.
    assert unsettled.causes["late_exposure"] >= 1
    assert unsettled.causes["late_outcome"] == 1
    pipeline.settle(everything=True)
    assert pipeline.reconcile().causes == {}
    # As a bug of a lane would: by a MERGE, like any lane.
    table = pipeline.lake.identifier("attributed_playbacks")
    pipeline.lake.spark.sql(
        f"MERGE INTO {table} USING (SELECT 'p3' AS id) ON playback_id = id WHEN MATCHED THEN UPDATE SET exposure_id = 'i0'"
    )
    pipeline.lake.spark.sql(f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE playback_id = 'p5'")
    assert pipeline.reconcile().causes == {"unknown": 1}, "bronze is read as settle saw it"
    pipeline.settle(everything=True)
    found = pipeline.reconcile()
    assert found.causes == {"bronze_changed": 1, "unknown": 1}
    assert [(row["outcome_id"], row["cause"]) for row in found.sample] == [("p3", "unknown"), ("p5", "bronze_changed")]
    assert [row["cause"] for row in pipeline.rows("reconciliation_diffs", f"run_id = '{found.run_id}'")].count("unknown") == 1


@pytest.mark.slow
def test_since_last_begins_where_something_may_differ(pipeline: Any) -> None:
    assert since_last(pipeline.lake) == Range()
    assert pipeline.reconcile().agrees
    assert since_last(pipeline.lake) == Range(first=date(2026, 1, 11)), "the last date that was seen"
    # As a lane writes, by a MERGE.
    sql(
        pipeline,
        "MERGE INTO {t} USING (SELECT 'p1' AS id) ON playback_id = id "
        "WHEN MATCHED THEN UPDATE SET exposure_id = 'i0', updated_at = current_timestamp()",
    )
    assert since_last(pipeline.lake) == Range(first=date(2026, 1, 10))
    result, _ = run_reconcile(pipeline.lake, pipeline.config, None, fix=True)
    assert (result.verdict, result.range) == ("repaired", Range(first=date(2026, 1, 10)))
    pipeline.wave([shown("old", "2026-01-09T20:00:00Z")], [])
    assert since_last(pipeline.lake) == Range(first=date(2026, 1, 9))
    # As no lane does, whatever the row says of when it was written.
    sql(pipeline, "DELETE FROM {t} WHERE playback_id = 'p2'")
    assert since_last(pipeline.lake) == Range()
    result, _ = run_reconcile(pipeline.lake, pipeline.config, None, fix=True)
    assert (result.verdict, result.before_repair["missing"], since_last(pipeline.lake) == Range()) == ("repaired", 1, False)


def test_two_reconciliations_of_a_lake_do_not_overlap(pipeline: Any) -> None:
    with only_one(pipeline.lake), pytest.raises(RejoinError, match=r"another reconciliation .* is running \(process \d+ on "):
        pipeline.reconcile()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    here = socket.gethostname()
    holders: list[tuple[str, int, dict[str, int], bool]] = [
        ("elsewhere", 1, {}, False),
        (here, zombie.pid, {}, True),
        (here, os.getppid(), {}, False),
        (here, os.getppid(), {"process_started": 1}, True),
    ]
    for host, process, more, free in holders:
        last = max(entry["batch"] for entry in Ledger(pipeline.lake).entries(lock.QUERY))
        detail = {"until_us": now_us() + 10**9, "host": host, "process": process, **more}
        Ledger(pipeline.lake).write([Entry(query=lock.QUERY, batch=last + 1, detail=detail)])
        with contextlib.nullcontext() if free else pytest.raises(RejoinError, match=f"on {host}"), only_one(pipeline.lake):
            pass
    zombie.wait()
    # One that ended could not be taken for a later one of the same number.
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert lock._lives(process.pid, lock._started(process.pid))
    process.communicate(b"\n")
    assert not lock._lives(process.pid, None)


@pytest.mark.slow
def test_columns_within_their_tolerance_are_equal(pipeline: Any) -> None:
    sql(pipeline, "UPDATE {t} SET exposure_position = exposure_position + 1 WHERE playback_id IN ('p1', 'p2')")
    sql(pipeline, "UPDATE {t} SET exposure_position = exposure_position + 2 WHERE playback_id = 'p2'")
    sql(pipeline, "UPDATE {t} SET exposure_time = exposure_time - INTERVAL 2 SECONDS WHERE playback_id = 'p3'")
    sql(pipeline, "UPDATE {t} SET exposure_position = null WHERE playback_id = 'p4'")
    assert differences(pipeline.reconcile()) == {"mismatched": 4}
    near = "reconcile.tolerances.columns={exposure_position: {absolute: 1}, exposure_time: {time: 2s}}"
    pipeline.reconfigure(near)
    assert [row["outcome_id"] for row in pipeline.reconcile().sample] == ["p2", "p4"]
    pipeline.reconfigure(near.replace("2s", "1999ms").replace("absolute: 1", "relative: 10"))
    assert [row["outcome_id"] for row in pipeline.reconcile().sample] == ["p3", "p4"]
