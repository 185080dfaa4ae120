"""The result of a reconciliation, as frozen data; `pipelines.reconcile.report` renders it."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from pipelines.monitor.lateness import Lateness
from pipelines.reconcile.audit.books import Books
from pipelines.reconcile.audit.bronze import Finding, StreamAudit
from pipelines.reconcile.compare.diff import DiffClass, HourSummary
from pipelines.reconcile.compare.pins import Pins
from pipelines.reconcile.expectations import Check
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """What a run found; shares are of the outcomes in the table, and of the accepted events of both streams. None: unknown."""

    run_id: str
    finished_at: str
    verdict: str
    differences: int
    unattributed_share: float | None
    late_share: float | None

    @classmethod
    def of(cls, report: dict[str, Any]) -> "EarlierRun":
        streams = report.get("bronze", report.get("door", ()))  # `door` until schema version 1
        rows, accepted = sum(h["table_rows"] for h in report["hours"]), sum(s["accepted"] for s in streams)
        return cls(
            **{name: report[name] for name in ("run_id", "finished_at", "verdict", "differences")},
            unattributed_share=report["account"]["unattributed"] / rows if rows else None,
            late_share=sum(s["late"] for s in streams) / accepted if accepted else None,
        )


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
    earlier: list[EarlierRun]

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
    def duplicates(self) -> int:
        """Accepted outcome events beside the one that counts of each id."""
        accepted = sum(audit.accepted for audit in self.audits if audit.stream == self.streams[1])
        return max(0, accepted - self.books.landed)

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
