"""Structured logs of what lanes do, from their entries for the ledger (docs/logs.md). No payload, key or id is logged."""

from collections.abc import Sequence
from types import TracebackType

import structlog

from pipelines.model.time import iso
from pipelines.monitor.ledger import Entry

_COUNTS = ("rows_in", "rows_out", "rows_late", "rows_quarantined", "rows_dropped_by_watermark", "state_rows")

log = structlog.get_logger()


class Logs:
    """A line for the start and the end of each query, and for each entry. What fails is logged by who reports it."""

    def __init__(self, queries: Sequence[str]) -> None:
        self._queries = queries

    def __enter__(self) -> "Logs":
        for query in self._queries:
            log.info("lane started", query=query)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for query in self._queries:
            log.info("lane ended", query=query)

    def observe(self, entry: Entry) -> None:
        figures = {
            "batch": entry.batch,
            **{name: getattr(entry, name) for name in _COUNTS},
            "duration_ms": None if entry.started_at is None else (entry.finished_at - entry.started_at) // 1000,
            "watermark": iso(entry.watermark),
            "horizon": iso(entry.horizon),
            "causes": entry.detail.get("causes"),
        }
        event = "settle run" if entry.query == "settle" else "micro-batch"
        log.info(event, query=entry.query, **{name: value for name, value in figures.items() if value is not None})

    def turned(self) -> None:
        pass
