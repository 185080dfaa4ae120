"""Reconcile: compare, report, record."""

import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from pipelines.config.model import Config
from pipelines.config.streams import rule_of
from pipelines.control.lease import leased
from pipelines.control.rule import registered_rule, require_same
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError
from pipelines.reconcile.report import to_dict, write_files
from pipelines.reconcile.report.history import write_history
from pipelines.reconcile.result import Reconciliation
from pipelines.reconcile.run import reconcile
from pipelines.reconcile.span import Range


def run_reconcile(
    lake: Lake, config: Config, span: Range, *, fix: bool = False, say: Callable[[str], None] = lambda _: None
) -> tuple[Reconciliation, Path]:
    """Reconcile `span`, write the reports and the history; the result and the path of the HTML page. Raises RejoinError where
    another run of this lake has not ended."""
    lake.require(*(stream.name for stream in lake.streams.both), lake.attributed)
    lake.require_as_configured()
    lake.ensure("quarantine", "ledger")
    reports = report_directory(lake, config)
    known = registered_rule(lake)
    if known is not None:
        require_same(lake, known, rule_of(config))
    with leased(lake, "reconciliation or reland"):
        run_id = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6]
        since = known.since if known else None
        result = reconcile(lake, config, span, run_id=run_id, reports=reports, fix=fix, judged_from=since, say=say)
        page = write_files(result, reports)
        write_history(lake, result, to_dict(result), page)
    return result, page


def report_directory(lake: Lake, config: Config) -> Path:
    if config.reconcile.reports:
        return Path(config.reconcile.reports).absolute()
    if config.lake_is_catalog or "://" in lake.root:
        raise ConfigError("reconcile.reports: needed where the lake is not a local directory; give one for the reports")
    return Path(lake.root) / "_rejoin" / "reports"
