"""Reconcile: compare, report, record."""

import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.lake import Lake
from pipelines.reconcile.lock import only_one
from pipelines.reconcile.report import write_files, write_history
from pipelines.reconcile.run import Plan, Reconciliation, reconcile
from pipelines.reconcile.since import since_last
from pipelines.reconcile.span import Range


def run_reconcile(
    lake: Lake,
    config: Config,
    span: Range | None,
    *,
    fix: bool = False,
    hourly: bool = False,
    share: float = 1.0,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Reconciliation, Path]:
    """Reconcile `span` (None: what may differ since the last run that agreed), write the reports and the history; the result and
    the path of the HTML page. Raises RejoinError where another run of this lake has not ended."""
    lake.require(*(stream.name for stream in lake.streams.both), lake.attributed)
    lake.require_as_configured()
    lake.ensure("quarantine", "ledger")
    lake.as_tables_have()
    reports = report_directory(lake, config)
    with only_one(lake):
        dates = since_last(lake) if span is None else span
        run_id = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6]
        plan = Plan(span=dates, hourly=hourly, share=share, fix=fix)
        result = reconcile(lake, config, plan, run_id=run_id, reports=reports, say=say)
        page = write_files(result, reports)
        write_history(lake, result, page)
    return result, page


def report_directory(lake: Lake, config: Config) -> Path:
    if config.reconcile.reports:
        return Path(config.reconcile.reports).absolute()
    if config.lake_is_catalog or "://" in lake.root:
        raise ConfigError("reconcile.reports: needed where the lake is not a local directory; give one for the reports")
    return Path(lake.root) / "_rejoin" / "reports"
