"""What the log of a table tells of its commits: whether they bring events, and whether files of before them can still be read."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pyspark.sql import Column
from pyspark.sql import functions as F

NO_DATA_CHANGE = (
    "ADD CONSTRAINT",
    "ADD COLUMNS",
    "CHANGE COLUMN",
    "CHANGE COLUMNS",
    "CLUSTER BY",
    "COMPUTE STATS",
    "DOMAIN METADATA CLEANUP",
    "DROP CONSTRAINT",
    "DROP FEATURE",
    "SET TBLPROPERTIES",
    "UNSET TBLPROPERTIES",
    "UPGRADE PROTOCOL",
    "OPTIMIZE",
    "REORG",
    "ROW TRACKING BACKFILL",
    "ROW TRACKING UNBACKFILL",
    "VACUUM START",
    "VACUUM END",
)
"""What DESCRIBE HISTORY calls commits that neither add rows nor take any away."""
INGEST, RELAND, QUARANTINE, REPAIR = "rejoin.ingest", "rejoin.reland", "rejoin.quarantine", "rejoin.repair"
"""Keys of the JSON that commits of ingest, of `rejoin reland`, of `rejoin reland --quarantine` and of `rejoin reconcile --repair`
carry as user metadata. Every commit of Rejoin that carries some has a key that begins with `rejoin.`."""
_KEEPS_FILES = {"CREATE TABLE", *NO_DATA_CHANGE} - {"OPTIMIZE", "REORG"}
# How far apart the times of a commit and of its files may be.
_SLACK_US = 600_000_000


class Commit(NamedTuple):
    """What DESCRIBE HISTORY says of a commit: `at` in microseconds since the epoch, `metadata` as its writer put it there."""

    version: int
    operation: str
    parameters: dict[str, str]
    at: int
    metadata: str
    metrics: Mapping[str, str] = MappingProxyType({})
    user: str | None = None

    @classmethod
    def columns(cls) -> list[Column]:
        """Of DESCRIBE HISTORY, in order."""
        return [
            F.col("version"),
            F.coalesce("operation", F.lit("")),
            F.coalesce("operationParameters", F.create_map()),
            F.unix_micros("timestamp"),
            F.coalesce("userMetadata", F.lit("")),
            F.coalesce("operationMetrics", F.create_map()),
            F.col("userName"),
        ]

    def ours(self, key: str) -> dict[str, Any] | None:
        """What a writer of Rejoin put under a key of the commit's metadata; None where it is not there."""
        if key not in self.metadata:
            return None
        try:
            found = json.loads(self.metadata).get(key)
        except (ValueError, AttributeError):
            return None
        return found if isinstance(found, dict) else None

    def is_marked(self, key: str = "") -> bool:
        """Whether its metadata has a key; without one, any of Rejoin's."""
        return f'"{key}"' in self.metadata if key else '"rejoin.' in self.metadata

    @property
    def changes_no_data(self) -> bool:
        """Whether it neither adds rows nor takes any away."""
        return self.operation in NO_DATA_CHANGE

    @property
    def appends(self) -> bool:
        """Whether it only adds rows."""
        return self.parameters.get("mode", self.parameters.get("outputMode")) == "Append"

    @property
    def keeps_files(self) -> bool:
        """Whether no data file goes out of the table by it."""
        return self.operation in _KEEPS_FILES or self.appends

    @property
    def added(self) -> tuple[int, int]:
        """Files and bytes that it added."""
        return int(self.metrics.get("numFiles", 0)), int(self.metrics.get("numOutputBytes", 0))


def local_commits(path: str, most: int) -> list[Commit] | None:
    """The newest commits of a table in a local directory, the newest first; None where delta-rs cannot read its log."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        found = DeltaTable(path, without_files=True).history(most)
    except DeltaError:
        return None
    return [_of_local(entry) for entry in found]


def _of_local(entry: Mapping[str, Any]) -> Commit:
    parameters = {name: str(value) for name, value in (entry.get("operationParameters") or {}).items() if value is not None}
    metrics = {name: str(value) for name, value in (entry.get("operationMetrics") or {}).items()}
    return Commit(
        entry["version"],
        entry.get("operation") or "",
        parameters,
        int(entry["timestamp"]) * 1000,
        entry.get("userMetadata") or "",
        metrics,
        entry.get("userName"),
    )


def files_taken(commits: Sequence[Commit]) -> bool:
    """Whether VACUUM may have deleted data files that one of the commits took out of the table: then the version before them
    cannot be read, nor each of them as it came."""
    out = [commit for commit in commits if not commit.keeps_files]
    vacuums = [commit for commit in commits if commit.operation == "VACUUM START"]
    return any(v.version > o.version and v.at - _kept_by(v) >= o.at - _SLACK_US for v in vacuums for o in out)


def _kept_by(vacuum: Commit) -> int:
    """For how long (microseconds) it kept files that were out of the table, at least. Delta 4.4 goes by the table's property
    unless its statement says 0 hours; others go by what that says."""
    told = (vacuum.parameters.get(f"{name}RetentionMillis") for name in ("specified", "default"))
    return min((int(each) * 1000 for each in told if each), default=0)
