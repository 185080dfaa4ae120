"""What the join's query has done, as Spark's listener reports it: entries for the ledger, the horizon, the versions read."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from pipelines.model.time import to_micros
from pipelines.monitor.lag import read_whole
from pipelines.monitor.ledger import Entry
from pipelines.monitor.phases import noted


class ProgressListener(StreamingQueryListener):
    """Keeps what queries of one name report until somebody takes it. Spark calls it in a thread of its own."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._lock = threading.Lock()
        self._progress: list[dict[str, Any]] = []
        self._terminated: dict[str, threading.Event] = {}

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        pass

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        if event.progress.name == self._query:
            progress = json.loads(event.progress.json)
            with self._lock:
                self._progress.append(progress)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        pass

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        self._ended(str(event.runId)).set()

    def take(self, run_id: str) -> list[dict[str, Any]]:
        """What one run of the query has reported since the last call, in order."""
        with self._lock:
            found = [each for each in self._progress if each["runId"] == run_id]
            self._progress = [each for each in self._progress if each["runId"] != run_id]
        return found

    def wait_for_end(self, run_id: str, seconds: float) -> bool:
        """Wait until all that a run reports has been reported; False if that takes longer."""
        return self._ended(run_id).wait(seconds)

    def _ended(self, run_id: str) -> threading.Event:
        with self._lock:
            return self._terminated.setdefault(run_id, threading.Event())


@dataclass(kw_only=True)
class JoinProgress:
    """Follows one run of the join.

    `streams` are the names of outcome and exposure stream, in the order of the plan's Delta sources. `horizon` (microseconds) is
    the watermark under which a micro-batch has finished: all that it makes final has been written. `consumed` is the last version
    of each stream's bronze that has been read whole; `fresh`, the streams of which the last call of `entries` saw rows.
    """

    run_id: str
    streams: Sequence[str]
    horizon: int | None = None
    consumed: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    fresh: frozenset[str] = frozenset()

    def entries(self, reported: Sequence[Mapping[str, Any]]) -> list[Entry]:
        """Entries for the ledger, of what the listener took."""
        # An idle trigger reports too, without having run a micro-batch.
        batches = [each for each in reported if "addBatch" in each["durationMs"]]
        self.fresh = frozenset(
            name for each in batches for name, source in self._sources(each).items() if source["numInputRows"] > 0
        )
        return [self._entry(each) for each in batches]

    def _sources(self, progress: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """By stream, what is reported of its bronze."""
        delta = [source for source in progress["sources"] if str(source["description"]).startswith("DeltaSource")]
        return dict(zip(self.streams, delta, strict=True))

    def _entry(self, progress: Mapping[str, Any]) -> Entry:
        started, batch = _micros(progress["timestamp"]), progress["batchId"]
        phases = noted(self.run_id, batch)
        waited, rows_out = phases.pop("wait", 0), phases.pop("rows_out", None)
        durations = {k: int(v) for k, v in progress["durationMs"].items()}
        durations |= {k: max(0, durations[k] - waited) for k in ("addBatch", "triggerExecution") if k in durations}
        watermark = _watermark(progress)
        if watermark is not None:
            self.horizon = max(watermark, self.horizon or watermark)
        sources, state = self._sources(progress), progress["stateOperators"]
        ends = {name: _offset(source["endOffset"]) for name, source in sources.items() if source.get("endOffset")}
        self.consumed.update({name: read_whole(end) for name, end in ends.items()})
        dropped = sum(s["numRowsDroppedByWatermark"] for s in state)
        self.dropped += dropped
        return Entry(
            query="join",
            run_id=self.run_id,
            batch=batch,
            started_at=started,
            finished_at=started + durations.get("triggerExecution", 0) * 1000,
            consumed=ends,
            rows_in=sum(source["numInputRows"] for source in sources.values()),
            rows_out=rows_out,
            rows_dropped_by_watermark=dropped,
            watermark=watermark,
            horizon=self.horizon,
            state_rows=sum(s["numRowsTotal"] for s in state),
            state_bytes=sum(s["memoryUsedBytes"] for s in state),
            durations_ms={**durations, **phases},
            detail={"state_task_ms": _state_task_ms(state)},
        )


def _state_task_ms(operators: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What the state's tasks took, all together: milliseconds that do not add up to the micro-batch's."""
    names = {"updating": "allUpdatesTimeMs", "evicting": "allRemovalsTimeMs", "committing": "commitTimeMs"}
    return {name: sum(int(o.get(key, 0)) for o in operators) for name, key in names.items()}


def _offset(value: Any) -> dict[str, Any]:
    """An offset of the Delta source; Spark Connect has it as text."""
    return dict(json.loads(value) if isinstance(value, str) else value)


def _watermark(progress: Mapping[str, Any]) -> int | None:
    text = progress.get("eventTime", {}).get("watermark")
    value = _micros(text) if text else 0
    return value or None


def _micros(iso: str) -> int:
    return to_micros(datetime.fromisoformat(iso.replace("Z", "+00:00")))
