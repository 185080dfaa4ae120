"""Names that a shell completes, from the configuration; none where that is not valid. No Spark."""

import typer

from pipelines.cli.app import read_configuration
from pipelines.model.errors import RejoinError


def stream_names(context: typer.Context) -> list[str]:
    return _names(context, tables=False)


def table_names(context: typer.Context) -> list[str]:
    return _names(context, tables=True)


def _names(context: typer.Context, *, tables: bool) -> list[str]:
    from pipelines.config import streams

    try:
        config = read_configuration(context.params.get("conf"), context.params.get("sets"))
    except RejoinError:
        return []
    return list(streams.table_names(config) if tables else config.streams)
