"""The command line (DESIGN section 7): options -> configuration -> job -> exit code.

Exit codes: 0 done or agrees; 1 reconcile found differences that remain; 2 usage, configuration or runtime error, told in one
line on stderr (the stack trace only with `--debug`). Spark and pandas are imported by the commands that need them, so that
help answers at once.
"""

from pipelines.cli import init, run, prove, look, keep  # isort: skip  # in the order of the help
from pipelines.cli.app import main

__all__ = ["init", "keep", "look", "main", "prove", "run"]
