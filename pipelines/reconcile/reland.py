"""Put back into bronze what it has lost, from where it came: the landing files, or Kafka.

One commit for a table: it writes the event dates concerned anew, of what their data files still have and of the rows put back.
Data files that are gone leave the table's log by that. The join's stream passes such a commit over, and what it tells of nobody
has to settle: where the answer is another, the comparison that follows shows it.
"""

from collections.abc import Collection

from pyspark.sql import DataFrame

from pipelines.config import Config
from pipelines.events import EventStream
from pipelines.lake import MENDED, Lake, conflict_retries
from pipelines.reconcile.landed import OffsetRanges, events_at, wanting_of_files
from pipelines.reconcile.losses import Losses, reading_around
from pipelines.sink import user_metadata


def reland(lake: Lake, config: Config, stream: EventStream, losses: Losses, offsets: OffsetRanges) -> int:
    """Put back the lost lines of landing files, and the records at `offsets` of the stream's topic; the number of rows.

    Where the sources have fewer than the data files that are gone had, nothing is changed: those are still to be brought back.
    """
    with reading_around(lake, losses.gone):
        rows = events_at(lake, config, stream, offsets)
        if losses.lines:
            rows = rows.unionByName(wanting_of_files(lake, config, stream, losses.lines))
        rows.persist()
        try:
            found = rows.count()
            if found < losses.gone_rows:
                return 0
            dates = {row[0] for row in rows.select("event_date").distinct().collect()} | losses.gone_dates
            if dates:
                _write(lake, stream, rows, sorted(map(str, dates)), found)
            return found
        finally:
            rows.unpersist()


def _write(lake: Lake, stream: EventStream, rows: DataFrame, dates: Collection[str], count: int) -> None:
    listed = ", ".join(f"DATE'{date}'" for date in dates)
    where = f"event_date IN ({listed})"
    with user_metadata(lake.spark, {MENDED: {"rows": -count}}):
        for attempt in conflict_retries():
            with attempt:
                # Read within the transaction that replaces it: what lands meanwhile is in neither, and stays.
                kept = lake.read(stream.name).where(where)
                writer = kept.unionByName(rows).write.format("delta").mode("overwrite").option("replaceWhere", where)
                lake.save(writer, stream.name)
