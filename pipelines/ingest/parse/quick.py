"""Reading the usual line in one pass of Spark's JSON parser: plain values by the parser itself, others by the rules.

Only lines for which it surely gives what the rules of `pipelines.ingest.parse.types` give; of any other the result is null, and
they are read by those.
"""

from pyspark.sql import DataFrame
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
from pipelines.model.sql import quoted, struct

_CORRUPT, _END = "__corrupt", "__end"
# Quotes of a key and its value, for the types that Spark's parser reads strictly, text apart. Not TINYINT: it makes -128 of 128.
_BARE = ("boolean", "smallint", "int", "bigint", "float", "double")
_QUOTES = {"string": 4, "timestamp": 4, **dict.fromkeys(_BARE, 2)}
_NEVER_DOUBTED = ("boolean", "smallint", "int", "bigint")


def can_be_quick(stream: EventStream) -> bool:
    """Whether lines of this stream may be read so: it has no aliases, and names that JSON can write in one way only, but for
    escapes."""
    return not stream.aliases and all(f.name.isidentifier() for f in stream.schema)


def read_quickly(rows: DataFrame, stream: EventStream) -> DataFrame:
    """Add to rows with `__raw` and `__readable` `__quick`, a struct of the stream's columns, or null; and `__whole`, whether such
    a line surely has no key beside the columns'."""
    line = "__raw.value"
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
    end = f"""'{{"{_END}":"', {end_of(line)}, '"}}'"""
    bracket = f"contains({line}, ']')"
    between = f"IF({bracket}, concat({end}, ',', {line}, ',', {end}), {line})"
    # `\u` can hide a key, or half a character.
    usual = f"""IF(__readable AND NOT contains({line}, {quoted(chr(92) + "u")}), concat('{{"items":[', {between}, ']}}'), NULL)"""
    ended = " AND ".join(f"get(__wrapper.items, {i}).{_END} = {end_of(line)}" for i in (0, 2))
    alone = "IF(size(__wrapper.items) = 1, get(__wrapper.items, 0), NULL)"
    item = f"IF({bracket}, IF({ended}, get(__wrapper.items, 1), NULL), {alone})"
    given = f"IF(__wrapper.{_CORRUPT} IS NULL, {item}, NULL)"
    read = struct(**{f.name: _read(f) for f in stream.schema})
    values = struct(**{f.name: _value(f) for f in stream.schema})
    return (
        rows.select("*", F.from_json(F.expr(usual), schema, options).alias("__wrapper"))
        .select(*rows.columns, F.expr(given).alias("__given"))
        .select("*", F.expr(f"IF(__given IS NOT NULL, {read}, NULL)").alias("__read"))
        .select(
            *rows.columns,
            F.expr(f"IF({_surely(line, stream)}, {values}, NULL)").alias("__quick"),
            F.expr(_has_no_other_key(line, stream)).alias("__whole"),
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


def _read(field: StructField) -> str:
    given = f"__given.`{field.name}`"
    if _is_time(field):
        return parse_time(given)
    if isinstance(field.dataType, FloatType | DoubleType):
        return f"CAST({given} + 0.0D AS {field.dataType.simpleString()})"  # without the sign of -0.0
    return given if _is_plain(field.dataType) else converted(given, field.dataType)


def _value(field: StructField) -> str:
    return f"__read.`{field.name}`{'' if _is_plain(field.dataType) else '.value'}"


def _surely(line: str, stream: EventStream) -> str:
    """Whether every value that was read is what the line has."""
    doubts = [_doubt(line, f) for f in stream.schema if f.dataType.simpleString() not in _NEVER_DOUBTED]
    return " AND ".join(["__given IS NOT NULL", *(f"NOT coalesce({doubt}, false)" for doubt in doubts)])


def _doubt(line: str, field: StructField) -> str:
    given, read = f"__given.`{field.name}`", f"__read.`{field.name}`"
    if isinstance(field.dataType, StringType):
        return _not_quoted(line, field.name)
    if isinstance(field.dataType, FloatType | DoubleType):
        return f"abs({read}) = double('Infinity')"
    if _is_time(field):
        return f"{given} IS NOT NULL AND {read} IS NULL"
    return f"{read}.wrong IS NOT NULL OR {read}.more"


def _has_no_other_key(line: str, stream: EventStream) -> str:
    """Whether the line has just the quotes that its columns' keys and values need: any further key has more; else by its keys.

    A text column that was given as something else would leave room for one, but it is not quoted; a time that was given as a
    number needs fewer.
    """
    names = ", ".join(quoted(f.name) for f in stream.schema)
    by_keys = f"coalesce(size(array_except(json_object_keys({line}), array({names}))) = 0, false)"
    if not all(_is_plain(f.dataType) for f in stream.schema):
        return by_keys
    needed = []
    for f in stream.schema:
        given, quotes = f"__given.`{f.name}`", str(_QUOTES[f.dataType.simpleString()])
        if _is_time(f):
            quotes = f"IF(substring({given}, 5, 1) = '-', {quotes}, NULL)"
        needed.append(f"IF({given} IS NULL, 0, {quotes})")
    found = f"octet_length({line}) - octet_length(replace({line}, '\"', ''))"
    return f"coalesce({found} = {' + '.join(needed)}, false) OR {by_keys}"


def _not_quoted(line: str, column: str) -> str:
    """Whether a STRING column may have been given as another JSON type, which Spark's parser takes as text.

    Only text that is a literal, or begins like a number, an object or a list, can have, or with a quote (an infinite number); and
    not where the line has it quoted behind its own key, in either of the two usual spacings, and that key nowhere else.
    """
    text, key = f"__given.`{column}`", f'"{column}"'
    first = ", ".join(quoted(each) for each in '-0123456789{["')
    starts = f"substring({text}, 1, 1) IN ({first}) OR {text} IN ('true', 'false')"
    shown = " OR ".join(f"contains({line}, concat({quoted(f'{key}:{gap}')}, '\"', {text}, '\"'))" for gap in ("", " "))
    once = f"octet_length({line}) - octet_length(replace({line}, {quoted(key)}, '')) = {len(key.encode())}"
    return f"({starts}) AND NOT (({shown}) AND {once})"
