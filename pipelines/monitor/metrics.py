"""Metrics for Prometheus, and a health probe, of a process that runs for long (docs/metrics.md).

Fed by the entries that the lanes give the ledger: one a micro-batch, or a run of settle. Names are the ecosystem's: base units,
`_total` for counters, `_timestamp_seconds` for moments. Moments that are not known yet are 0.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics, make_wsgi_app
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from pipelines import __version__
from pipelines.config.model import MetricsConfig
from pipelines.model.errors import RejoinError
from pipelines.monitor.ledger import Entry

STALLED_SECONDS = 600.0
"""For so long the lanes' loop may stand still before the probe says so: a run of settle over a backlog holds it up."""

_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

Reconciled = Callable[[], "tuple[float, bool] | None"]
"""When the last reconciliation ended (seconds since the epoch), and whether it agreed; None before the first."""


disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one process, and of the process `jvm`, in a registry of their own. `horizon` is that of the start, in
    microseconds."""

    def __init__(
        self,
        lake: str,
        watermark_delay: float,
        streams: Iterable[str],
        reconciled: Reconciled = lambda: None,
        jvm: int | None = None,
        horizon: int | None = None,
    ) -> None:
        self.registry = at = CollectorRegistry()
        ProcessCollector(registry=at)
        PlatformCollector(registry=at)
        if jvm is not None:
            ProcessCollector("jvm", lambda: jvm, registry=at)
        Gauge("rejoin_memory_limit_bytes", "Memory of the machine, or of the container.", registry=at).set(memory_limit())
        Info("rejoin", "What runs here.", registry=at).info({"version": __version__, "lake": lake})
        self._rows = Counter("rejoin_rows", "Lines read, by stream and verdict.", ["stream", "verdict"], registry=at)
        self._newest = Gauge("rejoin_newest_event_timestamp_seconds", "Greatest accepted event time.", ["stream"], registry=at)
        self._watermark = Gauge("rejoin_watermark_timestamp_seconds", "Watermark of a query.", ["query"], registry=at)
        self._lag = Gauge("rejoin_watermark_lag_seconds", "From a query's watermark to now.", ["query"], registry=at)
        self._seconds = Histogram(
            "rejoin_micro_batch_duration_seconds", "Micro-batches, and runs of settle.", ["query"], buckets=_BUCKETS, registry=at
        )
        self._last = Gauge("rejoin_last_micro_batch_timestamp_seconds", "End of the last one.", ["query"], registry=at)
        self._horizon = Gauge("rejoin_horizon_timestamp_seconds", "Up to where the join has finished.", registry=at)
        self._horizon.set((horizon or 0) / 1e6)
        Gauge("rejoin_watermark_delay_seconds", "As configured.", registry=at).set(watermark_delay)
        self._dropped = Counter("rejoin_rows_dropped_by_watermark", "Must be 0.", registry=at)
        self._state_rows = Gauge("rejoin_state_rows", "Rows of the join's state.", registry=at)
        self._state_bytes = Gauge("rejoin_state_bytes", "Memory of the join's state.", registry=at)
        self._looked_up = Counter("rejoin_settle_outcomes", "Outcomes that settle looked up, by cause.", ["cause"], registry=at)
        self._changed = Counter("rejoin_settle_rows", "Rows that settle wrote.", ["change"], registry=at)
        self._turned = time.time()
        loop = Gauge("rejoin_loop_timestamp_seconds", "When the lanes' loop last turned.", registry=at)
        loop.set_function(lambda: self._turned)
        last = "rejoin_last_reconciliation"
        Gauge(f"{last}_timestamp_seconds", "End of the last reconciliation.", registry=at).set_function(
            lambda: (reconciled() or (0.0, False))[0]
        )
        Gauge(f"{last}_agrees", "1: agrees; 0: differs, or none yet.", registry=at).set_function(
            lambda: float((reconciled() or (0.0, False))[1])
        )
        for stream in streams:
            for verdict in ("on_time", "late", "quarantined"):
                self._rows.labels(stream, verdict)

    def turned(self) -> None:
        """The lanes' loop has turned."""
        self._turned = time.time()

    @property
    def alive(self) -> bool:
        """Whether it has turned lately. Collects no metric: a probe does not wait for the lake."""
        return time.time() - self._turned < STALLED_SECONDS

    def observe(self, entry: Entry) -> None:
        """Count an entry of the ledger."""
        lane, _, stream = entry.query.partition(":")
        if entry.started_at is not None:
            self._seconds.labels(entry.query).observe((entry.finished_at - entry.started_at) / 1e6)
        self._last.labels(entry.query).set(entry.finished_at / 1e6)
        if entry.watermark is not None:
            watermark = entry.watermark / 1e6
            self._watermark.labels(entry.query).set(watermark)
            self._lag.labels(entry.query).set_function(lambda: time.time() - watermark)
        if entry.horizon is not None:
            self._horizon.set(entry.horizon / 1e6)
        if lane == "ingest":
            self._ingested(entry, stream)
        elif lane == "join":
            self._dropped.inc(entry.rows_dropped_by_watermark or 0)
            self._state_rows.set(entry.state_rows or 0)
            self._state_bytes.set(entry.state_bytes or 0)
        elif lane == "settle":
            for cause, count in entry.detail["causes"].items():
                self._looked_up.labels(cause).inc(count)
            for change in ("inserted", "updated"):
                self._changed.labels(change).inc(entry.detail[change])

    def _ingested(self, entry: Entry, stream: str) -> None:
        late = entry.rows_late or 0
        counts = {"on_time": (entry.rows_out or 0) - late, "late": late, "quarantined": entry.rows_quarantined or 0}
        for verdict, count in counts.items():
            self._rows.labels(stream, verdict).inc(count)
        newest = entry.detail.get("max_event_time_us")
        if newest is not None:
            self._newest.labels(stream).set(newest / 1e6)


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes that processes here can have together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup.read_text().strip() if cgroup.is_file() else "max"
    return machine if limit == "max" else min(machine, int(limit))


@contextmanager
def served(config: MetricsConfig, metrics: Metrics) -> Iterator[int]:
    """Serve `/metrics` and `/healthz` meanwhile; the port. Raises RejoinError where it cannot be had."""
    app = make_wsgi_app(metrics.registry)

    def answer(environ, start_response):  # type: ignore[no-untyped-def]  # WSGI
        if environ["PATH_INFO"] == "/metrics":
            return app(environ, start_response)
        found = {"/healthz": "200 OK" if metrics.alive else "503 Service Unavailable"}
        status = found.get(environ["PATH_INFO"], "404 Not Found")
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{status}\n".encode()]

    try:
        server = make_server(config.address, config.port or 0, answer, _Server, _Quiet)
    except OSError as error:
        where = f"metrics.port: {config.address}:{config.port} cannot be had ({error.strerror})"
        raise RejoinError(f"{where}; choose another, e.g. --set metrics.port=9465") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A scrape that hangs holds no other up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # who asked has gone away


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        pass
