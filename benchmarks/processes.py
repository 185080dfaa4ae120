"""Running a command and watching it: wall time, processor time, and the memory of all its processes together."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_SECONDS = 0.2
_STOPS_WITHIN = 60


@dataclass(frozen=True, kw_only=True)
class Run:
    """`seconds` of wall time; `cpu` seconds of processor time and `peak` resident bytes at one moment, of the process and all its
    descendants, as sampled; what it printed. A process counts from its second sample on: a JVM that starts a command is two of
    itself for a moment."""

    seconds: float
    cpu: float
    peak: int
    output: str

    @property
    def last_line(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def measured(command: Sequence[str], log: Path, *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; its stderr goes to `log`. Raises RuntimeError with the end of that where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    out = log.with_suffix(".out")
    peak, cpu, clock = 0, 0.0, time.monotonic()
    known: set[int] = set()
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603
            list(command), stdout=stdout, stderr=stderr, cwd=cwd, env={**os.environ, **(env or {})}
        )
        try:
            while process.poll() is None:
                tree = usage(process.pid)
                cpu = max(cpu, sum(seconds for seconds, _ in tree.values()))
                peak = max(peak, sum(held for pid, (_, held) in tree.items() if pid in known))
                known = set(tree)
                time.sleep(_EVERY_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    seconds = time.monotonic() - clock
    text = out.read_text(errors="replace")
    if process.returncode:
        said = "\n".join([*text.splitlines()[-5:], *log.read_text(errors="replace").splitlines()[-15:]])
        raise RuntimeError(f"{command[0]} {command[1]} exited {process.returncode}; its log is {log}\n{said}")
    return Run(seconds=seconds, cpu=cpu, peak=peak, output=text)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, *, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until stopped; on the way out it gets SIGTERM, and what is left of it after a minute is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(list(command), stdout=out, stderr=out, cwd=cwd)  # noqa: S603
        try:
            yield process
        finally:
            tree = usage(process.pid)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOPS_WITHIN)
            _end(process, tree.keys() - {process.pid})


def _end(process: subprocess.Popen[bytes], descendants: set[int]) -> None:
    """Kill a process that has not stopped, and those of its descendants that outlive it by ten seconds."""
    if process.poll() is None:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while (left := {pid for pid in descendants if _command(pid)}) and time.monotonic() < deadline:
        time.sleep(_EVERY_SECONDS)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _command(pid: int) -> bytes:
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(
    done: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float, *, strict: bool = True, every: float = 2
) -> None:
    """Return once `done`, asked every so many seconds. Raises RuntimeError where the process ends before; where the time is over
    too, if `strict`."""
    deadline = time.monotonic() + seconds
    while not done():
        if process.poll() is not None:
            raise RuntimeError("the process has ended; see its log")
        if time.monotonic() > deadline:
            if strict:
                raise RuntimeError(f"not done within {seconds:g} s; see the log of the process")
            return
        time.sleep(every)


def usage(root: int) -> dict[int, tuple[float, int]]:
    """Seconds of processor time so far, and resident bytes now, of a process and all its living descendants, by id."""
    parents: dict[int, int] = {}
    used: dict[int, tuple[float, int]] = {}
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        pid = int(entry.name)
        parents[pid], used[pid] = int(fields[1]), (sum(map(int, fields[11:15])) / tick, int(fields[21]) * page)
    found: dict[int, tuple[float, int]] = {}
    ahead = [root]
    while ahead:
        process = ahead.pop()
        if process in used:
            found[process] = used[process]
        ahead += [child for child, parent in parents.items() if parent == process]
    return found
