"""One reconciliation: audit, pin, recompute, compare, explain, repair, verify again, and validate by expectations."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines import __version__
from pipelines.config.model import Config
from pipelines.config.streams import rule_of
from pipelines.lake.files import commit_as, dates_of, gone_files, reading_around, rewrite_dates
from pipelines.lake.history import REPAIR
from pipelines.lake.reader import open_reader
from pipelines.lake.tables import Lake
from pipelines.model.durations import format_duration
from pipelines.model.time import now_us
from pipelines.monitor.lateness import lateness_of
from pipelines.reconcile.audit.bronze import StreamAudit, audit_bronze
from pipelines.reconcile.causes import Cause, with_causes
from pipelines.reconcile.compare.comparison import Comparison, Sides, compare_dates
from pipelines.reconcile.compare.diff import DiffClass
from pipelines.reconcile.compare.pins import pin
from pipelines.reconcile.expectations import load_suites, suites_directory, validate
from pipelines.reconcile.repair import repair
from pipelines.reconcile.report.history import past_reports, record_repairs, reported
from pipelines.reconcile.result import EarlierRun, Reconciliation
from pipelines.reconcile.span import Range
from pipelines.reconcile.summary import frames, parameters

# A lane may improve a row between comparison and repair; then that row is left alone, and compared again.
_MAX_REPAIRS = 3


def reconcile(
    lake: Lake,
    config: Config,
    span: Range,
    *,
    run_id: str,
    reports: Path,
    fix: bool = False,
    judged_from: date | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Reconciliation:
    """Reconcile the dates, from pinned versions; with `fix`, repair what differs and verify again.

    Dates before `judged_from` (None: none) are neither compared nor repaired. Nothing is repaired where bronze lacks rows, as
    batch has the wrong answer then. Raises ConfigError for suites of expectations that cannot be used.
    """
    started, given = now_us(), parameters(config)
    suites = load_suites(suites_directory(config.reconcile.expectations.suites), given)
    say("auditing bronze")
    past = past_reports(lake)
    audits = audit_bronze(lake, config, span, past[-1] if past else None)
    refused = fix and any(audit.lacks_rows for audit in audits)
    gone = gone_files(lake, lake.attributed)
    # Rows of other dates are read too, but only these are judged and repaired.
    lost = [path for path in gone if span.since(judged_from).has_any(dates_of([path]))]
    dropped = lost if fix and not refused else []
    if dropped:
        say("rewriting the dates of lost data files")
        dates = dates_of(dropped)
        with commit_as(lake, REPAIR, {"run_id": run_id, "dates": sorted(map(str, dates))}):
            rewrite_dates(lake, lake.attributed, dates)
    with reading_around(lake, [*gone, *(path for audit in audits for path in audit.gone)]):
        say("computing the batch answer")
        run = _Run(lake, config, span, judged_from, run_id, audits, gone, say)
        outcome = run.compare_and_repair(fix=fix and not refused)
        result = Reconciliation(
            run_id=run_id,
            started_us=started,
            finished_us=started,
            range=span,
            judged_from=judged_from,
            streams=(lake.streams.exposure.name, lake.streams.outcome.name),
            pins=outcome.comparison.sides.pins,
            hours=outcome.comparison.hours,
            books=outcome.comparison.books,
            audits=audits,
            checks=[],
            repaired=outcome.repaired,
            refused=refused,
            table_files_gone=len(lost) - len(dropped),
            table_files_dropped=len(dropped),
            before_repair=outcome.before if outcome.repaired else {},
            causes=outcome.causes,
            sample=outcome.sample,
            lateness=lateness_of(open_reader(config, lambda: lake), config),
            configuration=_configuration(config),
            versions=_versions(lake),
            earlier=[EarlierRun.of(report) for report in past],
        )
    say("checking expectations")
    checks = validate(frames(result), suites, given, reports / "data-docs")
    return replace(result, checks=checks, finished_us=now_us())


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """The last comparison; what the first one found, and its causes."""

    comparison: Comparison
    before: dict[str, int]
    causes: dict[str, int]
    sample: list[dict[str, Any]]
    repaired: int


@dataclass(frozen=True)
class _Run:
    lake: Lake
    config: Config
    span: Range
    judged_from: date | None
    run_id: str
    audits: Sequence[StreamAudit]
    table_gone: Sequence[str]
    say: Callable[[str], None]

    def compare_and_repair(self, *, fix: bool) -> _Outcome:
        """Compare; explain and, with `fix`, repair what differs, until it agrees."""
        comparison = self._compare()
        before = comparison.counts
        causes: dict[str, int] = {}
        sample: list[dict[str, Any]] = []
        repaired = rounds = 0
        while comparison.differs:
            self.say("explaining what differs")
            explained = self._explained(comparison).persist()
            try:
                if not rounds:
                    causes, sample = _causes(explained), _sample(explained, self.config.reconcile.sample)
                if not fix or rounds == _MAX_REPAIRS:
                    break
                self.say("repairing")
                record_repairs(self.lake, self.run_id, explained)
                repaired += repair(self.lake, comparison.compared, self.run_id)
            finally:
                explained.unpersist()
            rounds += 1
            self.say("verifying again")
            comparison.close()
            comparison = self._compare()
        comparison.close()
        return _Outcome(comparison=comparison, before=before, causes=causes, sample=sample, repaired=repaired)

    def _compare(self) -> Comparison:
        return compare_dates(self.lake, self.config, Sides.of(self.lake, pin(self.lake)), self.span, self.judged_from)

    def _explained(self, comparison: Comparison) -> DataFrame:
        # Few rows; without the checkpoint each proof would repeat the plan that found them.
        differing = comparison.compared.where(F.col("class") != DiffClass.MATCHED.value).localCheckpoint()
        return with_causes(self.lake, differing, comparison.sides, self.audits, self.table_gone)


def _causes(explained: DataFrame) -> dict[str, int]:
    counted = explained.where("counts").groupBy("cause").count().orderBy(F.desc("count"), "cause").collect()
    return {row["cause"]: row["count"] for row in counted}


def _sample(explained: DataFrame, limit: int) -> list[dict[str, Any]]:
    # What nobody can explain is first: somebody has to look at it.
    known = (F.col("cause") != Cause.UNKNOWN.value).asc()
    shown = explained.orderBy(known, "class", "event_time", "outcome_id").limit(limit).select(*reported())
    return [row.asDict() for row in shown.collect()]


def _configuration(config: Config) -> dict[str, Any]:
    join = config.join
    delays = {"join.hot_window": join.hot_window, "join.watermark_delay": join.watermark_delay}
    own = config.reconcile.model_dump(mode="json")
    return {**rule_of(config).as_dict(), **{key: format_duration(delay) for key, delay in delays.items()}, **own}


def _versions(lake: Lake) -> dict[str, str]:
    return {
        "rejoin": __version__,
        "Spark": lake.spark.version,
        "Delta": version("delta-spark"),
        "Great Expectations": version("great-expectations"),
        "Python": platform.python_version(),
    }
