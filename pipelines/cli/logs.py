"""Logs for the operator, on stderr: text, or one JSON object a line (docs/logs.md)."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from pipelines.config.model import LogsConfig

_FIRST = ("time", "level", "event")


def configure_logs(config: LogsConfig) -> None:
    """Set structlog up; safe to call again."""
    as_text: list[Any] = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time" if config.format == "json" else "timestamp"),
            *([_ordered, structlog.processors.JSONRenderer()] if config.format == "json" else as_text),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, config.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def as_json() -> bool:
    return isinstance(structlog.get_config()["processors"][-1], structlog.processors.JSONRenderer)


def say_error(line: str) -> None:
    """What a command fails with."""
    if as_json():
        structlog.get_logger().error(line)
    else:
        print(f"rejoin: {line}", file=sys.stderr)


def _ordered(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**{name: event[name] for name in _FIRST}, **event}
