"""Errors that come from where a command works: a file in place of a directory, a disk that is full or read-only, a store that
Spark has no client for, a Python without Spark, executors with another Python. What is said of these names neither the setting
nor the remedy."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipelines.model.paths import is_local

_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_NO_CLIENT = re.compile(r'No FileSystem for scheme "(\w+)"|Class org\.apache\.hadoop\.fs\.(\w+)\.\S+ not found')
_OTHER_PYTHON = re.compile(r"\[PYTHON_VERSION_MISMATCH\] Python in worker .*?: ([\d.]+) than .*?driver: ([\d.]+)")
_LACKING_PYTHON = re.compile(r"from the Python worker:.*?\bModuleNotFoundError: (No module named '[\w.]+')", re.S)
_ARCHIVE = "e.g. by the archive that `make dist` makes (docs/deploy.md, Standalone and YARN)"
_NOT_WRITTEN = re.compile(
    r"DELTA_CANNOT_CREATE_LOG_PATH|Read-only file system|Permission denied|Mkdirs failed|Not a directory|ParentNotDirectory"
    r"|FileAlreadyExists|NotADirectory|PermissionError"
)
_ENOUGH_BYTES = 2**24


def explained(error: BaseException, places: Mapping[str, str]) -> str | None:
    """One line that names place, cause and remedy; None where the error comes neither from one of the `places` (by key of the
    configuration the path) nor from a Python here or on executors."""
    said = "\n".join(f"{type(each).__name__}: {each}" for each in (error, error.__cause__) if each is not None)
    local = {key: _nearest(Path(path)) for key, path in places.items() if is_local(path)}
    if _FULL.search(said):
        full = [f"{key} ({places[key]})" for key, path in local.items() if shutil.disk_usage(path).free < _ENOUGH_BYTES]
        where = " and ".join(full) or "a disk of the lake, of checkpoints or of Spark's temporary files"
        return f"{where}: no space left on the device; make room and start again, what has been committed is safe"
    if client := _NO_CLIENT.search(said):
        scheme = client[1] or client[2]
        where = ", ".join(f"{key} ({path})" for key, path in places.items() if path.startswith(scheme[:2])) or scheme
        return (
            f"{where}: Spark has no client for {scheme}://; give it one, e.g. for S3 write s3a:// and "
            "--set 'spark.conf={spark.jars.packages: org.apache.hadoop:hadoop-aws:3.5.0}' (spark-submit: --packages)"
        )
    if _NOT_WRITTEN.search(said):
        for key, path in local.items():
            if not path.is_dir():
                return f"{key} ({places[key]}): {path} is a file, not a directory; name another path"
            if not os.access(path, os.W_OK):
                return f"{key} ({places[key]}): {path} cannot be written (read-only, or no permission); name another path"
    return _of_python(error, said)


def _of_python(error: BaseException, said: str) -> str | None:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ("pyspark", "delta"):
        return "Spark is not installed: pip install 'rejoin[local]', or run this by spark-submit"
    if other := _OTHER_PYTHON.search(said):
        return f"executors run Python {other[1]}, the driver {other[2]}: give both the same, {_ARCHIVE}"
    if lacking := _LACKING_PYTHON.search(said):
        return f"executors' Python lacks a package ({lacking[1]}): give it Rejoin's, {_ARCHIVE}"
    return None


def _nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
