"""What a stream of events is to the rest of the code: names, schema, identity, time, partitions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from pipelines.model.names import Role

_UTC_TIMESTAMP = TimestampType()
_MICROSECONDS = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"


@dataclass(frozen=True, kw_only=True)
class EventStream:
    """One stream as configured. Times are UTC with microseconds; `id` and `event_time` are never null once accepted. `aliases`
    are a column's further names in events, in order of preference."""

    name: str
    role: Role
    id: str
    event_time: str
    keys: tuple[str, ...]
    schema: StructType
    partition_by: str
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names_of(self, column: str) -> tuple[str, ...]:
        """The names under which events may carry a column, its own first."""
        return column, *self.aliases.get(column, ())

    @property
    def required(self) -> tuple[str, ...]:
        """Columns whose absence or null sends an event to quarantine: the NOT NULL ones, the id and the time."""
        return tuple(f.name for f in self.schema if not f.nullable or f.name in (self.id, self.event_time))

    @property
    def partition_columns(self) -> tuple[str, ...]:
        return ("event_date", "event_hour") if self.partition_by == "hour" else ("event_date",)

    def partition_sql(self, of: str = "") -> dict[str, str]:
        """SQL for the partition of a row, by column, from its event time in UTC (the session's time zone is UTC). `of` is what
        the row's columns are found under, e.g. the `row.` of a struct."""
        values = {"event_date": f"to_date({of}`{self.event_time}`)", "event_hour": f"hour({of}`{self.event_time}`)"}
        return {name: values[name] for name in self.partition_columns}

    def partition_values(self) -> list[Column]:
        """The same, to select."""
        return [F.expr(value).alias(name) for name, value in self.partition_sql().items()]

    def is_placed(self, of: str = "") -> str:
        """SQL: whether a row (`of` as above) stands in the partition of its event time; so does one that is null."""
        return " AND ".join(f"{of}`{name}` <=> {value}" for name, value in self.partition_sql(of).items())

    @property
    def partition_schema(self) -> list[StructField]:
        date, hour = StructField("event_date", DateType(), False), StructField("event_hour", IntegerType(), False)
        return [date, hour] if self.partition_by == "hour" else [date]

    @property
    def own_schema(self) -> list[StructField]:
        """The event's own columns, the required ones not null."""
        return [StructField(f.name, f.dataType, f.name not in self.required) for f in self.schema]

    @property
    def bronze_schema(self) -> StructType:
        """DESIGN section 5: the event's own columns, what the door adds, the partition columns."""
        return StructType(
            [
                *self.own_schema,
                StructField("late", BooleanType(), False),
                StructField("door_watermark", _UTC_TIMESTAMP),
                StructField("ingest_time", _UTC_TIMESTAMP, False),
                StructField("ingest_batch", LongType(), False),
                StructField("source", StringType()),
                StructField("source_partition", IntegerType()),
                StructField("source_offset", LongType()),
                StructField("source_time", _UTC_TIMESTAMP),
                StructField("rescued", StringType()),
                *self.partition_schema,
            ]
        )

    def has_keys(self) -> Column:
        """A null key matches nothing (DESIGN section 2)."""
        return reduce(lambda a, b: a & b, (F.col(key).isNotNull() for key in self.keys))

    def aliased_keys(self) -> list[Column]:
        """Select the keys under names of their own, for a frame that is to be matched with one that has them too."""
        return [F.col(key).alias(f"__key_{key}") for key in self.keys]

    def same_keys(self) -> Column:
        """Whether the keys equal those that `aliased_keys` has selected on the other side; never where one is null."""
        return reduce(lambda a, b: a & b, (F.col(key) == F.col(f"__key_{key}") for key in self.keys))

    def event_rank(self, prefix: str = "") -> str:
        """SQL: of outcome events with one id, the least by this rank is the event (DESIGN section 2).

        A struct of the event time and the event as JSON with sorted keys, no spaces and explicit nulls, over the declared
        columns. `prefix` qualifies the columns (`t.`).
        """
        fields = sorted(self.schema.fields, key=lambda f: f.name)
        parts = ", ".join(f"'{f.name}', {_sorted_keys(f'{prefix}`{f.name}`', f.dataType)}" for f in fields)
        options = f"map('ignoreNullFields', 'false', 'timestampFormat', \"{_MICROSECONDS}\")"
        json = f"to_json(named_struct({parts}), {options})"
        return f"named_struct('time', {prefix}`{self.event_time}`, 'json', {json})"


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The two streams of one join, and the columns that it carries from exposure to outcome."""

    exposure: EventStream
    outcome: EventStream
    carry: tuple[str, ...]

    @property
    def both(self) -> tuple[EventStream, EventStream]:
        return self.exposure, self.outcome

    def named(self, name: str) -> EventStream:
        """Raises KeyError where there is no such stream."""
        return {stream.name: stream for stream in self.both}[name]

    @property
    def attributed_name(self) -> str:
        return f"attributed_{self.outcome.name}"

    @property
    def exposure_columns(self) -> list[StructField]:
        """The columns that an attribution adds, in the order in which candidates are compared after the time."""
        types = {f.name: f.dataType for f in self.exposure.schema}
        return [
            StructField("exposure_id", types[self.exposure.id]),
            StructField("exposure_time", _UTC_TIMESTAMP),
            *(StructField(f"exposure_{c}", types[c]) for c in self.carry),
        ]

    @property
    def candidate_schema(self) -> StructType:
        """An outcome with one exposure that it may be attributed to, or with none (exposure columns null)."""
        return StructType([*self.outcome.own_schema, *self.exposure_columns])

    @property
    def attributed_schema(self) -> StructType:
        """DESIGN section 5."""
        return StructType(
            [
                *self.candidate_schema.fields,
                StructField("attributed_by", StringType(), False),
                StructField("updated_at", _UTC_TIMESTAMP, False),
                *self.outcome.partition_schema,
            ]
        )

    def exposure_rank(self, prefix: str = "") -> str:
        """SQL: of the exposures that match an outcome, the greatest by this rank is the answer (DESIGN section 2).

        A struct of exposure time, id, and the carried values in order, nulls smallest; null where there is no exposure.
        """
        names = ["exposure_time", "exposure_id", *(f"exposure_{c}" for c in self.carry)]
        rank = ", ".join(f"'{n}', {prefix}`{n}`" for n in names)
        return f"IF({prefix}exposure_time IS NULL, NULL, named_struct({rank}))"

    def as_exposure(self) -> list[Column]:
        """Select the exposure columns of a candidate from a frame of exposure events."""
        return [
            F.col(self.exposure.id).alias("exposure_id"),
            F.col(self.exposure.event_time).alias("exposure_time"),
            *(F.col(c).alias(f"exposure_{c}") for c in self.carry),
        ]


def _sorted_keys(value: str, kind: DataType) -> str:
    """SQL for `value` with the keys of every object inside it in order."""
    if isinstance(kind, StructType):
        fields = sorted(kind.fields, key=lambda f: f.name)
        parts = ", ".join(f"'{f.name}', {_sorted_keys(f'{value}.`{f.name}`', f.dataType)}" for f in fields)
        return f"IF({value} IS NULL, NULL, named_struct({parts}))"
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, StructType | ArrayType | MapType):
        item = f"item{value.count('item')}"
        return f"transform({value}, {item} -> {_sorted_keys(item, kind.elementType)})"
    if isinstance(kind, MapType):
        order = "CASE WHEN a.key < b.key THEN -1 WHEN a.key > b.key THEN 1 ELSE 0 END"
        return f"map_from_entries(array_sort(map_entries({value}), (a, b) -> {order}))"
    return value
