"""A checkpoint's identity, a name that dies with it; and how far it has read.

Delta skips a write whose (application id, version) it has seen. Versions are batch numbers, which start at 0 with every new
checkpoint; so the application id must be the checkpoint's, not the query's, or a new checkpoint's first batches would be
skipped in silence. The identity is a file inside the checkpoint, written through Spark so that any file system will do.
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.events import EventStream
from pipelines.lake import Lake


@dataclass(frozen=True, kw_only=True)
class CheckpointId:
    """`recovers`: the checkpoint was made over tables that held data already, so it may meet what has landed before."""

    id: str
    recovers: bool


def checkpoint_id(spark: SparkSession, path: str, *, recovers: bool) -> CheckpointId:
    """Read the identity of the checkpoint at `path`; give it one where it has none yet (`recovers` is for that case)."""
    location = f"{path}/rejoin"
    try:
        text = spark.read.text(location).collect()
        if text:
            return CheckpointId(**json.loads(text[0][0]))
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
    identity = CheckpointId(id=uuid.uuid4().hex[:12], recovers=recovers)
    line = json.dumps(identity.__dict__, sort_keys=True)
    spark.createDataFrame([(line,)], "value string").coalesce(1).write.mode("overwrite").text(location)
    return identity


def read_whole(lake: Lake, checkpoint: str) -> dict[str, int]:
    """The last version of each bronze table that the checkpoint's finished micro-batches have read whole, from its offset log."""
    offsets = _finished_offsets(lake.spark, checkpoint)
    if not offsets:
        return {}
    by_table = {offset["reservoirId"]: offset for offset in offsets if "reservoirId" in offset}
    return {stream.name: _read_of(lake, stream, by_table) for stream in lake.streams.both}


def out_of_reach(lake: Lake, checkpoint: str) -> set[str]:
    """The tables whose log no longer tells all that has come since the checkpoint's finished micro-batches: a query cannot go on
    from there."""
    tables = {lake.table_id(table): table for table in (*(stream.name for stream in lake.streams.both), "heartbeats")}
    offsets = [each for each in _finished_offsets(lake.spark, checkpoint) if each.get("reservoirId") in tables]
    return {table for each in offsets if not lake.tells(table := tables[each["reservoirId"]], _needed(each))}


def _needed(offset: Mapping[str, int | bool]) -> int:
    """The version from which on the table's log must tell, for a query to go on."""
    return int(offset["reservoirVersion"]) if offset.get("isStartingVersion") else max(0, last_whole_version(offset))


def _read_of(lake: Lake, stream: EventStream, offsets: Mapping[str, Mapping[str, int | bool]]) -> int:
    offset = offsets.get(lake.table_id(stream.name))
    if offset is not None:
        return last_whole_version(offset)
    version = lake.version(stream.name)
    return version if lake.size(stream.name) == (0, 0) else -1  # a stream that has never spoken has no offset


def kafka_offsets(spark: SparkSession, checkpoint: str, topic: str) -> dict[int, int]:
    """The next offset to read of each partition of the topic after the finished micro-batches; none for a new checkpoint."""
    topics = [line[topic] for line in _finished_offsets(spark, checkpoint) if isinstance(line.get(topic), dict)]
    return {int(partition): offset for found in topics for partition, offset in found.items()}


def kafka_start(spark: SparkSession, checkpoint: str, topic: str) -> dict[int, int]:
    """The first offset of each partition that a query over one topic was to read; empty where nothing tells."""
    try:
        lines = [row[0] for row in _lines(spark, f"{checkpoint}/sources/0/0").collect()]
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        return {}
    starts = (json.loads(line).get(topic, {}) for line in lines if line.startswith("{"))
    return {int(partition): offset for start in starts for partition, offset in start.items()}


def files_read(spark: SparkSession, checkpoint: str) -> DataFrame:
    """The files that a query over one file source has read in its finished micro-batches: `source` (URI) and `modified` (when the
    file had last been written then)."""
    last = next((offset["logOffset"] for offset in _finished_offsets(spark, checkpoint) if "logOffset" in offset), None)
    if last is None:
        return spark.createDataFrame([], "source string, modified timestamp")
    entry = F.from_json("value", "path string, timestamp bigint, batchId bigint").alias("e")
    known = _lines(spark, f"{checkpoint}/sources/0").where("value LIKE '{%'").select(entry).where(F.col("e.batchId") <= last)
    return known.select(F.col("e.path").alias("source"), F.timestamp_millis("e.timestamp").alias("modified"))


def last_whole_version(offset: Mapping[str, int | bool]) -> int:
    """Of an offset of the Delta source: it names the version to read next, or the snapshot that is being read."""
    return -1 if offset.get("isStartingVersion") else int(offset["reservoirVersion"]) - 1


def _finished_offsets(spark: SparkSession, checkpoint: str) -> list[dict[str, Any]]:
    """What the offset log has of the last finished micro-batch: settings, then each source's offset; none before the first."""
    try:
        # Some hundred lines at most: a query keeps what its last hundred micro-batches have said.
        logs = _lines(spark, f"{checkpoint}/commits", f"{checkpoint}/offsets")
        lines = logs.select("_metadata.file_path", "value").collect()
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        return []
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, line in lines:
        *_, log, batch = path.split("/")
        said[log, batch].append(line)
    # Of a query that is running, one log may have been listed before the other.
    finished = [int(batch) for log, batch in said if log == "commits" and ("offsets", batch) in said]
    if not finished:
        return []
    return [json.loads(line) for line in said["offsets", str(max(finished))] if line.startswith("{")]


def _lines(spark: SparkSession, *paths: str) -> DataFrame:
    # A query that is running cleans up what it needs no more.
    return spark.read.option("ignoreMissingFiles", "true").text(list(paths))
