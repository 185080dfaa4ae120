"""The dates that may differ since the last reconciliation that agreed: a small night's work over a large lake.

What has landed since, what has become final since, and what rows have been written since all have event times; the earliest of
their dates is where to begin. What somebody has changed by hand may be of any date.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from pipelines.lake import Lake, at
from pipelines.reconcile.commits import foreign_commits
from pipelines.reconcile.history import ALL_DATES, last_agreeing
from pipelines.reconcile.losses import gone_files
from pipelines.reconcile.span import Range

Versions = Mapping[str, Any]
"""The versions of `comparison.Pins`, under the names that they have there; 0 where one is not named."""


def since_last(lake: Lake) -> Range:
    """From the earliest date touched since the last run that agreed and had no last date; every date where there is none, or
    where somebody has changed a table, or one lacks a data file, for then nobody knows."""
    last = last_agreeing(lake, "to_date IS NULL")
    if last is None or changed_since_all_agreed(lake) or any(gone_files(lake, table) for table in _tables(lake)):
        return Range()
    judged = _judged_to(last)
    if judged is None:
        return Range()
    touched = (*_landed_since(lake, last["pins"]), _written_since(lake, last["started_us"]))
    return Range(first=min([judged, *(each for each in touched if each is not None)]))


def changed_since_all_agreed(lake: Lake) -> bool:
    """Whether a table has been changed (see `changed_since`) since the last run over all dates that agreed."""
    return changed_since(lake, _all_agreed_on(lake))


def changed_by_hand_since_all_agreed(lake: Lake, *tables: str) -> list[str]:
    """Those of the tables that a commit which no lane makes has touched since then."""
    return _changed_by_hand(lake, _all_agreed_on(lake), tables)


def mended_since_all_agreed(lake: Lake) -> bool:
    """Whether reconcile has mended bronze since then, so that answers may be others, or has let go of rows of the table."""
    return _mended(lake, _all_agreed_on(lake))


def changed_since(lake: Lake, versions: Versions) -> bool:
    """Whether, since these versions, a commit that no lane makes has touched a table, or reconcile has mended bronze so that
    answers may be others."""
    return bool(_changed_by_hand(lake, versions, _tables(lake))) or _mended(lake, versions)


def _tables(lake: Lake) -> tuple[str, ...]:
    return (*(stream.name for stream in lake.streams.both), lake.attributed)


def _changed_by_hand(lake: Lake, versions: Versions, tables: Iterable[str]) -> list[str]:
    after = _by_table(lake, versions)
    return [
        name
        for name in tables
        if foreign_commits(lake, name, after=after[name], through=lake.version(name), appends=name != lake.attributed, limit=1)
    ]


def _mended(lake: Lake, versions: Versions) -> bool:
    after = _by_table(lake, versions)
    return any(lake.last_relanded(table, after[table], lake.version(table)) > after[table] for table in _tables(lake))


def _all_agreed_on(lake: Lake) -> Versions:
    last = last_agreeing(lake, ALL_DATES)
    return {} if last is None else last["pins"]


def _by_table(lake: Lake, versions: Versions) -> dict[str, int]:
    exposure, outcome = lake.streams.both
    names = {exposure.name: "exposure_version", outcome.name: "outcome_version", lake.attributed: "attributed_version"}
    return {table: versions.get(name, 0) for table, name in names.items()}


def _landed_since(lake: Lake, pins: dict[str, Any]) -> list[date | None]:
    """An exposure can only matter for outcomes of its own time or later."""
    streams = lake.streams
    seen = ((streams.outcome.name, pins["outcome_version"]), (streams.exposure.name, pins["exposure_version"]))
    landed = [lake.landed_between(name, version, lake.version(name)) for name, version in seen]
    return [_date(rows.select(F.min("event_date").cast("string")).collect()[0][0]) for rows in landed]


def _written_since(lake: Lake, started: int) -> date | None:
    rows = lake.read(lake.attributed).where(F.col("updated_at") >= at(started))
    time = F.to_date(lake.streams.outcome.event_time)
    return _date(rows.select(F.min(F.least("event_date", time)).cast("string")).collect()[0][0])


def _judged_to(last: dict[str, Any]) -> date | None:
    """The date up to which that run judged, or the last that it saw; None where it judged nothing."""
    bound = last["pins"]["bound"]
    if bound is None:
        return max((date.fromisoformat(hour["event_date"]) for hour in last["hours"]), default=None)
    return None if bound == "nothing" else date.fromisoformat(bound[:10])


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
