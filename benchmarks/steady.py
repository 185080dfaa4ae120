"""What Rejoin costs beside three plain Spark queries that do the same without bookkeeping, each in a process of its own.

    .venv/bin/python benchmarks/steady.py [--rates 128,2000] [--minutes 3] [--warm-up 60] [--profile]   # a steady load
    .venv/bin/python benchmarks/steady.py --start [--rounds 3]    # from the start of the process to the first readable row
    .venv/bin/python benchmarks/steady.py --once [--rounds 3]     # `run --once --all` of ten events over a day, beside an append

The other contender is benchmarks/peers/spark_bare_lanes.py, of `--once` benchmarks/peers/spark_append.py. Both run in turn,
`--only rejoin` or `--only bare` runs one; `--set KEY=VALUE` configures Rejoin.

A steady load: the contender starts with a new lake and new topics under load (benchmarks/traffic.py). From its first readable row
on it has `--warm-up` seconds; then a window of `--minutes` is measured. SQL executions and jobs are those that Spark's event log
says began in the window, nested executions among them; processor seconds are those of the process and all its descendants, the
writing of the event log included. Each contender has three queries: where one of them began fewer than 1 micro-batch in 10 s, it
has missed triggers, and the other figures of the 10 s are too low. Latency is that of each playback sent in the window that has a
match: from the timestamp of its Kafka record to the modification time of the Delta log entry that has its row with its exposure.

The start: 200 impressions and as many playbacks that match them are in the topics. Both contenders trigger at multiples of ten
seconds, so the rounds begin at different times between these, the same for both.

The table and the ratios, Rejoin's figure divided by the other's, are printed; JSON is written to .benchmarks/results.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import event_log  # noqa: E402
from processes import measured, running, usage, wait_until  # noqa: E402
from readable_rows import ReadableRows, all_readable, percentiles  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from traffic import Load, create_topics, impression, playback, send_pairs  # noqa: E402
from workloads import ROOT, STREAMS, WORKLOADS, overrides  # noqa: E402

from pipelines.demo.broker import local_broker  # noqa: E402

PEERS = ROOT / "benchmarks" / "peers"
CONTENDERS = ("bare", "rejoin")
TRIGGER_SECONDS = 10
_COMPARED = ("executions", "jobs", "processor_seconds", "latency_median", "latency_p99")
STARTS_WITHIN = 600
IMPRESSIONS, PLAYBACKS = 60_000, 12_000  # the day of the demo

Result = dict[str, Any]


def main() -> None:
    options = _options()
    # So that what has been started is stopped on the way out of a termination too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    home = options.dir.absolute() / "steady"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    chosen = [name for name in CONTENDERS if options.only in (None, name)]
    say = Console(width=160)
    if options.once:
        mode, report = "once", measure_once(chosen, options, home, say)
    else:
        mode, measure = ("start", measure_starts) if options.start else ("steady", measure_steady)
        with local_broker(home / "broker") as broker:
            report = measure(chosen, options, home, broker.servers, say)
    report = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "set": options.sets,
        **report,
    }
    out = options.dir.absolute() / "results" / ("steady.json" if mode == "steady" else f"steady-{mode}.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    say.print(f"written to {out}")
    raise SystemExit(0 if report["complete"] else 1)


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rates", type=lambda text: [int(rate) for rate in text.split(",")], default=[128, 2000])
    arguments.add_argument("--minutes", type=float, default=3)
    arguments.add_argument("--warm-up", type=float, default=60, help="seconds after the first readable row that do not count")
    arguments.add_argument("--profile", action="store_true", help="print the executions of each lane, by statement and plan")
    arguments.add_argument("--start", action="store_true", help="measure the time to the first readable row")
    arguments.add_argument("--once", action="store_true", help="measure `run --once --all` of ten events")
    arguments.add_argument("--rounds", type=int, default=3, help="of --start and --once")
    arguments.add_argument("--only", choices=CONTENDERS)
    arguments.add_argument("--set", action="append", default=[], dest="sets", help="for Rejoin")
    arguments.add_argument("--dir", type=Path, default=ROOT / ".benchmarks")
    return arguments.parse_args()


def command_of(name: str, servers: str, prefix: str, lake: Path, conf: dict[str, str], sets: Sequence[str]) -> list[str]:
    if name == "bare":
        words = ["--bootstrap", servers, "--topic-prefix", prefix, "--lake", str(lake)]
        words += [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        return [sys.executable, str(PEERS / "spark_bare_lanes.py"), *words]
    words = overrides(servers, lake, WORKLOADS["w1"], prefix)
    words += [word for each in (*([f"spark.conf={json.dumps(conf)}"] if conf else []), *sets) for word in ("--set", each)]
    return [sys.executable, "-m", "pipelines", "run", *words]


def measure_steady(chosen: Sequence[str], options: argparse.Namespace, home: Path, servers: str, say: Console) -> Result:
    runs: list[Result] = []
    for rate in options.rates:
        for name in chosen:
            result = one_load(name, rate, options, home / f"{name}-{rate}", servers)
            runs.append(result)
            if options.profile:
                _print_profile(say, result)
        _print_steady(say, rate, [run for run in runs if run["rate"] == rate])
    return {
        "minutes": options.minutes,
        "warm_up_seconds": options.warm_up,
        "runs": runs,
        "ratios": {rate: _ratios([run for run in runs if run["rate"] == rate]) for rate in options.rates},
        "goals": _goals(runs),
        "complete": all(run["readable"] == run["matched_playbacks"] for run in runs),
    }


def one_load(name: str, rate: int, options: argparse.Namespace, folder: Path, servers: str) -> Result:
    prefix, rows = f"{folder.name}-", ReadableRows(folder / "lake" / "attributed_playbacks")
    create_topics(servers, prefix)
    command = command_of(name, servers, prefix, folder / "lake", event_log.settings(folder / "events"), options.sets)
    load = Load(servers, rate, prefix)
    with running(command, folder / "log", cwd=ROOT) as process:
        try:
            load.start()
            wait_until(lambda: bool(rows.read()), process, STARTS_WITHIN)
            time.sleep(options.warm_up)
            began, used = time.time(), _processor_seconds(process.pid)
            time.sleep(options.minutes * 60)
            ended, used = time.time(), _processor_seconds(process.pid) - used
        finally:
            load.stop()
        sent = {key: at for key, at in load.sent.items() if began <= at < ended}
        wait_until(all_readable(set(sent), rows), process, 120, strict=False)
    delays = [rows.found[key] - at for key, at in sent.items() if key in rows.found]
    if len(delays) < 2:
        raise SystemExit(f"{name}: no row became readable; see {folder / 'log'}")
    found, tens = event_log.activity(folder / "events", began, ended), (ended - began) / 10
    return {
        "contender": name,
        "rate": rate,
        "executions": round(found.executions / tens, 2),
        "nested_executions": round(found.nested / tens, 2),
        "jobs": round(found.jobs / tens, 2),
        "micro_batches": {query: round(begun / tens, 2) for query, begun in found.micro_batches.items()},
        "processor_seconds": round(used / tens, 2),
        "matched_playbacks": len(sent),
        "readable": len(delays),
        "latency": percentiles(delays),
        "profile": event_log.by_lane(found.profile, tens),
    }


def _processor_seconds(pid: int) -> float:
    return sum(seconds for seconds, _ in usage(pid).values())


def _ratios(runs: Sequence[Result]) -> dict[str, float] | None:
    """Rejoin divided by the bare lanes; None where not both have run."""
    by_name = {run["contender"]: run for run in runs}
    if by_name.keys() != set(CONTENDERS):
        return None
    ours, theirs = by_name["rejoin"], by_name["bare"]
    ratios = {key: ours[key] / theirs[key] for key in ("executions", "jobs", "processor_seconds")}
    ratios |= {f"latency_{key}": ours["latency"][key] / theirs["latency"][key] for key in ("median", "p99")}
    return {key: round(ratio, 2) for key, ratio in ratios.items()}


def _goals(runs: Sequence[Result]) -> list[Result]:
    goals: list[Result] = []
    for run in runs:
        if run["contender"] != "rejoin":
            continue
        ratios = _ratios([each for each in runs if each["rate"] == run["rate"]]) or {}
        for what, most, measured_value in (
            ("times the executions of the bare lanes", 1.0, ratios.get("executions")),
            ("times the processor seconds of the bare lanes", 1.1, ratios.get("processor_seconds")),
            ("s, median latency", 8, run["latency"]["median"]),
            ("s, 99 % of latencies", 15, run["latency"]["p99"]),
        ):
            met = None if measured_value is None else measured_value <= most
            goals.append({"rate": run["rate"], "goal": f"at most {most} {what}", "measured": measured_value, "met": met})
    return goals


def _print_steady(say: Console, rate: int, runs: Sequence[Result]) -> None:
    table = Table(title=f"{rate:,} events/s, per 10 s of the window", title_justify="left")
    for column in ("", "executions", "of them nested", "jobs", "processor s", "latency median s", "99 % s", "rows"):
        table.add_column(column, justify="right" if column else "left")
    for run in runs:
        figures = [run[key] for key in ("executions", "nested_executions", "jobs", "processor_seconds")]
        figures += [run["latency"]["median"], run["latency"]["p99"]]
        rows = f"{run['readable']:,} of {run['matched_playbacks']:,}"
        table.add_row(run["contender"], *(f"{figure:.2f}" for figure in figures), rows)
    if ratios := _ratios(runs):
        figures = [f"{ratios[key]:.2f}" for key in _COMPARED]
        table.add_row("rejoin / bare", figures[0], "", *figures[1:], "")
    say.print(table)
    for run in runs:
        for query, begun in run["micro_batches"].items():
            if begun < 0.9:
                say.print(f"  {run['contender']}: {query} missed triggers ({begun:.2f} in 10 s); the figures of 10 s are too low")
    for goal in _goals(runs):
        met = {True: "met", False: "NOT met", None: "not measured"}[goal["met"]]
        say.print(f"  {met:<12} {goal['goal']}: {goal['measured']}")


def _print_profile(say: Console, run: Result) -> None:
    table = Table(title=f"{run['contender']}, {run['rate']:,} events/s: SQL executions per 10 s", title_justify="left")
    for column in ("lane", "executions", "statement", "plan: top operator < leaf"):
        table.add_column(column, justify="right" if column == "executions" else "left", overflow="fold")
    for lane, statements in run["profile"].items():
        table.add_row(lane, f"{sum(each['executions'] for each in statements):.2f}", "", "", style="bold")
        for each in statements:
            table.add_row("", f"{each['executions']:.2f}", each["statement"], each["plan"])
    say.print(table, markup=False)


def measure_starts(chosen: Sequence[str], options: argparse.Namespace, home: Path, servers: str, say: Console) -> Result:
    def first_row(name: str, turn: int) -> float:
        folder = home / f"{name}-start-{turn}"
        prefix, rows = f"{folder.name}-", ReadableRows(folder / "lake" / "attributed_playbacks")
        create_topics(servers, prefix)
        send_pairs(servers, 200, prefix)
        command = command_of(name, servers, prefix, folder / "lake", {}, options.sets)
        due = turn * TRIGGER_SECONDS / options.rounds
        time.sleep((due - time.time()) % TRIGGER_SECONDS)
        began = time.time()
        with running(command, folder / "log", cwd=ROOT) as process:
            wait_until(lambda: bool(rows.read()), process, STARTS_WITHIN, every=0.1)
        return min(rows.found.values()) - began

    seconds = _in_turn(chosen, options.rounds, first_row)
    return _compared(say, "From the start of the process to the first readable row", seconds, ("rejoin", "bare"), 1.3)


def measure_once(chosen: Sequence[str], options: argparse.Namespace, home: Path, say: Console) -> Result:
    landing, rejoin = home / "landing", [sys.executable, "-m", "pipelines"]
    sets = [f"lake={home / 'lake'}", *(f"streams.{name}.source.path={landing / name}" for name in STREAMS), *options.sets]
    words = [word for each in sets for word in ("--set", each)]
    drain = [*rejoin, "run", "--once", "--all", *words]
    last = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    if "rejoin" in chosen:
        sizes = ["--impressions", str(IMPRESSIONS), "--playbacks", str(PLAYBACKS)]
        measured([*rejoin, "generate", *sizes, "--out", str(landing), *words], home / "generate.log", cwd=ROOT)
        measured(drain, home / "day.log", cwd=ROOT)

    def run(name: str, turn: int) -> float:
        if name == "bare":
            return measured(
                [sys.executable, str(PEERS / "spark_append.py"), "--out", str(home / "append")], home / "append.log"
            ).seconds
        keys = _land_ten(landing, last + timedelta(minutes=10 * turn), turn)
        took = measured(drain, home / f"once-{turn}.log", cwd=ROOT)
        if not keys <= ReadableRows(home / "lake" / "attributed_playbacks").read().keys():
            raise SystemExit(f"the new events have not been attributed; see {home / f'once-{turn}.log'}")
        return took.seconds

    seconds = _in_turn(chosen, options.rounds, run)
    title = "rejoin: `run --once --all` of ten events over a day; bare: a Spark job with one append"
    return _compared(say, title, seconds, ("rejoin", "bare"), round(20 / 12, 2))


def _land_ten(landing: Path, at: datetime, turn: int) -> set[str]:
    """Write five impressions and five playbacks that match them, each a minute later; the playbacks' ids."""
    numbers, shown = [f"new-{turn}-{n}" for n in range(5)], at.timestamp()
    events = {
        "impressions": [impression(f"i-{key}", shown, f"profile-{key}", "title-1") for key in numbers],
        "playbacks": [playback(f"p-{key}", shown + 60, f"profile-{key}", "title-1") for key in numbers],
    }
    for name, each in events.items():
        hidden = landing / name / f".new-{turn}.jsonl"
        hidden.write_text("".join(json.dumps(event) + "\n" for event in each))
        hidden.rename(hidden.with_name(hidden.name[1:]))
    return {event["playback_id"] for event in events["playbacks"]}


def _in_turn(chosen: Sequence[str], rounds: int, run: Callable[[str, int], float]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(rounds):
        for name in chosen:
            seconds[name].append(round(run(name, turn), 1))
    return seconds


def _compared(say: Console, title: str, seconds: dict[str, list[float]], names: tuple[str, str], most: float) -> Result:
    """Seconds by contender; the ratio of their medians, and what it should be at most."""
    medians = {name: round(statistics.median(each), 1) for name, each in seconds.items()}
    ratio = round(medians[names[0]] / medians[names[1]], 2) if medians.keys() == set(names) else None
    say.print(title)
    for name, each in seconds.items():
        say.print(f"  {name:<7} {medians[name]:>6.1f} s  (of {', '.join(f'{s:.1f}' for s in each)})")
    if ratio is not None:
        say.print(f"  {names[0]} / {names[1]}: {ratio:.2f}, goal at most {most:g}: {'met' if ratio <= most else 'NOT met'}")
    return {"seconds": seconds, "median_seconds": medians, "ratio": ratio, "goal_at_most": most, "complete": True}


if __name__ == "__main__":
    main()
