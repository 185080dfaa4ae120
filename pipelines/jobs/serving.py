"""Telling logs, lineage and metrics what the lanes of a process do, where the configuration asks for it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.context import Context
from pipelines.jobs.reporting import UNSAID, Say
from pipelines.lake.reader import open_reader
from pipelines.model.errors import ConfigError
from pipelines.monitor.entries import last_reconciliation
from pipelines.monitor.ledger import Observer
from pipelines.monitor.logs import Logs
from pipelines.monitor.metrics import Metrics, served
from pipelines.session import jvm_pid

if TYPE_CHECKING:
    from pipelines.monitor.lineage import Lineage

_LOOK_SECONDS = 60.0


@contextmanager
def observed(context: Context, *lanes: str, once: bool = False, say: Say = UNSAID) -> Iterator[None]:
    """Meanwhile, logs, lineage and, unless `once`, metrics are told what the lanes do. Raises RejoinError where the port is taken
    or OpenLineage cannot be used."""
    streams = [stream.name for stream in context.lake.streams.both]
    queries = [query for lane in lanes for query in ([f"ingest:{name}" for name in streams] if lane == "ingest" else [lane])]
    observers: list[Observer] = []
    with ExitStack() as stack:
        if context.config.metrics.port is not None and not once:
            observers.append(stack.enter_context(_metrics(context, streams, say)))
        if context.config.logs.format == "json":
            observers.append(stack.enter_context(Logs(queries)))
        if context.config.lineage.namespace is not None:
            observers.append(stack.enter_context(_lineage(context, context.config.lineage.namespace, queries, once=once)))
        context.ledger.observers += observers
        yield


@contextmanager
def _metrics(context: Context, streams: Sequence[str], say: Say) -> Iterator[Metrics]:
    config, delay = context.config, context.config.join.watermark_delay.total_seconds()
    metrics = Metrics(context.lake.root, delay, streams, _Reconciled(context).look, jvm_pid(), context.facts.horizon)
    with served(config.metrics, metrics) as port:
        say.line(f"metrics: http://{config.metrics.address}:{port}/metrics")
        yield metrics


def _lineage(context: Context, namespace: str, queries: Sequence[str], *, once: bool) -> "Lineage":
    try:
        from pipelines.monitor.lineage import Lineage
    except ModuleNotFoundError:
        raise ConfigError("lineage.namespace: OpenLineage's client is not installed: pip install 'rejoin[lineage]'") from None
    return Lineage(context.lake, namespace, queries, once=once)


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
