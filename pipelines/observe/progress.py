"""A streaming query's progress, as Spark reports it, to entries of the ledger."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql.streaming.query import StreamingQuery

from pipelines.checkpoints import last_whole_version
from pipelines.instants import to_micros
from pipelines.observe.ledger import Entry
from pipelines.observe.phases import noted


@dataclass(kw_only=True)
class ProgressReader:
    """Turns the micro-batches that a query has finished since the last look into entries.

    `horizon` is what has been published so far (microseconds): it never falls, also where a new checkpoint begins with a
    watermark of its own. `consumed` is the last version of each source table (by the name that its path ends with) that has been
    read whole.
    """

    query: str
    run_id: str
    horizon: int | None = None
    consumed: dict[str, int] = field(default_factory=dict)
    _last_batch: int = field(default=-1)

    def entries(self, query: StreamingQuery) -> list[Entry]:
        fresh = [p for p in (_as_dict(p) for p in query.recentProgress) if self._is_new_batch(p)]
        return [self._entry(p) for p in fresh]

    def _is_new_batch(self, progress: dict[str, Any]) -> bool:
        # An idle trigger reports too, without having run a batch.
        if progress["batchId"] <= self._last_batch or "addBatch" not in progress["durationMs"]:
            return False
        self._last_batch = progress["batchId"]
        return True

    def _entry(self, progress: dict[str, Any]) -> Entry:
        started = _micros(progress["timestamp"])
        durations = {k: int(v) for k, v in progress["durationMs"].items()}
        watermark = _watermark(progress)
        if watermark is not None:
            # The micro-batch ran under this watermark: all that it makes final has been written.
            self.horizon = max(watermark, self.horizon or watermark)
        data = [s for s in progress["sources"] if not _is_heartbeat(s)]
        self.consumed.update({_table(s): last_whole_version(s["endOffset"]) for s in data if s.get("endOffset")})
        state = progress["stateOperators"]
        dropped = sum(s["numRowsDroppedByWatermark"] for s in state)
        return Entry(
            query=self.query,
            run_id=self.run_id,
            batch=progress["batchId"],
            started_at=started,
            finished_at=started + durations.get("triggerExecution", 0) * 1000,
            consumed={_table(s): s["endOffset"] for s in data},
            rows_in=sum(s["numInputRows"] for s in data),
            rows_dropped_by_watermark=dropped,
            watermark=watermark,
            horizon=self.horizon,
            state_rows=sum(s["numRowsTotal"] for s in state),
            state_bytes=sum(s["memoryUsedBytes"] for s in state),
            durations_ms={**durations, **noted(self.run_id, progress["batchId"])},
            detail={**_state_task_ms(state), **(_alarm(data) if dropped else {})},
        )


def _state_task_ms(operators: list[dict[str, Any]]) -> dict[str, Any]:
    """What the state's tasks took, all together: milliseconds that do not add up to the micro-batch's, but tell what it does."""
    names = {"taking in": "allUpdatesTimeMs", "evicting": "allRemovalsTimeMs", "committing": "commitTimeMs"}
    return {"state_task_ms": {name: sum(int(o.get(key, 0)) for o in operators) for name, key in names.items()}}


def _alarm(sources: list[dict[str, Any]]) -> dict[str, Any]:
    """What settle needs to make good for rows that a micro-batch has dropped: the versions that had been read before it."""
    began = {_table(s): last_whole_version(s["startOffset"]) if s.get("startOffset") else -1 for s in sources}
    return {"alarm": "rows dropped by watermark", "read_after": began}


def _as_dict(progress: Any) -> dict[str, Any]:
    return dict(json.loads(progress.json if hasattr(progress, "json") else json.dumps(progress)))


def _is_heartbeat(source: dict[str, Any]) -> bool:
    return _table(source) in ("heartbeats", "rejoin_heartbeats")


def _table(source: dict[str, Any]) -> str:
    """`DeltaSource[file:/lake/playbacks]` -> `playbacks`."""
    return str(source["description"]).rstrip("]").rpartition("/")[2]


def _watermark(progress: dict[str, Any]) -> int | None:
    text = progress.get("eventTime", {}).get("watermark")
    value = _micros(text) if text else 0
    return value or None


def _micros(iso: str) -> int:
    return to_micros(datetime.fromisoformat(iso.replace("Z", "+00:00")))
