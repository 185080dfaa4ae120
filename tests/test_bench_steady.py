"""What benchmarks/steady.py measures with: Spark's event log and the log of a Delta table, read from outside."""

import json
import os
from pathlib import Path

import duckdb
import pytest

from benchmarks.event_log import activity, by_lane
from benchmarks.readable_rows import ReadableRows

SQL = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionStart"
SCAN = {"nodeName": "LocalTableScan", "simpleString": "LocalTableScan [path#1, size#22L]", "children": []}


def execution(id: int, second: float, description: str, root: int | None = None) -> dict[str, object]:
    plan = {"nodeName": "WholeStageCodegen (1)", "simpleString": "WholeStageCodegen (1)", "children": [SCAN]}
    roots = {"rootExecutionId": id if root is None else root}
    return {"Event": SQL, "executionId": id, **roots, "description": description, "time": second * 1000, "sparkPlanInfo": plan}


def job(second: float) -> dict[str, object]:
    return {"Event": "SparkListenerJobStart", "Job ID": 1, "Submission Time": second * 1000}


def log_of(tmp_path: Path, *events: dict[str, object], more: str = "") -> Path:
    lines = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
    (tmp_path / "local-1").write_text(lines + more)
    return tmp_path


def test_what_began_in_the_window_counts_from_its_beginning_to_before_its_end(tmp_path: Path) -> None:
    events = [execution(n, second, "collect at x.py:1") for n, second in enumerate((9.9, 10, 15, 20))]
    found = activity(log_of(tmp_path, *events, job(9), job(10), job(19.9), job(20)), 10, 20)
    assert (found.executions, found.jobs) == (2, 2)


def test_nested_executions_count_and_are_of_the_statement_that_started_them(tmp_path: Path) -> None:
    events = [
        execution(1, 9, "collect at /work/pipelines/lake.py:7"),
        execution(2, 11, "$anonfun$record at DatabricksLogging.scala:128", root=1),
    ]
    found = activity(log_of(tmp_path, *events), 10, 20)
    assert (found.executions, found.nested) == (1, 1)
    assert dict(found.profile) == {("driver", "collect at pipelines/lake.py:7", "LocalTableScan [path, size]"): 1}


@pytest.mark.parametrize(
    ("description", "lane", "statement"),
    [
        ("join\nid = a\nrunId = b\nbatch = 12 - MERGE operation", "join", "MERGE operation"),
        ("Delta: ingest:p\nid = a\nrunId = b\nbatch = 4: Snapshot for version: 4", "ingest:p", "Snapshot for version: N"),
        ("join\nid = a\nrunId = b\nbatch = 3", "join", "-"),
    ],
)
def test_executions_of_a_streaming_query_are_of_the_lane_with_its_name(
    tmp_path: Path, description: str, lane: str, statement: str
) -> None:
    found = activity(log_of(tmp_path, execution(1, 10, description)), 10, 20)
    assert list(found.profile) == [(lane, statement, "LocalTableScan [path, size]")]


def test_a_micro_batch_counts_once_where_its_first_execution_began(tmp_path: Path) -> None:
    batches = [("join", 3, 9), ("join", 3, 11), ("join", 4, 12), ("Delta: join", 4, 13), ("ingest:p", 3, 14), ("join", 5, 20)]
    events = [
        execution(n, second, f"{lane}\nid = a\nrunId = b\nbatch = {batch}") for n, (lane, batch, second) in enumerate(batches)
    ]
    assert activity(log_of(tmp_path, *events), 10, 20).micro_batches == {"join": 1, "ingest:p": 1}


def test_the_profile_is_per_ten_seconds_with_the_most_frequent_lane_first(tmp_path: Path) -> None:
    events = [execution(1, 10, "sql"), *(execution(n, 11, "join\nid = a\nrunId = b\nbatch = 3") for n in (2, 3, 4))]
    profile = by_lane(activity(log_of(tmp_path, *events), 10, 30).profile, 2)
    assert {lane: [each["executions"] for each in statements] for lane, statements in profile.items()} == {
        "join": [1.5],
        "driver": [0.5],
    }


def test_an_incomplete_last_line_is_not_read(tmp_path: Path) -> None:
    assert activity(log_of(tmp_path, job(12), more='{"Event":"SparkListenerJobStart","Subm'), 10, 20).jobs == 1


def test_a_row_is_readable_from_the_first_log_entry_that_has_its_exposure(tmp_path: Path) -> None:
    def commit(version: int, second: int, *rows: tuple[str, str | None]) -> None:
        file = tmp_path / f"part {version}.parquet"
        values = ", ".join(f"('{key}', {'NULL' if shown is None else repr(shown)})" for key, shown in rows)
        duckdb.execute(f"COPY (SELECT * FROM (VALUES {values}) t(playback_id, exposure_id)) TO '{file}' (FORMAT parquet)")
        entry = tmp_path / "_delta_log" / f"{version:020}.json"
        entry.write_text(json.dumps({"add": {"path": f"part%20{version}.parquet"}}) + "\n")
        os.utime(entry, (second, second))

    (tmp_path / "_delta_log").mkdir()
    rows = ReadableRows(tmp_path)
    assert rows.read() == {}
    commit(0, 100, ("a", "i1"), ("b", None))
    assert rows.read() == {"a": 100}
    commit(1, 110, ("a", "i1"), ("b", "i2"))
    assert rows.read() == {"a": 100, "b": 110}
