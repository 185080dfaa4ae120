"""Commands that look at tables and at the health of the pipeline."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import Conf, Debug, Format, Set, app, open_lake, open_tables, read_configuration
from pipelines.cli.completion import table_names
from pipelines.model.errors import ConfigError

_PANEL = "Look at it"

Table = Annotated[
    str,
    typer.Argument(help="impressions, playbacks, quarantine, attributed_playbacks, ledger, ...", autocompletion=table_names),
]
Where = Annotated[str | None, typer.Option(help="A SQL condition, e.g. \"event_date = '2026-01-31'\".")]


@app.command(rich_help_panel=_PANEL)
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

    config = read_configuration(conf, sets)
    job(open_tables(config, debug), check_table(config, table), where, limit)


@app.command(rich_help_panel=_PANEL)
def export(
    table: Table,
    out: Annotated[Path, typer.Option("--out", help="A .parquet, .csv or .jsonl file.")],
    where: Where = None,
    spreadsheet_safe: Annotated[
        bool, typer.Option("--spreadsheet-safe", help="In .csv, put a ' before text that a spreadsheet takes for a formula.")
    ] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Write a table to one file, values exactly as they are; times as ISO-8601 UTC with milliseconds (.parquet: as its type)."""
    from pipelines.jobs.tables import check_export_name, check_table
    from pipelines.jobs.tables import export as job

    check_export_name(out)
    if spreadsheet_safe and out.suffix != ".csv":
        raise ConfigError("--spreadsheet-safe: goes with --out FILE.csv only")
    config = read_configuration(conf, sets)
    rows = job(open_tables(config, debug), check_table(config, table), where, out, spreadsheet_safe=spreadsheet_safe)
    typer.echo(f"{out}: {rows:,} rows of {table}")


@app.command(rich_help_panel=_PANEL)
def status(
    output: Annotated[Format, typer.Option("--format")] = Format.text,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Health at a glance: how far and how fast each query is, what bounds it, what is wrong, what to do."""
    from pipelines.monitor.status import read_status

    config = read_configuration(conf, sets)
    report = read_status(open_tables(config, debug), config)
    typer.echo(report.to_json() if output is Format.json else report.to_text())


@app.command(rich_help_panel=_PANEL)
def explain(outcome_id: str, conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Why the row of an outcome is what it is: its events, the exposures that match, what each lane knew."""
    from pipelines.monitor.explain import explain as job

    config = read_configuration(conf, sets)
    typer.echo(job(open_tables(config, debug), config, outcome_id))


@app.command(rich_help_panel=_PANEL)
def doctor(conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """Check environment, configuration and checkpoints; each finding comes with its fix. Exits 2 if something is broken."""
    from pipelines.jobs.doctor import examine

    findings = examine(lambda: read_configuration(conf, sets), lambda config: open_lake(config, debug))
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(2 if any(not finding.ok for finding in findings) else 0)
