"""Paths as configurations have them, and as Spark and Hadoop take and give them."""

import os
import re
from urllib.parse import unquote

_GLOB = re.compile(r"([\\{}\[\]*?])")


def is_local(path: str) -> bool:
    """Whether a path is of the local file system, and not a URI."""
    return "://" not in path and not path.startswith("dbfs:")


def absolute(path: str) -> str:
    """Absolute, and without `..`, where it is a local path; a URI stays as it is, without a slash at its end."""
    return os.path.abspath(path) if is_local(path) else path.rstrip("/")  # noqa: PTH100  # Path keeps `..`, Hadoop does not


def literal(path: str) -> str:
    """The path for a reader of Spark, which takes braces, brackets, `*`, `?` and backslashes for a pattern.

    >>> literal("/landing/{a}[1]")
    '/landing/\\\\{a\\\\}\\\\[1\\\\]'
    """
    return _GLOB.sub(r"\\\1", path)


def location(uri: str) -> str:
    """Where a file is, however its URI is written: decoded, with single slashes. To compare, and not to read by.

    >>> location("file:///landing/a%20b.json"), location("dbfs:/Volumes/main/a.json")
    ('file:/landing/a b.json', 'file:/Volumes/main/a.json')
    """
    return location_of(unquote(uri) if "%" in uri else uri)


def location_of(path: str) -> str:
    """The same of a path as a configuration has it, or of a URI that is decoded."""
    full = f"file:{absolute(path)}" if is_local(path) and not path.startswith("file:") else path.rstrip("/")
    # Databricks has its file systems under both schemes.
    return re.sub("^dbfs:/", "file:/", re.sub("/{2,}", "/", full))
