"""spark-submit, as README has it, to a real standalone cluster: a master and two workers on loopback."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests import oracle
from tests.builders import play, shown
from tests.processes import PATIENCE_SECONDS, ROOT, free_port, rejoin

HOME = Path(pyspark.__file__).parent
MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"


def server(stack: ExitStack, log: Path, said: str, *words: object) -> None:
    """Start a server of Spark, until its log has `said`; stopped with the stack."""
    env = {**os.environ, "SPARK_HOME": str(HOME), "SPARK_SCALA_VERSION": "2.13", "SPARK_LOCAL_IP": "127.0.0.1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            ["java", "-Xmx256m", "-cp", f"{HOME}/jars/*", *map(str, words)], stdout=out, stderr=subprocess.STDOUT, env=env
        )

    def stop() -> None:
        process.terminate()
        process.wait(30)

    stack.callback(stop)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while said not in log.read_text():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The URL of a cluster of two workers, a core each."""
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    with ExitStack() as stack:
        words = (MASTER, "--host", "127.0.0.1", "--port", port, "--webui-port", free_port())
        server(stack, tmp_path / "master.log", "New state: ALIVE", *words)
        for number in (1, 2):
            own = ("--host", "127.0.0.1", "--webui-port", free_port(), "--work-dir", tmp_path / f"work-{number}")
            limits = ("--cores", 1, "--memory", "1g")
            log = tmp_path / f"worker-{number}.log"
            server(stack, log, "Successfully registered with master", WORKER, url, *own, *limits)
        yield url


def command_of_readme() -> list[str]:
    """The line of README for a cluster, as typed in a shell."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"```sh\n(source .venv/bin/activate.*?)```", text, re.S)
    assert found
    lines = found[1].replace("\\\n", " ").strip().splitlines()
    return [line for line in lines if line]


@pytest.mark.slow
def test_the_line_of_the_readme_works_on_a_cluster_of_two_workers(cluster: str, tmp_path: Path) -> None:
    impressions = [shown(f"i{n}", f"10:{n:02d}", who=f"w{n % 7}") for n in range(40)]
    playbacks = [play(f"p{n}", f"{10 + n // 30}:{n % 30 * 2:02d}:30", who=f"w{n % 9}") for n in range(50)]
    conf = tmp_path / "my.yml"
    text = (ROOT / "conf" / "playback.yml").read_text().replace("./lake", f"{tmp_path}/lake")
    conf.write_text(text.replace("./landing", f"{tmp_path}/landing"))
    for name, events in (("impressions", impressions), ("playbacks", playbacks)):
        folder = tmp_path / "landing" / name
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    activate, submit = command_of_readme()
    submit = submit.replace("spark://HOST:7077", cluster).replace("my.yml", shlex.quote(str(conf)))
    small = "--conf spark.driver.host=127.0.0.1 --driver-memory 1g --executor-memory 512m"
    submit = submit.replace("spark-submit", f"spark-submit {small}", 1).replace(
        " run ", " run --once --all --set spark.shuffle_partitions=2 "
    )
    env = {name: value for name, value in os.environ.items() if name not in ("SPARK_HOME", "PYSPARK_PYTHON")}
    venv = shlex.quote(str(Path(sys.executable).parent.parent))
    script = f"{activate.replace('.venv', venv)}\n{submit.replace('.venv', venv)}"
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "playbacks: 50 read = 50 accepted" in done.stdout
    assert len(done.stderr) < 20_000, done.stderr[-3000:]
    executors = [
        line for log in tmp_path.glob("worker-*.log") for line in log.read_text().splitlines() if "Launch command" in line
    ]
    assert len(executors) == 2, "both workers have worked"
    out = tmp_path / "table.jsonl"
    assert rejoin("export", "attributed_playbacks", "--out", out, "--conf", conf).returncode == 0
    rows: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    expected = oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert {row["playback_id"]: row["exposure_id"] for row in rows} == {id: row["exposure_id"] for id, row in expected.items()}
