"""From a JSON value to a value of its column's type, exactly or not at all; docs/types.md has the table of what each type takes.

A JSON value is a VARIANT here, which keeps what kind of value was sent; Spark's own readers of JSON convert leniently (text to
numbers, digits to dates, seconds to times), each in its own way and at each depth. The rules hold for a column, a STRUCT's field,
an ARRAY's element and a MAP's value alike.
"""

from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    MapType,
    StringType,
    StructType,
    TimestampType,
)

from pipelines.ingest.parse.rules import let
from pipelines.ingest.parse.times import parse_time

OBJECT = "map<string,variant>"

_DATE = r"^(?!0000)\d{4}-\d\d-\d\d\z"
_HINTS = {"timestamp": " (ISO-8601 with offset, or epoch milliseconds)", "date": " (yyyy-MM-dd)"}
_NUMBER = r"[:,\[]\s*(-?\d[\d.eE+-]*)"
_SHOWN = 100


def converted(item: Column, kind: DataType) -> Column:
    """A struct of `value` (of the type; null where the JSON value is null, absent or does not fit), `wrong` (for `misfit`; null
    where it fits) and `more` (whether an object in it has keys that its STRUCT does not name)."""
    return let(F.when(~F.is_variant_null(item), item), lambda given: _converted(given, kind))


def misfit(name: str, wrong: Column, line: Column) -> Column:
    """A column's `wrong` in words; `line` is what it was sent in."""
    item = wrong["item"]
    double = F.try_variant_get(item, "$", "double")
    # VARIANT keeps of a number not how it was written.
    written = F.filter(F.regexp_extract_all(line, F.lit(_NUMBER), F.lit(1)), lambda each: each.try_cast("double") == double)
    literal = F.when(_is_number(F.schema_of_variant(item)), F.get(written, 0))
    shown = F.left(F.coalesce(literal, F.to_json(item)), F.lit(_SHOWN))
    return F.concat(F.lit(name), wrong["at"], F.lit(" must be "), wrong["wanted"], F.lit(", got "), shown)


def _converted(item: Column, kind: DataType) -> Column:
    if isinstance(kind, StructType):
        return let(F.try_variant_get(item, "$", OBJECT), lambda fields: _struct(item, fields, kind))
    if isinstance(kind, MapType):
        return let(F.try_variant_get(item, "$", OBJECT), lambda fields: _map(item, fields, kind))
    if isinstance(kind, ArrayType):
        each = F.transform(F.try_variant_get(item, "$", "array<variant>"), lambda element: converted(element, kind.elementType))
        return let(each, lambda elements: _array(item, elements, kind))
    return let(_leaf(item, kind), lambda value: _result(value, _unless(value.isNotNull(), item, kind), F.lit(False)))


def _result(value: Column, wrong: Column, more: Column) -> Column:
    return F.struct(value.alias("value"), wrong.alias("wrong"), F.coalesce(more, F.lit(False)).alias("more"))


def _unless(fits: Column, item: Column, kind: DataType) -> Column:
    """What is wrong with a value that does not fit."""
    wanted = F.lit(kind.simpleString().upper() + _HINTS.get(kind.typeName(), ""))
    return F.when(item.isNotNull() & ~fits, F.struct(F.lit("").alias("at"), wanted.alias("wanted"), item.alias("item")))


def _inside(at: Column, wrong: Column) -> Column:
    return F.when(wrong.isNotNull(), wrong.withField("at", F.concat(at, wrong["at"])))


def _first(problems: Column) -> Column:
    return F.get(F.filter(problems, lambda each: each.isNotNull()), 0)


def _struct(item: Column, fields: Column, kind: StructType) -> Column:
    each = F.struct(*(converted(F.try_element_at(fields, F.lit(f.name)), f.dataType).alias(f.name) for f in kind))

    def result(parts: Column) -> Column:
        part = {f.name: parts.getField(f.name) for f in kind}
        whole = fields.isNotNull()
        value = F.struct(*(p["value"].alias(name) for name, p in part.items()))
        wrong = (_inside(F.lit(f".{name}"), p["wrong"]) for name, p in part.items())
        unknown = F.size(F.array_except(F.map_keys(fields), F.array(*map(F.lit, part)))) > 0
        more = reduce(lambda a, b: a | b, (p["more"] for p in part.values()), unknown)
        return _result(F.when(whole, value), F.coalesce(_unless(whole, item, kind), *wrong), F.when(whole, more))

    return let(each, result)


def _array(item: Column, elements: Column, kind: ArrayType) -> Column:
    wrong = F.transform(elements, lambda each, i: _inside(F.concat(F.lit("["), i.cast("string"), F.lit("]")), each["wrong"]))
    value = F.transform(elements, lambda each: each["value"])
    more = F.exists(elements, lambda each: each["more"])
    return _result(value, F.coalesce(_unless(elements.isNotNull(), item, kind), _first(wrong)), more)


def _map(item: Column, fields: Column, kind: MapType) -> Column:
    each = F.map_entries(F.transform_values(fields, lambda _, value: converted(value, kind.valueType)))

    def result(entries: Column) -> Column:
        wrong = F.transform(entries, lambda e: _inside(F.concat(F.lit('["'), e["key"], F.lit('"]')), e["value"]["wrong"]))
        value = F.transform(entries, lambda entry: F.struct(entry["key"], entry["value"]["value"]))
        more = F.exists(entries, lambda entry: entry["value"]["more"])
        whole = _unless(entries.isNotNull(), item, kind)
        return _result(F.map_from_entries(value), F.coalesce(whole, _first(wrong)), more)

    return let(each, result)


def _leaf(item: Column, kind: DataType) -> Column:
    """The value of a type that has no others inside; null where it does not fit exactly."""
    sent, text = F.schema_of_variant(item), F.try_variant_get(item, "$", "string")
    if isinstance(kind, StringType):
        return F.when(sent == "STRING", text)
    if isinstance(kind, BooleanType):
        return F.when(sent == "BOOLEAN", F.try_variant_get(item, "$", "boolean"))
    if isinstance(kind, DateType):
        return F.when((sent == "STRING") & text.rlike(_DATE), text.try_cast("date"))
    if isinstance(kind, TimestampType):
        return let(F.when(sent == "STRING", text).otherwise(_digits(item, sent, text)), parse_time)
    if isinstance(kind, FloatType | DoubleType):
        number = (F.when(_is_number(sent), F.try_variant_get(item, "$", "double")) + F.lit(0.0)).cast(kind)
        return F.when(F.abs(number) < F.lit(float("inf")), number)
    scale = kind.scale if isinstance(kind, DecimalType) else 0
    form = rf"^-?\d+(\.\d{{1,{scale}}})?\z" if scale else r"^-?\d+\z"
    return let(_digits(item, sent, text), lambda digits: F.when(digits.rlike(form), digits.try_cast(kind)))


def _is_number(sent: Column) -> Column:
    return sent.isin("BIGINT", "DOUBLE") | sent.startswith("DECIMAL")


def _digits(item: Column, sent: Column, text: Column) -> Column:
    """A number in plain digits, without zeros at the end of its fraction; null where they are not known exactly: VARIANT keeps
    numbers with an exponent, or of more than 38 digits, as DOUBLE, which is exact for integers below 2^53."""
    double = F.try_variant_get(item, "$", "double")
    exact = (F.abs(double) < F.lit(2.0**53)) & (double == F.floor(double).cast("double"))
    return F.when(sent == "DOUBLE", F.when(exact, double.cast("bigint").cast("string"))).when(_is_number(sent), text)
