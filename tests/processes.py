"""Commands of Rejoin as processes of their own. The limits here keep a test from hanging for ever; they claim no speed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REJOIN = Path(sys.executable).parent / "rejoin"
PATIENCE_SECONDS = 300

# They live for seconds: most of what they would compile well, they would not run often. With one compiler alone, Java has 48 MiB
# for compiled code, which a run of a minute fills; it then says so on standard output, and compiles no more.
QUICK = {
    "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC",
    "SPARK_CONF_DIR": str(Path(__file__).parent / "spark"),  # plans of a handful of rows are interpreted
}

Process = subprocess.Popen[str]
Start = Callable[..., Process]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def rejoin(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    command = [str(REJOIN), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=PATIENCE_SECONDS, env={**os.environ, **QUICK}
    )


@contextmanager
def group_of_processes(logs: Path | None = None) -> Iterator[Start]:
    """Starts commands of Rejoin; with a directory for `logs`, whatever programs, whose output is there. Each is in a process
    group of its own, which does not outlive the context."""
    running: list[Process] = []

    def start(*words: object) -> Process:
        command = [str(word) for word in (words if logs else (REJOIN, *words))]
        with (logs / f"{len(running)}.log").open("w") if logs else nullcontext(subprocess.PIPE) as out:
            options: dict[str, Any] = {"stdout": out, "stderr": out, "env": {**os.environ, **QUICK}}
            running.append(subprocess.Popen(command, text=True, cwd=ROOT, start_new_session=True, **options))
        return running[-1]

    try:
        yield start
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], process: Process) -> None:
    """Wait for what the process is to bring about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
