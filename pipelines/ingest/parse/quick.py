"""Reading the usual line in one pass of Spark's JSON parser: plain values by the parser itself, others by the rules.

Only lines for which it surely gives what the rules of `pipelines.ingest.parse.types` give; of any other the result is null, and
they are read by those.
"""

from functools import reduce
from operator import and_, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DoubleType,
    FloatType,
    StringType,
    StructField,
    StructType,
    TimestampType,
    VariantType,
)

from pipelines.ingest.parse.rules import end_of
from pipelines.ingest.parse.times import parse_time
from pipelines.ingest.parse.types import converted
from pipelines.model.events import EventStream

_CORRUPT, _END = "__corrupt", "__end"
# Quotes of a key and its value, for the types that Spark's parser reads strictly, text apart. Not TINYINT: it makes -128 of 128.
_BARE = ("boolean", "smallint", "int", "bigint", "float", "double")
_QUOTES = {"string": 4, "timestamp": 4, **dict.fromkeys(_BARE, 2)}


def can_be_quick(stream: EventStream) -> bool:
    """Whether lines of this stream may be read so: it has no aliases, and names that JSON can write in one way only, but for
    escapes."""
    return not stream.aliases and all(f.name.isidentifier() for f in stream.schema)


def read_quickly(rows: DataFrame, stream: EventStream) -> DataFrame:
    """Add to rows with `__raw` and `__readable` `__quick`, a struct of the stream's columns, or null; and `__whole`, whether such
    a line surely has no key beside the columns'."""
    line = F.col("__raw.value")
    items = ArrayType(StructType([*(StructField(f.name, _read_as(f)) for f in stream.schema), StructField(_END, StringType())]))
    schema = StructType([StructField("items", items), StructField(_CORRUPT, StringType())])
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _CORRUPT,
        "allowNonNumericNumbers": "false",
        "allowSingleQuotes": "false",
    }
    # A bracket in the line may end the list that it is put into: then it is put between two ends, which are elsewhere where there
    # are two objects, or anything after the object.
    end = F.concat(F.lit(f'{{"{_END}":"'), end_of(line), F.lit('"}'))
    bracket = F.contains(line, F.lit("]"))
    between = F.when(bracket, F.concat(end, F.lit(","), line, F.lit(","), end)).otherwise(line)
    # `\u` can hide a key, or half a character.
    usual = F.when(F.col("__readable") & ~F.contains(line, F.lit("\\u")), F.concat(F.lit('{"items":['), between, F.lit("]}")))
    found = F.col("__wrapper.items")
    ended = reduce(and_, (F.get(found, i).getField(_END) == end_of(line) for i in (0, 2)))
    item = F.when(bracket, F.when(ended, F.get(found, 1))).otherwise(F.when(F.size(found) == 1, F.get(found, 0)))
    given = F.when(F.col(f"__wrapper.{_CORRUPT}").isNull(), item)
    values = F.struct(*(_value(f).alias(f.name) for f in stream.schema))
    return (
        rows.select("*", F.from_json(usual, schema, options).alias("__wrapper"))
        .select(*rows.columns, given.alias("__given"))
        .select(
            "*", F.when(F.col("__given").isNotNull(), F.struct(*(_read(f).alias(f.name) for f in stream.schema))).alias("__read")
        )
        .select(
            *rows.columns,
            F.when(_surely(line, stream), values).alias("__quick"),
            _has_no_other_key(line, stream).alias("__whole"),
        )
    )


def _is_plain(kind: DataType) -> bool:
    return kind.simpleString() in _QUOTES


def _is_time(field: StructField) -> bool:
    return isinstance(field.dataType, TimestampType)


def _read_as(field: StructField) -> DataType:
    """What the parser is to make of a column: times stay text, and what it reads leniently is converted by the rules."""
    if _is_time(field):
        return StringType()
    if isinstance(field.dataType, FloatType):
        return DoubleType()
    return field.dataType if _is_plain(field.dataType) else VariantType()


def _given(name: str) -> Column:
    return F.col("__given").getField(name)


def _read(field: StructField) -> Column:
    given = _given(field.name)
    if _is_time(field):
        return parse_time(given)
    if isinstance(field.dataType, FloatType | DoubleType):
        return (given + F.lit(0.0)).cast(field.dataType)  # without the sign of -0.0
    return given if _is_plain(field.dataType) else converted(given, field.dataType)


def _value(field: StructField) -> Column:
    read = F.col("__read").getField(field.name)
    return read if _is_plain(field.dataType) else read["value"]


def _surely(line: Column, stream: EventStream) -> Column:
    """Whether every value that was read is what the line has."""
    doubts = [_doubt(line, f) for f in stream.schema if f.dataType.simpleString() not in ("boolean", "smallint", "int", "bigint")]
    return F.col("__given").isNotNull() & ~reduce(or_, (F.coalesce(each, F.lit(False)) for each in doubts))


def _doubt(line: Column, field: StructField) -> Column:
    given, read = _given(field.name), F.col("__read").getField(field.name)
    if isinstance(field.dataType, StringType):
        return _not_quoted(line, field.name)
    if isinstance(field.dataType, FloatType | DoubleType):
        return F.abs(read) == F.lit(float("inf"))
    if _is_time(field):
        return given.isNotNull() & read.isNull()
    return read["wrong"].isNotNull() | read["more"]


def _has_no_other_key(line: Column, stream: EventStream) -> Column:
    """Whether the line has just the quotes that its columns' keys and values need: any further key has more; else by its keys.

    A text column that was given as something else would leave room for one, but it is not quoted; a time that was given as a
    number needs fewer.
    """
    others = F.array_except(F.json_object_keys(line), F.array(*(F.lit(f.name) for f in stream.schema)))
    by_keys = F.coalesce(F.size(others) == 0, F.lit(False))
    if not all(_is_plain(f.dataType) for f in stream.schema):
        return by_keys
    needed = F.lit(0)
    for f in stream.schema:
        quotes = F.lit(_QUOTES[f.dataType.simpleString()])
        if _is_time(f):
            quotes = F.when(F.substring(_given(f.name), 5, 1) == "-", quotes)
        needed = needed + F.when(_given(f.name).isNull(), 0).otherwise(quotes)
    found = F.octet_length(line) - F.octet_length(F.replace(line, F.lit('"'), F.lit("")))
    return F.coalesce(found == needed, F.lit(False)) | by_keys


def _not_quoted(line: Column, column: str) -> Column:
    """Whether a STRING column may have been given as another JSON type, which Spark's parser takes as text.

    Only text that is a literal, or begins like a number, an object or a list, can have, or with a quote (an infinite number); and
    not where the line has it quoted behind its own key, in either of the two usual spacings, and that key nowhere else.
    """
    text, key = _given(column), f'"{column}"'
    starts = F.substring(text, 1, 1).isin(*'-0123456789{["') | text.isin("true", "false")
    quoted = [F.contains(line, F.concat(F.lit(f'{key}:{gap}"'), text, F.lit('"'))) for gap in ("", " ")]
    without = F.replace(line, F.lit(key), F.lit(""))
    once = F.octet_length(line) - F.octet_length(without) == F.lit(len(key.encode()))
    return starts & ~((quoted[0] | quoted[1]) & once)
