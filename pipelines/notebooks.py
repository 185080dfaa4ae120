"""What the notebooks share: parameters from widgets or the environment, and an open lake.

On Databricks the parameters are widgets (`conf`, `set`), so that a job can pass them; elsewhere the environment variables
`REJOIN_CONF` and `REJOIN_SET`. `set` holds `key=value` overrides, one a line.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cli import default_configuration
from pipelines.config import Config
from pipelines.configfile import load_config
from pipelines.lake import Lake
from pipelines.session import spark_session


@dataclass(frozen=True, kw_only=True)
class Parameters:
    conf: Path
    overrides: tuple[str, ...] = ()


def parameters(scope: Mapping[str, Any]) -> Parameters:
    """Read the parameters; `scope` is the notebook's `globals()`, in which Databricks puts `dbutils`."""
    dbutils = scope.get("dbutils")
    if dbutils is None:
        conf, lines = os.environ.get("REJOIN_CONF", ""), os.environ.get("REJOIN_SET", "")
    else:
        dbutils.widgets.text("conf", "")
        dbutils.widgets.text("set", "")
        conf, lines = dbutils.widgets.get("conf"), dbutils.widgets.get("set")
    overrides = tuple(line.strip() for line in lines.splitlines() if line.strip())
    return Parameters(conf=Path(conf) if conf else default_configuration(), overrides=overrides)


def open_lake(given: Parameters) -> tuple[Lake, Config]:
    config = load_config(given.conf, given.overrides)
    return Lake(spark_session(config.spark), config), config
