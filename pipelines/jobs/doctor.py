"""Is everything that a run needs in place? Each finding says what to do."""

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.sources import FILE_NAMES, FILE_SUFFIXES, KafkaSource
from pipelines.config.streams import streams_of
from pipelines.ingest.sample import Refused, sample_files, try_lines
from pipelines.kafka.avro_values import read_schema
from pipelines.kafka.client import partition_count
from pipelines.lake.tables import Lake
from pipelines.model.errors import RejoinError
from pipelines.model.events import EventStream
from pipelines.model.format import visible
from pipelines.model.paths import is_local

# A table's log with more files in its directory makes each micro-batch slow: 16 us a file were measured for each of some twenty
# listings (docs/scale.md).
_MANY_LOG_FILES = 50_000
_MOST_LINES = 10_000
"""Of a landing directory, the newest ones."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Not `ok` is what keeps a run from starting, or most of a stream's events from being accepted."""

    ok: bool
    what: str
    fix: str = ""

    def __str__(self) -> str:
        mark = "FAIL" if not self.ok else "note" if self.fix else "ok  "
        behind = "\n      " if "\n" in self.what else "; "
        return f"{mark}  {self.what}{behind if self.fix else ''}{self.fix}"


def examine(configuration: Callable[[], Config], lake: Callable[[Config], Lake]) -> list[Finding]:
    """Examine environment, configuration, sources, session, lake, a sample of landing files; stops where the next depends on what
    is broken."""
    findings = [_python(), _java()]
    try:
        config = configuration()
    except RejoinError as error:
        return [*findings, Finding(ok=False, what=f"configuration: {error}", fix="correct it, then run doctor again")]
    findings.append(Finding(ok=True, what="configuration is valid"))
    sources = {name: _source(config, name) for name in config.streams}
    findings += sources.values()
    if not all(finding.ok for finding in findings[:2]):
        return findings
    try:
        opened = lake(config)
        versions = opened.spark.version
        findings.append(Finding(ok=True, what=f"Spark {versions} starts"))
        missing = [table for table in opened.tables if not opened.exists(table)]
        state = "complete" if not missing else f"without {', '.join(missing)} (made on first use)"
        findings.append(Finding(ok=True, what=f"lake {opened.root}: {state}"))
        findings += _logs(opened)
        for stream in streams_of(config).both:
            if sources[stream.name].ok:
                findings += _sample(opened, stream)
        opened.judge(*opened.tables)
    except RejoinError as error:
        findings.append(Finding(ok=False, what=str(error)))
    return findings


def _sample(lake: Lake, stream: EventStream) -> list[Finding]:
    """How ingest would judge the newest lines of a local landing directory, whether it has read them or not."""
    name, directory = stream.name, _local_directory(lake.config, stream.name)
    if directory is None:
        return []
    sample = sample_files(directory, _MOST_LINES, newest_first=True)
    mend = f"put it there whole, under its name, then `rejoin reland {name}` (docs/files.md)"
    findings = [
        Finding(ok=False, what=f"{name}: {visible(path)} cannot be read ({why})", fix=mend)
        for path, why in sample.unreadable.items()
    ]
    if not sample.lines:
        return [*findings, Finding(ok=True, what=f"{name}: no event in {directory}", fix=f"land files there ({FILE_NAMES})")]
    trial = try_lines(lake.spark, lake.config, stream, sample.lines)
    what = f"{name}: tried the newest {len(sample.lines):,} lines, of {sample.files:,} files: {trial}"
    examples = [f"\n      {reason}, e.g. {_example(refused)}" for reason, refused in trial.refused.items()]
    correct = (
        f"correct streams.{name}.schema, add an alias, or mend what is sent (docs/quarantine.md); "
        f"for what has been read: `rejoin reland {name} --quarantine`"
    )
    accepted = trial.quarantined <= trial.accepted
    return [*findings, Finding(ok=accepted, what="".join([what, *examples]), fix=correct if examples else "")]


def _example(refused: Refused) -> str:
    """Place and cause, without values or a MAP's keys: these are of the events."""
    cause = re.sub(r'\[".*"\]', "[...]", refused.detail).partition(", got ")[0]
    keys = f" (in no column: {', '.join(refused.unnamed)})" if refused.unnamed else ""
    return visible(f"{refused.place}: {cause}{keys}")


def _logs(lake: Lake) -> list[Finding]:
    """The longest log of the tables, where they are on a local disk; others are not looked into."""
    if lake.config.lake_is_catalog or "://" in lake.root:
        return []
    logs = {table: Path(lake.path(table), "_delta_log") for table in lake.tables}
    files = {table: sum(1 for _ in log.iterdir()) for table, log in logs.items() if log.is_dir()}
    longest = max(files, key=lambda table: files[table], default=None)
    if longest is None:
        return []
    what = f"logs of tables: at most {files[longest]:,} files in a directory ({longest})"
    if files[longest] <= _MANY_LOG_FILES:
        return [Finding(ok=True, what=what)]
    fix = "slow, for each read lists them all: a longer trigger.every, fewer days of tables.log_retention, then `rejoin maintain`"
    return [Finding(ok=True, what=what, fix=fix)]


def _python() -> Finding:
    # An older Python does not get as far as this: packaging refuses it.
    return Finding(ok=True, what=f"Python {platform.python_version()}")


def _java() -> Finding:
    java = shutil.which("java")
    if java is None:
        return Finding(ok=False, what="Java is not on the path", fix="install Java 17 or 21 (e.g. openjdk-17-jre-headless)")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(\d+)', said)
    number = int(found[1]) if found else 0
    if number in (17, 21):
        return Finding(ok=True, what=f"Java {number}")
    return Finding(ok=False, what=f"Java {number or 'of unknown version'}", fix="use Java 17 or 21 (set JAVA_HOME and PATH)")


def _source(config: Config, name: str) -> Finding:
    source = config.streams[name].source
    if isinstance(source, KafkaSource):
        return _topic(source, f"streams.{name}.source")
    key = f"streams.{name}.source.path"
    try:
        directory = _local_directory(config, name)
    except RejoinError as error:
        return Finding(ok=False, what=str(error))
    if directory is None:
        return Finding(ok=True, what=f"{key}: {source.path} (not looked into)")
    if not directory.is_dir():
        return Finding(ok=False, what=f"{key}: {directory} is not a directory", fix="create it or correct the path")
    names = [p.name for p in directory.iterdir() if p.is_file() and not p.name.startswith((".", "_"))]
    unread = [n for n in names if not n.endswith(FILE_SUFFIXES)]
    if unread:
        fix = f"rename what has events to {FILE_NAMES}, an event a line (docs/files.md)"
        return Finding(ok=True, what=f"{key}: {len(unread)} files are not read, e.g. {unread[0]}", fix=fix)
    return Finding(ok=True, what=f"{key}: {len(names)} files")


def _local_directory(config: Config, name: str) -> Path | None:
    """The landing directory of a stream; None for a topic or a URI. Raises RejoinError where a secret is missing."""
    source = config.streams[name].source
    if isinstance(source, KafkaSource):
        return None
    path = resolve(source.path, f"streams.{name}.source.path")
    return Path(path) if is_local(path) else None


def _topic(source: KafkaSource, where: str) -> Finding:
    try:
        if source.value.format == "avro":
            read_schema(source.value, where)
        partitions = partition_count(source, where)
    except RejoinError as error:
        return Finding(ok=False, what=str(error))
    return Finding(ok=True, what=f"{where}: topic {source.topic} has {partitions} partitions")
