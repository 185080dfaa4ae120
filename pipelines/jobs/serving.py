"""Serving metrics beside the lanes of a process, where the configuration asks for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.context import Context
from pipelines.jobs.reporting import UNSAID, Say
from pipelines.lake.reader import open_reader
from pipelines.monitor.entries import last_reconciliation
from pipelines.monitor.metrics import Metrics, served

_LOOK_SECONDS = 60.0


@contextmanager
def serving(context: Context, say: Say = UNSAID) -> Iterator[None]:
    """Meanwhile, `metrics.port` has what the lanes do. Raises RejoinError where it cannot be had."""
    config = context.config
    if config.metrics.port is None:
        yield
        return
    streams = [stream.name for stream in context.lake.streams.both]
    delay = config.join.watermark_delay.total_seconds()
    metrics = Metrics(context.lake.root, delay, streams, _Reconciled(context).look)
    context.ledger.observers.append(metrics)
    try:
        with served(config.metrics, metrics) as port:
            say.line(f"metrics: http://{config.metrics.address}:{port}/metrics")
            yield
    finally:
        context.ledger.observers.remove(metrics)


@dataclass
class _Reconciled:
    """Reconcile runs in a process of its own, so its table is looked at, once a minute."""

    context: Context
    _due: float = 0.0
    _known: tuple[float, bool] | None = None

    def look(self) -> tuple[float, bool] | None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK_SECONDS
            last = last_reconciliation(open_reader(self.context.config, lambda: self.context.lake, "reconciliations"))
            self._known = (last["finished_at"] / 1e6, last["verdict"] != "differs") if last else None
        return self._known
