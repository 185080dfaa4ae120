"""What the lanes of one process share, read once at its start: lake, facts, rule, ledger."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.model import Config
from pipelines.control.facts import Fact, Facts
from pipelines.control.origin import check_origin, origin
from pipelines.control.rule import require_rule, require_same_rule
from pipelines.control.store import EVERY_SECONDS, Control
from pipelines.lake.tables import Lake
from pipelines.model.errors import LakeError
from pipelines.monitor.ledger import Ledger


@dataclass(kw_only=True)
class Context:
    """`open_context` makes one. `tick` it once in a while: it writes what has gathered for `control` and the ledger."""

    lake: Lake
    config: Config
    control: Control
    ledger: Ledger
    _registered: list[bool] = field(default_factory=list)

    @property
    def facts(self) -> Facts:
        return self.control.facts

    def need(self, *tables: str) -> None:
        """Create the tables that a lane needs, or give them the columns of this configuration; with the output table among them,
        require that its rows are attributed by the configuration's rule. Raises LakeError, before any is touched."""
        self.lake.ensure(*tables)
        if self.lake.attributed in tables and not self._registered:
            require_rule(self.lake, self.config)
            self._registered.append(True)

    def tick(self) -> None:
        self.control.tick(min(EVERY_SECONDS, self.config.settle.every.total_seconds()))
        if self.ledger.tick() and self._registered:
            self.require_same_rule()

    def require_same_rule(self) -> None:
        """Raise LakeError where another process has registered another rule since this one started."""
        require_same_rule(self.lake, self.config)

    def close(self) -> None:
        """Write what has gathered."""
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.control.flush), pool.submit(self.ledger.flush)]:
                done.result()


@contextmanager
def open_context(lake: Lake, config: Config) -> Iterator[Context]:
    """Read the facts, and check that the streams are those of the lake; what has gathered is written on the way out.

    Raises LakeError where a stream has another name, id, event time or partitioning than when the lake was made.
    """
    control = Control(lake)
    _require_same_streams(control, config)
    context = Context(lake=lake, config=config, control=control, ledger=Ledger(lake))
    try:
        yield context
    finally:
        context.close()


def _require_same_streams(control: Control, config: Config) -> None:
    now = _streams(config)
    check_origin(control.facts, config, control.lake.root)
    if (written := origin(control.facts, config)) is not None:
        control.put(written)
    known = control.facts.last("streams")
    if known is None:
        control.put(Fact(kind="streams", detail=now))
        return
    for key in sorted({*known.detail, *now}):
        before, after = known.detail.get(key, "nothing"), now.get(key, "nothing")
        if before != after:
            raise LakeError(
                f"{key}: was {before} when this lake was made, now {after}; its rows are known and placed by that, so set it "
                "back, or use another lake"
            )


def _streams(config: Config) -> dict[str, Any]:
    """What a lake's rows are known and placed by, by key path."""
    return {
        f"streams.{name}.{key}": value
        for name, stream in config.streams.items()
        for key, value in {
            "role": stream.role,
            "id": stream.id,
            "event_time": stream.event_time,
            "partition_by": stream.partition_by or config.partition_by,
        }.items()
    }
