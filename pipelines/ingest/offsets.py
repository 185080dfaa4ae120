"""How far an ingest checkpoint has read, from the logs that Spark keeps there."""

import json
from collections import defaultdict
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipelines.model.paths import literal
from pipelines.model.time import new_run_id

# Beside Spark's own: in the checkpoint, so that a copy of that has it too.
_LINEAGE = "lineage"


def kafka_offsets(spark: SparkSession, checkpoint: str, topic: str) -> dict[int, int]:
    """The next offset to read of each partition of the topic after the finished micro-batches; none for a new checkpoint."""
    topics = [line[topic] for line in _finished_offsets(spark, checkpoint) if isinstance(line.get(topic), dict)]
    return {int(partition): offset for found in topics for partition, offset in found.items()}


def kafka_start(spark: SparkSession, checkpoint: str, topic: str) -> dict[int, int]:
    """The first offset of each partition that a query over one topic was to read; empty where nothing tells."""
    lines = [row["value"] for row in _collected(spark, f"{checkpoint}/sources/0/0")]
    starts = (json.loads(line).get(topic, {}) for line in lines if line.startswith("{"))
    return {int(partition): offset for start in starts for partition, offset in start.items()}


def files_read(spark: SparkSession, checkpoint: str) -> DataFrame:
    """The files that a query over one file source has read in its finished micro-batches: `source` (URI) and `modified` (when the
    file had last been written then)."""
    last = _log_offset(_finished_offsets(spark, checkpoint))
    if last is None:
        return spark.createDataFrame([], "source string, modified timestamp")
    known = _listed(spark, checkpoint).where(F.col("e.batchId") <= last)
    return known.select(F.col("e.path").alias("source"), F.timestamp_millis("e.timestamp").alias("modified"))


def files_planned(spark: SparkSession, checkpoint: str, micro_batch: int) -> list[str]:
    """The files (URIs) that a micro-batch of a query over one file source reads, or is to read."""
    before, last = (_log_offset(_offsets_of(spark, checkpoint, number)) for number in (micro_batch - 1, micro_batch))
    if last is None:
        return []
    planned = _listed(spark, checkpoint).where(F.col("e.batchId").between((-1 if before is None else before) + 1, last))
    return sorted(row[0] for row in planned.select("e.path").distinct().collect())


def lineage(spark: SparkSession, checkpoint: str) -> str | None:
    """Which history of micro-batches a checkpoint's numbers count in (see `begin_lineage`); None: that of its first start."""
    return "".join(row["value"] for row in _collected(spark, f"{checkpoint}/{_LINEAGE}")) or None


def begin_lineage(spark: SparkSession, checkpoint: str) -> str:
    """Mark a checkpoint whose numbers have fallen back, so that no copy of an earlier one is taken for its continuation."""
    name = new_run_id()
    spark.createDataFrame([(name,)], "value string").coalesce(1).write.mode("overwrite").text(f"{checkpoint}/{_LINEAGE}")
    return name


def _finished_offsets(spark: SparkSession, checkpoint: str) -> list[dict[str, Any]]:
    """What the offset log has of the last finished micro-batch: settings, then each source's offset; none before the first."""
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    # Some hundred lines at most: a query keeps what its last hundred micro-batches have said.
    for path, line in _collected(spark, f"{checkpoint}/commits", f"{checkpoint}/offsets"):
        *_, log, batch = path.split("/")
        said[log, batch].append(line)
    # Of a query that is running, one log may have been listed before the other.
    finished = [int(batch) for log, batch in said if log == "commits" and ("offsets", batch) in said]
    if not finished:
        return []
    return [json.loads(line) for line in said["offsets", str(max(finished))] if line.startswith("{")]


def _offsets_of(spark: SparkSession, checkpoint: str, micro_batch: int) -> list[dict[str, Any]]:
    """What the offset log has of a micro-batch; nothing of one that has not begun."""
    lines = [row["value"] for row in _collected(spark, f"{checkpoint}/offsets/{micro_batch}")]
    return [json.loads(line) for line in lines if line.startswith("{")]


def _log_offset(said: list[dict[str, Any]]) -> int | None:
    return next((offset["logOffset"] for offset in said if "logOffset" in offset), None)


def _listed(spark: SparkSession, checkpoint: str) -> DataFrame:
    """A file source's log: `e`, an entry a file."""
    entry = F.from_json("value", "path string, timestamp bigint, batchId bigint").alias("e")
    return _lines(spark, f"{checkpoint}/sources/0").where("value LIKE '{%'").select(entry)


def _collected(spark: SparkSession, *paths: str) -> list[Row]:
    """`file_path` and `value` of each line of some files or directories; none where one of them does not exist."""
    try:
        return _lines(spark, *paths).select("_metadata.file_path", "value").collect()
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        return []


def _lines(spark: SparkSession, *paths: str) -> DataFrame:
    # A query that is running cleans up what it needs no more.
    return spark.read.option("ignoreMissingFiles", "true").text([literal(path) for path in paths])
