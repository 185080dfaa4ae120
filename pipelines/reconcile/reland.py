"""Put back into bronze what it has lost, from where it came: the landing files, or Kafka. One commit for a table.

Where only rows are lost they are appended, as late, for the join's stream is past them. Where data files are gone, the event
dates concerned are written anew, of what their other data files have and of the rows put back: so those files leave the table's
log. The join's stream passes such a commit over. Where the answer is another by what has come back, the comparison that follows
shows it.
"""

from collections.abc import Collection
from contextlib import ExitStack
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.config import Config
from pipelines.events import EventStream
from pipelines.lake import Lake, conflict_retries
from pipelines.reconcile.commits import mending, on_dates
from pipelines.reconcile.landed import OffsetRanges, events_at, held_against_files
from pipelines.reconcile.losses import Losses, reading_around


def reland(lake: Lake, config: Config, stream: EventStream, losses: Losses, offsets: OffsetRanges) -> int | None:
    """Put back the lost lines of landing files, and the records at `offsets` of the stream's topic; the number of rows.

    Data files that are gone are let go only where nothing else can have been in them: every source is there, and as many rows as
    the log says come back on their dates, or else (they had copies of others) all that bronze lacks of sources that are whole.
    None where nothing was changed, and those files are still to be brought back. Raises LakeError where events land on a date of
    theirs faster than it can be written anew.
    """
    with reading_around(lake, losses.gone), ExitStack() as held:
        rows = events_at(lake, config, stream, offsets)
        if losses.lines:
            files = held.enter_context(held_against_files(lake, config, stream, losses.lines))
            rows = rows.unionByName(files.wanting)
        held.callback(rows.persist().unpersist)
        found = rows.count()
        if losses.gone:
            on_gone_dates = rows.where(F.col("event_date").isin(*losses.gone_dates)).count()
            lacking = sum(losses.lines.values()) + sum(last - first + 1 for spans in offsets.values() for first, last in spans)
            all_back = on_gone_dates >= losses.gone_rows or (losses.sources_whole and found >= lacking)
            if not (losses.sources_there and all_back):
                return None
            others = {row[0] for row in rows.select("event_date").distinct().collect()}
            _write_anew(lake, stream.name, rows, sorted(map(str, others | losses.gone_dates)))
        elif found:
            with mending(lake, stream.name, {"relanded": found}, changes_answers=True):
                lake.append(stream.name, rows.withColumn("late", F.lit(True)).select(*stream.bronze_schema.names))
        return found


def let_go(lake: Lake, table: str, dates: Collection[date]) -> None:
    """Write event dates of a table anew from what can be read of them: so its log no longer names data files that are gone."""
    _write_anew(lake, table, None, sorted(map(str, dates)))


def _write_anew(lake: Lake, table: str, rows: DataFrame | None, dates: Collection[str]) -> None:
    where = on_dates(dates)
    with mending(lake, table, {"dates": list(dates)}, dates=dates, changes_answers=True):
        for attempt in conflict_retries():
            with attempt:
                # Read within the transaction that replaces it: what lands meanwhile is in neither, and stays.
                kept = lake.read(table).where(where)
                kept = kept if rows is None else kept.unionByName(rows)
                lake.save(kept.write.format("delta").mode("overwrite").option("replaceWhere", where), table)
