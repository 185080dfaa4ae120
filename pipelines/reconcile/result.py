"""The result of a reconciliation, as frozen data; `pipelines.reconcile.report` renders it."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pipelines.monitor.lateness import Lateness
from pipelines.reconcile.audit.books import Books
from pipelines.reconcile.audit.bronze import Finding, StreamAudit
from pipelines.reconcile.compare.diff import DiffClass, HourSummary
from pipelines.reconcile.compare.pins import Pins
from pipelines.reconcile.expectations import Check
from pipelines.reconcile.span import Range

if TYPE_CHECKING:  # `report` renders this, so it is imported the other way
    from pipelines.reconcile.report.history import EarlierRun


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """`verdict` is `agrees`, `repaired` (agrees now) or `differs`.

    `judged_from`: dates before it were not compared, as their rows may be of an earlier rule. `refused`: a repair was asked for,
    and bronze lacks rows. `table_files_gone`: data files of the output table that are gone, `table_files_dropped` those whose
    dates the repair rewrote without them.
    """

    run_id: str
    started_us: int
    finished_us: int
    range: Range
    judged_from: date | None
    streams: tuple[str, str]
    pins: Pins
    hours: list[HourSummary]
    books: Books
    audits: list[StreamAudit]
    checks: list[Check]
    repaired: int
    refused: bool
    table_files_gone: int
    table_files_dropped: int
    before_repair: dict[str, int]
    causes: dict[str, int]
    sample: list[dict[str, Any]]
    lateness: Lateness
    configuration: dict[str, Any]
    versions: dict[str, str]
    earlier: list["EarlierRun"]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by class over all hours, every class named."""
        return {c.value: sum(hour.counts.get(c.value, 0) for hour in self.hours) for c in DiffClass}

    @property
    def differences(self) -> int:
        return sum(hour.differences for hour in self.hours)

    @property
    def unattributed(self) -> int:
        """Outcomes that the table has without an exposure."""
        return sum(hour.unattributed for hour in self.hours)

    @property
    def findings(self) -> list[Finding]:
        """What the audit found wrong, each with its remedy."""
        found = [finding for audit in self.audits for finding in audit.findings]
        if self.table_files_gone:
            what = f"{self.table_files_gone:,} data files of the output table are gone"
            found.append(Finding(what=what, remedy="run `rejoin reconcile --repair`, which rewrites their dates"))
        return found

    @property
    def agrees(self) -> bool:
        return not any(check.failed for check in self.checks)

    @property
    def verdict(self) -> str:
        if not self.agrees:
            return "differs"
        return "repaired" if self.repaired or self.table_files_dropped else "agrees"
