"""This tree beside a commit of it: how many times as long it takes, before a change to the hot path lands (under 5 minutes).

    .venv/bin/python benchmarks/against.py COMMIT [--rounds 2] [--workload small]

Both read the same topics in turn, each round in the other order; the commit is checked out beside. Both results must be right.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import duckdb

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from check_result import compare, truth  # noqa: E402
from contenders import Contender, rejoin  # noqa: E402
from workloads import ROOT, STREAMS, WORKLOADS, generate, load  # noqa: E402

from pipelines.demo.broker import local_broker  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("commit")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--workload", choices=sorted(WORKLOADS), default="small")
    arguments.add_argument("--dir", type=Path, default=ROOT / ".benchmarks")
    options = arguments.parse_args()
    home, workload = options.dir.absolute(), WORKLOADS[options.workload]
    tree = home / "tree"
    files = generate(workload, home / "events")
    connection = duckdb.connect()
    truth(connection, *([str(file) for file in files[name]] for name in STREAMS), workload.window_hours)
    _git("worktree", "add", "--force", "--detach", str(tree), options.commit)
    took: dict[str, list[float]] = {"this tree": [], options.commit: []}
    try:
        sides = [rejoin("this tree", ""), rejoin(options.commit, "", tree=tree)]
        with local_broker(home / "broker") as broker:
            load(broker, files)
            for turn in range(options.rounds):
                for side in sides if turn % 2 == 0 else reversed(sides):
                    took[side.name].append(
                        _seconds(side, broker.servers, home / "runs" / "against", connection, options.workload)
                    )
    finally:
        _git("worktree", "remove", "--force", str(tree))
    ratios = [this / that for this, that in zip(*took.values(), strict=True)]
    for name, seconds in took.items():
        print(f"{name:<20} {', '.join(f'{each:.1f}' for each in seconds)} s")
    least, middle, most = min(ratios), statistics.median(ratios), max(ratios)
    print(f"this tree takes {middle:.2f} times as long as {options.commit} ({least:.2f} to {most:.2f})")


def _seconds(side: Contender, servers: str, folder: Path, connection: duckdb.DuckDBPyConnection, workload: str) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome = side.run(servers, WORKLOADS[workload], folder)
    counts = compare(connection, outcome.files)
    if counts.right != counts.expected or counts.extra or counts.duplicates:
        raise SystemExit(f"{side.name}: the result is not right: {counts}")
    return outcome.run.seconds


def _git(*words: str) -> None:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise SystemExit(f"git {words[0]}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
