"""What waits: landing files for ingest, bronze for the join, a backlog for settle, outcomes for a row. A lane that has stopped is
seen by what waits for it; one that has nothing to do is not. Instants and event times are microseconds."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.sources import FILE_SUFFIXES, FilesSource
from pipelines.control.facts import Facts
from pipelines.model.errors import RejoinError
from pipelines.model.format import about, size
from pipelines.model.paths import absolute, is_local
from pipelines.model.time import iso
from pipelines.monitor.checkpoints import files_unread
from pipelines.monitor.judged import Judged
from pipelines.monitor.lag import RECENT_US, Entry, Finding, Lag

_SECOND, _HOUR, _DAY = 1_000_000, 3_600.0, 86_400.0
# What comes is read within a micro-batch or two.
_PATIENCE_US = 90 * _SECOND


def stopped_ingest(facts: Facts, streams: Sequence[str]) -> dict[str, bool]:
    """Whether each stream's ingest has said that it stopped, or had drained what was there."""
    said = {stream: facts.last("ingest", stream) for stream in streams}
    return {stream: fact is not None and bool(fact.detail.get("stopped")) for stream, fact in said.items()}


def for_ingest(config: Config, checkpoints: str, stopped: Mapping[str, bool], now: int) -> list[Finding]:
    """Landing directories that are not there, and files in them that ingest has not read, by its checkpoint; where it has not
    said that it stopped, those that have waited for a minute and a half, or three micro-batches. Local ones only."""
    found = []
    patience = max(_PATIENCE_US, int(3 * config.trigger.every.total_seconds() * _SECOND))
    for name, stream in config.streams.items():
        key = f"streams.{name}.source.path"
        path = _directory(stream.source, key)
        if path is None:
            continue
        if not path.is_dir():
            problem = f"{name}: the landing directory {path} does not exist"
            found.append(Finding(problem=problem, remedy=f"create it, or correct {key}"))
        elif is_local(checkpoints):
            due = now if stopped[name] else now - patience
            came = {f"file:{file}": at for file, at in files_in(path) if at <= due}
            waiting = files_unread(Path(checkpoints, f"ingest-{name}"), came)
            if waiting:
                since = _ago(min(came[file] for file in waiting), now)
                problem = f"{name}: {len(waiting):,} files in {path} have not been read, the first came {since}"
                found.append(Finding(problem=problem, remedy="run `rejoin run`, or see what it says where it is running"))
    return found


def for_join(lag: Lag, delay: float, joined: int | None, now: int) -> list[Finding]:
    """What has waited for longer than ten minutes, for the join, which last finished a micro-batch at `joined`, or for settle;
    and a horizon that is far behind. `delay` is `join.watermark_delay` in seconds."""
    found = []
    files, count = (sum(each[i] for each in lag.unread.values()) for i in (0, 1))
    stopped = joined is not None and now - joined > RECENT_US
    if joined is not None and files and stopped:
        problem = f"{files:,} files ({size(count)}) of bronze wait unread; the join last finished {_ago(joined, now)}"
        found.append(Finding(problem=problem, remedy="see that `rejoin join` or `rejoin run` is running, and what it says"))
    if (left := lag.backlog) is not None and now - left.at > RECENT_US:
        problem = f"the backlog up to {iso(left.up_to)} ({left}), left to settle {_ago(left.at, now)}, waits unread"
        found.append(Finding(problem=problem, remedy="run `rejoin settle --once`"))
    behind = lag.seconds
    if behind is not None and (behind > delay + _DAY or (stopped and behind > delay + _HOUR)):
        problem = f"the horizon is {about(behind)} behind the newest landed event; outcomes after it are not final"
        remedy = "keep `rejoin run` running, which passes a silent stream after join.idle_timeout; or `rejoin run --once --all`"
        found.append(Finding(problem=problem, remedy=remedy))
    return found


def for_settle(latest: Mapping[str, Entry | None], settled: int | None, every: float, now: int) -> list[Finding]:
    """A settle that has stopped while the join goes on; `settled` is the horizon that its last run has seen, `every` is
    `settle.every` in seconds."""
    join, settle = latest["join"], latest["settle"]
    if join is None or settle is None or join["horizon"] is None:
        return []
    patience = max(RECENT_US, int(3 * every * _SECOND))
    if join["finished_at"] - settle["finished_at"] <= patience or (settled is not None and settled >= join["horizon"]):
        return []
    problem = f"settle last finished {_ago(settle['finished_at'], now)}, while the join goes on"
    return [Finding(problem=problem, remedy="run `rejoin settle`, or see what `rejoin run` says")]


def for_rows(judged: Sequence[Judged], outcome: str, attributed: int) -> list[Finding]:
    """Streams of which nothing has been accepted, and an output table without a row; `attributed` are its rows."""
    empty = [
        Finding(
            problem=f"{each.stream}: nothing has landed, of {each.read:,} lines read",
            remedy=f"see that events come where streams.{each.stream}.source says, then run `rejoin run`",
        )
        for each in judged
        if not each.accepted
    ]
    landed = any(each.accepted for each in judged if each.stream == outcome)
    if landed and not attributed:
        problem = "no outcome has a row yet: all are after the horizon, or neither join nor settle has run"
        empty.append(Finding(problem=problem, remedy="run `rejoin run`; or `rejoin run --once --all` for all that has landed"))
    return empty


def _directory(source: object, key: str) -> Path | None:
    """The local landing directory of a source, if it has one."""
    if not isinstance(source, FilesSource):
        return None
    try:
        path = resolve(source.path, key)
    except RejoinError:
        return None
    return Path(absolute(path)) if is_local(path) else None


def files_in(directory: Path) -> Iterator[tuple[str, int]]:
    """The files of events, and when each came under its name: a rename keeps the time of the content, but not of the entry. One
    that is taken away meanwhile, or may not be looked at, is not there."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            if entry.is_dir():
                yield from files_in(Path(entry.path))
            elif entry.name.endswith(FILE_SUFFIXES):
                with suppress(OSError):
                    if (stat := entry.stat()).st_size:
                        yield entry.path, stat.st_ctime_ns // 1000


def _ago(when: int, now: int) -> str:
    return f"{about((now - when) / _SECOND)} ago"
