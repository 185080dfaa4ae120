"""Logs as JSON, and OpenLineage events that a real receiver gets."""

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    schema_dataset,
    tags_run,
)
from openlineage.client.serde import Serde
from structlog.testing import capture_logs

from pipelines.config.load import load_config
from pipelines.model.errors import ConfigError, RejoinError
from pipelines.model.time import iso
from pipelines.monitor import lineage
from tests.builders import play, shown
from tests.processes import Command
from tests.replay import CONF, Replay

IDS = ("imp-1", "play-1", "play-2", "ann", "matrix", "not json at all")


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def words(pipeline: Replay, *more: str) -> list[str]:
    paths = [f"streams.{name}.source.path={pipeline.root}/landing/{name}" for name in ("impressions", "playbacks")]
    return [word for s in (f"lake={pipeline.root}/lake", "state_store.provider=memory", *paths, *more) for word in ("--set", s)]


@pytest.mark.slow
def test_json_logs_are_the_ledger_s_figures_and_hold_no_event(replay: Any, command: Command) -> None:
    pipeline = replay()
    pipeline.land("impressions", [shown("imp-1", "12:00")])
    pipeline.land("playbacks", [play("play-1", "12:05"), play("play-2", "18:00"), "not json at all"])
    done = command("run", "--once", "--all", *words(pipeline, "logs.format=json"))
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "settled")
    logged = lines_of(done.stderr)
    assert all(list(line)[:3] == ["time", "level", "event"] and line["time"].endswith("Z") for line in logged)
    assert not [each for each in IDS if each in done.stderr]
    queries = ["ingest:impressions", "ingest:playbacks", "join", "settle"]
    for event in ("lane started", "lane ended"):
        assert [line["query"] for line in logged if line["event"] == event] == queries
    counts = ("rows_in", "rows_out", "rows_late", "rows_quarantined", "rows_dropped_by_watermark", "state_rows")
    said = {(line["query"], line["batch"]): line for line in logged if line["event"] in ("micro-batch", "settle run")}
    rows = {(row["query"], row["batch"]): row for row in pipeline.rows("ledger")}
    assert set(said) == set(rows)
    for key, row in rows.items():
        expected = {**{n: row[n] for n in counts}, "watermark": iso(row["watermark"]), "horizon": iso(row["horizon"])}
        assert {name: said[key].get(name) for name in expected} == expected
        assert said[key]["duration_ms"] == (row["finished_at"] - row["started_at"]) // 1000
    assert said["ingest:playbacks", 0]["rows_quarantined"] == 1
    assert sum(line["rows_out"] for (query, _), line in said.items() if query in ("join", "settle")) >= 2
    judged = command("reconcile", "--format", "json", *words(pipeline, "logs.format=json"))
    assert json.loads(judged.stdout)["verdict"] == "agrees"
    assert [(line["event"], line["verdict"]) for line in lines_of(judged.stderr)] == [("reconciled", "agrees")]


def test_a_failure_is_the_same_line_in_either_format(command: Command, tmp_path: Path) -> None:
    as_text, as_json = (
        command("show", "nothing", "--set", f"lake={tmp_path}", "--set", f"logs.format={format}") for format in ("text", "json")
    )
    assert as_text.returncode == as_json.returncode == 2
    (line,) = lines_of(as_json.stderr)
    assert (line["level"], f"rejoin: {line['event']}\n") == ("error", as_text.stderr)


def test_the_level_is_the_least_that_is_logged(replay: Any, command: Command) -> None:
    pipeline = replay()
    done = command("ingest", "--once", *words(pipeline, "logs.format=json", "logs.level=warning"))
    assert (done.returncode, done.stderr) == (0, "")


def rebuilt(event: dict[str, Any]) -> dict[str, Any]:
    """The event as the client's own classes make it of what it says."""

    def schema(dataset: dict[str, Any]) -> dict[str, Any]:
        fields = [schema_dataset.SchemaDatasetFacetFields(f["name"], f["type"]) for f in dataset["facets"]["schema"]["fields"]]
        return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}

    def rows(dataset: dict[str, Any]) -> dict[str, Any]:
        count = dataset["outputFacets"]["outputStatistics"]["rowCount"]
        return {"outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=count)}

    kind, facets = event["job"]["facets"]["jobType"], event["run"]["facets"]
    of_run: dict[str, Any] = {}
    if failure := facets.get("errorMessage"):
        of_run["errorMessage"] = error_message_run.ErrorMessageRunFacet(failure["message"], failure["programmingLanguage"])
    if tags := facets.get("tags"):  # the client's own
        fields = [tags_run.TagsRunFacetFields(tag["key"], tag["value"], tag["source"]) for tag in tags["tags"]]
        of_run["tags"] = tags_run.TagsRunFacet(fields)
    job_type = job_type_job.JobTypeJobFacet(kind["processingType"], kind["integration"], kind["jobType"])
    built = RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=Run(event["run"]["runId"], of_run),
        job=Job(event["job"]["namespace"], event["job"]["name"], {"jobType": job_type}),
        inputs=[InputDataset(each["namespace"], each["name"], facets=schema(each)) for each in event["inputs"]],
        outputs=[
            OutputDataset(each["namespace"], each["name"], facets=schema(each), outputFacets=rows(each))
            for each in event["outputs"]
        ],
    )
    return Serde.to_dict(built)


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that keeps what it is sent: its URL, and the events."""
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", events
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def send_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes an openlineage.yml for a URL."""

    def write(url: str) -> None:
        file = tmp_path / "openlineage.yml"
        file.write_text(yaml.safe_dump({"transport": {"type": "http", "url": url, "retry": {"total": 0}}}))
        monkeypatch.setenv("OPENLINEAGE_CONFIG", str(file))

    return write


def test_openlineage_is_told_of_each_lane(replay: Any, receiver: Any, send_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, events = receiver
    send_to(url)
    monkeypatch.setattr(lineage, "_EVERY_SECONDS", 0.0)
    pipeline = replay("lineage.namespace=test")
    pipeline.wave([shown("imp-1", "12:00")], [play("play-1", "12:05"), "not json at all"])
    pipeline.join()
    assert [rebuilt(event) for event in events] == events
    runs: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        runs.setdefault(event["job"]["name"], []).append(event)
    assert set(runs) == {"rejoin.ingest.impressions", "rejoin.ingest.playbacks", "rejoin.join"}
    for run in runs.values():
        states = [event["eventType"] for event in run]
        assert (states[0], {*states[1:-1]}, states[-1]) == ("START", {"RUNNING"}, "COMPLETE")
        assert len({event["run"]["runId"] for event in run}) == 1
    lake, landing = f"{pipeline.root}/lake", f"{pipeline.root}/landing"
    last = {name: run[-1] for name, run in runs.items()}

    def rows(job: str) -> dict[str, int]:
        return {each["name"]: each["outputFacets"]["outputStatistics"]["rowCount"] for each in last[job]["outputs"]}

    assert [each["name"] for each in last["rejoin.ingest.playbacks"]["inputs"]] == [f"{landing}/playbacks"]
    assert rows("rejoin.ingest.playbacks") == {f"{lake}/playbacks": 1, f"{lake}/quarantine": 1}
    assert [each["name"] for each in last["rejoin.join"]["inputs"]] == [f"{lake}/impressions", f"{lake}/playbacks"]
    assert rows("rejoin.join") == {f"{lake}/attributed_playbacks": 1}
    assert {each["namespace"] for event in events for each in (*event["inputs"], *event["outputs"])} == {"file"}


def test_a_lane_that_fails_ends_with_fail(replay: Any, receiver: Any, send_to: Any) -> None:
    url, events = receiver
    send_to(url)
    pipeline = replay("lineage.namespace=test")
    shutil.rmtree(pipeline.root / "landing" / "playbacks")
    with pytest.raises(RejoinError) as raised:
        pipeline.ingest()
    assert [event["eventType"] for event in events] == ["START", "START", "FAIL", "FAIL"]
    assert {event["run"]["facets"]["errorMessage"]["message"] for event in events[2:]} == {str(raised.value)}
    assert [rebuilt(event) for event in events] == events


@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "hangs"])
def test_a_receiver_that_is_down_stops_no_lane(answers: bool, replay: Any, send_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(lineage, "_WAITING", 1)
    monkeypatch.setattr(lineage, "_PATIENCE_SECONDS", 1.0)
    pipeline = replay("lineage.namespace=test")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()  # and never accepts
        send_to(f"http://127.0.0.1:{server.getsockname()[1]}")
        with capture_logs() as logged:
            pipeline.wave([shown("imp-1", "12:00")], [play("play-1", "12:05")])
    assert len(pipeline.rows("playbacks")) == 1
    assert [line["log_level"] for line in logged] == ["warning"]
    assert "OpenLineage" in logged[0]["event"]


def test_without_the_extra_one_line_says_what_to_install(replay: Any, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    monkeypatch.delitem(sys.modules, "pipelines.monitor.lineage")
    done = command("ingest", "--once", *words(replay(), "lineage.namespace=test"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pip install 'rejoin[lineage]'" in done.stderr


def test_a_receiver_has_to_be_named(replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"write openlineage.yml, or set OPENLINEAGE_URL"):
        replay("lineage.namespace=test").ingest()


def test_a_topic_is_named_by_its_first_broker() -> None:
    source = "{format: kafka, bootstrap_servers: 'one:9092, two:9092', topic: plays}"
    found = lineage._source(load_config(CONF, [f"streams.playbacks.source={source}"]), "playbacks")
    assert (found.namespace, found.name, found.fields[0]) == ("kafka://one:9092", "plays", ("playback_id", "STRING"))
