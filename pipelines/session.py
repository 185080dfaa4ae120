"""The only place that makes a SparkSession.

Locally it starts one, bound to loopback, quiet, in UTC, with the JARs that `make setup` fetched. Under spark-submit or on
Databricks it takes the session that is there, and sets what correctness needs, and numbers of partitions that nobody has chosen.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark import SparkContext, java_gateway
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from pipelines.config.model import SparkConfig
from pipelines.model.errors import RejoinError, first_line

JARS_DIR = "REJOIN_JARS"
DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"

# What the results depend on, wherever the session comes from.
_SEMANTIC = {
    # Dates and hours of partitions are UTC (DESIGN section 2).
    "spark.sql.session.timeZone": "UTC",
    # The join defines two watermarks on one branch (pipelines/join/watermarks.py), which Spark allows only with this off.
    # It has a single stateful operator, so nothing else changes.
    "spark.sql.streaming.statefulOperator.allowMultiple": "false",
    # `max` would lose rows of the slower stream.
    "spark.sql.streaming.multipleWatermarkPolicy": "min",
    # Older versions of bronze are read as long as their files are there, not for a week only: a pipeline that has been down
    # for longer goes on where it was. Files that VACUUM has taken are seen when they are read.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
    # Of a key that stands twice in a line the last counts, for VARIANT as for the parser.
    "spark.sql.variant.allowDuplicateKeys": "true",
}

# What a session that somebody else has made is given where it says nothing itself. Spark's 200 and Delta's 50 partitions are for
# other sizes than a micro-batch's, and each is a task, a file, or a state store (docs/scale.md).
_SIZES = {"spark.sql.shuffle.partitions": "16", "spark.databricks.delta.snapshotPartitions": "2"}

# Options whose values neither a plan, nor Spark's page, nor `SET -v` shows: what Spark hides by itself, and the logins and keys
# of Kafka clients. `spark.redaction.regex` says the same of all settings, but only where the session is started here.
_HIDDEN = r"(?i)secret|password|token|access[.]?key|credential|sasl[.]jaas[.]config|ssl[.].*[.]?key$"
_HIDING = {"spark.sql.redaction.options.regex": f"{_HIDDEN}|url"}

# PySpark prints each error of a query here before it raises it, with a hundred frames of Java.
_LOGGERS_OF_ERRORS = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")


def spark_session(settings: SparkConfig | None = None, *, debug: bool = False) -> SparkSession:
    """The session of this process, started when there is none. Raises RejoinError where Java or Delta is missing."""
    settings = settings or SparkConfig()
    if not debug:
        for name in _LOGGERS_OF_ERRORS:
            PySparkLogger.getLogger(name).disabled = True
    if _managed_elsewhere():
        session = SparkSession.builder.getOrCreate()
        _size(session, settings)
    else:
        with _ending_with_us(), _quiet_jvm(debug):
            session = _local_session(settings, debug)
    for key, value in {**_SEMANTIC, **_HIDING}.items():
        _set(session, key, value)
    return session


def _set(session: SparkSession, key: str, value: str) -> None:
    """Raises RejoinError where the session refuses, as serverless compute does most settings."""
    try:
        session.conf.set(key, value)
    except Exception as error:  # the class differs between classic Spark and Connect
        if session.conf.get(key, None) != value:
            raise RejoinError(
                f"{key}: this Spark refuses the value {value!r}, which results depend on ({first_line(error)}). Serverless "
                "compute refuses most settings: use a cluster (docs/databricks.md)"
            ) from error


@contextmanager
def set_within(session: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Within, the session has these settings; then those of before. They are of all its threads: for a session, or a plan, that
    one thread has to itself."""
    before = {key: session.conf.get(key, None) for key in settings}
    try:
        for key, value in settings.items():
            session.conf.set(key, value)
        yield
    finally:
        for key, earlier in before.items():
            if earlier is None:
                session.conf.unset(key)
            else:
                session.conf.set(key, earlier)


def on_databricks() -> bool:
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def behind_connect(session: SparkSession) -> bool:
    """Whether the session is a client's of Spark Connect."""
    return "connect" in type(session).__module__


def jvm_pid() -> int | None:
    """The process of the JVM, where it was started here."""
    process = getattr(SparkContext._gateway, "proc", None)
    return process.pid if process else None


def _managed_elsewhere() -> bool:
    """Whether spark-submit, Databricks or Spark Connect has configured the session before us."""
    markers = ("PYSPARK_GATEWAY_PORT", "SPARK_REMOTE")
    return on_databricks() or any(name in os.environ for name in markers) or SparkSession.getActiveSession() is not None


def _size(session: SparkSession, settings: SparkConfig) -> None:
    own = {"spark.sql.shuffle.partitions": str(settings.shuffle_partitions)} if settings.shuffle_partitions else {}
    sizes = {} if on_databricks() else _SIZES  # it has its own, and refuses some
    given = {key: value for key, value in sizes.items() if session.conf.get(key, None) is None}
    for key, value in {**given, **own}.items():
        session.conf.set(key, value)


def _local_session(settings: SparkConfig, debug: bool) -> SparkSession:
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    log4j = Path(__file__).with_name("log4j2.properties")
    java_options = f"-Dlog4j2.configurationFile={log4j.as_uri()} -Drejoin.log.level={'warn' if debug else 'off'}{_collector()}"
    partitions = settings.shuffle_partitions or min(16, max(2, os.cpu_count() or 2))
    conf = {
        "spark.driver.memory": settings.driver_memory,
        "spark.driver.extraJavaOptions": java_options,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": str(settings.ui).lower(),
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(partitions),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "2",
        # A pipeline that runs has more than Spark's 100 pieces of generated code in each round of its micro-batches: most of them
        # were compiled anew in each (docs/benchmarks.md).
        "spark.sql.codegen.cache.maxEntries": "2000",
        # The JVM never compiles a method of more than 8,000 bytes: generated code of that size ran interpreted.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        # PySpark notes the Python line of each expression for its error messages: twice the calls into the JVM for each.
        "spark.python.sql.dataFrameDebugging.enabled": str(debug).lower(),
        # Three queries share one driver: each gets its turn.
        "spark.scheduler.mode": "FAIR",
        "spark.redaction.regex": _HIDDEN,
        **_jars(),
        **settings.conf,
    }
    builder = SparkSession.builder.appName("rejoin").master(settings.master)
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _collector() -> str:
    """The parallel collector: a local session has a small heap, and with it costs a twelfth less processor time than with G1
    (docs/benchmarks.md). Nothing where the environment chooses a collector: Java refuses two."""
    names = ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "SPARK_SUBMIT_OPTS")
    chosen = any(re.search(r"-XX:\+Use\w+GC\b", os.environ.get(name, "")) for name in names)
    return "" if chosen else " -XX:+UseParallelGC"


def _jars() -> dict[str, str]:
    folder = Path(os.environ.get(JARS_DIR) or Path(sys.prefix) / "rejoin-jars")
    files = sorted(folder.glob("*.jar"))
    if files:
        return {"spark.jars": ",".join(str(file) for file in files)}
    return {"spark.jars.packages": DELTA_PACKAGE}


@contextmanager
def _ending_with_us() -> Iterator[None]:
    """Where its start is interrupted, the JVM is killed: before PySpark has connected to it, it would wait for us for ever."""
    started: list[subprocess.Popen[bytes]] = []

    def popen(*words: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(*words, **options))  # noqa: S603  # PySpark's own
        return started[-1]

    java_gateway.Popen = popen  # type: ignore[assignment,attr-defined]
    try:
        yield
    except BaseException:
        if SparkContext._gateway is None:
            for process in started:
                process.kill()
                process.wait()
        raise
    finally:
        java_gateway.Popen = subprocess.Popen  # type: ignore[attr-defined]


@contextmanager
def _quiet_jvm(debug: bool) -> Iterator[None]:
    """Keep what the JVM prints at its start out of the user's stderr; show the end of it should the start fail."""
    if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
        raise RejoinError("Java is not installed: Spark needs Java 17 or 21 (e.g. the package openjdk-17-jre-headless)")
    if debug:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        os.dup2(log.fileno(), 2)  # the JVM inherits this for as long as it lives
        try:
            yield
        except Exception as error:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            reason = next((line for line in reversed(said) if line.strip()), str(error).splitlines()[0])
            raise RejoinError(f"Spark did not start: {reason}; run `rejoin doctor`, or again with --debug") from error
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
