"""How far settle has come: the position that its last run committed with its rows.

The commit that settles carries its position (key `rejoin.settle`), so rows and position are one commit. A fact of `control` keeps
a copy, also of runs that had nothing to write; it says up to which version of the output table it holds. So the last position
is found however many commits of other lanes follow.
"""

from dataclasses import dataclass

from pipelines.control.facts import Facts, Settled
from pipelines.lake.tables import Lake

KEY = "rejoin.settle"
BACKFILL = "rejoin.backfill"


@dataclass(frozen=True, kw_only=True)
class Position:
    """`settled` as of `version` of the output table (-1: there is none). `certain`: the log tells of all commits in between, so
    no later position can exist. `backfilled`: dates were written since from bronze that settle has not seen."""

    settled: Settled
    version: int
    certain: bool
    backfilled: bool = False


def settled_position(lake: Lake, facts: Facts) -> Position:
    """The position of settle's last run that the output table shows now, from the facts as they were before this is called."""
    fact = facts.last("settled")
    known, since = facts.settled, -1 if fact is None or fact.version is None else fact.version
    newest = oldest = -1
    backfilled = False
    for commit in lake.newest_commits(lake.attributed):
        newest, oldest = max(newest, commit.version), commit.version
        found = commit.ours(KEY)
        if found is not None:
            later = Settled.from_dict(found)
            last = max(known, later, key=lambda each: each.run)
            return Position(settled=last, version=newest, certain=True, backfilled=backfilled)
        if commit.version <= since:
            break
        backfilled = backfilled or commit.is_marked(BACKFILL)
    return Position(settled=known, version=newest, certain=oldest <= max(since, 0), backfilled=backfilled)
