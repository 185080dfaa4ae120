"""Spark's event log, read from outside: how many SQL executions and jobs began within a window, and what they were."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXECUTION = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionStart"
_JOB = "SparkListenerJobStart"
_BEGINS = tuple(f'{{"Event":"{name}"' for name in (_EXECUTION, _JOB))
# What Spark calls an execution of a streaming query, with what Delta says before and after it.
_STREAMING = re.compile(
    r"(?:Delta: )*(?P<lane>[^\n]*)\nid = \S+\nrunId = \S+\nbatch = (?P<batch>\d+|init)(?P<rest>.*)", re.DOTALL
)
_LONGEST = 72
_WRAPPERS = ("WholeStageCodegen", "AdaptiveSparkPlan", "InputAdapter", "Project")


def settings(folder: Path) -> dict[str, str]:
    """Session settings by which Spark writes one plain file into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.absolute().as_uri(),
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Executions and jobs that began within a window. An execution that another one has started counts too; `nested` are those.
    `micro_batches` are, by streaming query, those whose first execution was one of them. `profile` counts the executions by lane,
    statement and plan."""

    executions: int
    nested: int
    jobs: int
    micro_batches: Counter[str]
    profile: Counter[tuple[str, str, str]]


def activity(folder: Path, begin: float, end: float) -> Activity:
    """What began from `begin` to `end` (seconds, the end exclusive), by the one log in a folder."""
    (log,) = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    roots: dict[int, str] = {}
    first: dict[tuple[str, str], float] = {}
    executions: list[dict[str, Any]] = []
    jobs = 0
    for event in _events(log):
        is_job = event["Event"] == _JOB
        at = event["Submission Time" if is_job else "time"] / 1000
        if not is_job:
            roots[event["executionId"]] = event["description"]
            if found := _STREAMING.match(event["description"]):
                first.setdefault((found["lane"], found["batch"]), at)
        if begin <= at < end:
            if is_job:
                jobs += 1
            else:
                executions.append(event)
    micro_batches = Counter({lane: 0 for lane, _ in first})
    micro_batches.update(lane for (lane, _), at in first.items() if begin <= at < end)
    return Activity(
        executions=len(executions),
        nested=sum(_root(event) != event["executionId"] for event in executions),
        jobs=jobs,
        micro_batches=micro_batches,
        profile=Counter(_kind(event, roots) for event in executions),
    )


def _events(log: Path) -> Iterator[dict[str, Any]]:
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            # The last line of a log that is being written may be incomplete.
            if line.startswith(_BEGINS) and line.endswith("\n"):
                yield json.loads(line)


def _root(event: dict[str, Any]) -> int:
    root = event.get("rootExecutionId")
    return int(event["executionId"] if root is None else root)


def _kind(event: dict[str, Any], roots: dict[int, str]) -> tuple[str, str, str]:
    """Lane, statement and plan. The lane is a streaming query's name, else `driver`, whose statements are where they were called;
    those of Delta, within one, are its too."""
    description = event["description"]
    if found := _STREAMING.match(description):
        return found["lane"], _general(found["rest"].strip(" :-")) or "-", _plan(event["sparkPlanInfo"])
    caller = _general(roots.get(_root(event), description))
    own = _general(description)
    statement = caller if own == caller or " at " in own else f"{caller}: {own}"
    return "driver", statement, _plan(event["sparkPlanInfo"])


def _plan(node: dict[str, Any]) -> str:
    """The topmost operator that says something, and the leftmost leaf below it."""
    while node["nodeName"].startswith(_WRAPPERS) and node["children"]:
        node = node["children"][0]
    leaf = node
    while leaf["children"]:
        leaf = leaf["children"][0]
    top = _general(node["nodeName"])
    bottom = _general(leaf["simpleString"] or leaf["nodeName"])
    return bottom if leaf is node else f"{top} < {bottom}"


def _general(text: str) -> str:
    """Text without what differs from one execution to the next, and without the directories of files and tables."""
    text = re.sub(r"#\d+L?|@[0-9a-f]{6,8}\b|<empty>, | Batched: .*", "", text)
    text = re.sub(r"\bRange \(.*", "Range", text)
    text = re.sub(r"org\.apache\.spark\.sql\.[\w.]*\.", "", text)
    text = re.sub(r"file:\S*/(\w+)/_delta_log\b", r"\1", text)
    text = re.sub(r"/\S*/(pipelines|benchmarks)/", r"\1/", text)
    text = re.sub(r"\bversion: \d+", "version: N", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def by_lane(profile: Counter[tuple[str, str, str]], tens: float) -> dict[str, list[dict[str, Any]]]:
    """The executions of each lane per 10 s, of a window of so many tens of seconds; the most frequent first."""
    lanes = Counter[str]()
    for (lane, _, _), count in profile.items():
        lanes[lane] += count
    return {
        lane: [
            {"statement": statement, "plan": plan, "executions": round(count / tens, 2)}
            for (of, statement, plan), count in profile.most_common()
            if of == lane
        ]
        for lane, _ in lanes.most_common()
    }
