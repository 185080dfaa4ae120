"""Errors that a user is meant to read: one line that names the thing, the place and the remedy.

The command line turns each into exit code 2 and one line on stderr (DESIGN section 7); anything else is a bug, and is
reported as one line too unless `--debug` asks for the stack trace.
"""

import re

_CLASSES = re.compile(r"^(?:(?:java|scala|org|com|io)(?:\.[\w$]+)+: )+")
# What Py4J says of any failure in the JVM, before what that says.
_CALLING = re.compile(r"^An error occurred while calling \S+\s+: ")


class RejoinError(Exception):
    """A failure that the user can act on; its message is a single line."""


class ConfigError(RejoinError):
    """The configuration says something that cannot hold. The message names file, key path and what is allowed."""


class LakeError(RejoinError):
    """A table of the lake is absent, or is not what this configuration expects."""


class UnboundedStateError(RejoinError):
    """A streaming join whose state nothing would ever evict."""


class LeaseError(RejoinError):
    """Another process holds the lease."""


class SourceError(RejoinError):
    """A source of events cannot be read."""


def is_interrupted(error: BaseException) -> bool:
    """Whether it happened on the way out after an interrupt: who stops a service may stop the JVM under it at the same time."""
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, KeyboardInterrupt):
            return True
    return False


def first_line(error: BaseException) -> str:
    """The sentence of a Spark error that says what is wrong, without identifiers of the run, names of classes and stack traces.

    >>> first_line(Exception("org.apache.kafka.common.errors.TimeoutException: no node\\n\\tat java.lang.Thread"))
    'no node'
    >>> thrown = "An error occurred while calling o7.sql.\\n: org.apache.spark.SparkException: Exception thrown in awaitResult:"
    >>> first_line(Exception(f"{thrown}\\n\\tat java.lang.Thread\\nCaused by: org.apache.spark.SparkException: [GONE] f.parquet"))
    '[GONE] f.parquet'
    """
    text = str(error).strip()
    for marker in ("terminated with exception: ", "Traceback (most recent call last):"):
        if marker in text:
            text = text.split(marker, 1)[1]
    text = _CALLING.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("\tat", "  File", "    "))]
    lines = [_CLASSES.sub("", line.removeprefix("Caused by: ")) for line in lines]
    own = [line.removeprefix("pipelines.model.errors.") for line in lines if line.startswith("pipelines.model.errors.")]
    named = [line for line in lines if line.startswith("[")]
    return (own or named or lines or [type(error).__name__])[0]
