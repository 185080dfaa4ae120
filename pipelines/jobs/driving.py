"""Starting streaming queries, waiting for them, and telling in one line why one stopped."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.config import Config
from pipelines.errors import RejoinError, first_line

_POLL_SECONDS = 0.5


def triggered(writer: DataStreamWriter, config: Config, *, once: bool) -> DataStreamWriter:
    """Drain what is there and stop (`once`), or a micro-batch every `trigger.every`."""
    if once:
        return writer.trigger(availableNow=True)
    return writer.trigger(processingTime=_spark_interval(config))


def _spark_interval(config: Config) -> str:
    return f"{max(0, round(config.trigger.every.total_seconds() * 1000))} milliseconds"


def wait(queries: Sequence[StreamingQuery], tick: Callable[[], Any] = lambda: None, *, drain: bool = False) -> None:
    """Call `tick` until every query has ended (`drain`), or for ever. Raises RejoinError as soon as one fails.

    All queries are stopped on the way out, however that comes.
    """
    try:
        while True:
            # Looked at before the tick: what ends during it is looked at in the next round.
            ended = [query for query in queries if not query.isActive]
            for query in ended:
                _raise_failure(query)
            tick()
            if drain and len(ended) == len(queries):
                return
            time.sleep(0.05 if drain else _POLL_SECONDS)
    finally:
        for query in queries:
            if query.isActive:
                query.stop()


def _raise_failure(query: StreamingQuery) -> None:
    failure = query.exception()
    if failure is not None:
        raise RejoinError(f"query {query.name} stopped: {first_line(failure)}") from failure
