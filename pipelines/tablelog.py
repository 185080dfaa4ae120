"""What the log of a table tells of its commits: whether they bring events, and whether files of before them can still be read."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
MENDED = "rejoin.mended"
"""In the metadata of commits that took copies out of bronze, or put back what it had lost: nothing in them is new."""
RELANDED = "rejoin.relanded"
"""Beside that, in the metadata of those by which an answer may be another."""
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

    @property
    def brings_nothing(self) -> bool:
        """Whether no event is new in it: it neither adds rows nor takes any away, or reconcile mended the table by it."""
        return self.operation in NO_DATA_CHANGE or MENDED in self.metadata

    @property
    def keeps_files(self) -> bool:
        """Whether no data file goes out of the table by it."""
        return self.operation in _KEEPS_FILES or self.parameters.get("mode", self.parameters.get("outputMode")) == "Append"


def last_relanded(commits: Iterable[Commit], after: int) -> int:
    """The last version after that one, of those that the log tells of, in which reconcile changed what bronze answers; that one,
    where there is none."""
    return max((commit.version for commit in commits if commit.version > after and RELANDED in commit.metadata), default=after)


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
