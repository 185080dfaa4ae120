"""What the notebooks share: parameters from widgets or the environment, and an open lake.

On Databricks the parameters are widgets (`conf`, `set`, ...), so that a job can pass them; elsewhere environment variables
(`REJOIN_CONF`, `REJOIN_SET`, ...). `set` holds `key=value` overrides, one a line.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pipelines.config.load import default_configuration, load_config
from pipelines.config.model import Config
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError
from pipelines.reconcile.span import Range
from pipelines.session import spark_session


@dataclass(frozen=True, kw_only=True)
class Parameters:
    conf: Path
    overrides: tuple[str, ...] = ()


def parameters(scope: Mapping[str, Any]) -> Parameters:
    """Read the parameters; `scope` is the notebook's `globals()`, in which Databricks puts `dbutils`."""
    conf, lines = _given(scope, "conf"), _given(scope, "set")
    overrides = tuple(line.strip() for line in lines.splitlines() if line.strip())
    return Parameters(conf=Path(conf) if conf else default_configuration(), overrides=overrides)


def reconcile_options(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `run_reconcile`: `dates` is `all` (or nothing) or one event date (`2026-01-31`), `repair` is `yes`, `no`
    or nothing. Raises ConfigError for anything else."""
    dates, repair = _given(scope, "dates") or "all", _given(scope, "repair")
    if repair not in ("", "yes", "no"):
        raise ConfigError(f"repair: {repair!r} cannot be; allowed: yes, no")
    try:
        day = None if dates == "all" else date.fromisoformat(dates)
    except ValueError:
        raise ConfigError(f"dates: {dates!r} cannot be; allowed: all, a date like 2026-01-31") from None
    return {"span": Range(first=day, last=day), "fix": repair == "yes"}


def _given(scope: Mapping[str, Any], name: str) -> str:
    """A widget's value, or that of the environment variable `REJOIN_<NAME>`; empty where there is none."""
    dbutils = scope.get("dbutils")
    if dbutils is None:
        return os.environ.get(f"REJOIN_{name.upper()}", "").strip()
    dbutils.widgets.text(name, "")
    return str(dbutils.widgets.get(name)).strip()


def open_lake(given: Parameters) -> tuple[Lake, Config]:
    config = load_config(given.conf, given.overrides)
    return Lake(spark_session(config.spark), config), config
