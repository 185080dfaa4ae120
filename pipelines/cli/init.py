"""The command that makes a configuration."""

import re
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import Debug, app, program
from pipelines.model.errors import ConfigError

_FORM = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,99})=(.+)")


@app.command(rich_help_panel="Run the pipeline")
def init(
    streams: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=PLACE NAME=PLACE",
            help="The two streams: a name, and the directory that events land in, or kafka://HOST:PORT/TOPIC.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The configuration to write.")] = Path("rejoin.yml"),
    keys: Annotated[str | None, typer.Option(help="Columns that must be equal, with commas between.")] = None,
    outcome: Annotated[str | None, typer.Option(metavar="NAME", help="The stream that is attributed.")] = None,
    id: Annotated[list[str] | None, typer.Option(metavar="NAME=COLUMN", help="What identifies a stream's events.")] = None,
    event_time: Annotated[list[str] | None, typer.Option(metavar="NAME=COLUMN", help="When they happened.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a configuration that is there.")] = False,
    debug: Debug = False,
) -> None:
    """Propose a configuration from samples of two streams, try it on them, and write it."""
    pairs = _pairs("NAME=PLACE", streams)
    if len(pairs) != 2 or len(streams) != 2:
        raise ConfigError("two streams are needed, e.g. rejoin init impressions=./landing/impressions plays=./landing/plays")
    ids, times = _pairs("--id", id or []), _pairs("--event-time", event_time or [])
    for option, name in [*(("--id", name) for name in ids), *(("--event-time", name) for name in times), ("--outcome", outcome)]:
        if name is not None and name not in pairs:
            raise ConfigError(f"{option}: {name} is neither {' nor '.join(pairs)}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out: {out.parent} is not a directory; create it, or give another")
    if out.exists() and not force:
        raise ConfigError(f"--out: {out} is there already; give another, or --force")

    from pipelines.cli.logs import configure_logs
    from pipelines.config.model import LogsConfig
    from pipelines.jobs.init import Place, initialise
    from pipelines.session import spark_session

    configure_logs(LogsConfig())
    initialise(
        [Place(name=name, where=where) for name, where in pairs.items()],
        out,
        keys=[key.strip() for key in (keys or "").split(",") if key.strip()],
        outcome=outcome,
        ids=ids,
        times=times,
        spark=lambda config: spark_session(config.spark, debug=debug),
        say=typer.echo,
    )
    typer.echo(f"wrote {out}; look through it, then:")
    typer.echo(f"  {program()} run --once --all --conf {out}\n  {program()} reconcile --conf {out}")


def _pairs(what: str, given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        match = _FORM.fullmatch(text)
        if match is None:
            raise ConfigError(f"{what}: {text!r} is not NAME=...; a name has letters, digits and _, and begins with a letter")
        found[match[1]] = match[2]
    return found
