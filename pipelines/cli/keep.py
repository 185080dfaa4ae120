"""Commands that keep the tables right: after a change of rule, after a loss, and by night."""

from datetime import datetime
from typing import Annotated

import typer

from pipelines.cli.app import Conf, Debug, Set, app, date_of, open_lake, read_configuration
from pipelines.cli.completion import stream_names
from pipelines.model.errors import ConfigError
from pipelines.model.reasons import Reason

_PANEL = "Keep it well"


@app.command(rich_help_panel=_PANEL)
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
    config = read_configuration(conf, sets)
    for line in job(open_lake(config, debug), config, first.date(), date_of(last)):
        typer.echo(line)


@app.command(rich_help_panel=_PANEL)
def reland(
    stream: Annotated[
        str, typer.Argument(help="The stream whose bronze lacks rows, e.g. playbacks.", autocompletion=stream_names)
    ],
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Judge what is in quarantine again, by today's schema and rules.")
    ] = False,
    reason: Annotated[Reason | None, typer.Option(help="With --quarantine: only what is there for this reason.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="With --quarantine: only what was ingested since (UTC).")
    ] = None,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Read a stream's source again and land what bronze lacks; or, with --quarantine, what passes by now. Once per event."""
    from pipelines.jobs.reland import report_reland, report_reland_quarantine, run_reland, run_reland_quarantine

    if (reason or since) and not quarantine:
        raise ConfigError("--reason, --since: go with --quarantine only")
    config = read_configuration(conf, sets)
    if quarantine:
        wanted = reason and reason.value
        done = run_reland_quarantine(open_lake(config, debug), config, stream, wanted, date_of(since))
        typer.echo(report_reland_quarantine(stream, *done))
        return
    typer.echo(report_reland(stream, *run_reland(open_lake(config, debug), config, stream)))


@app.command("accept-gap", rich_help_panel=_PANEL)
def accept_gap(
    stream: Annotated[
        str, typer.Argument(help="The stream that ingest stopped at, e.g. playbacks.", autocompletion=stream_names)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Accept it; without, say what would be accepted.")] = False,
    conf: Conf = None,
    sets: Set = None,
    debug: Debug = False,
) -> None:
    """Give up records that Kafka no longer has, so that ingest goes on behind them; reconcile no longer misses them."""
    from pipelines.control.gaps import Unproven
    from pipelines.jobs.accept_gap import accept_gap as job
    from pipelines.jobs.accept_gap import kafka_source

    config = read_configuration(conf, sets)
    topic = kafka_source(config, stream).topic
    gaps = job(open_lake(config, debug), config, stream, really=yes)
    if not gaps:
        typer.echo(f"{stream}: no gap, Kafka has all that comes next, and reconcile has left nothing unproven; nothing to accept")
        return
    for gap in gaps:
        typer.echo(f"{stream}: topic {gap.topic if isinstance(gap, Unproven) else topic} {gap}")
    accepted = "accepted: ingest goes on behind what Kafka no longer has, and reconcile no longer misses it"
    typer.echo(accepted if yes else "not accepted: nothing has been changed; --yes accepts it")


@app.command(rich_help_panel=_PANEL)
def maintain(conf: Conf = None, sets: Set = None, debug: Debug = False) -> None:
    """OPTIMIZE closed partitions, VACUUM what no version needs."""
    from pipelines.jobs.maintain import maintain as job

    for line in job(open_lake(read_configuration(conf, sets), debug)):
        typer.echo(line)
