"""What the bench runs side by side: Rejoin as shipped, and its peers (benchmarks/peers/)."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import Run, measured
from workloads import ROOT, Workload, overrides

HOME = ROOT / ".benchmarks" / "peers" / "flink"
PEERS = ROOT / "benchmarks" / "peers"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: what it took, the Parquet files that hold its result, and the most that it held in state (None: not told)."""

    run: Run
    files: str
    folder: Path
    state_rows: int | None = None
    state_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """`run` takes the broker's address, the workload and an empty directory; `what` is for the table's legend."""

    name: str
    what: str
    run: Callable[[str, Workload, Path], Outcome]


def rejoin(name: str, what: str, *settings: str, tree: Path = ROOT) -> Contender:
    """Rejoin of a source tree with `--set`s beside the shipped configuration: Kafka to the final table, in one process."""

    def run(servers: str, workload: Workload, folder: Path) -> Outcome:
        words = overrides(servers, folder / "lake", workload)
        words += [word for each in settings for word in ("--set", each)]
        command = [sys.executable, "-m", "pipelines", "run", "--once", "--all", *words]
        done = measured(command, folder / "log", cwd=tree)
        for table in ("attributed_playbacks", "ledger"):
            out = folder / f"{table}.parquet"
            measured([sys.executable, "-m", "pipelines", "export", table, "--out", str(out), *words], folder / "export", cwd=tree)
        rows, size = _state(folder / "ledger.parquet")
        table = folder / "lake" / "attributed_playbacks"
        return Outcome(run=done, files=f"{folder}/attributed_playbacks.parquet", folder=table, state_rows=rows, state_bytes=size)

    return Contender(name=name, what=what, run=run)


def _state(ledger: Path) -> tuple[int, int]:
    import duckdb

    found = duckdb.sql(f"SELECT max(state_rows), max(state_bytes) FROM '{ledger}' WHERE query = 'join'").fetchall()
    return int(found[0][0] or 0), int(found[0][1] or 0)


def flink(name: str, what: str, backend: str) -> Contender:
    def run(servers: str, workload: Workload, folder: Path) -> Outcome:
        window, out = str(workload.window_hours), folder / "out"
        words = ["--bootstrap", servers, "--window-hours", window, "--backend", backend, "--out", str(out)]
        words += ["--jars", str(HOME / "jars"), "--work", str(folder / "work")]
        return _peer([str(HOME / "venv/bin/python"), str(PEERS / "flink_interval_join.py"), *words], folder, f"{out}/*")

    return Contender(name=name, what=what, run=run)


def spark(name: str, what: str, script: str, kept: str) -> Contender:
    """A peer on Spark; `kept` is the option for the directory that it keeps other things than its result in."""

    def run(servers: str, workload: Workload, folder: Path) -> Outcome:
        window, out = str(workload.window_hours), folder / "out"
        words = ["--bootstrap", servers, "--window-hours", window, "--out", str(out), kept, str(folder / "kept")]
        return _peer([sys.executable, str(PEERS / script), *words], folder, f"{out}/*.parquet")

    return Contender(name=name, what=what, run=run)


def _peer(command: Sequence[str], folder: Path, files: str) -> Outcome:
    done = measured(command, folder / "log")
    told = json.loads(done.last_line)
    # What a peer looks at after its clock has stopped is not counted.
    after = told.get("after_seconds", 0.0)
    run = Run(seconds=done.seconds - after, cpu=done.cpu, peak=done.peak, output=done.output)
    state = told.get("state_rows"), told.get("state_bytes")
    return Outcome(run=run, files=files, folder=folder / "out", state_rows=state[0], state_bytes=state[1])


def contenders() -> list[Contender]:
    return [
        rejoin("rejoin", "as shipped (conf/playback.yml)"),
        flink("flink rocksdb", "PyFlink 2.3 SQL interval join, RocksDB, exactly-once checkpoints each 30 s, Parquet", "rocksdb"),
        flink("flink heap", "the same with the heap state backend", "hashmap"),
        spark(
            "spark stream",
            "Spark stream-stream join over the whole window, RocksDB, Delta",
            "spark_stream_join.py",
            "--checkpoint",
        ),
        spark("spark batch", "the limit: Spark batch, Kafka to Delta, one join", "spark_batch.py", "--landing"),
    ]
