"""Demo: a generated day arrives in waves; every stage runs after each; the night proves the result."""

import shutil
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import yaml
from pyspark.sql import functions as F
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.config.model import Config
from pipelines.config.sources import KafkaSource
from pipelines.demo.files import waves
from pipelines.demo.generator import DayModel, generate_day
from pipelines.jobs.generate import deliver, targets_of
from pipelines.jobs.reconcile import run_reconcile
from pipelines.jobs.run import run_once
from pipelines.lake.tables import Lake
from pipelines.model.errors import RejoinError
from pipelines.reconcile.result import Reconciliation
from pipelines.reconcile.span import Range

_MARKER = ".rejoin-demo"
SETTINGS = "settings.yml"
"""In the demo's directory: where its lake and its landing files are, for `--set @FILE` of other commands."""


def run_demo(lake: Lake, config: Config, seed: int, impressions: int, playbacks: int, count: int, go_on: str = "") -> int:
    """Run the demo in a directory that is `clear`; the exit code of its reconciliation. It ends by naming the command that
    goes on with its lake, if any."""
    console = Console()
    day = (datetime.now(timezone.utc) - timedelta(days=2)).date()
    model = DayModel(day=day, seed=seed, impressions=impressions, playbacks=playbacks)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task(f"generating {day}", total=count * 3 + 1)
        cut = list(waves(generate_day(model, config), count))
        targets = targets_of(config)
        lines = {name: sum(len(wave.lines[name]) for wave in cut) for name in config.streams}

        def step(arrival: str, stage: str) -> None:
            progress.update(task, description=f"{arrival}: {stage}", advance=1)

        for wave in cut:
            deliver(config, wave, targets)
            stage = partial(step, f"wave {wave.number + 1} of {len(cut)}")
            run_once(lake, config, everything=wave is cut[-1], stage=stage)
        step("the night", "reconciling with an independent batch computation")
        result, page = run_reconcile(lake, config, Range(), say=lambda text: progress.update(task, description=text))
        progress.update(task, description="done", completed=count * 3 + 1)
    _summary(console, lake, config, lines, result, page)
    if go_on:
        console.print(f"go on:  {go_on}   (or reconcile, show, explain, ...)", soft_wrap=True)
    return 0 if result.agrees else 1


def clear(directory: Path) -> None:
    """Empty a directory that an earlier demo made; anything else is not ours to delete (RejoinError)."""
    if directory.exists() and any(directory.iterdir()) and not (directory / _MARKER).exists():
        raise RejoinError(f"--dir {directory}: is not empty, and not of an earlier demo; name another directory")
    for part in ("lake", "landing", "broker"):
        shutil.rmtree(directory / part, ignore_errors=True)
    (directory / "landing").mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).touch()


def keep_settings(config: Config, directory: Path) -> Path | None:
    """Write the demo's `SETTINGS`; None where its events come from a broker, which is gone when it ends."""
    streams = {}
    for name, stream in config.streams.items():
        if isinstance(stream.source, KafkaSource):
            return None
        streams[name] = {"source": {"format": "files", "path": str(Path(stream.source.path).absolute())}}
    file = directory / SETTINGS
    file.write_text(yaml.safe_dump({"lake": str(Path(config.lake).absolute()), "streams": streams}), encoding="utf-8")
    return file


def _summary(console: Console, lake: Lake, config: Config, lines: dict[str, int], run: Reconciliation, page: Path) -> None:
    exposure, outcome = config.stream_name("exposure"), config.stream_name("outcome")
    audits = {audit.stream: audit for audit in run.audits}
    attributed = lake.read(lake.attributed)
    lanes = {row[0]: row[1] for row in attributed.groupBy("attributed_by").count().collect()}
    ledger = lake.read("ledger").agg(F.max("state_rows"), F.sum("rows_dropped_by_watermark")).collect()[0]
    reasons: dict[str, int] = {}
    for audit in run.audits:
        for reason, number in audit.quarantined.items():
            reasons[reason] = reasons.get(reason, 0) + number
    rows = run.books.landed

    grid = Table(title="What happened", title_justify="left", show_header=False, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column()
    for name in (exposure, outcome):
        grid.add_row(f"{name} in", f"{lines[name]:,} lines, {audits[name].accepted:,} accepted, {audits[name].late:,} late")
    grid.add_row("distinct outcomes", f"{rows:,}, {run.duplicates:,} duplicates removed")
    grid.add_row("attributed", f"{rows - run.unattributed:,} to the {exposure} that led to them")
    grid.add_row("unattributed", f"{run.unattributed:,} with none within {config.join.attribution_window}")
    grid.add_row("answered by", ", ".join(f"{lane} {number:,}" for lane, number in sorted(lanes.items())))
    grid.add_row("settled from the lake", ", ".join(f"{c.cause} {c.looked_up:,}" for c in run.lateness.causes) or "none")
    grid.add_row("quarantined", ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items())) or "none")
    grid.add_row("state rows at peak", f"{ledger[0] or 0:,} (of {sum(audit.accepted for audit in run.audits):,} events)")
    grid.add_row("dropped by watermark", f"{ledger[1] or 0:,}")
    verdict = f"{run.verdict}: {run.counts['matched']:,} rows equal, {run.differences:,} differ"
    grid.add_row("reconciliation", f"[{'green' if run.agrees else 'red'}]{verdict}[/]")
    console.print(grid)
    console.print(f"report: {page}", soft_wrap=True)
