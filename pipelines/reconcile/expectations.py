"""Great Expectations on the summary: a handful of rows, whatever the size of the day.

Expectations run on pandas, not on Spark: FACTS of the design measured 17 Spark jobs for six of them. Data Docs go beside the
report. Analytics are off before the library is imported.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

os.environ["GX_ANALYTICS_ENABLED"] = "false"

Severity = Literal["warning", "critical"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A figure of the summary and where it must lie, both ends inclusive; None is open."""

    column: str
    least: float | None = None
    greatest: float | None = None
    severity: Severity = "critical"

    def __str__(self) -> str:
        words = self.column.replace("_", " ")
        if self.least is None:
            return f"{words} at most {self.greatest:g}"
        return f"{words} at least {self.least:g}" if self.greatest is None else f"{words} in {self.least:g}..{self.greatest:g}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation and what came of it; only `critical` ones decide the verdict."""

    name: str
    severity: Severity
    success: bool
    observed: float

    @property
    def failed(self) -> bool:
        return not self.success and self.severity == "critical"


def validate(summary: Mapping[str, float], bounds: Sequence[Bound], site: Path) -> list[Check]:
    """Hold the figures of `summary` to `bounds`; build Data Docs under `site`."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    site.mkdir(parents=True, exist_ok=True)
    context = gx.get_context(mode="file", project_root_dir=str(site))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)  # they would write over ours
    frame = pd.DataFrame([{name: float(value) for name, value in summary.items()}])
    asset = context.data_sources.add_or_update_pandas("summary").add_dataframe_asset("run")
    definition = asset.add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add_or_update(gx.ExpectationSuite(name="reconciliation"))
    for number, bound in enumerate(bounds):
        suite.add_expectation(
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=bound.column,
                min_value=bound.least,
                max_value=bound.greatest,
                severity=bound.severity,
                meta={"bound": number},
            )
        )
    validation = context.validation_definitions.add_or_update(
        gx.ValidationDefinition(name="reconciliation", data=definition, suite=suite)
    )
    checkpoint = context.checkpoints.add_or_update(
        gx.Checkpoint(
            name="nightly",
            validation_definitions=[validation],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
        )
    )
    result = checkpoint.run(batch_parameters={"dataframe": frame})
    checks = []
    for outcome in (outcome for run in result.run_results.values() for outcome in run.results):
        bound = bounds[outcome.expectation_config.meta["bound"]]
        checks.append(
            Check(
                name=str(bound),
                severity=bound.severity,
                success=bool(outcome.success),
                observed=float(summary[bound.column]),
            )
        )
    return checks
