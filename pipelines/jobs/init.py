"""Init: from samples of two streams to a configuration, which is tried on them before it is written."""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.config.infer import infer
from pipelines.config.load import load_config
from pipelines.config.model import Config
from pipelines.config.propose import Proposal, propose, to_yaml
from pipelines.config.sources import FILE_SUFFIXES, KafkaSource
from pipelines.config.streams import streams_of
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.model.errors import RejoinError
from pipelines.model.format import judged

_MOST_LINES = 200_000
_MOST_TRIED = 20_000


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stream's events are: a landing directory, or `kafka://servers/topic`."""

    name: str
    where: str

    @property
    def source(self) -> dict[str, str]:
        """As the configuration has it."""
        if not self.where.startswith("kafka://"):
            return {"format": "files", "path": self.where}
        found = re.fullmatch(r"kafka://([^/]+)/([A-Za-z0-9._-]{1,249})", self.where)
        if found is None:
            raise RejoinError(f"{self.where}: give kafka://HOST:PORT/TOPIC")
        return {"format": "kafka", "bootstrap_servers": found[1], "topic": found[2]}

    def lines(self) -> list[str]:
        """A sample, in the order of arrival. Raises RejoinError where there is none."""
        found = list(self._read())
        if not found:
            raise RejoinError(f"{self.where}: has no events; a sample is needed ({', '.join(FILE_SUFFIXES)}, an event a line)")
        return found

    def _read(self) -> Iterator[str]:
        if self.where.startswith("kafka://"):
            from pipelines.kafka.client import sample

            return iter(sample(KafkaSource.model_validate(self.source), self.where, _MOST_LINES))
        return _lines_of(Path(self.where))


def initialise(
    places: Sequence[Place],
    out: Path,
    *,
    keys: Sequence[str],
    outcome: str | None,
    ids: Mapping[str, str],
    times: Mapping[str, str],
    spark: Callable[[Config], SparkSession],
    say: Callable[[str], None],
) -> None:
    """Infer, try on the samples, write to `out`. Raises RejoinError where the samples do not tell, or no line of one passes."""
    samples = {place.name: place.lines() for place in places}
    streams = []
    for name, lines in samples.items():
        events = [event for line in lines if (event := _object(line)) is not None]
        if not events:
            raise RejoinError(f"{name}: none of {len(lines):,} lines is a JSON object; one event a line: jq -c '.[]' FILE")
        streams.append(infer(name, events, ids.get(name), times.get(name)))
        say(f"{name}: {len(lines):,} lines, {len(events):,} JSON objects")
    proposal = propose(streams, keys, outcome)
    _tell(proposal, say)
    text = to_yaml(proposal, {place.name: place.source for place in places}, "./lake")
    draft = out.with_name(f".{out.name}.draft")
    draft.write_text(text, encoding="utf-8")
    try:
        config = load_config(draft)
        say("trying it on the samples")
        _try(spark(config), config, samples, say)
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)


def _tell(proposal: Proposal, say: Callable[[str], None]) -> None:
    for stream in (proposal.exposure, proposal.outcome):
        say(f"{stream.name}: id {stream.id} ({stream.why['id']}); event time {stream.event_time} ({stream.why['event_time']})")
        for column in stream.columns:
            if column.note:
                say(f"{stream.name}: {column.key} {column.note}")
    hours, share = max(proposal.within.items())
    ahead = (
        f"{share:.0%} have {proposal.exposure.name} of equal keys within {hours:g} h before, {proposal.backwards:.0%} the other"
    )
    say(f"outcome: {proposal.outcome.name} ({ahead} way round)")
    for name, why in proposal.why.items():
        say(f"{name}: {why}")


def _try(spark: SparkSession, config: Config, samples: Mapping[str, Sequence[str]], say: Callable[[str], None]) -> None:
    now = F.current_timestamp()
    for stream in streams_of(config).both:
        lines = samples[stream.name][:_MOST_TRIED]
        raw = F.struct("value", now.alias("record_time"), now.alias("ingest_time"))
        frame = spark.createDataFrame([(line,) for line in lines], "value string").select(raw.alias("__raw"))
        parsed = parse(frame, stream, rules_of(config))
        found = parsed.groupBy("__reason").agg(F.count("*").alias("n"), F.first("__detail").alias("detail")).collect()
        reasons = Counter({row["__reason"]: row["n"] for row in found if row["__reason"]})
        accepted = sum(row["n"] for row in found if not row["__reason"])
        say(f"{stream.name}: {judged(accepted, reasons.total(), dict(reasons.most_common()))}")
        for row in found:
            if row["__reason"]:
                say(f"{stream.name}: {row['__reason']}, e.g. {row['detail']}")
        if not accepted:
            raise RejoinError(f"{stream.name}: none of {len(lines):,} lines passes; nothing was written")


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refused(name: str) -> None:
    raise ValueError(name)


def _lines_of(directory: Path) -> Iterator[str]:
    """The lines of a landing directory's files, the oldest file first."""
    if not directory.is_dir():
        raise RejoinError(f"{directory}: is not a directory; name the directory that a stream's events land in")
    files = [path for path in directory.rglob("*") if path.is_file() and path.name.endswith(FILE_SUFFIXES)]
    shown = [path for path in files if not any(part[0] in "._" for part in path.relative_to(directory).parts)]
    left = _MOST_LINES
    for path in sorted(shown, key=lambda path: (path.stat().st_mtime, path.name)):
        try:
            with (gzip.open if path.name.endswith(".gz") else open)(path, "rt", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.strip():
                        yield line.rstrip("\n")
                        left -= 1
                    if not left:
                        return
        except (OSError, EOFError, zlib.error) as error:
            raise RejoinError(f"{path}: cannot be read ({error})") from None
