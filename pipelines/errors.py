"""Errors that a user is meant to read: one line that names the thing, the place and the remedy.

The command line turns each into exit code 2 and one line on stderr (DESIGN section 7); anything else is a bug, and is
reported as one line too unless `--debug` asks for the stack trace.
"""


class RejoinError(Exception):
    """A failure that the user can act on; its message is a single line."""


class ConfigError(RejoinError):
    """The configuration says something that cannot hold. The message names file, key path and what is allowed."""


class LakeError(RejoinError):
    """A table of the lake is absent, or is not what this configuration expects."""


class UnboundedStateError(RejoinError):
    """A streaming join whose state nothing would ever evict."""


class SourceError(RejoinError):
    """A source of events cannot be read."""


def is_interrupted(error: BaseException) -> bool:
    """Whether it happened on the way out after an interrupt: who stops a service may stop the JVM under it at the same time."""
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, KeyboardInterrupt):
            return True
    return False
