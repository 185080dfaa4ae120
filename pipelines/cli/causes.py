"""Errors that come from where a command works: a file in place of a directory, a disk that is full or read-only, a store that
Spark has no client for. What Spark says of these names neither the setting nor the remedy."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipelines.model.paths import is_local

_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_NO_CLIENT = re.compile(r'No FileSystem for scheme "(\w+)"|Class org\.apache\.hadoop\.fs\.(\w+)\.\S+ not found')
_NOT_WRITTEN = re.compile(
    r"DELTA_CANNOT_CREATE_LOG_PATH|Read-only file system|Permission denied|Mkdirs failed|Not a directory|ParentNotDirectory"
    r"|FileAlreadyExists|NotADirectory|PermissionError"
)
_ENOUGH_BYTES = 2**24


def explained(error: BaseException, places: Mapping[str, str]) -> str | None:
    """One line that names place, cause and remedy; None where the error does not come from one of the `places` (by key of the
    configuration the path)."""
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
    return None


def _nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
