"""Take over a lake of version 0.1, whose ledger was metrics, control and history of configurations at once.

Happens once, at the first start over such a lake: what its ledger and heartbeats say becomes rows of `control`. Its tables, its
ingest checkpoints and its ledger stay; its join checkpoints are removed once a run has published a horizon.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import functions as F

from pipelines.control.facts import Fact
from pipelines.lake.tables import Lake
from pipelines.model.rule import RegisteredRule, Rule

_HANDOFF, _RULES, _CHECKPOINTS = "join:backlog", "configuration", "checkpoint:join"
_Entry = Mapping[str, Any]


def facts_of_0_1(lake: Lake) -> list[Fact]:
    """The facts of a lake that 0.1 wrote; none where there is no such lake."""
    if not lake.exists("ledger"):
        return []
    ledger = lake.read("ledger")
    # Few: a run's last micro-batch of each query, and what was written once.
    once = F.col("query").isin(_HANDOFF, _RULES, _CHECKPOINTS) | F.col("query").startswith("gap:")
    last = ledger.groupBy("query").agg(F.max_by(F.struct("*"), F.struct("finished_at", "batch")).alias("e")).select("e.*")
    rows = last.where(~once).unionByName(ledger.where(once))
    names = ("query", "run_id", "batch", "consumed", "detail", "horizon", "watermark", "finished_at")
    times = ("horizon", "watermark", "finished_at")
    selected = rows.select(*(F.unix_micros(n).alias(n) if n in times else F.col(n) for n in names))
    entries = sorted((_decoded(row.asDict()) for row in selected.collect()), key=lambda e: (e["finished_at"], e["batch"] or 0))
    greatest = ledger.where(F.col("query").isin("join", _HANDOFF)).select(F.unix_micros(F.max("horizon"))).collect()[0][0]
    by_query: dict[str, list[_Entry]] = {}
    for entry in entries:
        by_query.setdefault(entry["query"], []).append(entry)
    found = [Fact(kind="horizon", event_time=greatest)] if greatest is not None else []
    return [*found, *_of_entries(lake, by_query), *_raised(lake)]


def rule_of_0_1(lake: Lake) -> RegisteredRule | None:
    """The last rule of a lake that 0.1 wrote. Rows of event dates before its own are of earlier rules."""
    if not lake.exists("ledger"):
        return None
    rows = lake.read("ledger").where(F.col("query") == _RULES).select("batch", "detail").collect()
    changes = [json.loads(row["detail"]) for row in sorted(rows)]
    if not changes:
        return None
    rule, since = Rule.from_dict(changes[-1]["definition"]), None
    for change in changes:
        if Rule.from_dict(change["definition"]) != rule:
            since = None
        elif since is None and change["after"] is not None:
            since = (datetime.fromtimestamp(change["after"] / 1e6, tz=timezone.utc) + timedelta(days=1)).date()
    one_rule = all(Rule.from_dict(change["definition"]) == rule for change in changes)
    return RegisteredRule(rule=rule, since=None if one_rule else since)


def _of_entries(lake: Lake, by_query: Mapping[str, list[_Entry]]) -> Iterator[Fact]:
    for entry in by_query.get(_HANDOFF, ()):
        yield Fact(kind="handoff", event_time=entry["horizon"], detail=entry["detail"], at=entry["finished_at"])
    for entry in by_query.get(_RULES, ())[-1:]:
        definition = entry["detail"]["definition"]
        fixed = ("role", "id", "event_time", "partition_by")
        yield Fact(kind="streams", detail={key: value for key, value in definition.items() if key.rpartition(".")[2] in fixed})
    for entry in by_query.get(_CHECKPOINTS, ()):
        window = entry["detail"]["parts"]["join.hot_window"]
        yield Fact(kind="join", detail={"hot_window": window}, at=entry["finished_at"])
    for entry in by_query.get("settle", ())[-1:]:
        settled, version = entry["detail"]["settled"], entry["detail"].get("attributed_version")
        yield Fact(kind="settled", version=version, detail=settled, at=entry["finished_at"])
    for query, entries in by_query.items():
        kind, _, stream = query.partition(":")
        if kind == "gap":
            for entry in entries:
                detail = {**entry["detail"], "id": entry["run_id"]}
                yield Fact(kind="gap", stream=stream, detail=detail, at=entry["finished_at"])
        if kind == "ingest":
            yield _writer_state(lake, stream, entries[-1])


def _writer_state(lake: Lake, stream: str, entry: _Entry) -> Fact:
    """As `pipelines.ingest.state.WriterState` has it; `version` says that bronze's commits up to it do not tell."""
    detail, consumed = entry["detail"], entry.get("consumed") or {}
    known = {
        "micro_batch": entry["batch"],
        "batch": entry["batch"],
        "watermark": entry["watermark"],
        "max_event_time": detail.get("max_event_time_us"),
        "delay": detail.get("watermark_delay_us", 0),
        "topic": consumed.get("topic"),
        "topic_id": consumed.get("topic_id"),
    }
    return Fact(kind="ingest", stream=stream, version=lake.version(stream), detail=known, at=entry["finished_at"])


def _raised(lake: Lake) -> Iterator[Fact]:
    """What writers of 0.1 promised in heartbeats never to fall below."""
    path = f"{lake.root}.rejoin_heartbeats" if lake.config.lake_is_catalog else f"delta.`{lake.root}/_rejoin/heartbeats`"
    if not lake.has_table(path):
        return
    beats = lake.spark.sql(f"SELECT stream, unix_micros(max(event_time)) AS value FROM {path} GROUP BY stream").collect()
    yield from (Fact(kind="idle", stream=row["stream"], event_time=row["value"]) for row in beats)


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "detail": json.loads(row["detail"] or "{}"), "consumed": json.loads(row.get("consumed") or "{}")}
