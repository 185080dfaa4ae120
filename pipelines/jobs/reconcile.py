"""Reconcile: compare, report, record."""

from collections.abc import Callable
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.lake import Lake
from pipelines.reconcile.report import write_files, write_history
from pipelines.reconcile.run import Range, Reconciliation, reconcile


def run_reconcile(
    lake: Lake, config: Config, span: Range, *, fix: bool = False, say: Callable[[str], None] = lambda _: None
) -> tuple[Reconciliation, Path]:
    """Reconcile `span`, write the reports and the history; the result and the path of the HTML page."""
    lake.require(*(stream.name for stream in lake.streams.both), lake.attributed)
    lake.require_as_configured()
    lake.ensure("quarantine", "ledger")
    lake.as_tables_have()
    reports = report_directory(lake, config)
    result = reconcile(lake, config, span, fix=fix, reports=reports, say=say)
    page = write_files(result, reports)
    write_history(lake, result, page)
    return result, page


def report_directory(lake: Lake, config: Config) -> Path:
    if config.reconcile.reports:
        return Path(config.reconcile.reports).absolute()
    if config.lake_is_catalog or "://" in lake.root:
        raise ConfigError("reconcile.reports: needed where the lake is not a local directory; give one for the reports")
    return Path(lake.root) / "_rejoin" / "reports"
