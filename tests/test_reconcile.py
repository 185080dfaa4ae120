"""Reconcile finds every planted fault in its class, exactly counted, and repairs it."""

import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipelines.control.facts import Fact
from pipelines.control.lease import RELANDING, leased
from pipelines.control.store import append, read_facts
from pipelines.model.errors import RejoinError
from pipelines.model.time import now_us
from pipelines.reconcile.report import to_dict, to_html, to_text
from pipelines.reconcile.result import Reconciliation
from pipelines.reconcile.run import reconcile
from pipelines.reconcile.span import Range
from tests import oracle
from tests.browser import Look, look
from tests.builders import play, shown
from tests.processes import ROOT
from tests.replay import RUN, Frozen, Replay, checks_of, differences

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


@pytest.mark.slow
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
    assert [(hour.hour, hour.unbalanced) for hour in found.books.hours if hour.unbalanced] == [(8, 1), (13, 1)]
    assert found.causes == {"table_changed": 7}
    details = {row["class"]: re.sub(r"version \d+, (\w+) at .*", r"\1", row["detail"]) for row in found.sample}
    assert details == {**dict.fromkeys(expected, "UPDATE"), "missing": "UPDATE", "duplicate": "WRITE"}

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
    report = empty.reconcile(whole=True)
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
    assert (differences(report), report.books.conflicting) == ({"conflicting_duplicate": 1}, 1)
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
    report = pipeline.reconcile(whole=True)
    data = json.loads(json.dumps(to_dict(report)))
    jsonschema.validate(data, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    assert (data["verdict"], data["counts"]["mismatched"], data["differences"]) == ("differs", 1, 1)
    assert data["sample"][0]["outcome_id"] == "p2"
    assert to_text(report).startswith("DIFFERS: 1 of 9 outcomes differ")
    accepted = next(audit.accepted for audit in report.audits if audit.stream == "playbacks")
    assert f"; {accepted - report.books.landed} duplicates removed" in to_text(report)
    page = to_html(report)
    assert "1 of 9 outcomes differ" in page
    assert "<b>bad</b>" not in page
    sections = re.findall("<details( open)?><summary><h2>(.*?)</h2>", page)
    assert {name for unfolded, name in sections if unfolded} == {
        *("Rows by class", "Sample of differences", "Hours of event time", "Expectations"),
    }
    assert {"Books", "Bronze", "Configuration and versions"} < {name for unfolded, name in sections if not unfolded}
    assert "http" not in page.replace("http://www.w3.org/", ""), "but for the names of SVG's namespaces, which nobody fetches"
    for width in (400, 1400):
        seen = look(page, width, tmp_path)
        assert seen == Look(width=width, overflow=0, plots=len(re.findall("<figure>", page)), fetched=0, console=[])
        assert seen.plots >= 4
    history = pipeline.rows("reconciliations")
    assert [row["verdict"] for row in history] == ["differs"]
    assert [row["columns"] for row in pipeline.rows("reconciliation_diffs")] == ["device"]


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


def test_two_reconciliations_of_a_lake_do_not_overlap(pipeline: Any) -> None:
    name, lake = RELANDING, pipeline.lake
    with leased(lake, name), pytest.raises(RejoinError, match=r"another reconciliation .* its lease expires at 20"):
        pipeline.reconcile()
    with leased(lake, name):
        pass
    last = read_facts(lake).last("lease", name)
    for number, seconds in ((last.detail["number"] + 1, 1000), (last.detail["number"] + 2, -1)):
        detail = {"holder": "other", "number": number, "until": now_us() + seconds * 1_000_000}
        append(lake, [Fact(kind="lease", stream=name, detail=detail)])
        if seconds > 0:
            with pytest.raises(RejoinError, match="its lease expires"), leased(lake, name):
                pass
    with leased(lake, name):
        pass


@pytest.mark.slow
def test_dates_before_the_rule_was_backfilled_are_neither_compared_nor_repaired(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{RUN}.validate", checks_of)
    # Of the 10th two rows differ, and one was moved to the 11th; of the 11th one differs.
    sql(pipeline, "UPDATE {t} SET device = 'fridge' WHERE playback_id IN ('p1', 'tomorrow')")
    sql(pipeline, "UPDATE {t} SET event_date = DATE'2026-01-11' WHERE playback_id = 'p2'")
    before = pipeline.attributed()

    def judged(*, fix: bool) -> Reconciliation:
        return reconcile(
            pipeline.lake,
            pipeline.config,
            Range(),
            run_id="x",
            reports=tmp_path,
            fix=fix,
            judged_from=date(2026, 1, 11),
        )

    found = judged(fix=False)
    assert (differences(found), found.books.landed) == ({"mismatched": 1}, 1)
    sentence = "Dates before 2026-01-11 were not compared"
    assert sentence in to_text(found)
    assert sentence in to_html(found)
    assert to_dict(found)["judged_from"] == "2026-01-11"
    assert judged(fix=True).verdict == "repaired"
    after = pipeline.attributed()
    assert {id for id in after if after[id] != before[id]} == {"tomorrow"}
    assert differences(pipeline.reconcile()) == {"mismatched": 1, "misplaced": 1}


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
