"""Rebuild: drop the join's checkpoint, start from landed data again."""

import shutil
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import RejoinError
from pipelines.jobs.join import join
from pipelines.lake import Lake


def rebuild(lake: Lake, config: Config, since: int | None) -> None:
    """State comes back from bronze: from the published horizon, or from `since` (event time, microseconds).

    Safe at any time while no join runs: the sink takes what it knows already without a change.
    """
    location = lake.checkpoint("join")
    if "://" in location or location.startswith("dbfs:"):
        raise RejoinError(f"rebuild: {location} is not a local path; delete that directory, then run `rejoin join --once`")
    shutil.rmtree(Path(location), ignore_errors=True)
    join(lake, config, once=True, since=since)
