"""The command line: what it prints, how it exits. As a process, and, where many commands follow each other, in this one."""

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.processes import ROOT, Command, group_of_processes, rejoin, until

COMMANDS = [
    *("demo", "generate", "ingest", "join", "settle", "run", "reconcile"),
    *("show", "export", "status", "explain", "doctor", "reland", "backfill", "accept-gap", "maintain"),
]


def test_help_names_every_command_and_answers_at_once() -> None:
    clock = time.monotonic()
    done = rejoin("--help")
    seconds = time.monotonic() - clock
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    # Generous for a busy machine; Spark alone takes longer to import and start.
    assert seconds < 3


def test_a_stop_while_spark_starts_is_quiet_and_leaves_no_jvm() -> None:
    with group_of_processes() as start:
        process = start("run", "--set", "spark.driver_memory=1g")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: bool(children.read_text().strip()), process)
        process.send_signal(signal.SIGTERM)
        # Ends when nobody has its pipes any more: the JVM neither.
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_without_spark(command: str) -> None:
    code = (
        "import sys; from pipelines.cli.app import app\n"
        f"try: app(['{command}', '--help'], standalone_mode=False)\n"
        "finally: assert not {'pyspark', 'pandas', 'great_expectations'} & set(sys.modules), 'heavy import for help'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--conf" in done.stdout


MISUSE = [
    (["nope"], "No such command 'nope'"),
    (["ingest", "--nope"], "No such option: --nope"),
    (["show"], "Missing argument 'table'"),
    (["accept-gap", "nope"], "nope: no such stream; configured are impressions, playbacks"),
    (["accept-gap", "playbacks"], "streams.playbacks.source: comes from files"),
    (["ingest", "--set", "join.hot_windw=1m"], "join.hot_windw: unknown key; did you mean hot_window?"),
    (["ingest", "--conf", "missing.yml"], "missing.yml: cannot be read"),
    (["reconcile", "--date", "2026-01-01", "--from", "2026-01-01"], "--date: cannot go with --from or --to"),
    (["reconcile", "--date", "someday"], "'someday'"),
    (["export", "playbacks", "--out", "x.xlsx"], "must end in .parquet, .csv, .jsonl"),
    (["export", "playbacks", "--out", "x.jsonl", "--spreadsheet-safe"], "--spreadsheet-safe: goes with --out FILE.csv only"),
    (["status", "--set", "lake=Makefile"], "lake: Makefile is a file; give a directory"),
    (["generate", "--median-delay", "soon"], "--median-delay: 'soon' is not a duration"),
]


@pytest.mark.parametrize(("args", "message"), MISUSE, ids=[" ".join(args) for args, _ in MISUSE])
def test_misuse_is_exit_2_and_one_line(args: list[str], message: str) -> None:
    done = rejoin(*args)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


OTHER_DOMAIN = """
lake: {root}/lake
streams:
  offers: {{role: exposure, id: offer, event_time: made_at,
    schema: "offer BIGINT NOT NULL, made_at TIMESTAMP, shop INT, buyer STRING, price DOUBLE, tags ARRAY<STRING>",
    source: {{format: files, path: {root}/in/offers}}}}
  orders: {{role: outcome, id: number, event_time: placed, partition_by: hour,
    schema: "number STRING, placed TIMESTAMP NOT NULL, shop INT, buyer STRING, value DOUBLE, reason STRING",
    source: {{format: files, path: {root}/in/orders}}}}
join: {{keys: [buyer, shop], attribution_window: 2h, hot_window: 10m, watermark_delay: 2m, carry: [price, tags]}}
spark: {{shuffle_partitions: 2}}
"""
START = 1_767_225_600_000  # 2026-01-01, in milliseconds


def other_events(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    draw = random.Random(seed)
    times = [START + 30_000 * k for k in range(600)]

    def who() -> dict[str, Any]:
        return {"buyer": draw.choice(["ann", "bob", None]), "shop": draw.choice([1, 2])}

    offers = [
        {"offer": k // 2, "made_at": draw.choice(times), "price": draw.choice([1.5, 2.0, None]), "tags": ["x"], **who()}
        for k in range(300)
    ]
    orders = [
        {"number": f"n{k}", "placed": draw.choice(times), "value": 9.5, "reason": draw.choice(["a", None]), **who()}
        for k in range(200)
    ]
    return offers, orders


STAGES = (["ingest", "--once", "--set", "trigger.max_files=2"], ["join", "--once"], ["settle", "--all"], ["reconcile"])
ALL_AT_ONCE = (["run", "--once", "--all"],)


# What a lane that ingests says on stderr.
SAID = r"\w+: (reading \S+|[\d,]+ read = [\d,]+ accepted \([\d,]+ late\) \+ [\d,]+ quarantined( \(.*\))?)"


def run_other_domain(
    run: Command, root: Path, seed: int, commands: Sequence[Sequence[str]], *, shuffled: int, copies: int
) -> list[dict[str, str]]:
    """Land the events as files, `run` the commands over them; the exported table."""
    offers, orders = other_events(seed)
    root.mkdir()
    conf = root / "other.yml"
    conf.write_text(OTHER_DOMAIN.format(root=root))
    draw = random.Random(shuffled)
    for name, events in (("offers", offers), ("orders", orders)):
        draw.shuffle(events)
        folder = root / "in" / name
        folder.mkdir(parents=True)
        for wave in range(3):
            text = "".join(json.dumps(event) + "\n" for event in events[wave::3])
            for copy in range(copies):
                (folder / f"wave{wave}-{copy}.json").write_text(text)
    for command in commands:
        done = run(*command, "--conf", conf)
        assert done.returncode == 0, done.stderr + done.stdout
        assert all(re.fullmatch(SAID, line) for line in done.stderr.splitlines()), done.stderr
        assert bool(done.stderr) == (command[0] in ("ingest", "run"))
    out = root / "table.csv"
    assert run("export", "attributed_orders", "--out", out, "--conf", conf).returncode == 0
    with out.open() as lines:
        return sorted(csv.DictReader(lines), key=lambda row: row["number"])


@pytest.mark.slow
def test_another_domain_through_the_command_line_equals_the_oracle_in_any_order(tmp_path: Path, command: Command) -> None:
    offers, orders = other_events(3)
    expected = oracle.attribute(
        orders,
        offers,
        window=timedelta(hours=2),
        outcome_id="number",
        exposure_id="offer",
        outcome_time="placed",
        exposure_time="made_at",
        keys=("buyer", "shop"),
        carry=("price", "tags"),
    )
    rows = run_other_domain(command, tmp_path / "a", 3, STAGES, shuffled=1, copies=1)
    found = {r["number"]: (r["placed"], r["exposure_id"], r["exposure_price"], r["exposure_time"]) for r in rows}
    wanted = {
        id: (
            _iso(e["event_time"] if "event_time" in e else e["placed"]),
            _text(e["exposure_id"]),
            _text(e["exposure_price"]),
            _iso(e["exposure_time"]),
        )
        for id, e in expected.items()
    }
    assert found == wanted
    assert all(row["event_hour"] == str(int(row["placed"][11:13])) for row in rows)
    again = run_other_domain(rejoin, tmp_path / "b", 3, ALL_AT_ONCE, shuffled=2, copies=2)
    drop = {"attributed_by", "updated_at"}
    assert [{k: v for k, v in r.items() if k not in drop} for r in again] == [
        {k: v for k, v in r.items() if k not in drop} for r in rows
    ]


def _iso(micros: int | None) -> str:
    if micros is None:
        return ""
    seconds = oracle.EPOCH + timedelta(microseconds=micros)
    return seconds.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str:
    return "" if value is None else str(value)


@pytest.mark.slow
def test_looking_at_a_pipeline(tmp_path: Path, command: Command) -> None:
    """generate, the stages, then every command that looks at the result or keeps it well."""
    common = ["--set", f"lake={tmp_path}/lake", "--set", "spark.shuffle_partitions=2"]
    for name in ("impressions", "playbacks"):
        common += ["--set", f"streams.{name}.source.path={tmp_path}/landing/{name}"]
    assert "nothing has run yet" in command("status", *common).stdout
    small = ["--impressions", 600, "--playbacks", 200, "--waves", 2, "--date", "2026-01-01"]
    assert command("generate", *small, *common).returncode == 0
    for stage in (["ingest", "--once"], ["join", "--once"], ["settle", "--once"]):
        done = command(*stage, *common)
        assert done.returncode == 0
        assert all(re.fullmatch(SAID, line) for line in done.stderr.splitlines()), done.stderr
        assert len(done.stderr.splitlines()) == (4 if stage[0] == "ingest" else 0)
    done = command("ingest", "--once", "--quiet", *common)
    assert (done.returncode, done.stderr) == (0, "")
    done = command("reconcile", "--format", "json", *common)
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (0, "agrees")
    assert "HEALTHY" in command("status", *common).stdout
    id = report_id(command, tmp_path, common)
    explained = command("explain", id, *common)
    assert "row in the table" in explained.stdout
    assert command("explain", "nobody", *common).returncode == 2
    shown = command("show", "ledger", "--limit", 3, *common)
    assert "ledger 3 " in shown.stdout
    assert "ledger 4 " not in shown.stdout
    # A table has no order, so whose rows those are is not said.
    chosen = command("show", "ledger", "--where", "query LIKE 'ingest:%'", *common)
    assert "ingest:" in chosen.stdout
    assert "settle" not in chosen.stdout
    where = command("show", "ledger", "--where", "no such column", *common)
    assert (where.returncode, len(where.stderr.splitlines())) == (2, 1)
    assert "vacuumed" in command("maintain", *common).stdout
    assert command("reconcile", *common).returncode == 0
    # As processes, what looks at the environment, and what has to start in the worst of hours.
    assert "FAIL" not in rejoin("doctor", *common).stdout
    assert "HEALTHY" in rejoin("status", *common).stdout


def report_id(command: Command, tmp_path: Path, common: list[str]) -> str:
    out = tmp_path / "table.jsonl"
    assert command("export", "attributed_playbacks", "--out", out, "--where", "exposure_id IS NOT NULL", *common).returncode == 0
    first = json.loads(out.read_text().splitlines()[0])
    assert first["event_time"].endswith("Z")
    return str(first["playback_id"])
