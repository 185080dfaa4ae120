"""What settle has seen: the versions and the horizon of its last run, kept where its rows are.

The commit that settles carries this as its user metadata, so rows and bookkeeping are one commit. The ledger keeps a copy,
for runs that had nothing to write and for the day when the table's log has been cleaned. Reconcile reads it to know which
events the table at a pinned version answers for.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import functions as F

from pipelines.lake import Lake
from pipelines.observe.ledger import Ledger

KEY = "rejoin.settle"
_RECENT_COMMITS = 200


@dataclass(frozen=True, kw_only=True)
class Settled:
    """After run number `run`: bronze versions seen (inclusive), the horizon then (microseconds), whether all was settled, and
    how many rows the join had dropped by then."""

    run: int = -1
    exposure_version: int = -1
    outcome_version: int = -1
    horizon: int | None = None
    all: bool = False
    dropped: int = 0

    def as_metadata(self) -> dict[str, Any]:
        return {KEY: asdict(self)}


def last_settled(lake: Lake, attributed_version: int | None = None) -> Settled:
    """The last run of settle that the attributed table shows as of `attributed_version` (now, if None)."""
    found = [Settled()]
    entry = Ledger(lake).last("settle")
    if entry:
        detail = entry["detail"]
        # A run that wrote nothing left no commit: any later version of the table still shows it.
        if attributed_version is None or detail["attributed_version"] <= attributed_version:
            found.append(Settled(**detail["settled"]))
    history = lake.spark.sql(f"DESCRIBE HISTORY {lake.identifier(lake.attributed)} LIMIT {_RECENT_COMMITS}")
    commits = history.where(F.col("userMetadata").contains(KEY)).select("version", "userMetadata").collect()
    for commit in commits:
        if attributed_version is None or commit["version"] <= attributed_version:
            found.append(_from_metadata(json.loads(commit["userMetadata"])))
    return max(found, key=lambda settled: settled.run)


def _from_metadata(metadata: Mapping[str, Any]) -> Settled:
    return Settled(**metadata[KEY])
