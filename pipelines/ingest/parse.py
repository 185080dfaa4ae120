"""One line of text becomes an accepted event or a quarantined payload with its reason; nothing is dropped.

The rules (DESIGN section 6): a line is one JSON object with standard JSON numbers and whole characters; a value has its
column's type exactly (no number for a STRING, no text for an INT) and lies in its range; a time is ISO-8601 with an offset, or
epoch milliseconds. A column that may be null may also be absent. A key of the object that the schema does not name is kept in
`rescued`.

The work per line is one parse into the schema; a line that may have more in it than its columns has its key names read, and one
that looks suspicious is examined exactly, through VARIANT. Everything here is a pure function of a DataFrame.
"""

from dataclasses import dataclass
from enum import Enum
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DoubleType,
    FloatType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from pipelines.config.model import Config
from pipelines.model.durations import micros
from pipelines.model.events import EventStream
from pipelines.model.time import to_micros


class Reason(str, Enum):
    """Why an event is in quarantine."""

    TOMBSTONE = "tombstone"
    NOT_AVRO = "not_avro"
    NOT_UTF8 = "not_utf8"
    OVERSIZE = "oversize"
    NOT_JSON = "not_json"
    WRONG_TYPE = "wrong_type"
    MISSING_REQUIRED = "missing_required"
    UNPARSEABLE_TIME = "unparseable_time"
    FUTURE_TIME = "future_time"
    IMPLAUSIBLE_TIME = "implausible_time"


@dataclass(frozen=True, kw_only=True)
class ParseRules:
    """Limits of the door: bytes of one event, how far an event time may lie ahead of its record, and the earliest event time
    (both in microseconds)."""

    max_event_bytes: int
    max_future_skew_us: int
    earliest_us: int


def rules_of(config: Config) -> ParseRules:
    return ParseRules(
        max_event_bytes=config.ingest.max_event_bytes,
        max_future_skew_us=micros(config.join.max_future_skew),
        earliest_us=to_micros(config.ingest.earliest_event_time),
    )


_ISO = (
    r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?"
    r"(?:([Zz])|([+-]\d{2}):?(\d{2})?)$"
)
_HALF = r"(?i)\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]"
_USUAL_ISO = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z$"
_EPOCH_MILLIS = r"^-?\d{1,15}$"
_CORRUPT = "__corrupt"


def parse(raw: DataFrame, stream: EventStream, rules: ParseRules) -> DataFrame:
    """From `__raw` to `__raw`, `__event` (struct of the stream's columns), `__rescued`, `__reason` and `__detail`.

    `__reason` is null exactly where the event is accepted. Own columns stay inside `__event`, so that no name of an
    event's column can clash with one of ours.
    """
    line = F.col("__raw.value")
    # In a list of one: two objects on a line, or anything after the object, shows as a list of another length.
    readable = (F.octet_length(line) <= rules.max_event_bytes) & F.is_valid_utf8(line)
    wrapped = F.when(readable, F.concat(F.lit('{"e":['), line, F.lit("]}")))
    schema = StructType([StructField("e", ArrayType(_read_as(stream))), StructField(_CORRUPT, StringType())])
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _CORRUPT,
        "allowNonNumericNumbers": "false",
        "allowSingleQuotes": "false",
    }
    wrapper = raw.select("__raw", wrapped.alias("__wrapped")).select(
        "__raw",
        F.from_json("__wrapped", schema, options).alias("__wrapper"),
        F.col("__wrapped").isNotNull().alias("__readable"),
    )
    parsed = wrapper.select(
        "__raw",
        "__readable",
        F.when((F.size("__wrapper.e") == 1) & _ends_there(line), F.col("__wrapper.e")[0]).alias("__given"),
        F.col(f"__wrapper.{_CORRUPT}").isNotNull().alias(_CORRUPT),
    ).select("*", _by_column(stream).alias("__parsed"))
    typed = parsed.select("*", _plain(line, stream).alias("__plain")).select(
        "__raw",
        "__readable",
        "__plain",
        "__parsed",
        _CORRUPT,
        _known(stream).alias("__known"),
        F.when(F.col("__parsed").isNotNull() & ~F.col("__plain"), F.json_object_keys(line)).alias("__keys"),
        F.struct(*(_value(f).alias(f.name) for f in stream.schema)).alias("__event"),
    )
    verdict = F.coalesce(*_undecodable(raw), _verdict(stream, rules))
    judged = typed.select("__raw", "__event", _rescued().alias("__rescued"), verdict.alias("__verdict"))
    return judged.select(
        "__raw",
        "__event",
        "__rescued",
        F.col("__verdict.reason").alias("__reason"),
        F.col("__verdict.detail").alias("__detail"),
    )


def _ends_there(line: Column) -> Column:
    """Whether nothing comes after the line's object. The parser looks no further than the list that we have put it into, and a
    bracket in the line may have ended that."""
    end = F.lit("the end")
    items = F.from_json(F.concat(F.lit("["), line, F.lit(',"'), end, F.lit('"]')), "array<string>")
    return F.when(F.contains(line, F.lit("]")), (F.size(items) == 2) & (items[1] == end)).otherwise(F.lit(True))


def _read_as(stream: EventStream) -> StructType:
    """The schema to parse with: every name that a column may have in events; top-level times stay text, to be read by our rule
    and not by Spark's lenient one."""
    kinds = {f.name: StringType() if isinstance(f.dataType, TimestampType) else f.dataType for f in stream.schema}
    return StructType([StructField(name, kinds[column]) for column in kinds for name in stream.names_of(column)])


def _given(name: str) -> Column:
    return F.col("__given").getField(name)


def _by_column(stream: EventStream) -> Column:
    """What was parsed, under the columns' own names: of a column's names, the first that has a value."""
    if not stream.aliases:
        return F.col("__given")
    columns = [F.coalesce(*map(_given, stream.names_of(f.name))).alias(f.name) for f in stream.schema]
    return F.when(F.col("__given").isNotNull(), F.struct(*columns))


def _known(stream: EventStream) -> Column:
    """The names whose values are in the columns. An alias beside a value that came first is not among them, so it is rescued."""
    names = [F.lit(f.name) for f in stream.schema]
    for column in stream.aliases:
        before, *aliases = stream.names_of(column)
        taken = _given(before).isNotNull()
        for alias in aliases:
            names.append(F.when(~taken, F.lit(alias)))
            taken = taken | _given(alias).isNotNull()
    return F.array(*names)


_BARE = ("boolean", "tinyint", "smallint", "int", "bigint", "float", "double")
_QUOTES = {"string": 4, "timestamp": 4, **dict.fromkeys(_BARE, 2)}


def _plain(line: Column, stream: EventStream) -> Column:
    """Whether the line surely has no key beyond its columns': it has just the quotes that those with a value need.

    That is two for a key and two for a value which is text; any further key has more. A text column that was given as something
    else would leave room for one, but it is WRONG_TYPE, or a time that does not look like ISO-8601, which is not plain. Nor is a
    line with an escape, nor one of a schema with other types.
    """
    if any(f.dataType.simpleString() not in _QUOTES for f in stream.schema):
        return F.lit(False)
    needed = F.lit(0)
    for f in stream.schema:
        quotes = F.lit(_QUOTES[f.dataType.simpleString()])
        if isinstance(f.dataType, TimestampType):
            quotes = F.when(F.substring(_parsed(f.name), 5, 1) == "-", quotes)
        needed = needed + F.when(_parsed(f.name).isNull(), 0).otherwise(quotes)
    found = F.octet_length(line) - F.octet_length(F.replace(line, F.lit('"'), F.lit("")))
    return F.coalesce((found == needed) & ~F.contains(line, F.lit("\\")), F.lit(False))


def _parsed(name: str) -> Column:
    return F.col("__parsed").getField(name)


def _value(field: StructField) -> Column:
    raw = _parsed(field.name)
    return parse_time(raw) if isinstance(field.dataType, TimestampType) else raw


def parse_time(text: Column) -> Column:
    """ISO-8601 with offset (seconds and fraction optional, cut to microseconds), or epoch milliseconds; else null."""
    # What nearly all events have is read by Spark itself, which is lenient, but not with text of that form.
    usual = F.when(text.rlike(_USUAL_ISO), text.try_cast("timestamp"))
    part = [F.regexp_extract(text, _ISO, group) for group in range(8)]
    clock = F.concat(part[2], F.when(part[3] == "", ":00").otherwise(part[3]), F.lit("."))
    fraction = F.rpad(F.substring(part[4], 1, 6), 6, "0")
    minutes = F.when(part[7] == "", "00").otherwise(part[7])
    offset = F.when(part[5] != "", "Z").otherwise(F.concat(part[6], F.lit(":"), minutes))
    iso = F.concat(part[1], F.lit("T"), clock, fraction, offset)
    epoch = F.timestamp_millis(text.try_cast("bigint"))
    unusual = F.when(text.rlike(_EPOCH_MILLIS), epoch).when(text.rlike(_ISO), iso.try_cast("timestamp"))
    return F.coalesce(usual, unusual)


def _verdict(stream: EventStream, rules: ParseRules) -> Column:
    """A struct of reason and detail, null where the event is accepted. The first rule that an event breaks names it."""
    size = F.octet_length("__raw.value")
    too_big = F.concat(size.cast("string"), F.lit(f" bytes; at most {rules.max_event_bytes} are accepted"))
    strings = [f for f in stream.schema if isinstance(f.dataType, StringType)]
    fractions = [f for f in stream.schema if isinstance(f.dataType, FloatType | DoubleType)]
    unreadable = F.coalesce(
        F.when(F.col("__raw.value").isNull(), _judge(Reason.TOMBSTONE, F.lit("a record without a value"))),
        F.when(size > rules.max_event_bytes, _judge(Reason.OVERSIZE, too_big)),
        _judge(Reason.NOT_UTF8, F.lit("not UTF-8; the payload is kept as base64")),
    )
    half = ~F.col("__plain") & _half_a_character(F.col("__raw.value"))
    return F.coalesce(
        F.when(~F.col("__readable"), unreadable),
        F.when(F.col("__parsed").isNull(), _judge(Reason.NOT_JSON, F.lit("not one JSON object on the line"))),
        F.when(half, _judge(Reason.NOT_JSON, F.lit("\\ud8.. to \\udf.. without its other half"))),
        F.when(
            F.col(_CORRUPT) | _any([*(_suspicious(f.name, stream) for f in strings), *(_infinite(f) for f in fractions)]),
            _mistyped(stream),
        ),
        *(_absent(name) for name in stream.required),
        *(_not_a_time(f.name) for f in stream.schema if isinstance(f.dataType, TimestampType)),
        _from_the_future(stream, rules),
        _before_all_events(stream, rules),
    )


def is_decoded(rows: DataFrame) -> bool:
    """Whether the text in `__raw` has been decoded from other bytes, which are there too."""
    raw = rows.schema["__raw"].dataType
    return isinstance(raw, StructType) and "encoded" in raw.names


def _undecodable(raw: DataFrame) -> list[Column]:
    problem = F.col("__raw.problem")
    return [F.when(problem.isNotNull(), _judge(Reason.NOT_AVRO, problem))] if is_decoded(raw) else []


def _judge(reason: Reason, detail: Column) -> Column:
    return F.struct(F.lit(reason.value).alias("reason"), detail.alias("detail"))


def _absent(name: str) -> Column:
    detail = F.when(F.array_contains("__keys", name), f"{name} is null").otherwise(f"{name} is absent")
    return F.when(_parsed(name).isNull(), _judge(Reason.MISSING_REQUIRED, detail))


def _not_a_time(name: str) -> Column:
    text = _parsed(name)
    detail = F.concat(F.lit(f"{name}: "), F.left(text, F.lit(100)), F.lit(" is not ISO-8601 with offset, or epoch ms"))
    unreadable = text.isNotNull() & F.col("__event").getField(name).isNull()
    return F.when(unreadable, _judge(Reason.UNPARSEABLE_TIME, detail))


def _from_the_future(stream: EventStream, rules: ParseRules) -> Column:
    ahead = F.unix_micros(F.col("__event").getField(stream.event_time)) - F.unix_micros("__raw.record_time")
    seconds = F.floor(ahead / 1_000_000).cast("string")
    detail = F.concat(F.lit(f"{stream.event_time} is "), seconds, F.lit(" s ahead of its record"))
    return F.when(ahead > F.lit(rules.max_future_skew_us), _judge(Reason.FUTURE_TIME, detail))


def _before_all_events(stream: EventStream, rules: ParseRules) -> Column:
    time = F.col("__event").getField(stream.event_time)
    detail = F.concat(F.lit(f"{stream.event_time} "), time.cast("string"), F.lit(" UTC is too early: seconds for milliseconds?"))
    return F.when(F.unix_micros(time) < F.lit(rules.earliest_us), _judge(Reason.IMPLAUSIBLE_TIME, detail))


def _suspicious(column: str, stream: EventStream) -> Column:
    """Whether a STRING column may have been given as another JSON type, which Spark's parser takes as text.

    Only text that is a literal, or begins like a number, an object or a list, can have; and not where the line has it quoted
    behind its own key, in either of the two usual spacings, and that key nowhere else.
    """
    line, text, names = F.col("__raw.value"), _parsed(column), stream.names_of(column)
    starts = F.substring(text, 1, 1).isin(*"-0123456789{[") | text.isin("true", "false")
    quoted = [F.contains(line, F.concat(F.lit(f'"{name}":{gap}"'), text, F.lit('"'))) for name in names for gap in ("", " ")]
    once = reduce(lambda a, b: a + b, (_times(line, f'"{name}"') for name in names)) == 1
    return starts & ~(_any(quoted) & once)


def _times(line: Column, part: str) -> Column:
    """How many times a line has a part, which has no other beginning inside itself."""
    without = F.replace(line, F.lit(part), F.lit(""))
    return (F.octet_length(line) - F.octet_length(without)) / F.lit(len(part.encode()))


def _infinite(field: StructField) -> Column:
    """Whether a number lies beyond what the column's type holds: JSON itself has none that is infinite."""
    return F.abs(_parsed(field.name)) == F.lit(float("inf"))


def _half_a_character(line: Column) -> Column:
    """Whether a string escapes one half of a surrogate pair, which is no character: the parser would make a `?` of it."""
    escapes = F.replace(line, F.lit("\\\\"), F.lit("  "))  # an escaped backslash is none that escapes
    return F.contains(line, F.lit("\\u")) & escapes.rlike(_HALF)


def _mistyped(stream: EventStream) -> Column:
    """WRONG_TYPE for the first column whose JSON value is of another type than the schema says; null where all fit.

    Runs only for suspicious lines. A line that the parser refused although every type fits is WRONG_TYPE too: of a
    value nested deeper.
    """
    line = F.try_parse_json("__raw.value")
    verdicts = []
    for field in stream.schema:
        items = [F.try_variant_get(line, f"$['{name}']", "variant") for name in stream.names_of(field.name)]
        item = F.coalesce(*(F.when(~F.is_variant_null(each), each) for each in items))
        given = item.isNotNull()
        fits = F.schema_of_variant(item).rlike(_json_type(field.dataType))
        if not isinstance(field.dataType, StringType | TimestampType):
            fits = fits & _parsed(field.name).isNotNull()
        if isinstance(field.dataType, FloatType | DoubleType):
            fits = fits & ~_infinite(field)
        wanted = F.lit(f"{field.name} must be {field.dataType.simpleString().upper()}, got ")
        detail = F.concat(wanted, F.coalesce(F.left(F.to_json(item), F.lit(100)), F.lit("?")))
        verdicts.append(F.when(given & ~fits, _judge(Reason.WRONG_TYPE, detail)))
    nested = F.when(F.col(_CORRUPT), _judge(Reason.WRONG_TYPE, F.lit("a value does not fit its column's type")))
    unknown = F.when(line.isNull(), _judge(Reason.WRONG_TYPE, F.lit("the line's values cannot be examined")))
    return F.coalesce(*verdicts, nested, unknown)


def _json_type(kind: DataType) -> str:
    """A pattern of `schema_of_variant` for the JSON values that a column of this type takes."""
    if isinstance(kind, StringType):
        return "^STRING$"
    if isinstance(kind, TimestampType):
        return "^(STRING|BIGINT)$"
    if isinstance(kind, StructType | MapType):
        return "^OBJECT"
    if isinstance(kind, ArrayType):
        return "^ARRAY"
    names = {"boolean": "^BOOLEAN$", "date": "^STRING$"}
    return names.get(kind.typeName(), r"^(BIGINT|DOUBLE|FLOAT|DECIMAL\(.*\))$")


def _rescued() -> Column:
    """JSON of the keys whose values are in no column, sorted; null where there is none."""
    unknown = F.array_except(F.col("__keys"), F.col("__known"))
    whole = F.from_json("__raw.value", "map<string,variant>")
    entries = F.transform(F.array_sort(unknown), lambda key: F.struct(key, F.element_at(whole, key)))
    return F.when(F.size(unknown) > 0, F.to_json(F.map_from_entries(entries)))


def _any(conditions: list[Column]) -> Column:
    return reduce(lambda a, b: a | b, (F.coalesce(c, F.lit(False)) for c in conditions), F.lit(False))
