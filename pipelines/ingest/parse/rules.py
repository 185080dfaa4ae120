"""The limits of ingest, and what reading values shares. All expressions here and beside are SQL text (`pipelines.model.sql`)."""

from dataclasses import dataclass

from pipelines.config.model import Config
from pipelines.model.durations import micros
from pipelines.model.reasons import Reason
from pipelines.model.sql import quoted, struct
from pipelines.model.time import to_micros


@dataclass(frozen=True, kw_only=True)
class ParseRules:
    """Limits of the door: bytes of one event, how far an event time may lie ahead of its record, and the earliest event time
    (both in microseconds)."""

    max_event_bytes: int
    max_future_skew_us: int
    earliest_us: int


def rules_of(config: Config) -> ParseRules:
    return ParseRules(
        max_event_bytes=config.ingest.max_event_bytes,
        max_future_skew_us=micros(config.join.max_future_skew),
        earliest_us=to_micros(config.ingest.earliest_event_time),
    )


def judge(reason: Reason, detail: str) -> str:
    return struct(reason=quoted(reason.value), detail=detail)


def end_of(line: str) -> str:
    """A text to put behind a line in a list of JSON, which the line does not have in it: a bracket in it may end the list, and so
    the parsing, early; no line has its own hash in it."""
    return f"IF(contains({line}, ']'), md5({line}), 'x')"
