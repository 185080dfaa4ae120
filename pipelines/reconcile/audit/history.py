"""Commits by others: those that change a table's rows and that Rejoin did not make, with what Delta's metrics say of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.lake.history import INGEST, RELAND, Commit
from pipelines.lake.tables import Lake
from pipelines.model.time import iso

_REMOVED = ("numDeletedRows", "numTargetRowsDeleted")
_CHANGED = ("numUpdatedRows", "numTargetRowsUpdated")


@dataclass(frozen=True, kw_only=True)
class ForeignCommit:
    """A commit by somebody else; rows that it removed, changed and added by its operation metrics."""

    version: int
    operation: str
    at: str
    user: str | None
    removed: int
    changed: int
    added: int

    @classmethod
    def of(cls, commit: Commit) -> "ForeignCommit":
        added = "numTargetRowsInserted" if commit.operation == "MERGE" else "numOutputRows"
        return cls(
            version=commit.version,
            operation=commit.operation,
            at=str(iso(commit.at)),
            user=commit.user,
            removed=_rows(commit.metrics, *_REMOVED),
            changed=_rows(commit.metrics, *_CHANGED),
            added=0 if commit.operation == "UPDATE" else _rows(commit.metrics, added),
        )

    @property
    def only_removes(self) -> bool:
        return self.operation in ("DELETE", "TRUNCATE")

    def __str__(self) -> str:
        by = f" by {self.user}" if self.user else ""
        figures = {"removed": self.removed, "changed": self.changed, "added": self.added}
        rows = ", ".join(f"{rows:,} rows {verb}" for verb, rows in figures.items() if rows)
        return f"version {self.version}, {self.operation} at {self.at}{by}{f' ({rows})' if rows else ''}"


@dataclass(frozen=True, kw_only=True)
class BronzeHistory:
    """The foreign commits of a bronze table up to `version` that nothing has undone; `marked`: whether ingest's commits carry
    user metadata by then, so that an append without any is foreign."""

    version: int
    foreign: tuple[ForeignCommit, ...] = ()
    marked: bool = False


def bronze_history(commits: Iterable[Commit], version: int, before: BronzeHistory) -> BronzeHistory:
    """Continue the history of `before` by the commits after it, to `version`.

    A commit is undone by RESTORE to a version before it; one that only removed rows also by `rejoin reland`, which puts back what
    the source still has. Somebody who changes bronze on purpose gives the commit user metadata with a key such as
    `rejoin.accepted`.
    """
    current, marked = before.foreign, before.marked
    states: dict[int, tuple[ForeignCommit, ...]] = {before.version: current}
    for commit in sorted(commits, key=lambda commit: commit.version):
        restored = commit.parameters.get("version") if commit.operation == "RESTORE" else None
        if restored is not None and restored.isdigit():
            earlier = tuple(each for each in current if each.version <= int(restored))
            current = states.get(int(restored), earlier)
        elif commit.is_marked(RELAND):
            current = tuple(each for each in current if not each.only_removes)
        elif not (commit.changes_no_data or commit.is_marked() or _creates(commit) or (commit.appends and not marked)):
            current = (*current, ForeignCommit.of(commit))
        marked = marked or commit.is_marked(INGEST)
        states[commit.version] = current
    return BronzeHistory(version=version, foreign=current, marked=marked)


def foreign_table_commits(lake: Lake, through: int, limit: int) -> list[ForeignCommit]:
    """The latest commits of the output table up to a version that no lane made, the latest first; lanes MERGE."""
    commits = [commit for commit in lake.commits(lake.attributed, 0) if commit.version <= through]
    foreign = [c for c in commits if not (c.changes_no_data or c.is_marked() or _creates(c) or c.operation == "MERGE")]
    return [ForeignCommit.of(commit) for commit in foreign[:limit]]


def _creates(commit: Commit) -> bool:
    return commit.operation.startswith("CREATE TABLE") and not commit.metrics


def _rows(metrics: Mapping[str, str], *names: str) -> int:
    return sum(int(metrics[name]) for name in names if metrics.get(name, "").isdigit())
