"""Landing files that cannot be read: cut short, not what their name says, gone.

Each is one row of quarantine, without a payload, while the other files of its micro-batch land. It is read once it can be, and
what it then has lands as late events do. Three commits, which may be repeated: bronze, quarantine, the mark on that row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.control.store import read_facts
from pipelines.ingest.landing import below, landings_of
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import ParseRules, rules_of
from pipelines.ingest.recovery import in_quarantine
from pipelines.ingest.reland import as_late_rows, of_files, same, unmatched_lines
from pipelines.ingest.sources.files import read_lines, unreadable
from pipelines.ingest.writer import quarantined
from pipelines.lake.history import QUARANTINE
from pipelines.lake.merge import merge
from pipelines.lake.tables import Lake, quoted
from pipelines.model.events import EventStream
from pipelines.model.paths import location
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
        said = [f"{location(file)} cannot be read ({why}); {_REMEDY}" for file, why in self.still.items()]
        if self.files:
            said.append(
                f"{len(self.files):,} files that could not be read have been: {self.rows:,} rows landed, "
                f"{self.quarantined:,} quarantined"
            )
        return "; ".join(said)


def read_around(spark: SparkSession, stream: EventStream, rules: ParseRules, files: Sequence[str]) -> DataFrame | None:
    """Of a micro-batch of files (URIs) what `parse` makes of those that can be read, and a row to quarantine for each other; None
    where all can be read."""
    bad = unreadable(spark, files)
    if not bad:
        return None
    lines = parse(read_lines(spark, [file for file in files if file not in bad]), stream, rules)
    raw, nothing = lines.schema["__raw"].dataType, F.lit(None)
    why = F.create_map(*(F.lit(text) for pair in bad.items() for text in pair))
    names = {"source": F.col("source"), "record_time": F.current_timestamp(), "ingest_time": F.current_timestamp()}
    refused = spark.createDataFrame([(file,) for file in bad], "source string").select(
        F.struct(*(names.get(f.name, nothing).cast(f.dataType).alias(f.name) for f in raw)).alias("__raw"),  # type: ignore[attr-defined]
        nothing.cast(lines.schema["__event"].dataType).alias("__event"),
        nothing.cast("string").alias("__rescued"),
        F.lit(Reason.UNREADABLE_FILE.value).alias("__reason"),
        F.format_string(f"cannot be read (%s); {_REMEDY}", why[F.col("source")]).alias("__detail"),
    )
    return lines.unionByName(refused).localCheckpoint()


def waiting(lake: Lake, stream: EventStream) -> list[str]:
    """The files (URIs) that could not be read, and have not been since."""
    rows = in_quarantine(lake, stream.name).where(F.col("reason") == Reason.UNREADABLE_FILE.value)
    return sorted(row["source"] for row in rows.select("source").distinct().collect())


def reread(lake: Lake, config: Config, stream: EventStream) -> Reread:
    """Read the files that could not be read, as far as they can be by now."""
    files = waiting(lake, stream)
    still = unreadable(lake.spark, files)
    mended = [file for file in files if file not in still]
    if not mended:
        return Reread(still=still)
    parsed, landing = _parsed(lake, config, stream, mended), landings_of(lake, config, stream, read_facts(lake))
    events = as_late_rows(parsed.where("__reason IS NULL"), stream)
    there = _of_same_files(of_files(lake.read(stream.name)), parsed, landing)
    rows = unmatched_lines(events, there, stream, landing).localCheckpoint()
    count = rows.count()
    if count:
        lake.append(stream.name, rows, metadata={QUARANTINE: {"rows": count}})
    refused = _refuse(lake, stream, parsed, landing)
    _mark(lake, stream, mended)
    return Reread(files=mended, rows=count, quarantined=refused, still=still)


def refuse_changed(lake: Lake, config: Config, stream: EventStream, files: Sequence[str]) -> int:
    """Put what is refused of files (URIs) that were written again into quarantine, as far as it is not there; how many lines."""
    if not files:
        return 0
    return _refuse(lake, stream, _parsed(lake, config, stream, files), landings_of(lake, config, stream, read_facts(lake)))


def _parsed(lake: Lake, config: Config, stream: EventStream, files: Sequence[str]) -> DataFrame:
    raw = F.col("__raw").withField("ingest_batch", F.lit(0).cast("bigint")).withField("met", F.lit(None).cast("timestamp"))
    lines = read_lines(lake.spark, files).select(raw.alias("__raw"))
    return parse(lines, stream, rules_of(config)).localCheckpoint()


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


def _mark(lake: Lake, stream: EventStream, files: Sequence[str]) -> None:
    done = lake.spark.createDataFrame([(file,) for file in files], "source string")
    condition = (
        f"t.stream = {quoted(stream.name)} AND t.reason = {quoted(Reason.UNREADABLE_FILE.value)} AND t.relanded_at IS NULL "
        "AND t.source = s.source"
    )
    merge(lake, "quarantine", done, condition, "WHEN MATCHED THEN UPDATE SET t.relanded_at = current_timestamp()")
