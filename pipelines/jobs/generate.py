"""Generate: a day of events into landing files, or into Kafka topics, as the streams are configured."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.demo.files import Wave, waves, write_lines
from pipelines.demo.generator import DayModel, generate_day
from pipelines.kafka.avro_values import NotAvroError, from_json, read_schema
from pipelines.kafka.client import create_topic, produce

_PARTITIONS = 2
Progress = Callable[[str, int], None]


def run_generate(
    config: Config,
    model: DayModel,
    count: int,
    out: Path | None,
    *,
    compress: bool = False,
    per_second: float | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, tuple[int, str]]:
    """Write the day in `count` waves; by stream how many lines, and where they went. `out` means files in any case;
    `per_second` limits what goes to each Kafka topic."""
    targets = targets_of(config, out)
    lines = dict.fromkeys(targets, 0)
    for wave in waves(generate_day(model, config), count):
        sent = partial(_within_wave, progress, dict(lines))
        deliver(config, wave, targets, compress=compress, per_second=per_second, progress=sent)
        for name, written in wave.lines.items():
            lines[name] += len(written)
            progress(name, lines[name])
    return {name: (lines[name], _where(target)) for name, target in targets.items()}


def targets_of(config: Config, out: Path | None = None) -> dict[str, Path | KafkaSource]:
    """Where the events of each stream go: a directory, or a topic, which is created where it is not there."""
    targets: dict[str, Path | KafkaSource] = {}
    for name, stream in config.streams.items():
        source, where = stream.source, f"streams.{name}.source"
        if out is not None:
            targets[name] = out / name
        elif isinstance(source, FilesSource):
            targets[name] = Path(resolve(source.path, f"{where}.path"))
        else:
            _encoder(source, where)  # so that a schema that cannot be read is told before a topic is made
            create_topic(source, where, _PARTITIONS)
            targets[name] = source
    return targets


def deliver(
    config: Config,
    wave: Wave,
    targets: Mapping[str, Path | KafkaSource],
    *,
    compress: bool = False,
    per_second: float | None = None,
    progress: Progress = lambda *_: None,
) -> None:
    """One wave: a file for a stream that goes to a directory, records keyed by the first join key for one that goes to Kafka, of
    which `progress` is told while they are sent."""
    for name, lines in wave.lines.items():
        target = targets[name]
        if isinstance(target, Path):
            write_lines(wave, name, target, compress=compress)
        else:
            where = f"streams.{name}.source"
            records = _keyed(lines, config.join.keys[:1], _encoder(target, where))
            produce(target, where, records, per_second=per_second, progress=partial(progress, name))


def _within_wave(progress: Progress, before: Mapping[str, int], name: str, sent: int) -> None:
    progress(name, before[name] + sent)


def _keyed(
    lines: Sequence[str], keys: Sequence[str], encode: Callable[[str], str | bytes]
) -> Iterator[tuple[str | None, str | bytes]]:
    """Records of one key go to one partition; what is no event has no key."""
    for line in lines:
        yield _key(line, keys), encode(line)


def _encoder(target: KafkaSource, where: str) -> Callable[[str], str | bytes]:
    """How a line becomes the value of a record; one that is no event of an Avro schema stays as it is, for the door to refuse."""
    if target.value.format == "json":
        return lambda line: line
    schema = read_schema(target.value, where)

    def encode(line: str) -> str | bytes:
        try:
            return from_json(line, schema, target.value.schema_id)
        except NotAvroError:
            return line

    return encode


def _key(line: str, keys: Sequence[str]) -> str | None:
    try:
        event: Any = json.loads(line)
    except ValueError:
        return None
    value = event.get(keys[0]) if isinstance(event, dict) else None
    return None if value is None else str(value)


def _where(target: Path | KafkaSource) -> str:
    return str(target) if isinstance(target, Path) else f"topic {target.topic}"
