"""Commands that run the pipeline: demo, generate, the lanes one by one, and all of them together."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import Conf, Debug, Set, app, open_lake, program, read_configuration
from pipelines.model.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pipelines.jobs.reporting import Say
    from pipelines.settle.run import SettleResult

_PANEL = "Run the pipeline"

Once = Annotated[bool, typer.Option("--once", help="Drain what is there, then stop.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Do not say what is read, and how its lines were judged.")]


@app.command(rich_help_panel=_PANEL)
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where landing files, lake and report go.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed, another day.")] = 7,
    impressions: Annotated[int, typer.Option(min=0)] = 60_000,
    playbacks: Annotated[int, typer.Option(min=0)] = 12_000,
    waves: Annotated[int, typer.Option(min=1, help="In how many arrivals the day comes.")] = 2,
    kafka: Annotated[bool, typer.Option("--kafka", help="Through a Kafka broker that is started for the demo.")] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Generate a day of events, run every stage over it, reconcile, and say what happened."""
    from contextlib import nullcontext

    from pipelines.demo.broker import local_broker
    from pipelines.jobs.demo import clear, keep_settings, run_demo

    read_configuration(conf, sets)  # a mistake in it must not cost the earlier demo
    clear(directory)
    with local_broker(directory / "broker") if kafka else nullcontext() as broker:
        overrides = _demo_overrides(directory, conf, broker.servers if broker else None)
        config = read_configuration(conf, [*overrides, *(sets or [])])
        settings = keep_settings(config, directory)
        go_on = f"{program()} status {f'--conf {conf} ' if conf else ''}--set @{settings}" if settings else ""
        code = run_demo(open_lake(config, debug), config, seed, impressions, playbacks, waves, go_on)
    raise typer.Exit(code)


@app.command(rich_help_panel=_PANEL)
def generate(
    day: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="The day (UTC); two days ago if not given.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.1, max=24, help="Length of the day, from midnight.")] = 24.0,
    out: Annotated[
        Path | None, typer.Option(help="Directory for one folder a stream; the configured landing paths if not given.")
    ] = None,
    impressions: Annotated[int, typer.Option(min=0, help="Exposure events.")] = 60_000,
    playbacks: Annotated[int, typer.Option(min=0, help="Outcome events.")] = 12_000,
    waves: Annotated[int, typer.Option(min=1, help="Files a stream, in order of arrival.")] = 24,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    profiles: Annotated[
        int | None, typer.Option(min=1, help="Values of the first key; one for thirty impressions, if not given.")
    ] = None,
    titles: Annotated[int, typer.Option(min=1, help="Values of the second key.")] = 500,
    zipf: Annotated[float, typer.Option(min=0, help="Skew of titles, and half of it of profiles; 0 is none.")] = 1.1,
    median_delay: Annotated[str, typer.Option(help="Median time from impression to playback.")] = "3m",
    search_share: Annotated[float, typer.Option(min=0, max=1, help="Playbacks without any impression.")] = 0.1,
    late_share: Annotated[float, typer.Option(min=0, max=1, help="Events that arrive minutes to hours late.")] = 0.01,
    duplicate_share: Annotated[float, typer.Option(min=0, max=1)] = 0.005,
    malformed_share: Annotated[float, typer.Option(min=0, max=1)] = 0.001,
    future_share: Annotated[float, typer.Option(min=0, max=1, help="Events of clocks ten years ahead.")] = 0.0005,
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress the files.")] = False,
    rate: Annotated[float | None, typer.Option(min=1, help="Records per second to a Kafka topic, at most.")] = None,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Write a believable day of events to files or Kafka topics, as configured, in waves of arrival; deterministic."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from pipelines.demo.generator import DayModel
    from pipelines.jobs.generate import run_generate

    config = read_configuration(conf, sets)
    median = _duration("--median-delay", median_delay)
    if median <= timedelta(0):
        raise ConfigError("--median-delay: must be longer than 0")
    model = DayModel(
        # Two days ago, so that what is played after midnight is not in the future whatever the hour is now.
        day=(day or datetime.now(timezone.utc) - timedelta(days=2)).date(),
        hours=hours,
        seed=seed,
        impressions=impressions,
        playbacks=playbacks,
        profiles=profiles,
        titles=titles,
        zipf=zipf,
        median_delay=median,
        search_share=search_share,
        late_share=late_share,
        duplicate_share=duplicate_share,
        malformed_share=malformed_share,
        future_share=future_share,
    )
    console = Console(stderr=True)
    column = TextColumn("{task.description}")
    with Progress(column, console=console, transient=True, disable=not console.is_terminal) as shown:
        tasks = {name: shown.add_task(f"{name}: ...") for name in config.streams}

        def progress(name: str, lines: int) -> None:
            shown.update(tasks[name], description=f"{name}: {lines:,} lines")

        written = run_generate(config, model, waves, out, compress=gzip, per_second=rate, progress=progress)
    for name, (lines, where) in written.items():
        typer.echo(f"{name}: {lines:,} lines in {where}")


@app.command(rich_help_panel=_PANEL)
def ingest(once: Once = False, quiet: Quiet = False, conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Land events in bronze, or in quarantine with a reason; stamp lateness at the door."""
    from pipelines.jobs.ingest import ingest as job

    config = read_configuration(conf, sets)
    lake = open_lake(config, debug)
    with _said(quiet) as say:
        job(lake, config, once=once, say=say)


@app.command(rich_help_panel=_PANEL)
def join(once: Once = False, conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Join on-time rows within the hot window, in micro-batches."""
    from pipelines.jobs.join import join as job

    config = read_configuration(conf, sets)
    job(open_lake(config, debug), config, once=once)


@app.command(rich_help_panel=_PANEL)
def settle(
    once: Once = False,
    everything: Annotated[bool, typer.Option("--all", help="Settle every landed outcome once, pending ones too.")] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Settle from the lake what the join could not know: late, unmatched and missing outcomes."""
    from pipelines.jobs.settle import settle as job
    from pipelines.jobs.settle import settle_forever

    config = read_configuration(conf, sets)
    lake = open_lake(config, debug)
    if not (once or everything):
        settle_forever(lake, config)
    _say_settled(job(lake, config, everything=everything))


@app.command(rich_help_panel=_PANEL)
def run(
    once: Once = False,
    everything: Annotated[bool, typer.Option("--all", help="With --once: settle pending outcomes too.")] = False,
    quiet: Quiet = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Ingest, join and settle together in one application, until stopped; or once each (`--once`)."""
    from pipelines.jobs.run import run_all, run_once

    if everything and not once:
        raise ConfigError("--all: goes with --once only; a running pipeline settles what becomes final")
    config = read_configuration(conf, sets)
    lake = open_lake(config, debug)
    with _said(quiet) as say:
        if not once:
            run_all(lake, config, say=say)
            return
        result = run_once(lake, config, everything=everything, say=say)
    _say_settled(result)


def _said(quiet: bool) -> "AbstractContextManager[Say]":
    from contextlib import nullcontext

    from pipelines.cli.logs import as_json
    from pipelines.jobs.reporting import LOGGED, UNSAID, on_stderr

    if quiet or as_json():
        return nullcontext(UNSAID if quiet else LOGGED)
    return on_stderr()


def _say_settled(result: "SettleResult") -> None:
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(result.causes.items())) or "nothing to settle"
    typer.echo(f"settled: {causes}; {result.written.inserted:,} rows added, {result.written.updated:,} changed")


def _demo_overrides(directory: Path, conf: Path | None, servers: str | None) -> list[str]:
    """The demo keeps everything under one directory, whatever the configuration's own paths; Kafka is the broker at `servers`."""
    streams = read_configuration(conf, None).streams
    if servers is None:
        sources = [f"streams.{name}.source={{format: files, path: {directory}/landing/{name}}}" for name in streams]
    else:
        kafka = f"format: kafka, bootstrap_servers: '{servers}'"
        sources = [f"streams.{name}.source={{{kafka}, topic: {name}}}" for name in streams]
    return [f"lake={directory}/lake", *sources]


def _duration(option: str, text: str) -> timedelta:
    from pipelines.model.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
