"""Starting streaming queries, waiting for them, and saying in one line why one stopped."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.model.errors import RejoinError, first_line

_POLL_SECONDS = 0.5
_DRAIN_POLL_SECONDS = 0.05


def triggered(writer: DataStreamWriter, every: timedelta, *, once: bool = False) -> DataStreamWriter:
    """Drain what is there and stop (`once`), or a micro-batch `every` so often."""
    if once:
        return writer.trigger(availableNow=True)
    return writer.trigger(processingTime=f"{max(0, round(every.total_seconds() * 1000))} milliseconds")


def in_rounds(every: timedelta, drain: Callable[[], object]) -> NoReturn:
    """Call `drain` so often, for ever. For Spark Connect, which runs `foreachBatch` in processes of its own: the lanes here can
    neither hand each other what they know, nor see that a stream is idle. A drain reads both from the lake."""
    while True:
        clock = time.monotonic()
        drain()
        time.sleep(max(0.0, every.total_seconds() - (time.monotonic() - clock)))


def wait(
    queries: Sequence[StreamingQuery],
    tick: Callable[[], Any] = lambda: None,
    *,
    drain: bool = False,
    done: Callable[[], bool] | None = None,
    release: Callable[[], None] = lambda: None,
) -> None:
    """Call `tick` until every query has ended (`drain`), until `done`, or for ever. Raises RejoinError as soon as one fails.

    All queries are stopped on the way out, however that comes; before that, `release` lets go what waits in them.
    """
    try:
        while True:
            # Looked at before the tick: what ends during it is looked at in the next round.
            ended = [query for query in queries if not query.isActive]
            for query in ended:
                _raise_failure(query)
            tick()
            if (drain and len(ended) == len(queries)) or (done and done()):
                return
            time.sleep(_DRAIN_POLL_SECONDS if drain or done else _POLL_SECONDS)
    finally:
        release()
        for query in queries:
            if query.isActive:
                query.stop()


def _raise_failure(query: StreamingQuery) -> None:
    failure = query.exception()
    if failure is not None:
        raise RejoinError(f"query {query.name} stopped: {first_line(failure)}") from failure
