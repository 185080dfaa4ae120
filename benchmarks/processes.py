"""Running a command and watching it: wall time, processor time, and the memory of all its processes together."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_SECONDS = 0.2


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
