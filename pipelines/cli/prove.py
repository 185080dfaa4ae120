"""The command that proves the result."""

from datetime import datetime
from typing import Annotated

import typer

from pipelines.cli.app import Conf, Debug, Format, Set, app, date_of, open_lake, read_configuration
from pipelines.model.errors import ConfigError


@app.command(rich_help_panel="Prove the result")
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
    span = Range(first=date_of(date or first), last=date_of(date or last))
    config = read_configuration(conf, sets)
    result, page = run_reconcile(open_lake(config, debug), config, span, fix=repair)
    typer.echo(to_json(result) if output is Format.json else f"{to_text(result)}\n\n  report     {page}")
    raise typer.Exit(0 if result.agrees else 1)
