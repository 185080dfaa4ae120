"""What ingest's checkpoint, on a local disk, says of how far it has read; without Spark, which may clean up meanwhile."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipelines.model.paths import location


def offsets_read(checkpoint: Path, topic: str) -> dict[int, int]:
    """The next offset to read of each partition, after the last finished micro-batch; none where there is none."""
    found = (said.get(topic) for said in _finished(checkpoint))
    return {int(partition): offset for offsets in found if isinstance(offsets, dict) for partition, offset in offsets.items()}


def files_unread(checkpoint: Path, files: Collection[str]) -> set[str]:
    """Those of the files (see `location`) that no finished micro-batch has read."""
    last = next((said["logOffset"] for said in _finished(checkpoint) if "logOffset" in said), -1)
    left = set(files)
    for line in _logged(checkpoint / "sources" / "0") if left else ():
        # As Spark writes an entry: {"path":"file:///...","timestamp":1767952800000,"batchId":3}; a path is a URI, without quotes.
        path, _, rest = line.removeprefix('{"path":"').partition('"')
        if int(rest.rpartition(":")[2].rstrip("}")) <= last:
            left.discard(location(path))
    return left


def _finished(checkpoint: Path) -> list[dict[str, Any]]:
    """What the offset log has of the last finished micro-batch."""
    finished = [int(path.name) for path in checkpoint.glob("commits/*") if path.name.isdigit()]
    lines = _lines(checkpoint / "offsets" / str(max(finished, default=-1)))
    return [json.loads(line) for line in lines if line.startswith("{")]


def _logged(log: Path) -> Iterator[str]:
    """The entries of a file source's log: of its last compaction, and since."""
    logged = {path: int(path.name.partition(".")[0]) for path in log.glob("[0-9]*")}
    since = max((number for path, number in logged.items() if path.suffix == ".compact"), default=0)
    for path, number in logged.items():
        if number >= since:
            yield from (line for line in _lines(path) if line.startswith("{"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
