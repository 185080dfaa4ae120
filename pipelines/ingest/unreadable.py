"""Landing files that cannot be read: cut short, not what their name says, gone.

Each is one row of quarantine, without a payload, while the other files of its micro-batch land. It is read once it can be, and
what it then has lands as late events do. Three commits, which may be repeated: bronze, quarantine, the mark on that row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.sources import FilesSource
from pipelines.ingest.landing import below, below_of, landings_of, path_now
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.ingest.recovery import in_quarantine, mark_relanded
from pipelines.ingest.reland import as_late_rows, of_files, of_no_batch, same, unmatched_lines
from pipelines.ingest.sources.files import GONE, read_lines, unreadable
from pipelines.ingest.writer import quarantined
from pipelines.lake.history import QUARANTINE
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream
from pipelines.model.paths import location, location_of
from pipelines.model.reasons import Reason

_REMEDY = "mend it in place, or put an empty file there to give it up"


@dataclass(frozen=True, kw_only=True)
class Reread:
    """Files that could not be read and have been by now, with the `rows` of them that landed and those that were `quarantined`;
    and the files that `still` cannot be, with the reason."""

    files: Sequence[str] = ()
    rows: int = 0
    quarantined: int = 0
    still: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [f"{location_of(file)} cannot be read ({why}); {_REMEDY}" for file, why in self.still.items()]
        if self.files:
            said.append(
                f"{len(self.files):,} files that could not be read have been: {self.rows:,} rows landed, "
                f"{self.quarantined:,} quarantined"
            )
        return "; ".join(said)


def read_around(
    lake: Lake, config: Config, stream: EventStream, landing: Sequence[str], files: Sequence[str]
) -> DataFrame | None:
    """Of a micro-batch of files (URIs) what `parse` makes of those that can be read, and a row to quarantine for each other; None
    where all can be read, or none of several is there: then it is not the files that are wrong."""
    spark, uris = lake.spark, {unquote(uri): uri for uri in files}
    # Looked at twice: what fails for once, a store or a network, is not a bad file.
    bad = unreadable(spark, list(unreadable(spark, list(uris))))
    if not bad or (len(bad) == len(files) > 1 and set(bad.values()) == {GONE}):
        return None
    lines = parse(read_lines(spark, [path for path in uris if path not in bad]), stream, rules_of(config))
    refused = {uris[path]: why for path, why in bad.items()}
    for uri in _elsewhere(lake, config, stream, landing, [uri for uri, why in refused.items() if why == GONE]):
        del refused[uri]
    raw, nothing = lines.schema["__raw"].dataType, F.lit(None)
    names = {"source": F.col("source"), "record_time": F.current_timestamp(), "ingest_time": F.current_timestamp()}
    rows = spark.createDataFrame(list(refused.items()), "source string, why string").select(
        F.struct(*(names.get(f.name, nothing).cast(f.dataType).alias(f.name) for f in raw)).alias("__raw"),  # type: ignore[attr-defined]
        nothing.cast(lines.schema["__event"].dataType).alias("__event"),
        nothing.cast("string").alias("__rescued"),
        F.lit(Reason.UNREADABLE_FILE.value).alias("__reason"),
        F.format_string(f"cannot be read (%s); {_REMEDY}", "why").alias("__detail"),
    )
    return lines.unionByName(rows).localCheckpoint()


def _elsewhere(lake: Lake, config: Config, stream: EventStream, landing: Sequence[str], gone: Sequence[str]) -> list[str]:
    """Those of the files that are gone whose lines are not: they have landed, or the file lies where the directory is now."""
    if not gone:
        return []
    names = {uri: below_of(uri, landing) for uri in gone}
    rows = of_files(lake.read(stream.name)).select(below(F.col("source"), landing).alias("file"))
    landed = {row["file"] for row in rows.where(F.col("file").isin(list(names.values()))).distinct().collect()}
    now = {uri: _path(config, stream, name) for uri, name in names.items() if location(uri) != f"{landing[-1]}/{name}"}
    there = {uri for uri, path in now.items() if unreadable(lake.spark, [path]).get(path) != GONE}
    return [uri for uri, name in names.items() if name in landed or uri in there]


def _path(config: Config, stream: EventStream, name: str) -> str:
    source = config.streams[stream.name].source
    assert isinstance(source, FilesSource)
    return path_now(source, f"streams.{stream.name}.source", name)


def waiting(lake: Lake, config: Config, stream: EventStream) -> dict[str, str]:
    """The files that could not be read, and have not been since: as quarantine names them, and the path of each today."""
    rows = in_quarantine(lake, stream.name).where(F.col("reason") == Reason.UNREADABLE_FILE.value)
    files = sorted(row["source"] for row in rows.select("source").distinct().collect())
    landing = landings_of(lake, config, stream) if files else ()
    return {file: _path(config, stream, below_of(file, landing)) for file in files}


def still_unreadable(lake: Lake, files: Mapping[str, str]) -> dict[str, str]:
    """Of `waiting` files the paths of those that cannot be read yet, with the reason."""
    return unreadable(lake.spark, list(files.values()))


def reread(lake: Lake, config: Config, stream: EventStream) -> Reread:
    """Read the files that could not be read, as far as they can be by now."""
    files = waiting(lake, config, stream)
    still = still_unreadable(lake, files)
    mended = {name: path for name, path in files.items() if path not in still}
    if not mended:
        return Reread(still=still)
    parsed = _parsed(lake, config, stream, list(mended.values()))
    landing = landings_of(lake, config, stream)
    events = as_late_rows(parsed.where("__reason IS NULL"), stream)
    there = _of_same_files(of_files(lake.read(stream.name)), parsed, landing)
    rows = unmatched_lines(events, there, stream, landing).localCheckpoint()
    count = rows.count()
    if count:
        lake.append(stream.name, rows, metadata={QUARANTINE: {"rows": count}})
    refused = _refuse(lake, stream, parsed, landing)
    names = [(name, Reason.UNREADABLE_FILE.value) for name in mended]
    mark_relanded(lake, stream, lake.spark.createDataFrame(names, "source string, reason string"))
    return Reread(files=list(mended.values()), rows=count, quarantined=refused, still=still)


def refuse_changed(lake: Lake, config: Config, stream: EventStream, files: Collection[str]) -> int:
    """Put what is refused of files (URIs) that were written again into quarantine, as far as it is not there; how many lines."""
    if not files:
        return 0
    parsed = _parsed(lake, config, stream, [unquote(file) for file in files])
    return _refuse(lake, stream, parsed, landings_of(lake, config, stream))


def _parsed(lake: Lake, config: Config, stream: EventStream, files: Sequence[str]) -> DataFrame:
    return parse(of_no_batch(read_lines(lake.spark, files)), stream, rules_of(config)).localCheckpoint()


def _refuse(lake: Lake, stream: EventStream, parsed: DataFrame, landing: Sequence[str]) -> int:
    file = below(F.col("source"), landing).alias("file")
    judged = _of_same_files(in_quarantine(lake, stream.name), parsed, landing).select(file, "payload")
    refused = quarantined(parsed, stream, 0).select("*", file).alias("n")
    new = refused.join(judged.alias("o"), same(("file", "payload")), "left_anti").drop("file").localCheckpoint()
    count = new.count()
    if count:
        lake.append("quarantine", new)
    return count


def _of_same_files(rows: DataFrame, parsed: DataFrame, landing: Sequence[str]) -> DataFrame:
    files = parsed.select(below(F.col("__raw.source"), landing)).distinct().collect()
    return rows.where(below(F.col("source"), landing).isin([row[0] for row in files]))
