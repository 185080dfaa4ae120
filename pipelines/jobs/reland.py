"""Reland: read a stream's source again and land what bronze lacks."""

from pipelines.config.model import Config
from pipelines.control.lease import leased
from pipelines.ingest.reland import Relanded, reland
from pipelines.lake.tables import Lake
from pipelines.model.errors import RejoinError


def run_reland(lake: Lake, config: Config, stream: str) -> Relanded:
    """Reland one stream. Raises RejoinError for an unknown one, and while a reconciliation or another reland runs."""
    if stream not in config.streams:
        raise RejoinError(f"{stream}: no such stream; the configuration has {', '.join(config.streams)}")
    lake.require(stream)
    lake.require_as_configured(stream)
    lake.ensure("quarantine")
    with leased(lake, "reconciliation or reland"):
        return reland(lake, config, lake.streams.named(stream))


def report_reland(stream: str, done: Relanded) -> str:
    """What was done, for a terminal."""
    if not done.anything:
        return f"{stream}: bronze has every event of its source once; nothing to do"
    said = [
        (done.rows, f"{done.rows:,} rows landed again"),
        (done.duplicates, f"{done.duplicates:,} duplicated rows removed"),
        (done.misplaced, f"{done.misplaced:,} rows moved to the partition of their event time"),
        (done.data_files, f"{done.data_files:,} data files that were gone dropped from the log"),
        (done.lost, f"{done.lost:,} more rows are lost by the log that the source does not have, or that bronze had twice"),
    ]
    steps = "next: rejoin settle --once, then rejoin reconcile --repair"
    return f"{stream}: {'; '.join(text for count, text in said if count)}\n{steps}"
