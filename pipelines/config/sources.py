"""Where a stream's events come from: landing files, or a Kafka topic.

The string below a key is what docs/configuration.md says of it.
"""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from pipelines.config.kafka_options import check_as_written
from pipelines.model.durations import PATTERN, parse_duration

_DURATION = {"anyOf": [{"type": "string", "pattern": PATTERN}, {"const": 0}]}
Duration = Annotated[timedelta, BeforeValidator(parse_duration), WithJsonSchema(_DURATION)]
SchemaId = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
_IDS = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}

# The files of a landing directory that hold events: how their names end, and the same as a pattern.
FILE_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
FILE_NAMES = f"*.{{{','.join(suffix.removeprefix('.') for suffix in FILE_SUFFIXES)}}}"


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class FilesSource(Model):
    """Newline-delimited JSON files that appear, whole, in a directory."""

    format: Literal["files"] = "files"
    path: str
    """The landing directory, and all below it. It must exist. Names that start with `.` or `_` are not read."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


class ValueConfig(Model):
    """What the values of a topic's records are."""

    format: Literal["json", "avro"] = "json"
    schema_file: str | None = None
    """An Avro schema (`.avsc`), with `format: avro`."""
    framing: Literal["none", "confluent"] = "none"
    """`confluent`: each value begins with a byte 0 and the id of its schema, as Confluent's serializers write it."""
    schema_id: Annotated[tuple[SchemaId, ...], BeforeValidator(_one_or_more), WithJsonSchema(_IDS)] = ()
    """With `framing: confluent`, the registry's id (or ids) of the schema in `schema_file`. Values of another id go to
    quarantine: the bytes of another schema may decode to values that nobody wrote."""

    @model_validator(mode="after")
    def _schema_is_for_avro(self) -> "ValueConfig":
        if self.format == "avro" and self.schema_file is None:
            raise ValueError("schema_file: missing; avro needs the file of a schema (.avsc)")
        if self.format == "json" and (self.schema_file is not None or self.framing != "none"):
            raise ValueError("format: json takes neither schema_file nor framing; allowed with them: avro")
        if self.framing == "confluent" and not self.schema_id:
            raise ValueError("schema_id: missing; give the registry's id of the schema in schema_file (or a list of ids)")
        if self.framing == "none" and self.schema_id:
            raise ValueError("schema_id: stands in the frame of a value, so it needs framing: confluent")
        return self


class KafkaSource(Model):
    """A Kafka topic of events."""

    format: Literal["kafka"]
    bootstrap_servers: str
    """`host:port`, or several with commas between."""
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """The topic's name; one topic a stream."""
    starting_offsets: Literal["earliest", "latest"] = "earliest"
    """Where the first start of a stream begins; later starts go on where the last has ended."""
    max_offsets_per_trigger: int | None = Field(default=1_000_000, gt=0)
    """Records that a micro-batch reads at most, over all partitions, so that a backlog is read in bounded pieces; null: no
    limit."""
    min_offsets_per_trigger: int | None = Field(default=None, gt=0)
    """Records that a micro-batch waits for, but no longer than `max_trigger_delay`."""
    max_trigger_delay: Duration = timedelta(minutes=15)
    """How long a micro-batch waits for `min_offsets_per_trigger`."""
    options: dict[str, str] = {}
    """Settings of the Kafka client, without the prefix `kafka.`: see docs/kafka.md."""
    value: ValueConfig = ValueConfig()

    @model_validator(mode="after")
    def _options_are_known(self) -> "KafkaSource":
        try:
            check_as_written(self.options)
        except ValueError as error:
            raise ValueError(f"options.{error}") from None
        least, most = self.min_offsets_per_trigger, self.max_offsets_per_trigger
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_offsets_per_trigger: {least} is more than max_offsets_per_trigger ({most})")
        return self


SourceConfig = Annotated[FilesSource | KafkaSource, Field(discriminator="format")]
