"""How far the pipeline is behind: the horizon behind what has landed, the join behind bronze, settle behind what it was left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.checkpoints import last_whole_version
from pipelines.events import EventStream
from pipelines.instants import iso
from pipelines.join.reading import unread
from pipelines.lake import Lake
from pipelines.observe.bounds import Finding
from pipelines.observe.ledger import PASSED_OVER
from pipelines.observe.rate import RECENT_US
from pipelines.readable import about, size

_SECOND = 1_000_000
_Entries = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Of a stream's bronze, what has landed since the join last read."""

    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class LeftToSettle:
    """A backlog that a start of the join left to settle (`pipelines.join.backlog`), and settle has not looked at yet. Times are
    microseconds; `bytes` of bronze by stream."""

    at: int
    up_to: int
    bytes: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {"at": iso(self.at), "up_to": iso(self.up_to), "bytes": dict(self.bytes)}

    @property
    def told(self) -> str:
        return " and ".join(f"{size(count)} of {stream}" for stream, count in self.bytes.items())


@dataclass(frozen=True, kw_only=True)
class Behind:
    """`newest` is the newest event time that has landed, `horizon` the join's, in microseconds; None where there is none yet.
    `unread` has no entry for a stream of which it cannot be told."""

    newest: int | None = None
    horizon: int | None = None
    unread: Mapping[str, Unread] = field(default_factory=dict)
    left_to_settle: LeftToSettle | None = None

    @property
    def lag(self) -> float | None:
        """Seconds of event time; `watermark_delay` of them are meant to be."""
        return None if self.newest is None or self.horizon is None else max(0.0, (self.newest - self.horizon) / _SECOND)

    def as_dict(self) -> dict[str, Any]:
        return {
            "newest_event_time": iso(self.newest),
            "horizon_lag_s": self.lag,
            "unread_by_join": {stream: {"files": each.files, "bytes": each.bytes} for stream, each in self.unread.items()},
            "left_to_settle": self.left_to_settle.as_dict() if self.left_to_settle else None,
        }


def read_behind(lake: Lake, last: _Entries, horizon: int | None) -> Behind:
    """From the latest entry of each query, and the history of bronze."""
    landed = [e["detail"].get("max_event_time_us") for s in lake.streams.both if (e := last.get(f"ingest:{s.name}"))]
    consumed = _consumed(last)
    known = [stream for stream in lake.streams.both if stream.name in consumed and last.get(f"ingest:{stream.name}")]
    return Behind(
        newest=max((at for at in landed if at is not None), default=None),
        horizon=horizon,
        unread={stream.name: _unread(lake, stream, consumed[stream.name]) for stream in known},
        left_to_settle=left_to_settle(last),
    )


def left_to_settle(last: _Entries) -> LeftToSettle | None:
    """What the join's last start left, where settle's last run did not come as far."""
    passed, settled = last.get(PASSED_OVER), last.get("settle")
    if passed is None or passed["horizon"] is None:
        return None
    seen = settled["detail"]["settled"]["horizon"] if settled else None
    if seen is not None and seen >= passed["horizon"]:
        return None
    return LeftToSettle(at=passed["finished_at"], up_to=passed["horizon"], bytes=passed["detail"].get("bytes", {}))


def waiting(behind: Behind, last: _Entries, *, now: int) -> list[Finding]:
    """What has waited for longer than ten minutes, for the join or for settle."""
    found = []
    join = last.get("join")
    files, count = (sum(getattr(each, name) for each in behind.unread.values()) for name in ("files", "bytes"))
    if join is not None and files and now - join["finished_at"] > RECENT_US:
        age = about((now - join["finished_at"]) / _SECOND)
        problem = f"the join finished its last micro-batch {age} ago, and {files:,} files ({size(count)}) of bronze wait for it"
        found.append(Finding(problem=problem, remedy="see that `rejoin join` or `rejoin run` is running, and what it says"))
    left = behind.left_to_settle
    if left is not None and now - left.at > RECENT_US:
        age = about((now - left.at) / _SECOND)
        problem = f"settle has not looked at the backlog up to {iso(left.up_to)} ({left.told}) that it was left {age} ago"
        found.append(Finding(problem=problem, remedy="run `rejoin settle --once`"))
    return found


def behind_lines(behind: Behind) -> list[str]:
    """For a terminal."""
    lines = []
    if behind.lag is not None:
        lines.append(f"  behind       {about(behind.lag)}: from the horizon to the newest landed event, {iso(behind.newest)}")
    some = [f"{s} {each.files:,} files, {size(each.bytes)}" for s, each in behind.unread.items() if each.files]
    if behind.unread:
        lines.append(f"  unread       {'; '.join(some) or 'nothing: the join has read all that has landed'}")
    if behind.left_to_settle is not None:
        left = behind.left_to_settle
        lines.append(f"  left over    a backlog up to {iso(left.up_to)} that settle has not looked at yet")
        lines.append(f"               ({left.told}): run `rejoin settle --once`")
    return lines


def _consumed(last: _Entries) -> dict[str, int]:
    """The last version of each bronze table that the join has read whole, or left to settle."""
    join, passed = last.get("join"), last.get(PASSED_OVER)
    if passed is not None and (join is None or passed["finished_at"] > join["finished_at"]):
        return {stream: int(version) for stream, version in passed["consumed"].items()}
    offsets = {stream: offset for stream, offset in join["consumed"].items() if offset} if join else {}
    versions = {stream: last_whole_version(offset) for stream, offset in offsets.items()}
    return {stream: version for stream, version in versions.items() if version >= 0}


def _unread(lake: Lake, stream: EventStream, after: int) -> Unread:
    files, count = unread(lake, stream, after)
    return Unread(files=files, bytes=count)
