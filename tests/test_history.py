"""Which commits of bronze are foreign, and which of them have been undone: rules, on literal commits."""

import pytest

from pipelines.lake.history import Commit
from pipelines.reconcile.audit.history import BronzeHistory, ForeignCommit, bronze_history

START = BronzeHistory(version=-1)


def log(*operations: str) -> list[Commit]:
    """One commit an operation: `append`, `append!` (with ingest's metadata), `reland`, `RESTORE 3`, or as Delta calls it."""
    commits = []
    for version, text in enumerate(operations):
        operation, _, to = text.partition(" ")
        parameters = {"mode": "Append"} if operation.startswith("append") else {"version": to} if operation == "RESTORE" else {}
        marks = {"append!": '{"rejoin.ingest": {}}', "reland": '{"rejoin.reland": {}}', "accepted": '{"rejoin.accepted": "GDPR"}'}
        name = {"append": "WRITE", "append!": "WRITE", "reland": "WRITE", "accepted": "DELETE"}.get(operation, text)
        name = "RESTORE" if operation == "RESTORE" else name
        commits.append(Commit(version, name, parameters, version, marks.get(operation, "")))
    return commits


@pytest.mark.parametrize(
    ("operations", "foreign"),
    [
        (["append", "OPTIMIZE", "SET TBLPROPERTIES", "append"], []),
        (["append", "DELETE", "append", "UPDATE"], [1, 3]),
        (["append", "MERGE"], [1]),
        # A plain append is ingest's until ingest's commits say so themselves.
        (["append", "append!", "append", "append!"], [2]),
        (["append!", "accepted"], []),
        # Undone: by RESTORE to a version before it, and back; by reland what only removed rows.
        (["append", "DELETE", "RESTORE 0"], []),
        (["append", "DELETE", "UPDATE", "RESTORE 1"], [1]),
        (["append", "UPDATE", "RESTORE 0", "RESTORE 1"], [1]),
        (["append", "DELETE", "UPDATE", "reland"], [2]),
        (["append", "reland", "DELETE"], [2]),
    ],
)
def test_foreign_commits(operations: list[str], foreign: list[int]) -> None:
    commits = log(*operations)
    found = bronze_history(commits[::-1], len(commits) - 1, START)
    assert [each.version for each in found.foreign] == foreign
    # The same in two steps, of which the second continues the report of the first.
    for cut in range(1, len(commits)):
        if "RESTORE" in " ".join(operations[cut:]):
            continue
        first = bronze_history(commits[:cut], cut - 1, START)
        assert bronze_history(commits[cut:], len(commits) - 1, first) == found


def test_restore_undoes_what_an_earlier_report_had_found() -> None:
    commits = log("append", "DELETE", "UPDATE", "RESTORE 1")
    before = bronze_history(commits[:3], 2, START)
    assert [each.version for each in bronze_history(commits[3:], 3, before).foreign] == [1]


@pytest.mark.parametrize(
    ("operation", "metrics", "text"),
    [
        ("DELETE", {"numDeletedRows": "3", "numCopiedRows": "9"}, "DELETE at {at} by ann (3 rows removed)"),
        ("UPDATE", {"numUpdatedRows": "1"}, "UPDATE at {at} by ann (1 rows changed)"),
        (
            "MERGE",
            {"numTargetRowsInserted": "2", "numTargetRowsDeleted": "1"},
            "MERGE at {at} by ann (1 rows removed, 2 rows added)",
        ),
        ("WRITE", {"numDeletedRows": "4", "numOutputRows": "5"}, "WRITE at {at} by ann (4 rows removed, 5 rows added)"),
        ("TRUNCATE", {}, "TRUNCATE at {at} by ann"),
    ],
)
def test_a_foreign_commit_is_described_by_its_metrics(operation: str, metrics: dict[str, str], text: str) -> None:
    commit = ForeignCommit.of(Commit(7, operation, {}, 0, "", metrics, "ann"))
    assert str(commit) == "version 7, " + text.format(at="1970-01-01T00:00:00.000Z")
