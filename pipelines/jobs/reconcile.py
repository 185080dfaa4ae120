"""Reconcile: compare, report, record."""

from collections.abc import Callable
from pathlib import Path

import structlog

from pipelines.config.model import Config
from pipelines.control.lease import RELANDING, leased
from pipelines.control.rule import require_same_rule
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError
from pipelines.model.time import new_run_id
from pipelines.reconcile.report import to_dict, write_files
from pipelines.reconcile.report.history import write_history
from pipelines.reconcile.result import Reconciliation
from pipelines.reconcile.run import reconcile
from pipelines.reconcile.span import Range

log = structlog.get_logger()


def run_reconcile(
    lake: Lake, config: Config, span: Range, *, fix: bool = False, say: Callable[[str], None] = lambda _: None
) -> tuple[Reconciliation, Path]:
    """Reconcile `span`, write the reports and the history; the result and the path of the HTML page. Raises RejoinError where
    another run of this lake has not ended."""
    lake.require(*(stream.name for stream in lake.streams.both), lake.attributed)
    lake.require_as_configured()
    lake.ensure("quarantine", "ledger")
    reports = report_directory(lake, config)
    known = require_same_rule(lake, config)
    with leased(lake, RELANDING):
        run_id = new_run_id()
        since = known.since if known else None
        result = reconcile(lake, config, span, run_id=run_id, reports=reports, fix=fix, judged_from=since, say=say)
        page = write_files(result, reports)
        write_history(lake, result, to_dict(result), page)
    if config.logs.format == "json":
        log_result(result)
    return result, page


def log_result(result: Reconciliation) -> None:
    figures = {"run_id": result.run_id, "verdict": result.verdict, "differences": result.differences, "repaired": result.repaired}
    log.info("reconciled", query="reconcile", **figures)
    for finding in result.findings:
        log.warning("finding", query="reconcile", what=finding.what, remedy=finding.remedy)


def report_directory(lake: Lake, config: Config) -> Path:
    if config.reconcile.reports:
        return Path(config.reconcile.reports).absolute()
    if config.lake_is_catalog or "://" in lake.root:
        raise ConfigError("reconcile.reports: needed where the lake is not a local directory; give one for the reports")
    return Path(lake.root) / "_rejoin" / "reports"
