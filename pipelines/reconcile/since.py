"""The dates that may differ since the last reconciliation that agreed: a small night's work over a large lake.

What has landed since, what has become final since, and what rows have been written since all have event times; the earliest of
their dates is where to begin. Rows that somebody changed without `updated_at`, on dates before that, are not looked at: a run
over all dates now and then sees to those.
"""

import json
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from pipelines.lake import Lake, at
from pipelines.reconcile.span import Range


def since_last(lake: Lake) -> Range:
    """From the earliest date touched since the last run that agreed and had no last date; every date where there is none."""
    last = _last_agreeing(lake)
    if last is None:
        return Range()
    judged = _judged_to(last)
    if judged is None:
        return Range()
    touched = (*_landed_since(lake, last["pins"]), _written_since(lake, last["started_us"]))
    return Range(first=min([judged, *(each for each in touched if each is not None)]))


def _last_agreeing(lake: Lake) -> dict[str, Any] | None:
    if not lake.exists("reconciliations"):
        return None
    runs = lake.read("reconciliations").where("verdict IN ('agrees', 'repaired') AND to_date IS NULL")
    runs = runs.where("get_json_object(summary, '$.sampled') IS NULL")  # a sample says little of dates
    found = runs.orderBy(F.desc("finished_at")).limit(1).select("summary", F.unix_micros("started_at").alias("at")).collect()
    return {**json.loads(found[0]["summary"]), "started_us": found[0]["at"]} if found else None


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
