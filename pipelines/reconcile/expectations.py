"""Great Expectations on the run's summary, on figures of each stream, and on aggregates by hour: few rows.

The suites are files (conf/expectations); thresholds are the configuration's. They run on pandas, not on Spark: FACTS of the
design measured 17 Spark jobs for six expectations. Data Docs go beside the report. Analytics are off before the library is
imported.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from pipelines.model.errors import ConfigError

os.environ["GX_ANALYTICS_ENABLED"] = "false"

Severity = Literal["warning", "critical"]
Parameters = Mapping[str, float | None]

SUITES = ("summary", "bronze", "attributed")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation and what came of it; only `critical` ones decide the verdict. `observed` is the figure of the summary, or
    the number of hours that are not as expected."""

    name: str
    severity: Severity
    success: bool
    observed: float

    @property
    def failed(self) -> bool:
        return not self.success and self.severity == "critical"


def suites_directory(configured: str | None) -> Path:
    """Where the suites are: as configured, else beside the package (a checkout), else as installed."""
    shipped = "conf/expectations"
    places = (Path(__file__).resolve().parents[2] / shipped, Path(sys.prefix) / "share/rejoin" / shipped)
    found = Path(configured) if configured else next((place for place in places if place.is_dir()), places[0])
    if not found.is_dir():
        raise ConfigError(f"reconcile.expectations.suites: {found} is no directory; it should have {', '.join(SUITES)} (.yml)")
    return found


def load_suites(directory: Path, parameters: Parameters) -> dict[str, list[dict[str, Any]]]:
    """The expectations of each suite, in Great Expectations' own form, without those whose parameters are null.

    Raises ConfigError naming file and expectation for what it cannot use.
    """
    return {name: _load(directory / f"{name}.yml", parameters) for name in SUITES}


def validate(
    frames: Mapping[str, pd.DataFrame], suites: Mapping[str, list[dict[str, Any]]], parameters: Parameters, site: Path
) -> list[Check]:
    """Run a checkpoint over the frames, one for each suite; Data Docs are built under `site`. Checks come in the suites'
    order."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    site.mkdir(parents=True, exist_ok=True)
    context = gx.get_context(mode="file", project_root_dir=str(site))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)  # they would write over ours
    source = context.data_sources.add_or_update_pandas("reconciliation")
    validations = []
    for name, expectations in suites.items():
        path = site / f"{name}.parquet"
        frames[name].to_parquet(path)
        batch = source.add_parquet_asset(name, path=str(path)).add_batch_definition("whole")
        suite = context.suites.add_or_update(gx.ExpectationSuite(name=name, expectations=_numbered(expectations)))
        validations.append(
            context.validation_definitions.add_or_update(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        )
    checkpoint = context.checkpoints.add_or_update(gx.Checkpoint(name="nightly", validation_definitions=validations))
    given = {name: value for name, value in parameters.items() if value is not None}
    result = checkpoint.run(expectation_parameters=given)
    # At once: the checkpoint's own action would build the site's index again for each suite.
    context.build_data_docs(resource_identifiers=[*result.run_results, *map(ExpectationSuiteIdentifier, suites)])
    found = {}
    for run in result.run_results.values():
        for outcome in run.results:
            config = outcome.expectation_config
            name, column = run.suite_name, config.kwargs.get("column")
            is_figure = name == "summary" and column in frames[name]
            found[name, config.meta["number"]] = Check(
                name=str(config.meta["says"]).format(**given) + _trouble(outcome.exception_info),
                severity=config.severity.value,
                success=bool(outcome.success),
                observed=float(frames[name][column].iloc[0] if is_figure else outcome.result.get("unexpected_count", 0)),
            )
    return [found[name, number] for name, expectations in suites.items() for number in range(len(expectations))]


def _trouble(info: Mapping[str, Any]) -> str:
    """What kept an expectation from being evaluated: a column that there is not, for example. Such a one has failed."""
    raised = (each for each in (info, *info.values()) if isinstance(each, dict) and each.get("raised_exception"))
    return next((f" (not evaluated: {' '.join(str(each.get('exception_message')).split())[:200]})" for each in raised), "")


def _load(path: Path, parameters: Parameters) -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"reconcile.expectations.suites: {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("expectations"), list):
        raise ConfigError(f"reconcile.expectations.suites: {path}: needs a list under `expectations`")
    loaded = []
    for number, given in enumerate(content["expectations"]):
        where = f"reconcile.expectations.suites: {path}: expectation {number + 1}"
        if not isinstance(given, dict) or given.get("type") not in _known_types():
            raise ConfigError(f"{where}: {given.get('type') if isinstance(given, dict) else given!r} is no expectation's type")
        _check(given, where)
        wanted = [
            value["$PARAMETER"] for value in given.get("kwargs", {}).values() if isinstance(value, dict) and "$PARAMETER" in value
        ]
        for name in wanted:
            if name not in parameters:
                raise ConfigError(f"{where}: there is no parameter {name}; there are {', '.join(sorted(parameters))}")
        if wanted and all(parameters[name] is None for name in wanted):
            continue
        meta = {"says": given["type"], **given.get("meta", {})}
        loaded.append({"severity": "critical", **given, "meta": meta})
    return loaded


def _check(given: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for arguments that the expectation does not take."""
    from great_expectations.expectations.registry import get_expectation_impl

    where, kwargs = f"{where}: {given['type']}", given.get("kwargs", {})
    if not isinstance(kwargs, dict):
        raise ConfigError(f"{where}: kwargs must be a group of arguments")
    if isinstance(kwargs.get("regex"), str):
        try:
            re.compile(kwargs["regex"])
        except re.error as error:
            raise ConfigError(f"{where}: regex: not a pattern ({error})") from None
    try:
        get_expectation_impl(given["type"])(**kwargs)
    except (TypeError, ValueError) as error:  # pydantic's, of the version that the library brings
        told = error.errors() if hasattr(error, "errors") else []
        first = told[0] if told else {"loc": (), "msg": " ".join(str(error).split())}
        key = ".".join(str(part) for part in first["loc"] if part != "__root__")
        raise ConfigError(f"{where}: {f'{key}: ' if key else ''}{first['msg']}") from None


def _numbered(expectations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "meta": {**each["meta"], "number": number}} for number, each in enumerate(expectations)]


@cache
def _known_types() -> frozenset[str]:
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    from pipelines.reconcile import own_expectations  # noqa: F401  # registers them

    return frozenset(list_registered_expectation_implementations())
