"""Reland: land what bronze lacks, read again from a stream's source, or judged again from quarantine."""

from dataclasses import replace
from datetime import date

from pipelines.config.model import Config
from pipelines.control.lease import RELANDING, leased
from pipelines.ingest.quarantine import Rejudged, reland_quarantine
from pipelines.ingest.reland import Relanded, changed_files, reland
from pipelines.ingest.unreadable import Reread, refuse_changed, reread
from pipelines.lake.tables import Lake
from pipelines.model.errors import RejoinError
from pipelines.model.paths import location, location_of
from pipelines.model.reasons import Reason


def run_reland(lake: Lake, config: Config, stream: str) -> tuple[Relanded, Reread]:
    """Reland one stream, and look once more at its files that could not be read. Raises RejoinError for an unknown one, and while
    a reconciliation or another reland runs."""
    check_stream(config, stream)
    lake.require(stream)
    lake.require_as_configured(stream)
    lake.ensure("quarantine")
    with leased(lake, RELANDING):
        found = lake.streams.named(stream)
        read = reread(lake, config, found)
        still = {location_of(path) for path in read.still}
        changed = {file: at for file, at in changed_files(lake, config, found).items() if location(file) not in still}
        refused = refuse_changed(lake, config, found, changed)
        return replace(reland(lake, config, found, read.still, changed), quarantined=refused), read


def run_reland_quarantine(
    lake: Lake, config: Config, stream: str, reason: str | None, since: date | None
) -> tuple[Rejudged, Reread]:
    """Judge what a stream has in quarantine again, and land what passes; look once more at files that could not be read, where
    the reason does not exclude them. Bronze gets the columns of this configuration."""
    check_stream(config, stream)
    lake.require("quarantine")
    lake.ensure(stream, "quarantine")
    with leased(lake, RELANDING):
        found = lake.streams.named(stream)
        read = reread(lake, config, found) if reason in (None, Reason.UNREADABLE_FILE.value) else Reread()
        return reland_quarantine(lake, config, found, reason=reason, since=since), read


def check_stream(config: Config, stream: str) -> None:
    if stream not in config.streams:
        raise RejoinError(f"{stream}: no such stream; the configuration has {', '.join(config.streams)}")


def report_reland(stream: str, done: Relanded, read: Reread) -> str:
    """What was done, for a terminal."""
    if not done.anything and not read.files:
        return f"{stream}: {read}" if read.still else f"{stream}: bronze has every event of its source once; nothing to do"
    said = [
        (read.files or read.still, str(read)),
        (done.rows, f"{done.rows:,} rows landed again"),
        (done.quarantined, f"{done.quarantined:,} lines quarantined of files that were written again"),
        (done.duplicates, f"{done.duplicates:,} duplicated rows removed"),
        (done.misplaced, f"{done.misplaced:,} rows moved to the partition of their event time"),
        (done.data_files, f"{done.data_files:,} data files that were gone dropped from the log"),
        (done.lost, f"{done.lost:,} more rows are lost by the log that the source does not have, or that bronze had twice"),
    ]
    steps = "next: rejoin settle --once, then rejoin reconcile --repair"
    return f"{stream}: {'; '.join(text for count, text in said if count)}\n{steps}"


def report_reland_quarantine(stream: str, done: Rejudged, read: Reread) -> str:
    """The same for what was judged again."""
    said = [str(read)] if read.files or read.still else []
    if done.looked_at:
        left = ", ".join(f"{reason} {count:,}" for reason, count in sorted(done.left.items())) or "nothing"
        passing = f"{done.passing:,} of {done.looked_at:,} quarantined payloads pass by now; {done.landed:,} rows landed"
        said.append(f"{passing}; still in quarantine: {left}")
    steps = "\nnext: rejoin run --once --all, then rejoin reconcile" if done.landed or read.rows else ""
    return f"{stream}: {'; '.join(said) or 'nothing in quarantine; nothing to do'}{steps}"
