"""Spark Connect, which Databricks' standard and serverless compute are: the same trace, and each notebook, the same table."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.connect_trace import IMPRESSIONS, PLAYBACKS

ROOT = Path(__file__).parent.parent
POSITION, RULE = "rejoin.settle", "rejoin.rule"


@pytest.mark.slow
def test_a_trace_through_a_connect_server_and_through_each_notebook_ends_in_the_oracle(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.connect_trace", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=900,
        env={**os.environ, "SPARK_CONF_DIR": str(ROOT / "tests" / "spark")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "connect" in found["session"]
    given = [[event for wave in waves for event in wave] for waves in (PLAYBACKS, IMPRESSIONS)]
    expected = json.loads(json.dumps(oracle.attribute(*given, window=timedelta(hours=6))))
    assert found["stages"]["table"] == expected
    assert found["notebooks"]["table"] == expected
    check_stages(found["stages"])
    check_notebooks(found["notebooks"]["said"])


def check_stages(said: dict[str, Any]) -> None:
    assert (said["verdict"], said["counts"]["matched"], said["relanded"], said["quarantined"]) == ("agrees", 5, 0, 2)
    assert said["backfilled"][0] == "2026-01-10: 5 outcomes"
    assert said["lanes"] == {"p": "settle", "q": "settle", "r": "join", "old": "settle", "s": "join"}
    assert said["ingest"] == 4, "the ledger has a row for each micro-batch that read something"
    settled = [commit[POSITION]["run"] for commit in said["commits"] if POSITION in commit]
    assert settled == sorted(set(settled), reverse=True), "settle's position is in settle's own commits only"
    assert any(POSITION not in commit for commit in said["commits"] if RULE in commit), "and the join's carry the rule alone"


def check_notebooks(said: dict[str, str]) -> None:
    assert "settle" in said["run"]
    assert "AGREES" in said["settle_and_reconcile"]
    assert "<!doctype html>" in said["settle_and_reconcile"]
    assert "<svg" in said["explore"]
    assert "q" in said["explain"]
    assert "not_json" in said["quarantine_and_reland"]
