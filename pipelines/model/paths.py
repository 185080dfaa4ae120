"""Paths as configurations have them, and as Spark and Hadoop take and give them."""

import re
from pathlib import Path
from urllib.parse import unquote

_GLOB = re.compile(r"([\\{}\[\]*?])")


def is_local(path: str) -> bool:
    """Whether a path is of the local file system, and not a URI."""
    return "://" not in path and not path.startswith("dbfs:")


def absolute(path: str) -> str:
    """Absolute where it is a local path; a URI stays as it is, without a slash at its end."""
    return str(Path(path).absolute()) if is_local(path) else path.rstrip("/")


def literal(path: str) -> str:
    """The path for a reader of Spark, which takes braces, brackets, `*`, `?` and backslashes for a pattern.

    >>> literal("/landing/{a}[1]")
    '/landing/\\\\{a\\\\}\\\\[1\\\\]'
    """
    return _GLOB.sub(r"\\\1", path)


def location(uri: str) -> str:
    """Where a file is, however its URI is written: decoded, with one slash behind the scheme.

    >>> location("file:///landing/a%20b.json")
    'file:/landing/a b.json'
    """
    return re.sub(r"^(\w+):/+", r"\1:/", unquote(uri))


def location_of(path: str) -> str:
    """The same of a path as a configuration has it."""
    return f"file:{absolute(path)}" if is_local(path) else re.sub(r"^(\w+):/+", r"\1:/", path.rstrip("/"))
