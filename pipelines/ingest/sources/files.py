"""Newline-delimited JSON files in a landing directory (DESIGN section 6)."""

from pathlib import Path

import structlog
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.config.model import FILE_NAMES, FilesSource, TriggerConfig
from pipelines.config.secrets import resolve
from pipelines.model.errors import SourceError
from pipelines.model.paths import is_local

log = structlog.get_logger()


def read_files(spark: SparkSession, source: FilesSource, trigger: TriggerConfig, where: str) -> DataFrame:
    """The lines of files as they appear, as `__raw` (see `pipelines.ingest.sources`); blank lines are no events."""
    path = resolve(source.path, f"{where}.path")
    _prepare_directory(path, f"{where}.path")
    lines = (
        spark.readStream.format("text")
        # Only \n ends an event; \r\n leaves a trailing \r, which JSON ignores.
        .option("lineSep", "\n")
        .option("pathGlobFilter", FILE_NAMES)
        .option("recursiveFileLookup", "true")
        .option("maxFilesPerTrigger", trigger.max_files)
        # A file with an old modification time (a copy, a restore) is data like any other: Spark would skip it after a week.
        .option("maxFileAge", "36500d")
        .load(path)
    )
    raw = F.struct(
        F.col("value"),
        F.col("_metadata.file_path").alias("source"),
        F.lit(None).cast("int").alias("source_partition"),
        F.lit(None).cast("bigint").alias("source_offset"),
        F.lit(None).cast("timestamp").alias("source_time"),
        F.current_timestamp().alias("record_time"),
        F.current_timestamp().alias("ingest_time"),
    )
    return lines.where(~_is_blank()).select(raw.alias("__raw"))


def landed_lines(spark: SparkSession, path: str) -> DataFrame:
    """What is in a landing directory now: a batch of the lines that `read_files` makes events of, as `value`, with the files'
    `_metadata`."""
    reader = spark.read.format("text").option("lineSep", "\n").option("pathGlobFilter", FILE_NAMES)
    # A file that is taken away while this looks is not there.
    reader = reader.option("recursiveFileLookup", "true").option("ignoreMissingFiles", "true")
    return reader.load(path).where(~_is_blank())


def _is_blank() -> Column:
    # Nearly every line begins as an event does, and needs no pattern. That ends with \z, for $ would take a line separator for
    # the end.
    return ~F.col("value").startswith("{") & F.col("value").rlike(r"\A[ \r\t]*\z")


def _prepare_directory(path: str, where: str) -> None:
    """A landing directory that a producer has not made yet is made; a path to nowhere is a mistake."""
    if not is_local(path):
        return
    directory = Path(path)
    if directory.is_file():
        raise SourceError(f"{where}: {path} is a file; name the directory that events land in")
    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        raise SourceError(f"{where}: {path} does not exist, nor does {directory.parent}; create it or correct the path")
    log.warning("landing directory was absent, created", key=where, path=path)
    directory.mkdir()
