"""The identity of a checkpoint: a name that dies with it.

Delta skips a write whose (application id, version) it has seen. Versions are batch numbers, which start at 0 with every new
checkpoint; so the application id must be the checkpoint's, not the query's, or a new checkpoint's first batches would be
skipped in silence. The identity is a file inside the checkpoint, written through Spark so that any file system will do.
"""

import json
import uuid
from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession


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
