"""Newline-delimited JSON files in a landing directory (DESIGN section 6)."""

import re
from collections.abc import Sequence
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.config.model import TriggerConfig
from pipelines.config.secrets import resolve
from pipelines.config.sources import FILE_NAMES, FilesSource
from pipelines.model.errors import SourceError
from pipelines.model.paths import is_local, literal, location, location_of

_OPTIONS = {
    # Only \n ends an event; \r\n leaves a trailing \r, which JSON ignores.
    "lineSep": "\n",
    "pathGlobFilter": FILE_NAMES,
    "recursiveFileLookup": "true",
    # Hadoop's own local file system looks beside each file for a checksum, by a name that it cannot make where the file's has a
    # colon. It is another instance that these options are for.
    "fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "fs.file.impl.disable.cache": "true",
}
GONE = "it is not there"
"""Why a file cannot be read that does not exist."""
_CAUSE = re.compile(r"^Caused by: [\w.$]+: (.+)$", re.MULTILINE)


def read_files(spark: SparkSession, source: FilesSource, trigger: TriggerConfig, where: str) -> DataFrame:
    """The lines of files as they appear, as `__raw` (see `pipelines.ingest.sources`); blank lines are no events. Raises
    SourceError where the directory does not exist."""
    path = landing_directory(source, where)
    lines = (
        spark.readStream.format("text")
        .options(**_OPTIONS)
        .option("maxFilesPerTrigger", trigger.max_files)
        # A file with an old modification time (a copy, a restore) is data like any other: Spark would skip it after a week.
        .option("maxFileAge", "36500d")
        .load(literal(path))
    )
    return _raw(lines)


def read_lines(spark: SparkSession, files: Sequence[str]) -> DataFrame:
    """The same, a batch, of some files (paths, or URIs that are decoded)."""
    none = "value string, _metadata struct<file_path string>"
    return _raw(_batch(spark, files) if files else spark.createDataFrame([], none))


def landed_lines(spark: SparkSession, path: str) -> DataFrame:
    """What is in a landing directory now: a batch of the lines that `read_files` makes events of, as `value`, with the files'
    `_metadata`."""
    # A file that is taken away while this looks is not there.
    reader = spark.read.format("text").options(**_OPTIONS).option("ignoreMissingFiles", "true")
    return reader.load(literal(path)).where(~_is_blank())


def unreadable(spark: SparkSession, files: Sequence[str]) -> dict[str, str]:
    """Of some files (paths, or URIs that are decoded) those that cannot be read to their ends, each with what the file system, or
    the codec, says of it."""
    if not files:
        return {}
    try:
        lines = _batch(spark, files)
        # Whether a path that looks like a pattern is there, nobody has looked.
        there = {location(uri) for uri in lines.inputFiles()}
        gone = {file: GONE for file in files if location_of(file) not in there}
        if gone:
            return gone | unreadable(spark, [file for file in files if file not in gone])
        lines.count()
    except Exception as error:  # the class differs between classic Spark and Connect
        why = _why_unreadable(str(error))
        if why is None:
            raise
        if len(files) == 1:
            return {files[0]: why}
        half = len(files) // 2
        return unreadable(spark, files[:half]) | unreadable(spark, files[half:])
    return {}


def landing_directory(source: FilesSource, where: str) -> str:
    """The path of a source, resolved. Raises SourceError where it is a local one that is no directory."""
    path = resolve(source.path, f"{where}.path")
    if is_local(path) and not Path(path).is_dir():
        if Path(path).exists():
            raise SourceError(f"{where}.path: {path} is a file; name the directory that events land in")
        raise SourceError(f"{where}.path: {path} does not exist; create it, or correct the path")
    return path


def _why_unreadable(said: str) -> str | None:
    """The innermost cause of a failure to read a file; None of any other failure."""
    if "PATH_NOT_FOUND" in said or "FILE_NOT_EXIST" in said:
        return GONE
    causes = _CAUSE.findall(said)
    return (causes[-1] if causes else "unknown") if "FAILED_READ_FILE" in said else None


def _batch(spark: SparkSession, files: Sequence[str]) -> DataFrame:
    # What Spark itself reads listed files with: a pattern it would look for name by name, which a colon in one ends.
    return spark.read.format("text").options(**_OPTIONS).option("__globPaths__", "false").load(list(files))


def _raw(lines: DataFrame) -> DataFrame:
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


def _is_blank() -> Column:
    # Nearly every line begins as an event does, and needs no pattern. That ends with \z, for $ would take a line separator for
    # the end.
    return ~F.col("value").startswith("{") & F.col("value").rlike(r"\A[ \r\t]*\z")
