"""`${env:NAME}` and `${secret:scope/key}` in configuration values.

A reference stays a reference in the configuration; only `resolve`, called where the value is used, looks it up. So a
printed or logged configuration shows the reference and never the value.
"""

import os
import re
from pathlib import Path

from pipelines.model.errors import ConfigError

_REFERENCE = re.compile(r"\$\{(env|secret):([^}]*)\}")
SECRETS_DIR = "REJOIN_SECRETS_DIR"


def is_reference(text: str) -> bool:
    """Whether `text` is one reference, and nothing beside it.

    >>> is_reference("${env:PASSWORD}"), is_reference("${env:A}hunter2${env:B}")
    (True, False)
    """
    return _REFERENCE.fullmatch(text) is not None


def resolve(text: str, where: str) -> str:
    """Replace each reference in `text` by its value; `where` is the key path that an error names."""
    return _REFERENCE.sub(lambda match: _look_up(match[1], match[2], where), text)


def _look_up(kind: str, name: str, where: str) -> str:
    if kind == "env":
        if name not in os.environ:
            raise ConfigError(f"{where}: environment variable {name} is not set; set it, or replace ${{env:{name}}}")
        return os.environ[name]
    scope, _, key = name.partition("/")
    if not scope or not key or ".." in (scope, key) or "/" in key:
        raise ConfigError(f"{where}: ${{secret:{name}}} must read ${{secret:scope/key}}")
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return _databricks_secret(scope, key, where)
    folder = os.environ.get(SECRETS_DIR)
    if not folder:
        raise ConfigError(f"{where}: ${{secret:{name}}} needs {SECRETS_DIR}, a directory that holds scope/key files")
    try:
        return (Path(folder) / scope / key).read_text().rstrip("\n")
    except OSError as error:
        raise ConfigError(f"{where}: secret {scope}/{key} cannot be read under {SECRETS_DIR}: {error.strerror}") from None


def _databricks_secret(scope: str, key: str, where: str) -> str:
    from pyspark.dbutils import DBUtils  # type: ignore[import-not-found]  # only on Databricks
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is None:
        raise ConfigError(f"{where}: secret {scope}/{key} cannot be read: no Spark session is active; start one first")
    return str(DBUtils(session).secrets.get(scope, key))
