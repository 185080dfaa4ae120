"""The streams, the tables and the attribution rule that a configuration describes.

Spark is imported by the functions that return its types: `explain` reads the rule without it.
"""

from typing import TYPE_CHECKING

from pipelines.config.ddl import schema_json
from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.model.names import Role
from pipelines.model.paths import absolute
from pipelines.model.rule import Rule

if TYPE_CHECKING:
    from pipelines.model.events import EventStream, Streams


def event_stream_of(config: Config, role: Role) -> "EventStream":
    """The stream of a role; its schema as Spark's types."""
    from pyspark.sql.types import StructType

    from pipelines.model.events import EventStream

    name = config.stream_name(role)
    stream = config.streams[name]
    return EventStream(
        name=name,
        role=role,
        id=stream.id,
        event_time=stream.event_time,
        keys=config.join.keys,
        schema=StructType.fromJson(schema_json(stream.columns)),
        partition_by=stream.partition_by or config.partition_by,
        aliases=stream.aliases,
    )


def streams_of(config: Config) -> "Streams":
    """Both streams, and the columns that the join carries."""
    from pipelines.model.events import Streams

    exposure, outcome = event_stream_of(config, "exposure"), event_stream_of(config, "outcome")
    return Streams(exposure=exposure, outcome=outcome, carry=config.join.carry)


def rule_of(config: Config) -> Rule:
    """What an outcome's answer depends on."""
    return Rule(keys=config.join.keys, window=config.join.attribution_window, carry=config.join.carry)


def root_of(config: Config) -> str:
    """Where the lake is: its `catalog.schema`, or its directory, absolute."""
    return config.lake if config.lake_is_catalog else absolute(resolve(config.lake, "lake"))


def checkpoints_of(config: Config) -> str:
    """The directory of the queries' checkpoints."""
    given = config.checkpoints
    return absolute(resolve(given, "checkpoints")) if given else f"{root_of(config)}/_rejoin/checkpoints"


def table_names(config: Config) -> tuple[str, ...]:
    """The tables that users see, in the order in which data reaches them."""
    exposure, outcome = config.stream_name("exposure"), config.stream_name("outcome")
    written = exposure, outcome, "quarantine", f"attributed_{outcome}"
    return *written, "control", "ledger", "reconciliations", "reconciliation_diffs"
