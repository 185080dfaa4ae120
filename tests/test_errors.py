"""What a failure says: one line with the cause, and what to do about it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.cli.causes import explained
from pipelines.model.errors import RejoinError, first_line

LOST = (
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 7.0 failed 1 times, most "
    "recent failure: Lost task 0.0 in stage 7.0 (TID 9) (127.0.0.1 executor driver): "
)
# As Spark 4.2 and Py4J say it -> the line.
SAID = {
    "An error occurred while calling o38.collectToPython.\n: org.apache.spark.SparkException: Exception thrown in awaitResult:\n"
    "\tat org.apache.spark.util.SparkThreadUtils$.awaitResult(SparkThreadUtils.scala:5)\n\t... 12 more\n"
    "Caused by: java.util.concurrent.ExecutionException: java.io.IOException: No space left on device\n\tat java.base/x\n"
    "Caused by: java.io.IOException: No space left on device\n\tat sun.nio.ch\n\t... 3 more": "No space left on device",
    f"An error occurred while calling o9.sql.\n: {LOST}java.io.FileNotFoundException: /lake/p.parquet (No such file)\n\tat x\n\n"
    "Driver stacktrace:\n\tat org.apache.spark": "/lake/p.parquet (No such file)",
    f"An error occurred while calling o9.save.\n: {LOST}org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while "
    "writing rows to file:/lake/p. SQLSTATE: 58030\n\tat x\nCaused by: java.io.IOException: Disk quota exceeded\n\tat y\n\n"
    "Driver stacktrace:\n\tat org": "Disk quota exceeded",
    "An error occurred while calling o3382.collectToPython": (
        "Spark's JVM has ended: it was killed, or had too little memory (spark.driver_memory)"
    ),
    'An error occurred while calling o6.sql.\n: org.apache.hadoop.fs.Unsupported: No FileSystem for scheme "s3"'
    "\n\tat org.apache.hadoop.fs.FileSystem": 'No FileSystem for scheme "s3"',
    '[CAST_INVALID_INPUT] The value \'x\' of the type "STRING" cannot be cast to "INT". SQLSTATE: 22018\n== SQL ==\n': (
        '[CAST_INVALID_INPUT] The value \'x\' of the type "STRING" cannot be cast to "INT". SQLSTATE: 22018'
    ),
    "An error occurred while calling o6.sql.\n: io.delta.exceptions.ProtocolChangedException: "
    "[DELTA_PROTOCOL_CHANGED] The protocol\n\tat org\nCaused by: java.nio.file.FileAlreadyExistsException: /lake/0.json": (
        "[DELTA_PROTOCOL_CHANGED] The protocol"
    ),
}


@pytest.mark.parametrize(("said", "line"), SAID.items(), ids=[line[:30] for line in SAID.values()])
def test_the_line_that_is_told_is_the_cause(said: str, line: str) -> None:
    assert first_line(Exception(said)) == line


def test_a_place_that_cannot_be_used_is_named_with_cause_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    places = {"lake": str(tmp_path / "file" / "lake"), "checkpoints": str(tmp_path)}
    no_log = Exception("[DELTA_CANNOT_CREATE_LOG_PATH] Cannot create file:/x/_delta_log")
    assert f"lake ({places['lake']}): {tmp_path}/file is a file, not a directory" in str(explained(no_log, places))
    assert explained(no_log, {"lake": str(tmp_path)}) is None
    assert explained(ValueError("something else"), places) is None

    no_client = Exception('No FileSystem for scheme "s3"')
    assert "lake (s3://b/lake): Spark has no client for s3://" in str(explained(no_client, {"lake": "s3://b/lake"}))

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0 if path == tmp_path else 2**40))
    full = Exception("java.io.IOException: No space left on device")
    assert str(explained(full, {"lake": "/", "checkpoints": str(tmp_path)})).startswith(
        f"checkpoints ({tmp_path}): no space left"
    )


WORKER = "An exception was thrown from the Python worker:\nTraceback (most recent call last):\n  File"
MISMATCH = (
    "PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in driver: 3.11, "
    "PySpark cannot run with different minor versions.\nPlease check environment variables"
)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (MISMATCH, "executors run Python 3.12, the driver 3.11: give both the same"),
        ("ModuleNotFoundError: No module named 'fastavro'", "executors' Python lacks a package (No module named 'fastavro')"),
    ],
)
def test_the_python_of_executors_is_named_with_a_remedy(said: str, line: str) -> None:
    error = RejoinError("query ingest:plays stopped: An exception was thrown from the Python worker:")
    error.__cause__ = Exception(f"[STREAM_FAILED] Query [id = 1] terminated with exception: {WORKER}\n{said}")
    assert str(explained(error, {})).startswith(line)
    assert explained(Exception("ModuleNotFoundError: No module named 'fastavro'"), {}) is None


def test_a_python_without_spark_is_told_how_to_get_it() -> None:
    assert explained(ModuleNotFoundError("No module named 'pyspark.sql'", name="pyspark.sql"), {}) == (
        "Spark is not installed: pip install 'rejoin[local]', or run this by spark-submit"
    )
    assert explained(ModuleNotFoundError("No module named 'numbers2'", name="numbers2"), {}) is None
