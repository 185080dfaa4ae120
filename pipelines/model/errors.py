"""Errors that a user is meant to read: one line that names the thing, the place and the remedy.

The command line turns each into exit code 2 and one line on stderr (DESIGN section 7); anything else is a bug, and is
reported as one line too unless `--debug` asks for the stack trace.
"""

import re

_CLASSES = re.compile(r"^(?:(?:java|scala|org|com|io)(?:\.[\w$]+)+: )+")
# What Py4J says of any failure in the JVM, before what that says.
_CALLING = re.compile(r"^An error occurred while calling \S+\s+: ")
_LOST_TASK = re.compile(r"^(?:\S+: )?Job aborted due to stage failure: .*? Lost task .*? executor \S+\): ")
_UNANSWERED = re.compile(r"^An error occurred while (?:calling \S+|trying to connect to the Java server.*)$")
# Of a stack of causes, those that say no more than that there is one below.
_WRAPPER = re.compile(
    r"Job aborted|\[?TASK_WRITE_FAILED|Exception thrown in awaitResult|Writing job (?:aborted|failed)|Task failed"
    r"|\[?INTERNAL_ERROR|InvocationTargetException|UncheckedExecutionException|ExecutionException|(?:Boxed )?Error\b"
)


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
    >>> thrown = "[PYTHON_EXCEPTION] Found error: Traceback (most recent call last):\\n  File \\"x\\"\\nKeyError: 'a'"
    >>> first_line(Exception(f"(STREAM_FAILED) {thrown}\\n=== Query ===\\nCaused by: {thrown}"))
    "KeyError: 'a'"
    """
    text = str(error).strip()
    for marker in ("terminated with exception: ", "Traceback (most recent call last):"):
        if marker in text:
            text = text.split(marker, 1)[1]
    text = _LOST_TASK.sub("", _CALLING.sub("", text))
    if _UNANSWERED.match(text):
        return "Spark's JVM has ended: it was killed, or had too little memory (spark.driver_memory)"
    said = [line for line in text.splitlines() if line.strip() and not line.startswith(("\t", "  File", "    "))]
    lines = [_CLASSES.sub("", line.strip().removeprefix("Caused by: ")) for line in said]
    own = [line.removeprefix("pipelines.model.errors.") for line in lines if line.startswith("pipelines.model.errors.")]
    telling = [line for line in lines if not _WRAPPER.match(line)]
    named = [line for line in telling if line.startswith("[") and "Traceback (most recent call last)" not in line]
    causes = [line for line, whole in zip(lines, said, strict=True) if whole.startswith("Caused by: ") and line in telling]
    if own or named:
        return (own or named)[0]
    # The first line, unless it only says that there is a cause: then the one at the bottom of the stack.
    first = lines[0] if lines else type(error).__name__
    return causes[-1] if causes and _WRAPPER.match(first) else first
