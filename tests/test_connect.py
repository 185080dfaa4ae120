"""Spark Connect, which is what serverless compute is: the same trace, the same table."""

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


@pytest.mark.slow
def test_a_trace_through_a_connect_server_ends_in_the_oracle(tmp_path: Path) -> None:
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
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "connect" in said["session"]
    assert (said["verdict"], said["counts"]["matched"], said["relanded"], said["quarantined"]) == ("agrees", 5, 0, 2)
    assert said["backfilled"][0] == "2026-01-10: 5 outcomes"
    assert said["lanes"] == {"p": "settle", "q": "settle", "r": "join", "old": "settle", "s": "join"}
    given = [[event for wave in waves for event in wave] for waves in (PLAYBACKS, IMPRESSIONS)]
    assert said["table"] == json.loads(json.dumps(oracle.attribute(*given, window=timedelta(hours=6))))
