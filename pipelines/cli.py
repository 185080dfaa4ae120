"""The command line (DESIGN section 7): options -> configuration -> job -> exit code.

Exit codes: 0 done or agrees; 1 reconcile found differences that remain; 2 usage, configuration or runtime error, told in one
line on stderr (the stack trace only with `--debug`). Spark and pandas are imported by the commands that need them, so that
help answers at once.
"""

import logging
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines import __version__
from pipelines.model.errors import ConfigError, RejoinError, first_line, is_interrupted

if TYPE_CHECKING:
    from pipelines.config.model import Config
    from pipelines.lake.tables import Lake
    from pipelines.monitor.reader import TableReader
    from pipelines.settle.run import SettleResult

app = typer.Typer(
    name="rejoin",
    help="Join two event streams into Delta tables, lose nothing, and prove it every night.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
RUN, PROVE, LOOK, KEEP = "Run the pipeline", "Prove the result", "Look at it", "Keep it well"

Conf = Annotated[Path | None, typer.Option("--conf", "-c", metavar="FILE", help="Configuration; conf/playback.yml if not given.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. --set join.hot_window=30m; or with @FILE all keys of a YAML file. May be repeated.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show stack traces and Spark's own warnings.")]
Once = Annotated[bool, typer.Option("--once", help="Drain what is there, then stop.")]


class Format(str, Enum):
    text = "text"
    json = "json"


# Running -----------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=RUN)
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where landing files, lake and report go.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed, another day.")] = 7,
    impressions: Annotated[int, typer.Option(min=0)] = 60_000,
    playbacks: Annotated[int, typer.Option(min=0)] = 12_000,
    waves: Annotated[int, typer.Option(min=1, help="In how many arrivals the day comes.")] = 6,
    kafka: Annotated[bool, typer.Option("--kafka", help="Through a Kafka broker that is started for the demo.")] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Generate a day of events, run every stage over it, reconcile, and say what happened."""
    from contextlib import nullcontext

    from pipelines.demo.broker import local_broker
    from pipelines.jobs.demo import clear, keep_settings, run_demo

    _configuration(conf, sets)  # a mistake in it must not cost the earlier demo
    clear(directory)
    with local_broker(directory / "broker") if kafka else nullcontext() as broker:
        overrides = _demo_overrides(directory, conf, broker.servers if broker else None)
        config = _configuration(conf, [*overrides, *(sets or [])])
        settings = keep_settings(config, directory)
        options = f"{f'--conf {conf} ' if conf else ''}--set @{settings}" if settings else ""
        code = run_demo(_lake(config, debug), config, seed, impressions, playbacks, waves, options)
    raise typer.Exit(code)


@app.command(rich_help_panel=RUN)
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

    config = _configuration(conf, sets)
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


@app.command(rich_help_panel=RUN)
def ingest(once: Once = False, conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Land events in bronze, or in quarantine with a reason; stamp lateness at the door."""
    from pipelines.jobs.ingest import ingest as job

    config = _configuration(conf, sets)
    job(_lake(config, debug), config, once=once)


@app.command(rich_help_panel=RUN)
def join(once: Once = False, conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Join on-time rows within the hot window, in micro-batches."""
    from pipelines.jobs.join import join as job

    config = _configuration(conf, sets)
    job(_lake(config, debug), config, once=once)


@app.command(rich_help_panel=RUN)
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

    config = _configuration(conf, sets)
    lake = _lake(config, debug)
    if not (once or everything):
        settle_forever(lake, config)
    _say_settled(job(lake, config, everything=everything))


@app.command(rich_help_panel=RUN)
def run(
    once: Once = False,
    everything: Annotated[bool, typer.Option("--all", help="With --once: settle pending outcomes too.")] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Ingest, join and settle together in one application, until stopped; or once each (`--once`)."""
    from pipelines.jobs.run import run_all, run_once

    if everything and not once:
        raise ConfigError("--all: goes with --once only; a running pipeline settles what becomes final")
    config = _configuration(conf, sets)
    lake = _lake(config, debug)
    if once:
        _say_settled(run_once(lake, config, everything=everything))
    else:
        run_all(lake, config)


# Proving -----------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=PROVE)
def reconcile(
    date: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="One event date (UTC).")] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First event date.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last event date, inclusive.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Make the table what batch says, then verify again.")] = False,
    output: Annotated[Format, typer.Option("--format", help="What is printed; the files are always all written.")] = Format.text,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Compare the table with an independent batch computation, row by row. All dates, if none is given.

    Exits 0 where they agree, 1 where differences remain.
    """
    from pipelines.jobs.reconcile import run_reconcile
    from pipelines.reconcile.report import to_json, to_text
    from pipelines.reconcile.span import Range

    if date and (first or last):
        raise ConfigError("--date: cannot go with --from or --to; give one date, or a range")
    if first and last and first > last:
        raise ConfigError("--from: lies after --to")
    span = Range(first=_day(date or first), last=_day(date or last))
    config = _configuration(conf, sets)
    result, page = run_reconcile(_lake(config, debug), config, span, fix=repair)
    typer.echo(to_json(result) if output is Format.json else f"{to_text(result)}\n\n  report     {page}")
    raise typer.Exit(0 if result.agrees else 1)


# Looking -----------------------------------------------------------------------------------------------------------------

Table = Annotated[str, typer.Argument(help="impressions, playbacks, quarantine, attributed_playbacks, ledger, ...")]
Where = Annotated[str | None, typer.Option(help="A SQL condition, e.g. \"event_date = '2026-01-31'\".")]


@app.command(rich_help_panel=LOOK)
def show(
    table: Table,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    where: Where = None,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Look at a table."""
    from pipelines.jobs.tables import check_table
    from pipelines.jobs.tables import show as job

    config = _configuration(conf, sets)
    job(_reader(config, debug), check_table(config, table), where, limit)


@app.command(rich_help_panel=LOOK)
def export(
    table: Table,
    out: Annotated[Path, typer.Option("--out", help="A .parquet, .csv or .jsonl file.")],
    where: Where = None,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Write a table to one file; times as ISO-8601 UTC with milliseconds."""
    from pipelines.jobs.tables import check_export_name, check_table
    from pipelines.jobs.tables import export as job

    check_export_name(out)
    config = _configuration(conf, sets)
    rows = job(_reader(config, debug), check_table(config, table), where, out)
    typer.echo(f"{out}: {rows:,} rows of {table}")


@app.command(rich_help_panel=LOOK)
def status(
    output: Annotated[Format, typer.Option("--format")] = Format.text,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Health at a glance: how far and how fast each query is, what bounds it, what is wrong, what to do."""
    from pipelines.monitor.status import read_status

    config = _configuration(conf, sets)
    report = read_status(_reader(config, debug), config)
    typer.echo(report.to_json() if output is Format.json else report.to_text())


@app.command(rich_help_panel=LOOK)
def explain(outcome_id: str, conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Why the row of an outcome is what it is: its events, the exposures that match, what each lane knew."""
    from pipelines.monitor.explain import explain as job

    config = _configuration(conf, sets)
    typer.echo(job(_reader(config, debug), config, outcome_id))


@app.command(rich_help_panel=LOOK)
def doctor(conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Check environment, configuration and checkpoints; each finding comes with its fix. Exits 2 if something is broken."""
    from pipelines.monitor.doctor import examine

    findings = examine(lambda: _configuration(conf, sets), lambda config: _lake(config, debug))
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(2 if any(not finding.ok for finding in findings) else 0)


# Keeping -----------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=KEEP)
def backfill(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First event date (UTC).")],
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last event date, inclusive.")] = None,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Attribute landed outcomes again by this configuration, one commit a date; what a change of rule needs. Restartable."""
    from pipelines.jobs.backfill import backfill as job

    if last and first > last:
        raise ConfigError("--from: lies after --to")
    config = _configuration(conf, sets)
    for line in job(_lake(config, debug), config, first.date(), _day(last)):
        typer.echo(line)


@app.command(rich_help_panel=KEEP)
def reland(
    stream: Annotated[str, typer.Argument(help="The stream whose bronze lacks rows, e.g. playbacks.")],
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Read a stream's source again and land what bronze lacks; once per event, in one commit."""
    from pipelines.jobs.reland import report_reland, run_reland

    config = _configuration(conf, sets)
    typer.echo(report_reland(stream, run_reland(_lake(config, debug), config, stream)))


@app.command("accept-gap", rich_help_panel=KEEP)
def accept_gap(
    stream: Annotated[str, typer.Argument(help="The stream that ingest stopped at, e.g. playbacks.")],
    yes: Annotated[bool, typer.Option("--yes", help="Accept it; without, say what would be accepted.")] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Give up records that Kafka no longer has, so that ingest goes on behind them; reconcile no longer misses them."""
    from pipelines.jobs.accept_gap import accept_gap as job
    from pipelines.jobs.accept_gap import kafka_source

    config = _configuration(conf, sets)
    topic = kafka_source(config, stream).topic
    gaps = job(_lake(config, debug), config, stream, really=yes)
    if not gaps:
        typer.echo(f"{stream}: no gap, Kafka has all that comes next; nothing to accept")
        return
    for gap in gaps:
        typer.echo(f"{stream}: topic {topic} {gap}")
    typer.echo(
        "accepted: the next ingest goes on behind it" if yes else "not accepted: nothing has been changed; --yes accepts it"
    )


@app.command(rich_help_panel=KEEP)
def maintain(conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """OPTIMIZE closed partitions, VACUUM what no version needs."""
    from pipelines.jobs.maintain import maintain as job

    for line in job(_lake(_configuration(conf, sets), debug)):
        typer.echo(line)


# Wiring ------------------------------------------------------------------------------------------------------------------


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rejoin {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def default_configuration() -> Path:
    """conf/playback.yml here, else beside the package (a checkout), else as installed."""
    here = Path("conf/playback.yml")
    places = (here, Path(__file__).resolve().parent.parent / here, Path(sys.prefix) / "share/rejoin" / here)
    return next((place for place in places if place.is_file()), here)


def _configuration(conf: Path | None, sets: list[str] | None) -> "Config":
    from pipelines.config.load import load_config

    return load_config(conf or default_configuration(), sets or [])


def _lake(config: "Config", debug: bool) -> "Lake":
    from pipelines.lake.tables import Lake
    from pipelines.logs import configure_logs
    from pipelines.session import spark_session

    configure_logs()
    return Lake(spark_session(config.spark, debug=debug), config)


def _reader(config: "Config", debug: bool) -> "TableReader":
    from pipelines.monitor.reader import open_reader

    return open_reader(config, lambda: _lake(config, debug))


def _say_settled(result: "SettleResult") -> None:
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(result.causes.items())) or "nothing to settle"
    typer.echo(f"settled: {causes}; {result.written.inserted:,} rows added, {result.written.updated:,} changed")


def _demo_overrides(directory: Path, conf: Path | None, servers: str | None) -> list[str]:
    """The demo keeps everything under one directory, whatever the configuration's own paths; Kafka is the broker at `servers`."""
    streams = _configuration(conf, None).streams
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


def _day(value: datetime | None) -> Any:
    return value.date() if value else None


def _stop(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Entry point of `rejoin`, `python -m pipelines` and spark-submit."""
    sys.argv[1:] = _options_last(sys.argv[1:])
    debug = "--debug" in sys.argv
    if not debug:
        # Py4J logs the interrupt that stops us, with its stack trace.
        logging.getLogger().addHandler(logging.NullHandler())
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(_guarded(lambda: app(standalone_mode=False), debug=debug))


def _options_last(words: list[str]) -> list[str]:
    """`--conf`, `--set` and `--debug` may also stand before the command.

    >>> _options_last(["--conf", "my.yml", "--debug", "ingest", "--once"])
    ['ingest', '--conf', 'my.yml', '--debug', '--once']
    """
    moved, rest = [], list(words)
    while rest and rest[0].partition("=")[0] in ("--conf", "-c", "--set", "--debug"):
        takes_value = rest[0] in ("--conf", "-c", "--set")
        moved += rest[: 1 + takes_value]
        rest = rest[1 + takes_value :]
    return [*rest[:1], *moved, *rest[1:]]


def _guarded(command: Callable[[], Any], *, debug: bool) -> int:
    try:
        code = command()
        return _unless_meant(code) if isinstance(code, int) else 0
    except typer.Exit as done:
        return _unless_meant(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _unless_meant(_INTERRUPTED)
    except typer.TyperException as error:
        words = " ".join(word for word in sys.argv[1:2] if not word.startswith("-"))
        return _fail(f"{error.format_message()} (see rejoin {words + ' ' if words else ''}--help)", debug)
    except RejoinError as error:
        return _fail(str(error), debug)
    except Exception as error:
        return _unless_meant(_INTERRUPTED) if is_interrupted(error) else _fail(_unexpected(error), debug)


def _unexpected(error: Exception) -> str:
    return f"{first_line(error)} (a bug, or an environment we do not know: see --debug)"


def _unless_meant(code: int) -> int:
    """Being interrupted is how a command that runs until stopped ends: no failure."""
    words = set(sys.argv[1:])
    runs_until_stopped = bool(words & {"ingest", "join", "settle", "run"}) and not words & {"--once", "--all"}
    return 0 if code == _INTERRUPTED and runs_until_stopped else code


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"rejoin: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
