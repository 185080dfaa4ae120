"""A plan as a table for people, and as JSON (docs/scale.md describes the fields)."""

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from pipelines.config import Config
from pipelines.durations import format_duration
from pipelines.readable import size
from pipelines.sizing.advice import Advice, advise
from pipelines.sizing.costs import MEASURED, Costs
from pipelines.sizing.demand import Demand
from pipelines.sizing.plan import Plan, plan

_WIDTH = 120
_NAME = 30


@dataclass(frozen=True, kw_only=True)
class Sizing:
    demand: Demand
    plan: Plan
    advice: Advice
    costs: Costs

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; durations in seconds."""
        return {
            "demand": {k: v.total_seconds() if isinstance(v, timedelta) else v for k, v in asdict(self.demand).items()},
            "plan": asdict(self.plan),
            "settings": self.advice.settings,
            "limits": [{**asdict(limit), "use": limit.use} for limit in self.advice.limits],
            "warnings": self.advice.warnings,
            "alternatives": [asdict(each) for each in self.advice.alternatives],
            "costs": asdict(self.costs),
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def to_text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        yield from _headline(self.plan)
        yield from _section("work at the peak (cores)", _work(self.plan))
        yield from _section("state of the join", _state(self.plan))
        yield from _section("shape", _shape(self.plan))
        yield from ["", "a day", *_volumes(self.plan)]
        yield from _section("settings", self.advice.settings.items())
        yield from ["", "limits, the first to be reached first", *_limits(self.advice)]
        if self.advice.alternatives:
            yield from ["", "the same load, otherwise", *_alternatives(self.advice)]
        yield from _section("look at", [("", line) for line in self.advice.warnings])
        yield ""
        yield "From costs measured on one machine of 2 cores; beyond it, arithmetic. docs/scale.md says which figure is which."


def size_up(demand: Demand, config: Config, costs: Costs = MEASURED) -> Sizing:
    found = plan(demand, costs)
    return Sizing(demand=demand, plan=found, advice=advise(demand, costs, found, config), costs=costs)


def _headline(found: Plan) -> list[str]:
    peak = f"{found.events_per_second:,.0f} events/s, {found.events_per_second_at_peak:,.0f} at the peak"
    if found.cores == 1:
        return [f"{peak}: one core is enough"]
    if found.executors == 1:
        return [f"{peak}: {found.cores} cores, one machine"]
    return [f"{peak}: {found.cores:,} cores, {found.executors:,} executors of {found.cores_per_executor}, and a driver"]


def _section(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"  {name:<{_NAME}} {value}" if name else f"  {value}" for name, value in rows]
    return ["", title, *lines] if lines else []


def _work(found: Plan) -> list[tuple[str, str]]:
    busy = found.busy
    return [
        ("ingest", _cores(busy.ingest)),
        ("join: events", _cores(busy.join_events)),
        ("join: scan of state", _cores(busy.join_scan)),
        ("join: MERGE (estimated)", _cores(busy.merge)),
        ("settle (in part estimated)", _cores(busy.settle)),
        ("in all", f"{_cores(sum(busy.as_dict().values()))} busy; {found.cores:,} to have"),
    ]


def _state(found: Plan) -> list[tuple[str, str]]:
    state = found.state
    where = "local disk" if state.provider == "rocksdb" else "heap"
    return [
        ("rows", f"{state.rows:,}; {state.rows_per_partition:,} in a partition"),
        ("bytes", f"{size(state.bytes)} of {where} ({state.provider}); {size(state.bytes_per_core)} a core, "
                  f"{size(state.bytes_per_partition)} a partition"),
    ]  # fmt: skip


def _shape(found: Plan) -> list[tuple[str, str]]:
    kafka = ", ".join(f"{count:,} for {role}" for role, count in found.kafka_partitions.items())
    disk = f", {size(found.disk_bytes_per_executor)} local disk" if found.disk_bytes_per_executor else ""
    return [
        ("trigger", f"{_duration(found.trigger_seconds)}; a micro-batch of the join takes {found.micro_batch_seconds:,.1f} s"),
        ("settle every", _duration(found.settle_every_seconds)),
        ("shuffle partitions", f"{found.shuffle_partitions:,} (another number later: a new checkpoint, by itself)"),
        ("Kafka partitions", f"at least {kafka}"),
        ("an executor", f"{found.cores_per_executor} cores, {size(found.memory_bytes_per_executor)} memory{disk}"),
    ]


def _volumes(found: Plan) -> list[str]:
    tables = {**{f"bronze, {role}": table for role, table in found.bronze.items()}, "attributed": found.attributed}
    rows = [[name, f"{t.rows:,}", size(t.bytes), f"{t.files:,}", f"{t.files_optimized:,}"] for name, t in tables.items()]
    rows.append(["ledger", f"{found.ledger_rows_per_day:,}", "", f"{found.ledger_rows_per_day:,}", "1"])
    rows.append(["Kafka", "", size(found.kafka_bytes_per_day), "", ""])
    return _table(["", "rows", "bytes", "files", "after OPTIMIZE"], rows)


def _limits(advice: Advice) -> list[str]:
    rows = [
        [limit.name, f"{limit.value:,.3g} {limit.unit}" if limit.value < 1000 else f"{limit.value:,.0f} {limit.unit}",
         f"{limit.use:.0%}", limit.basis, limit.remedy]
        for limit in advice.limits
    ]  # fmt: skip
    return _table(["", "is", "of limit", "basis", "remedy"], rows, right=(1, 2))


def _alternatives(advice: Advice) -> list[str]:
    rows = [
        [each.setting, f"{each.cores:,}", _duration(each.trigger_seconds), _duration(each.settle_every_seconds),
         f"{each.state_rows:,}", size(each.state_bytes), size(each.memory_bytes_per_executor)]
        for each in advice.alternatives
    ]  # fmt: skip
    return _table(["", "cores", "trigger", "settle every", "state rows", "state", "an executor's memory"], rows)


def _table(heads: list[str], rows: list[list[str]], right: tuple[int, ...] | None = None) -> list[str]:
    """A table without a frame, indented as the rest."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    numeric = range(1, len(heads)) if right is None else right
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=_WIDTH, no_color=True, highlight=False, markup=False).print(table)
    return [f"  {line.rstrip()}" for line in out.getvalue().splitlines()]


def _cores(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=seconds))
