"""Metrics for Prometheus, the probe, and what is made of them: alerts and dashboard, by Prometheus' own tools."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config.model import MetricsConfig
from pipelines.model.errors import RejoinError
from pipelines.monitor import metrics
from pipelines.monitor.ledger import Entry
from pipelines.monitor.metrics import Metrics, served

ROOT = Path(__file__).parent.parent
MONITORING = ROOT / "conf" / "monitoring"
SECOND = 1_000_000
ANY_PORT = MetricsConfig(port=0)


def promtool(*words: object, stdin: str | None = None, cwd: Path = ROOT) -> str:
    own = Path(sys.executable).with_name("promtool")
    program = str(own) if own.exists() else shutil.which("promtool")
    assert program, "promtool is missing: `make tools` fetches it (Debian's package prometheus)"
    done = subprocess.run([program, *map(str, words)], input=stdin, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fed() -> Metrics:
    """What two ingests, a micro-batch of the join and a run of settle count."""
    found = Metrics("./lake", 600.0, ["impressions", "playbacks"], lambda: (90.0, True))
    ingest: dict[str, Any] = {"started_at": 100 * SECOND, "finished_at": 102 * SECOND, "rows_in": 10, "rows_out": 7}
    ingest |= {"rows_late": 2, "rows_quarantined": 3, "watermark": 50 * SECOND, "detail": {"max_event_time_us": 700 * SECOND}}
    found.observe(Entry(query="ingest:playbacks", **ingest))
    found.observe(Entry(query="ingest:playbacks", **ingest))
    found.observe(Entry(query="ingest:impressions", **{**ingest, "rows_late": 0, "detail": {"max_event_time_us": None}}))
    join: dict[str, Any] = {"rows_dropped_by_watermark": 1, "state_rows": 5, "state_bytes": 4096, "watermark": 90 * SECOND}
    found.observe(Entry(query="join", started_at=100 * SECOND, finished_at=103 * SECOND, horizon=90 * SECOND, **join))
    detail = {"causes": {"late": 2, "touched": 1}, "inserted": 1, "updated": 4}
    found.observe(Entry(query="settle", started_at=100 * SECOND, finished_at=101 * SECOND, horizon=95 * SECOND, detail=detail))
    return found


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def values(text: str) -> dict[str, float]:
    """The samples of an exposition, by name and labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.fixture(scope="module")
def exposition() -> Iterator[str]:
    with served(ANY_PORT, fed()) as port:
        yield asked(port, "/metrics")[1]


def test_what_lanes_do_is_counted(exposition: str) -> None:
    found = values(exposition)
    rows = {name: value for name, value in found.items() if name.startswith("rejoin_rows_total")}
    assert rows == {
        'rejoin_rows_total{stream="impressions",verdict="on_time"}': 7,
        'rejoin_rows_total{stream="impressions",verdict="late"}': 0,
        'rejoin_rows_total{stream="impressions",verdict="quarantined"}': 3,
        'rejoin_rows_total{stream="playbacks",verdict="on_time"}': 10,
        'rejoin_rows_total{stream="playbacks",verdict="late"}': 4,
        'rejoin_rows_total{stream="playbacks",verdict="quarantined"}': 6,
    }
    assert found['rejoin_newest_event_timestamp_seconds{stream="playbacks"}'] == 700
    assert 'rejoin_newest_event_timestamp_seconds{stream="impressions"}' not in found
    assert found["rejoin_horizon_timestamp_seconds"] == 95
    assert found['rejoin_watermark_timestamp_seconds{query="join"}'] == 90
    assert found['rejoin_watermark_lag_seconds{query="join"}'] == pytest.approx(time.time() - 90, abs=60)
    assert found['rejoin_micro_batch_duration_seconds_sum{query="ingest:playbacks"}'] == 4
    assert found['rejoin_micro_batch_duration_seconds_count{query="ingest:playbacks"}'] == 2
    assert found['rejoin_last_micro_batch_timestamp_seconds{query="settle"}'] == 101
    state = "rejoin_rows_dropped_by_watermark_total", "rejoin_state_rows", "rejoin_state_bytes"
    assert [found[name] for name in state] == [1, 5, 4096]
    assert found['rejoin_settle_outcomes_total{cause="late"}'] == 2
    assert found['rejoin_settle_rows_total{change="updated"}'] == 4
    assert found["rejoin_last_reconciliation_timestamp_seconds"] == 90
    assert found["rejoin_last_reconciliation_agrees"] == 1


def test_before_anything_has_run_counters_are_there_and_moments_are_0() -> None:
    with served(ANY_PORT, Metrics("./lake", 600.0, ["plays"])) as port:
        found = values(asked(port, "/metrics")[1])
    assert found['rejoin_rows_total{stream="plays",verdict="quarantined"}'] == 0
    assert found["rejoin_rows_dropped_by_watermark_total"] == 0
    assert found["rejoin_last_reconciliation_timestamp_seconds"] == 0


def test_at_a_start_the_horizon_is_known_and_the_jvm_has_its_memory() -> None:
    told = Metrics("./lake", 600.0, ["plays"], jvm=os.getpid(), horizon=90 * SECOND)
    with served(ANY_PORT, told) as port:
        found = values(asked(port, "/metrics")[1])
    assert found["rejoin_horizon_timestamp_seconds"] == 90
    assert 0 < found["jvm_process_resident_memory_bytes"] < found["rejoin_memory_limit_bytes"]


def test_the_memory_of_a_container_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    unlimited = metrics.memory_limit(file)
    file.write_text("max\n")
    assert metrics.memory_limit(file) == unlimited
    file.write_text("1048576\n")
    assert metrics.memory_limit(file) == 1048576


def test_names_and_units_are_as_prometheus_wants_them(exposition: str) -> None:
    assert promtool("check", "metrics", stdin=exposition) == ""


def test_the_probe_says_whether_the_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fed()
    with served(ANY_PORT, found) as port:
        assert asked(port, "/healthz") == (200, "200 OK\n")
        monkeypatch.setattr(metrics, "STALLED_SECONDS", -1.0)
        assert asked(port, "/healthz")[0] == 503
        monkeypatch.undo()
        found.turned()
        assert asked(port, "/healthz")[0] == 200
        assert asked(port, "/else")[0] == 404


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(RejoinError, match=rf"metrics.port: 127.0.0.1:{port} cannot be had"),
            served(MetricsConfig(port=port), fed()),
        ):
            pass


RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_each_alert_fires_by_what_causes_it_and_none_where_all_is_well() -> None:
    promtool("check", "rules", MONITORING / "alerts.yml")
    promtool("test", "rules", "alerts.yml", cwd=ROOT / "tests" / "prometheus")
    proven = (ROOT / "tests" / "prometheus" / "alerts.yml").read_text()
    assert all(f"alertname: {rule['alert']}\n" in proven for rule in RULES if "alert" in rule)


def test_the_dashboard_asks_what_prometheus_can_answer(tmp_path: Path) -> None:
    plain = [text.replace("$job", ".+").replace("$__rate_interval", "5m") for text in EXPRESSIONS]
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(plain)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_every_metric_that_is_asked_for_is_exposed_and_documented(exposition: str) -> None:
    exposed = {re.split(r"[ {]", line)[0] for line in exposition.splitlines() if line.startswith("rejoin")}
    asked_for = {name for text in [*EXPRESSIONS, *(rule["expr"] for rule in RULES)] for name in re.findall(r"\brejoin_\w+", text)}
    assert asked_for <= exposed
    documented = set(re.findall(r"`(rejoin_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed} == documented


def test_every_alert_has_its_page_in_the_runbook() -> None:
    pages = re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    alerts = {rule["alert"]: rule["annotations"]["runbook"] for rule in RULES if "alert" in rule}
    assert pages == list(alerts)
    assert all(link == f"docs/runbook.md#{name.lower()}" for name, link in alerts.items())
