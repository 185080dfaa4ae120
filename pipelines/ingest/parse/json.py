"""One line of text becomes an accepted event or a quarantined payload with its reason; nothing is dropped.

The rules (DESIGN section 6): a line is one JSON object with standard JSON numbers and whole characters; a value has its
column's type exactly (no number for a STRING, no text for an INT) and lies in its range; a time is ISO-8601 with an offset, or
epoch milliseconds. A column that may be null may also be absent. A key of the object that the schema does not name is kept in
`rescued`.

The work per line is one parse into the schema; a line that may have more in it than its columns has its key names read, and one
that looks suspicious is examined exactly, through VARIANT. Everything here is a pure function of a DataFrame.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DoubleType,
    FloatType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from pipelines.ingest.parse.rules import CORRUPT, ParseRules, Reason, any_of, judge, parsed_column
from pipelines.ingest.parse.times import before_all_events, from_the_future, not_a_time, parse_time
from pipelines.ingest.parse.types import infinite, mistyped, suspicious
from pipelines.model.events import EventStream

_HALF = r"(?i)\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]"


def parse(raw: DataFrame, stream: EventStream, rules: ParseRules) -> DataFrame:
    """From `__raw` to `__raw`, `__event` (struct of the stream's columns), `__rescued`, `__reason` and `__detail`.

    `__reason` is null exactly where the event is accepted. Own columns stay inside `__event`, so that no name of an
    event's column can clash with one of ours.
    """
    line = F.col("__raw.value")
    # In a list of one: two objects on a line, or anything after the object, shows as a list of another length.
    readable = (F.octet_length(line) <= rules.max_event_bytes) & F.is_valid_utf8(line)
    wrapped = F.when(readable, F.concat(F.lit('{"e":['), line, F.lit("]}")))
    schema = StructType([StructField("e", ArrayType(_read_as(stream))), StructField(CORRUPT, StringType())])
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": CORRUPT,
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
        F.col(f"__wrapper.{CORRUPT}").isNotNull().alias(CORRUPT),
    ).select("*", _by_column(stream).alias("__parsed"))
    typed = parsed.select("*", _plain(line, stream).alias("__plain")).select(
        "__raw",
        "__readable",
        "__plain",
        "__parsed",
        CORRUPT,
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
            quotes = F.when(F.substring(parsed_column(f.name), 5, 1) == "-", quotes)
        needed = needed + F.when(parsed_column(f.name).isNull(), 0).otherwise(quotes)
    found = F.octet_length(line) - F.octet_length(F.replace(line, F.lit('"'), F.lit("")))
    return F.coalesce((found == needed) & ~F.contains(line, F.lit("\\")), F.lit(False))


def _value(field: StructField) -> Column:
    raw = parsed_column(field.name)
    return parse_time(raw) if isinstance(field.dataType, TimestampType) else raw


def _verdict(stream: EventStream, rules: ParseRules) -> Column:
    """A struct of reason and detail, null where the event is accepted. The first rule that an event breaks names it."""
    size = F.octet_length("__raw.value")
    too_big = F.concat(size.cast("string"), F.lit(f" bytes; at most {rules.max_event_bytes} are accepted"))
    strings = [f for f in stream.schema if isinstance(f.dataType, StringType)]
    fractions = [f for f in stream.schema if isinstance(f.dataType, FloatType | DoubleType)]
    unreadable = F.coalesce(
        F.when(F.col("__raw.value").isNull(), judge(Reason.TOMBSTONE, F.lit("a record without a value"))),
        F.when(size > rules.max_event_bytes, judge(Reason.OVERSIZE, too_big)),
        judge(Reason.NOT_UTF8, F.lit("not UTF-8; the payload is kept as base64")),
    )
    half = ~F.col("__plain") & _half_a_character(F.col("__raw.value"))
    return F.coalesce(
        F.when(~F.col("__readable"), unreadable),
        F.when(F.col("__parsed").isNull(), judge(Reason.NOT_JSON, F.lit("not one JSON object on the line"))),
        F.when(half, judge(Reason.NOT_JSON, F.lit("\\ud8.. to \\udf.. without its other half"))),
        F.when(
            F.col(CORRUPT) | any_of([*(suspicious(f.name, stream) for f in strings), *(infinite(f) for f in fractions)]),
            mistyped(stream),
        ),
        *(_absent(name) for name in stream.required),
        *(not_a_time(f.name) for f in stream.schema if isinstance(f.dataType, TimestampType)),
        from_the_future(stream, rules),
        before_all_events(stream, rules),
    )


def is_decoded(rows: DataFrame) -> bool:
    """Whether the text in `__raw` has been decoded from other bytes, which are there too."""
    raw = rows.schema["__raw"].dataType
    return isinstance(raw, StructType) and "encoded" in raw.names


def _undecodable(raw: DataFrame) -> list[Column]:
    problem = F.col("__raw.problem")
    return [F.when(problem.isNotNull(), judge(Reason.NOT_AVRO, problem))] if is_decoded(raw) else []


def _absent(name: str) -> Column:
    detail = F.when(F.array_contains("__keys", name), f"{name} is null").otherwise(f"{name} is absent")
    return F.when(parsed_column(name).isNull(), judge(Reason.MISSING_REQUIRED, detail))


def _half_a_character(line: Column) -> Column:
    """Whether a string escapes one half of a surrogate pair, which is no character: the parser would make a `?` of it."""
    escapes = F.replace(line, F.lit("\\\\"), F.lit("  "))  # an escaped backslash is none that escapes
    return F.contains(line, F.lit("\\u")) & escapes.rlike(_HALF)


def _rescued() -> Column:
    """JSON of the keys whose values are in no column, sorted; null where there is none."""
    unknown = F.array_except(F.col("__keys"), F.col("__known"))
    whole = F.from_json("__raw.value", "map<string,variant>")
    entries = F.transform(F.array_sort(unknown), lambda key: F.struct(key, F.element_at(whole, key)))
    return F.when(F.size(unknown) > 0, F.to_json(F.map_from_entries(entries)))
