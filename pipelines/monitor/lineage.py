"""OpenLineage events of the lanes of a process: START, RUNNING at most once a minute and lane, COMPLETE or FAIL (docs/logs.md).

Needs the extra `rejoin[lineage]`. OpenLineage's own configuration says where events go. A thread of their own sends them; what
cannot be sent is dropped.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import TracebackType
from urllib.parse import urlsplit

import structlog
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
from openlineage.client.facet_v2 import (
    DatasetFacet,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    schema_dataset,
)
from openlineage.client.uuid import generate_new_uuid

from pipelines import __version__
from pipelines.config.model import Config
from pipelines.config.sources import KafkaSource
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError, first_line, is_interrupted
from pipelines.model.paths import absolute
from pipelines.monitor.ledger import Entry

_EVERY_SECONDS = 60.0
_WAITING = 100
_PATIENCE_SECONDS = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    namespace: str
    name: str
    fields: list[tuple[str, str]]

    @property
    def facets(self) -> dict[str, DatasetFacet]:
        fields = [schema_dataset.SchemaDatasetFacetFields(name, type) for name, type in self.fields]
        return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}


@dataclass(kw_only=True)
class _Lane:
    job: Job
    inputs: list[_Dataset]
    outputs: dict[str, _Dataset]
    run: str = field(default_factory=lambda: str(generate_new_uuid()))
    rows: Counter[str] = field(default_factory=Counter)
    """By table, what the run has written."""
    sent: float = field(default_factory=time.monotonic)


class Lineage:
    """Tells OpenLineage of `queries`. Creates the tables that they write where they are missing. Raises ConfigError where
    OpenLineage's configuration names no receiver, or cannot be used."""

    def __init__(self, lake: Lake, namespace: str, queries: Sequence[str], *, once: bool) -> None:
        set_producer(f"urn:rejoin:{__version__}")
        self._sender = _Sender(_client())
        kind = job_type_job.JobTypeJobFacet(processingType="BATCH" if once else "STREAMING", integration="REJOIN", jobType="JOB")
        tables = {query: _tables(lake, query) for query in queries}
        lake.ensure(*{table for reads, writes in tables.values() for table in (*reads, *writes)})
        known = {table: _dataset(lake, table) for reads, writes in tables.values() for table in (*reads, *writes)}
        self._lanes = {
            query: _Lane(
                job=Job(namespace, f"rejoin.{query.replace(':', '.')}", {"jobType": kind}),
                inputs=[known[table] for table in reads] or [_source(lake.config, query.partition(":")[2])],
                outputs={table: known[table] for table in writes},
            )
            for query, (reads, writes) in tables.items()
        }

    def __enter__(self) -> "Lineage":
        for lane in self._lanes.values():
            self._send(lane, RunState.START)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failed = error is not None and not isinstance(error, KeyboardInterrupt) and not is_interrupted(error)
        for lane in self._lanes.values():
            if failed and error is not None:
                message = error_message_run.ErrorMessageRunFacet(first_line(error), "PYTHON")
                self._send(lane, RunState.FAIL, message)
            else:
                self._send(lane, RunState.COMPLETE)
        self._sender.close()

    def observe(self, entry: Entry) -> None:
        lane = self._lanes[entry.query]
        for table in lane.outputs:
            lane.rows[table] += (entry.rows_quarantined if table == "quarantine" else entry.rows_out) or 0
        if time.monotonic() - lane.sent >= _EVERY_SECONDS:
            self._send(lane, RunState.RUNNING)

    def turned(self) -> None:
        pass

    def _send(self, lane: _Lane, state: RunState, error: error_message_run.ErrorMessageRunFacet | None = None) -> None:
        lane.sent = time.monotonic()
        outputs = []
        for table, each in lane.outputs.items():
            rows = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=lane.rows[table])
            outputs.append(OutputDataset(each.namespace, each.name, facets=each.facets, outputFacets={"outputStatistics": rows}))
        self._sender.send(
            RunEvent(
                eventType=state,
                eventTime=datetime.now(timezone.utc).isoformat(),
                run=Run(lane.run, {"errorMessage": error} if error else {}),
                job=lane.job,
                inputs=[InputDataset(each.namespace, each.name, facets=each.facets) for each in lane.inputs],
                outputs=outputs,
            )
        )


class _Sender:
    """A receiver that is down or slow holds no lane up: events wait for their thread in a queue that is bounded."""

    def __init__(self, client: OpenLineageClient) -> None:
        self._client = client
        self._waiting: queue.Queue[RunEvent | None] = queue.Queue(_WAITING)
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="lineage", daemon=True)
        self._thread.start()

    def send(self, event: RunEvent | None) -> None:
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._warn(f"{_WAITING} events wait already")

    def close(self) -> None:
        """Wait for what waits, but not long."""
        self.send(None)
        self._thread.join(_PATIENCE_SECONDS)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._client.emit(event)
            except Exception as error:
                self._warn(first_line(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("an OpenLineage event could not be sent; later ones that cannot are not named", reason=reason)


def _client() -> OpenLineageClient:
    try:
        client = OpenLineageClient()
    except Exception as error:  # whatever its transports raise
        raise ConfigError(f"lineage.namespace: OpenLineage's configuration cannot be used: {first_line(error)}") from error
    if client.transport.kind == "console" and not client.config.transport:
        raise ConfigError(
            "lineage.namespace: OpenLineage does not know where to send events; write openlineage.yml, or set OPENLINEAGE_URL"
        )
    return client


def _tables(lake: Lake, query: str) -> tuple[list[str], list[str]]:
    """What a query reads and writes; ingest reads a source."""
    lane, _, stream = query.partition(":")
    if lane == "ingest":
        return [], [stream, "quarantine"]
    return [stream.name for stream in lake.streams.both], [lake.attributed]


def _dataset(lake: Lake, table: str) -> _Dataset:
    namespace, name = _named(lake.location(table))
    fields = [(column.name, column.dataType.simpleString()) for column in lake.read(table).schema]
    return _Dataset(namespace=namespace, name=name, fields=fields)


def _source(config: Config, name: str) -> _Dataset:
    stream = config.streams[name]
    if isinstance(stream.source, KafkaSource):
        named = f"kafka://{stream.source.bootstrap_servers.split(',')[0].strip()}", stream.source.topic
    else:
        named = _named(absolute(stream.source.path))
    return _Dataset(namespace=named[0], name=named[1], fields=[(column.name, column.type) for column in stream.columns])


def _named(location: str) -> tuple[str, str]:
    """Namespace and name of a directory, as OpenLineage names datasets.

    >>> _named("/data/plays"), _named("file:/data/plays"), _named("s3a://bucket/lake/plays")
    (('file', '/data/plays'), ('file', '/data/plays'), ('s3://bucket', 'lake/plays'))
    """
    parts = urlsplit(location)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    scheme = "s3" if parts.scheme in ("s3a", "s3n") else parts.scheme
    name = parts.path.lstrip("/") if scheme in ("s3", "gs") else parts.path
    return f"{scheme}://{parts.netloc}", name
