"""What an error of Delta says: another writer was first, or a version is gone; and trying again after the first."""

import re

from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

_OVERTAKEN = re.compile(r"DELTA_CONCURRENT|Concurrent\w+Exception|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED")
_CREATED = re.compile(
    r"DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION|DELTA_MISSING_DELTA_TABLE|DELTA_TABLE_NOT_FOUND|DELTA_PATH_DOES_NOT_EXIST"
    r"|DELTA_SCHEMA_NOT_SET|_ALREADY_EXISTS|AlreadyExistsException"
)
_CREATION_SECONDS = 30.0


def is_gone(error: Exception) -> bool:
    """Whether a version of a table, or a file of it, is no longer there: log clean-up, or VACUUM."""
    words = (
        "DELTA_MISSING_CHANGE_DATA",
        "DELTA_LOG_FILE_NOT_FOUND",
        "DELTA_UNSUPPORTED_TIME_TRAVEL_BEYOND",
        "DELTA_VERSION_NOT_FOUND",
        "DELTA_CANNOT_RECONSTRUCT",
        "FAILED_READ_FILE",
        "FileNotFound",
        "FILE_NOT_EXIST",
    )
    return any(word in str(error) for word in words)


def is_overtaken(error: BaseException) -> bool:
    """Whether Delta says that a concurrent commit touched the same files, or the table: nothing of ours was written."""
    return _OVERTAKEN.search(f"{type(error).__name__}: {error}") is not None


def is_creation(error: BaseException) -> bool:
    """Whether Delta says that a table is there and is not: another process is just creating it, or died of that."""
    return _CREATED.search(str(error)) is not None


def conflict_retries() -> Retrying:
    """Try again where another writer was first."""
    return Retrying(
        retry=retry_if_exception(is_overtaken),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(20),
        reraise=True,
    )


def creation_retries() -> Retrying:
    """Try again where another process is creating, or altering, the same table: its commit is seconds away."""
    return Retrying(
        retry=retry_if_exception(lambda error: is_overtaken(error) or is_creation(error)),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_delay(_CREATION_SECONDS),
        reraise=True,
    )
