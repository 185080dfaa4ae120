"""What the notebooks share: widgets, and an open lake.

Every notebook has the widgets `conf` (a configuration file; empty: the one that is shipped) and `set` (`key=value` overrides, one
a line), so that a job can pass them as parameters.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from pipelines.config.load import default_configuration, load_config
from pipelines.config.model import Config
from pipelines.lake.reader import SparkReader
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError
from pipelines.reconcile.span import Range
from pipelines.session import spark_session


def widgets(dbutils: Any, **own: str | tuple[str, ...]) -> dict[str, str]:
    """Make the widgets `conf`, `set` and a notebook's `own`, by name the default or the choices (the first is the default); their
    values. Raises ConfigError for a value that is no choice."""
    values = {}
    for name, default in {"conf": "", "set": "", **own}.items():
        if isinstance(default, str):
            dbutils.widgets.text(name, default)
        else:
            dbutils.widgets.dropdown(name, default[0], list(default))
        values[name] = str(dbutils.widgets.get(name)).strip()
        if not isinstance(default, str) and values[name] not in default:
            raise ConfigError(f"{name}: {values[name]!r} cannot be; allowed: {', '.join(default)}")
    return values


def open_lake(given: Mapping[str, str]) -> tuple[Lake, Config]:
    """The lake of the widgets' configuration, for lanes. Raises ConfigError, and RejoinError on serverless compute."""
    config = _config(given)
    return Lake(spark_session(config.spark), config), config


def open_tables(given: Mapping[str, str]) -> tuple[SparkReader, Config]:
    """The same to look at only, on any compute."""
    config = _config(given)
    return SparkReader(Lake(SparkSession.builder.getOrCreate(), config)), config


def dates(text: str) -> Range:
    """Event dates: `all`, or one (`2026-01-31`). Raises ConfigError for anything else."""
    try:
        day = None if text == "all" else date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"dates: {text!r} cannot be; allowed: all, a date like 2026-01-31") from None
    return Range(first=day, last=day)


def _config(given: Mapping[str, str]) -> Config:
    overrides = [line.strip() for line in given["set"].splitlines() if line.strip()]
    return load_config(Path(given["conf"]) if given["conf"] else default_configuration(), overrides)
