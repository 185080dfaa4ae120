"""A reconciliation as text for a terminal, the verdict first."""

from pipelines.model.format import figure, judged
from pipelines.reconcile.audit.bronze import StreamAudit
from pipelines.reconcile.expectations import Check
from pipelines.reconcile.report.document import bound, notes, verdict_sentence
from pipelines.reconcile.result import Reconciliation


def to_text(run: Reconciliation) -> str:
    books = run.books.as_dict()
    lines = [
        f"{run.verdict.upper()}: {verdict_sentence(run)}",
        "",
        f"  dates      {run.range}, up to {bound(run) or 'the last event'}",
        f"  outcomes   {books['landed']:,} landed = {books['attributed']:,} in the table + {books['pending']:,} pending"
        f"; {run.duplicates:,} duplicates removed{'' if books['balances'] else '   DOES NOT BALANCE'}",
        f"  answers    {sum(h.table_rows for h in run.hours) - run.unattributed:,} attributed, {run.unattributed:,} unattributed",
        f"  conflicts  {run.books.conflicting:,} outcome ids with several different events",
        *(_stream(audit) for audit in run.audits),
        *(["", "  found in bronze and data files:"] if run.findings else []),
        *(f"  - {finding}" for finding in run.findings),
        "",
        "  class                        rows",
        *(f"  {name:<24} {count:>8,}" for name, count in run.counts.items()),
    ]
    if run.causes:
        lines += ["", f"  because of: {', '.join(f'{name} {count:,}' for name, count in run.causes.items())}"]
    if run.before_repair:
        before = ", ".join(f"{name} {count:,}" for name, count in run.before_repair.items() if count)
        lines += ["", f"  before the repair: {before}"]
    lines += [line for note in notes(run) for line in ("", f"  {note}")]
    lines += ["", *(f"  {_outcome(c):<4}  {c.name} (is {figure(c.observed)})" for c in run.checks)]
    return "\n".join(lines)


def _stream(audit: StreamAudit) -> str:
    rejected = sum(audit.quarantined.values())
    offsets = audit.offsets
    gaps = f"; {offsets.given_up:,} offsets in accepted gaps" if offsets.given_up else ""
    gaps += f"; {offsets.holes:,} offsets without a record" if offsets.holes else ""
    of_dates = f"; of these dates {audit.accepted:,}" if audit.accepted != audit.ingested else ""
    lines = judged(audit.ingested, rejected, audit.quarantined, f"{audit.late:,} late{of_dates}")
    return f"  {audit.stream:<10} {lines}{gaps}"


def _outcome(check: Check) -> str:
    return "ok" if check.success else "FAIL" if check.failed else "warn"
