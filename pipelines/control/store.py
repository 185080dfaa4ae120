"""Table `control`: read once at a start, known in the process from then on, written at most once a minute."""

import json
import threading
import time
from collections.abc import Sequence

from pyspark.sql import functions as F

from pipelines.control.facts import NEWEST_ONLY, Fact, Facts, facts_in
from pipelines.control.takeover import facts_of_0_1
from pipelines.lake.reader import open_reader
from pipelines.lake.tables import Lake
from pipelines.model.schemas import CONTROL_SCHEMA
from pipelines.model.sql import quoted

EVERY_SECONDS = 60.0
# Another process may write what it has put so long ago, and it may be greater than what was read.
_UNWRITTEN_US = 3_600_000_000

_ROW = "kind string, stream string, event_time long, version long, detail string, at long"


class Control:
    """The facts as this process knows them.

    `put` changes what the process knows at once, and is written by the next `flush`; `write` writes at once. A process that
    dies loses at most what was put within a minute: every fact that is put can be found again, or is safe to fall behind.
    Safe to use from several threads.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lock = threading.RLock()
        self._facts: Facts | None = None
        self._pending: dict[tuple[str, str | None], Fact] = {}
        self._flushed = time.monotonic()

    @property
    def facts(self) -> Facts:
        with self._lock:
            if self._facts is None:
                self._facts = self._read()
            return self._facts

    def refresh(self) -> Facts:
        """Read the table again, for what other processes have written since."""
        with self._lock:
            found = self._read()
            for fact in self._pending.values():
                found = found.with_fact(fact)
            self._facts = found
            return found

    def put(self, fact: Fact) -> None:
        with self._lock:
            self._facts = self.facts.with_fact(fact)
            self._pending[fact.kind, fact.stream] = fact

    def write(self, *facts: Fact) -> None:
        """Write these, and what was put, in one commit; they are durable when this returns."""
        for fact in facts:
            self.put(fact)
        self.flush()

    def tick(self, every: float = EVERY_SECONDS) -> None:
        """Flush where the last flush is `every` seconds or more ago."""
        if time.monotonic() - self._flushed >= every:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            facts, self._pending = list(self._pending.values()), {}
            self._flushed = time.monotonic()
        try:
            append(self.lake, facts)
        except BaseException:
            with self._lock:
                self._pending = {(fact.kind, fact.stream): fact for fact in facts} | self._pending
            raise

    def _read(self) -> Facts:
        found = read_facts(self.lake)
        if not found.rows and (inherited := facts_of_0_1(self.lake)):
            append(self.lake, inherited)
            found = read_facts(self.lake)
        return found


def read_facts(lake: Lake) -> Facts:
    """All facts of the lake; none where the table does not exist yet."""
    return facts_in(open_reader(lake.config, lambda: lake, "control"))


def append(lake: Lake, facts: Sequence[Fact], *, transaction: tuple[str, int] | None = None) -> None:
    """Append in one commit; with `transaction` (application id, version), a version that was committed is not again."""
    if not facts:
        return
    lake.ensure("control")
    rows = [(f.kind, f.stream, f.event_time, f.version, json.dumps(dict(f.detail), sort_keys=True), f.at) for f in facts]
    frame = lake.spark.createDataFrame(rows, _ROW)
    for name in ("event_time", "at"):
        frame = frame.withColumn(name, F.timestamp_micros(name))
    lake.append("control", frame.coalesce(1).select(*CONTROL_SCHEMA.names), transaction=transaction)


def prune(lake: Lake, facts: Facts) -> None:
    """Delete rows that newer ones of their kind and stream replace: of facts of which the newest, or the greatest, is enough."""
    replaced = []
    for fact in facts.rows:
        if fact.kind in NEWEST_ONLY:
            stream = "NULL" if fact.stream is None else quoted(fact.stream)
            replaced.append(f"kind = '{fact.kind}' AND stream <=> {stream} AND unix_micros(at) < {fact.at - _UNWRITTEN_US}")
    if replaced:
        lake.spark.sql(f"DELETE FROM {lake.identifier('control')} WHERE ({') OR ('.join(replaced)})")
