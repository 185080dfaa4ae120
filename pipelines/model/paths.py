"""Paths as configurations have them."""


def is_local(path: str) -> bool:
    """Whether a path is of the local file system, and not a URI."""
    return "://" not in path and not path.startswith("dbfs:")
