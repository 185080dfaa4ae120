"""Each alert, fired by a real Prometheus: some by a real ingest, the others by what an exporter is told, as lanes tell it."""

import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from pipelines.config.model import MetricsConfig
from pipelines.model.time import now_us
from pipelines.monitor import metrics
from pipelines.monitor.ledger import Entry
from pipelines.monitor.metrics import STALLED_SECONDS, Metrics, served
from tests.builders import play, shown
from tests.processes import PATIENCE_SECONDS, REJOIN, ROOT, Start, free_port, group_of_processes

ALERTS = ROOT / "conf" / "monitoring" / "alerts.yml"
INGEST = {"RejoinNoProgress", "RejoinQuarantineRate", "RejoinReconciliationMissing"}
EXPORTER = {
    *("RejoinLagGrowing", "RejoinRowsDroppedByWatermark", "RejoinStateGrowth", "RejoinMemory"),
    *("RejoinReconciliationFailed", "RejoinLoopStalled"),
}
# Durations are shortened, thresholds are not.
SHORT = {"for: ": "5s", "[": "20s", "offset ": "5s"}


def export(port: int) -> None:
    """Serve metrics of a pipeline in trouble. The join falls behind, drops rows, and doubles its state every two seconds.
    The loop stands still, memory is full, and the last reconciliation differs."""
    long_ago, start = time.time() - STALLED_SECONDS - 1, now_us()
    with patch("time.time", lambda: long_ago), patch.object(metrics, "memory_limit", lambda: 2**20):
        told = Metrics("./lake", 600.0, ["plays"], lambda: (time.time(), False), os.getpid())
    with served(MetricsConfig(port=port), told):
        for turn in range(3600):
            landed, joined = start + turn * 2_000_000, start - 1_500_000_000 + turn * 1_000_000
            told.observe(Entry(query="ingest:plays", rows_in=1, rows_out=1, detail={"max_event_time_us": landed}))
            state = {"state_rows": 1, "state_bytes": 2 ** min(28 + turn // 2, 60)}
            told.observe(Entry(query="join", horizon=joined, rows_dropped_by_watermark=1, **state))
            time.sleep(1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with group_of_processes(tmp_path) as launch:
        yield launch


def asked(port: int, path: str) -> str | None:
    """What is answered; None where nobody answers yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def until(condition: Callable[[], object], directory: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        said = "\n".join(log.read_text() for log in sorted(directory.glob("*.log")))
        assert time.monotonic() < deadline, f"it did not happen in time\n{said}"
        time.sleep(1)


def scraping(directory: Path, **targets: int) -> Path:
    """A configuration of Prometheus: a job a target, and the alerts with short durations."""
    rules = re.sub(r"(for: |\[|offset )\d+[mh]", lambda found: found[1] + SHORT[found[1]], ALERTS.read_text())
    (directory / "alerts.yml").write_text(rules)
    jobs = [
        {"job_name": f"rejoin-{job}", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()
    ]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump({"global": every, "rule_files": ["alerts.yml"], "scrape_configs": jobs}))
    return file


@pytest.mark.slow
def test_every_alert_fires_by_what_causes_it(start: Start, tmp_path: Path) -> None:
    own = Path(sys.executable).with_name("prometheus")
    program = own if own.exists() else shutil.which("prometheus")
    assert program, "prometheus is missing: `make tools` fetches it (Debian's package prometheus)"
    ingest_port, exporter_port, port = free_port(), free_port(), free_port()
    landing = {name: tmp_path / "landing" / name for name in ("impressions", "playbacks")}
    for directory in landing.values():
        directory.mkdir(parents=True)
    now = datetime.now(timezone.utc) - timedelta(hours=1)
    number = 0

    def land() -> None:
        """A file of each stream, half of the playbacks garbage."""
        nonlocal number
        number += 1
        at = (now + timedelta(seconds=number)).isoformat()
        lines = {
            "impressions": [json.dumps(shown(f"i{number}", at))],
            "playbacks": [json.dumps(play(f"p{number}", at)), "garbage"],
        }
        for name, directory in landing.items():
            hidden = directory / f".{number}.jsonl"
            hidden.write_text("\n".join(lines[name]) + "\n")
            hidden.rename(directory / f"{number}.jsonl")

    sets = [f"lake={tmp_path}/lake", "trigger.every=1s", "spark.shuffle_partitions=2", f"metrics.port={ingest_port}"]
    sets += [f"streams.{name}.source.path={directory}" for name, directory in landing.items()]
    ingest = start(REJOIN, "ingest", *(word for each in sets for word in ("--set", each)))
    start(sys.executable, "-m", "tests.test_alerts", exporter_port)
    until(lambda: asked(ingest_port, "/healthz"), tmp_path)
    words = ("--web.listen-address", f"127.0.0.1:{port}", "--storage.tsdb.path", tmp_path / "tsdb", "--log.level", "warn")
    start(program, "--config.file", scraping(tmp_path, ingest=ingest_port, exporter=exporter_port), *words)

    def fired() -> dict[str, set[str]]:
        """By job, the alerts that have fired so far."""
        query = urllib.parse.quote('last_over_time(ALERTS{alertstate="firing"}[1h])')
        found = asked(port, f"/api/v1/query?query={query}")
        alerts: dict[str, set[str]] = {"rejoin-ingest": set(), "rejoin-exporter": set()}
        for each in json.loads(found)["data"]["result"] if found else ():
            alerts[each["metric"]["job"]].add(each["metric"]["alertname"])
        return alerts

    def troubled() -> bool:
        land()
        return fired()["rejoin-ingest"] >= INGEST and fired()["rejoin-exporter"] >= EXPORTER

    until(troubled, tmp_path)
    assert "RejoinDown" not in fired()["rejoin-ingest"]
    os.killpg(ingest.pid, signal.SIGKILL)
    until(lambda: "RejoinDown" in fired()["rejoin-ingest"], tmp_path)
    alerts = {rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"] if "alert" in rule}
    assert alerts == {*INGEST, *EXPORTER, "RejoinDown"}
    assert fired()["rejoin-exporter"] == EXPORTER


if __name__ == "__main__":
    export(int(sys.argv[1]))
