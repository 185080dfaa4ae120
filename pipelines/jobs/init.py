"""Init: from samples of two streams to a configuration, which is tried on them before it is written."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from pipelines.config.infer import infer
from pipelines.config.load import load_config
from pipelines.config.model import Config
from pipelines.config.propose import Proposal, propose, to_yaml
from pipelines.config.sources import FILE_SUFFIXES, KafkaSource
from pipelines.config.streams import streams_of
from pipelines.ingest.sample import sample_files, try_lines
from pipelines.model.errors import RejoinError

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
    for stream in streams_of(config).both:
        lines = [(stream.name, line.encode()) for line in samples[stream.name][:_MOST_TRIED]]
        trial = try_lines(spark, config, stream, lines)
        say(f"{stream.name}: {trial}")
        for reason, refused in trial.refused.items():
            say(f"{stream.name}: {reason}, e.g. {refused.detail}")
        if not trial.accepted:
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
    sample = sample_files(directory, _MOST_LINES)
    for path, why in sample.unreadable.items():
        raise RejoinError(f"{path}: cannot be read ({why})")
    return (line.decode(errors="replace") for _, line in sample.lines)
