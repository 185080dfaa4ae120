"""Rejoin beside its peers: the same events, the same topics, one machine, one run (`make bench`).

    .venv/bin/python benchmarks/bench.py [--workload w1] [--rounds 3] [--only "rejoin,spark batch"] [--dir .benchmarks]

Each round runs every contender once, as a process of its own, from Kafka to its result; figures of a round are compared within
it. Before a figure counts, DuckDB compares the result with what it computes from the lines that were sent. Rejoin and Spark batch
must be exactly right. The streaming peers lose what comes late, by their nature: how many, the table says.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from check_result import compare, truth  # noqa: E402
from contenders import Contender, contenders  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from workloads import ROOT, STREAMS, WORKLOADS, Workload, generate, load  # noqa: E402

from pipelines.demo.broker import local_broker  # noqa: E402

EXACT = ("rejoin", "spark batch")
MIB = 2**20


def main() -> None:
    options = _options()
    workload, home = WORKLOADS[options.workload], options.dir.absolute()
    chosen = [each for each in contenders() if not options.only or each.name in options.only.split(",")]
    say = Console(width=140)
    files = generate(workload, home / "events")
    connection = duckdb.connect(config={"memory_limit": "6GB", "temp_directory": str(home / "duckdb")})
    truth(connection, *([str(file) for file in files[name]] for name in STREAMS), workload.window_hours)
    results: list[dict[str, Any]] = []
    with local_broker(home / "broker") as broker:
        clock = time.monotonic()
        load(broker, files)
        say.print(f"{workload.name}: {workload.size:,} events in two topics ({time.monotonic() - clock:.0f} s)")
        # Who stops it half-way gets what has been measured.
        with contextlib.suppress(KeyboardInterrupt):
            for turn, contender in itertools.product(range(options.rounds), chosen):
                result = _once(contender, broker.servers, workload, home / "runs" / contender.name.replace(" ", "-"), connection)
                results.append({"round": turn, **result})
                say.print(_line(result))
    shutil.rmtree(home / "broker", ignore_errors=True)
    report = _report(workload, results, options.rounds)
    (home / "results").mkdir(exist_ok=True)
    out = home / "results" / f"{workload.name}.json"
    out.write_text(json.dumps(report, indent=2) + "\n")
    _print(say, report, chosen)
    say.print(f"written to {out}")
    raise SystemExit(0 if all(_counts(result) for result in results) else 1)


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--workload", choices=sorted(WORKLOADS), default="w1")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", help="names of contenders, with commas")
    arguments.add_argument("--dir", type=Path, default=ROOT / ".benchmarks")
    return arguments.parse_args()


def _once(
    contender: Contender, servers: str, workload: Workload, folder: Path, connection: duckdb.DuckDBPyConnection
) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome = contender.run(servers, workload, folder)
    files = [file for file in outcome.folder.rglob("*") if file.is_file() and "_delta_log" not in file.parts]
    parts = [file for file in files if not file.name.startswith((".", "_")) and file.suffix != ".crc"]
    result = {
        "contender": contender.name,
        "seconds": round(outcome.run.seconds, 1),
        "cpu_seconds": round(outcome.run.cpu, 1),
        "peak_bytes": outcome.run.peak,
        "state_rows": outcome.state_rows,
        "state_bytes": outcome.state_bytes,
        "files": len(parts),
        "file_bytes": sum(file.stat().st_size for file in parts),
        "counts": asdict(compare(connection, outcome.files)),
    }
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _is_exact(name: str) -> bool:
    return name.startswith(EXACT)


def _counts(result: dict[str, Any]) -> bool:
    """Whether a figure counts: the result is right, but for what a streaming peer loses of late events."""
    counts = result["counts"]
    if counts["extra"]:
        return False
    differing = counts["expected"] - counts["right"]
    return (
        differing == 0 and not counts["duplicates"] if _is_exact(result["contender"]) else differing <= counts["expected"] * 0.05
    )


def _line(result: dict[str, Any]) -> str:
    counts = result["counts"]
    state = "" if result["state_rows"] is None else f", {result['state_rows']:,} rows of state"
    return (
        f"  {result['contender']:<16} {result['seconds']:>7.1f} s  peak {result['peak_bytes'] / MIB:>6,.0f} MiB{state}; "
        f"{counts['right']:,} of {counts['expected']:,} right" + ("" if _counts(result) else "  DOES NOT COUNT")
    )


def _report(workload: Workload, results: Sequence[dict[str, Any]], rounds: int) -> dict[str, Any]:
    names = list(dict.fromkeys(result["contender"] for result in results))
    ratios = {name: _ratios(results, name, rounds) for name in names}
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")},
        "python": platform.python_version(),
        "workload": asdict(workload),
        "runs": list(results),
        "ratios_to_rejoin": ratios,
        "goals": _goals(results, ratios) if workload.name == "w1" else [],
    }


def _ratios(results: Sequence[dict[str, Any]], name: str, rounds: int) -> dict[str, float] | None:
    """How many times as long as Rejoin a contender takes: least, median and most over the rounds."""
    found = []
    for turn in range(rounds):
        took = {r["contender"]: r["seconds"] for r in results if r["round"] == turn and _counts(r)}
        if name in took and "rejoin" in took:
            found.append(took[name] / took["rejoin"])
    if not found:
        return None
    return {"min": round(min(found), 2), "median": round(statistics.median(found), 2), "max": round(max(found), 2)}


def _goals(results: Sequence[dict[str, Any]], ratios: dict[str, dict[str, float] | None]) -> list[dict[str, Any]]:
    """The goals for W1: what was aimed at, what was measured, and whether that is met."""

    def ratio(name: str) -> float | None:
        found = ratios.get(name)
        return found["median"] if found else None

    fastest = min((r["median"] for n, r in ratios.items() if r and n.startswith("rejoin")), default=None)
    rocks, batch = ratio("flink rocksdb"), ratio("spark batch")
    rows = {r["contender"]: r["state_rows"] for r in results}
    peak = max((r["peak_bytes"] for r in results if r["contender"] == "rejoin"), default=0)
    share = rows["rejoin"] / rows["spark stream"] if rows.get("spark stream") and rows.get("rejoin") is not None else None
    goals = [
        ("times as fast as Flink with RocksDB", 4.0, rocks, True),
        ("times as fast as Flink on the heap", 1.2, ratio("flink heap"), True),
        ("times as fast as plain Spark streaming", 3.0, ratio("spark stream"), True),
        ("of the speed of Spark batch", 0.5, batch, True),
        ("times as fast as Flink with RocksDB: the fastest profile", 6.0, rocks / fastest if rocks and fastest else None, True),
        ("of plain Spark's rows of state", 0.2, share, False),
        ("GiB of memory at the peak", 4.0, peak / 2**30 if peak else None, False),
    ]
    return [
        {"goal": f"{'at least' if more else 'at most'} {aim:g} {what}", "measured": None if found is None else round(found, 3),
         "met": None if found is None else (found >= aim if more else found <= aim)}
        for what, aim, found, more in goals
    ]  # fmt: skip


def _print(say: Console, report: dict[str, Any], chosen: Sequence[Contender]) -> None:
    table = Table(title=f"{report['workload']['name']}, {report['machine']['cores']} cores: time as a multiple of Rejoin's")
    for column in (
        "contender",
        "min",
        "median",
        "max",
        "seconds",
        "peak MiB",
        "state rows",
        "state MiB",
        "files",
        "wrong or lost",
    ):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, ratio in report["ratios_to_rejoin"].items():
        runs = [run for run in report["runs"] if run["contender"] == name]
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        counts = middle["counts"]
        times = [f"{ratio[key]:.2f}" for key in ("min", "median", "max")] if ratio else ["-"] * 3
        rows = "-" if middle["state_rows"] is None else f"{middle['state_rows']:,}"
        size = "-" if middle["state_bytes"] is None else f"{middle['state_bytes'] / MIB:,.0f}"
        peak = f"{max(run['peak_bytes'] for run in runs) / MIB:,.0f}"
        lost = f"{counts['expected'] - counts['right']:,}"
        table.add_row(name, *times, f"{middle['seconds']:.1f}", peak, rows, size, str(middle["files"]), lost)
    say.print(table)
    for each in chosen:
        say.print(f"  {each.name}: {each.what}")
    for goal in report["goals"]:
        met = {True: "met", False: "NOT met", None: "not measured"}[goal["met"]]
        say.print(f"  {met:<12} {goal['goal']}: {goal['measured']}")


if __name__ == "__main__":
    main()
