"""What every command shares: the application, common options, how a configuration and a lake are opened, how an error ends."""

import logging
import os
import shutil
import signal
import socketserver
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines import __version__
from pipelines.cli.causes import explained
from pipelines.model.errors import ConfigError, RejoinError, first_line, is_interrupted
from pipelines.model.paths import is_local

if TYPE_CHECKING:
    from pipelines.config.model import Config
    from pipelines.lake.reader import TableReader
    from pipelines.lake.tables import Lake

app = typer.Typer(
    name="rejoin",
    help="Join two event streams into Delta tables, lose nothing, and prove it every night.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
# Where the command works, by key of its configuration: named where an error comes from there.
_places: dict[str, str] = {}

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


class Format(str, Enum):
    text = "text"
    json = "json"


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


def read_configuration(conf: Path | None, sets: list[str] | None) -> "Config":
    from pipelines.cli.logs import configure_logs
    from pipelines.config.load import default_configuration, load_config

    config = load_config(conf or default_configuration(), sets or [])
    configure_logs(config.logs)
    _places.update(_places_of(config))
    if is_local(config.lake) and not config.lake_is_catalog and Path(config.lake).is_file():
        raise ConfigError(f"lake: {config.lake} is a file; give a directory")
    return config


def _places_of(config: "Config") -> dict[str, str]:
    sources = {f"streams.{name}.source.path": getattr(s.source, "path", None) for name, s in config.streams.items()}
    lake = None if config.lake_is_catalog else config.lake
    own = {"lake": lake, "checkpoints": config.checkpoints, "reconcile.reports": config.reconcile.reports}
    found = {**own, **sources, "temporary files": tempfile.gettempdir()}
    return {key: str(path) for key, path in found.items() if path and "${" not in str(path)}


def open_lake(config: "Config", debug: bool) -> "Lake":
    from pipelines.lake.reader import local_reader
    from pipelines.lake.tables import Lake
    from pipelines.session import spark_session

    if reader := local_reader(config, "control"):
        _check_origin(reader, config)  # before Spark starts
    return Lake(spark_session(config.spark, debug=debug), config)


def open_tables(config: "Config", debug: bool) -> "TableReader":
    from pipelines.lake.reader import open_reader

    reader = open_reader(config, lambda: open_lake(config, debug))
    _check_origin(reader, config)
    return reader


def _check_origin(reader: "TableReader", config: "Config") -> None:
    from pipelines.control.facts import facts_in
    from pipelines.control.origin import check_origin

    check_origin(facts_in(reader), config, reader.location)


def program(started: str | None = None) -> str:
    """How this command was started, as one would type it again.

    >>> program("/usr/lib/python3/site-packages/pipelines/__main__.py")
    'python -m pipelines'
    """
    script = Path(started or sys.argv[0])
    if script.name == "__main__.py":
        return "python -m pipelines"
    found = shutil.which(script.name)
    if found and Path(found).absolute() == script.absolute():
        return script.name
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def date_of(value: datetime | None) -> Any:
    return value.date() if value else None


def _stop(signum: int, frame: object) -> NoReturn:
    if "--debug" not in sys.argv:
        # PySpark's servers print a stack trace where the JVM ends first, as when the whole process group is stopped.
        socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `rejoin`, `python -m pipelines`, spark-submit and Databricks' wheel tasks. Returns after a success: what
    calls a wheel's entry point may take SystemExit for a failure."""
    sys.argv[1:] = _options_last(sys.argv[1:])
    debug = "--debug" in sys.argv
    if not debug:
        # Py4J logs the interrupt that stops us, with its stack trace.
        logging.getLogger().addHandler(logging.NullHandler())
        # Where it is set, delta-rs appends a stack of a hundred frames to what it says.
        os.environ["RUST_BACKTRACE"] = "0"
    _on_stop(_stop)
    code = _guarded(lambda: app(standalone_mode=False), debug=debug)
    # Stopped once more on the way out: there is nothing left that has to end in order.
    _on_stop(lambda *_: os._exit(code))
    if code:
        sys.exit(code)


def _on_stop(handler: Callable[[int, Any], Any]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


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
        return _fail(explained(error, _places) or str(error), debug)
    except Exception as error:
        return _unless_meant(_INTERRUPTED) if is_interrupted(error) else _fail(_unexpected(error), debug)


def _unexpected(error: Exception) -> str:
    return explained(error, _places) or f"{first_line(error)} (a bug, or an environment we do not know: see --debug)"


def _unless_meant(code: int) -> int:
    """Being interrupted is how a command that runs until stopped ends: no failure."""
    words = set(sys.argv[1:])
    runs_until_stopped = bool(words & {"ingest", "join", "settle", "run"}) and not words & {"--once", "--all"}
    return 0 if code == _INTERRUPTED and runs_until_stopped else code


def _fail(message: str, debug: bool) -> int:
    from pipelines.cli.logs import say_error

    if debug:
        traceback.print_exc()
    say_error(" ".join(message.split()))
    return 2
