"""From a JSON value to a value of its column's type, exactly or not at all; docs/types.md has the table of what each type takes.

A JSON value is a VARIANT here, which keeps what kind of value was sent; Spark's own readers of JSON convert leniently (text to
numbers, digits to dates, seconds to times), each in its own way and at each depth. The rules hold for a column, a STRUCT's field,
an ARRAY's element and a MAP's value alike.
"""

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

from pipelines.ingest.parse.times import parse_time
from pipelines.model.sql import each, first_of, let, quoted, struct, when

OBJECT = "map<string,variant>"

_DATE = r"^(?!0000)\d{4}-\d\d-\d\d\z"
_HINTS = {"timestamp": " (ISO-8601 with offset, or epoch milliseconds)", "date": " (yyyy-MM-dd)"}
_NUMBER = r"[:,\[]\s*(-?\d[\d.eE+-]*)"
_SHOWN = 100


def got(item: str, kind: str) -> str:
    """A VARIANT as a type; null where it cannot be."""
    return f"try_variant_get({item}, '$', '{kind}')"


def converted(item: str, kind: DataType) -> str:
    """A struct of `value` (of the type; null where the JSON value is null, absent or does not fit), `wrong` (for `misfit`; null
    where it fits) and `more` (whether an object in it has keys that its STRUCT does not name)."""
    return let(f"IF(is_variant_null({item}), NULL, {item})", lambda given: _converted(given, kind))


def misfit(name: str, wrong: str, line: str) -> str:
    """A column's `wrong` in words; `line` is what it was sent in."""
    item = f"{wrong}.item"
    # VARIANT keeps of a number not how it was written.
    numbers = f"regexp_extract_all({line}, {quoted(_NUMBER)}, 1)"
    written = f"get(filter({numbers}, written -> try_cast(written AS DOUBLE) = {got(item, 'double')}), 0)"
    literal = f"IF({_is_number(f'schema_of_variant({item})')}, {written}, NULL)"
    shown = f"left(coalesce({literal}, to_json({item})), {_SHOWN})"
    return f"concat({quoted(name)}, {wrong}.at, ' must be ', {wrong}.wanted, ', got ', {shown})"


def _converted(item: str, kind: DataType) -> str:
    if isinstance(kind, StructType):
        return let(got(item, OBJECT), lambda fields: _struct(item, fields, kind))
    if isinstance(kind, MapType):
        return let(got(item, OBJECT), lambda fields: _map(item, fields, kind))
    if isinstance(kind, ArrayType):
        elements = each(got(item, "array<variant>"), lambda element: converted(element, kind.elementType))
        return let(elements, lambda found: _array(item, found, kind))
    return let(_leaf(item, kind), lambda value: _result(value, _unless(value, item, kind), "false"))


def _result(value: str, wrong: str, more: str) -> str:
    return struct(value=value, wrong=wrong, more=f"coalesce({more}, false)")


def _unless(found: str, item: str, kind: DataType) -> str:
    """What is wrong with a value in which nothing of the type was `found`."""
    wanted = kind.simpleString().upper() + _HINTS.get(kind.typeName(), "")
    wrong = struct(at="''", wanted=quoted(wanted), item=item)
    return when((f"{item} IS NOT NULL AND {found} IS NULL", wrong))


def _inside(at: str, wrong: str) -> str:
    moved = struct(at=f"concat({at}, {wrong}.at)", wanted=f"{wrong}.wanted", item=f"{wrong}.item")
    return when((f"{wrong} IS NOT NULL", moved))


def _first(problems: str) -> str:
    return f"get(filter({problems}, problem -> problem IS NOT NULL), 0)"


def _struct(item: str, fields: str, kind: StructType) -> str:
    found = {f.name: converted(f"try_element_at({fields}, {quoted(f.name)})", f.dataType) for f in kind}

    def result(parts: str) -> str:
        part = {name: f"{parts}.`{name}`" for name in found}
        wrong = [_inside(quoted(f".{name}"), f"{p}.wrong") for name, p in part.items()]
        unknown = f"size(array_except(map_keys({fields}), array({', '.join(map(quoted, part))}))) > 0"
        more = " OR ".join([unknown, *(f"{p}.more" for p in part.values())])
        value = struct(**{name: f"{p}.value" for name, p in part.items()})
        whole = [f"IF({fields} IS NOT NULL, {each}, NULL)" for each in (value, more)]
        return _result(whole[0], first_of([_unless(fields, item, kind), *wrong]), whole[1])

    return let(struct(**found), result)


def _array(item: str, elements: str, kind: ArrayType) -> str:
    at = "concat('[', CAST(i AS STRING), ']')"
    wrong = _first(f"transform({elements}, (element, i) -> {_inside(at, 'element.wrong')})")
    value, more = f"transform({elements}, element -> element.value)", f"exists({elements}, element -> element.more)"
    return _result(value, first_of([_unless(elements, item, kind), wrong]), more)


def _map(item: str, fields: str, kind: MapType) -> str:
    values = let("value", lambda value: converted(value, kind.valueType))

    def result(entries: str) -> str:
        at = "concat('[\"', entry.key, '\"]')"
        wrong = _first(f"transform({entries}, entry -> {_inside(at, 'entry.value.wrong')})")
        value = f"map_from_entries(transform({entries}, entry -> struct(entry.key, entry.value.value)))"
        more = f"exists({entries}, entry -> entry.value.more)"
        return _result(value, first_of([_unless(entries, item, kind), wrong]), more)

    return let(f"map_entries(transform_values({fields}, (key, value) -> {values}))", result)


def _leaf(item: str, kind: DataType) -> str:
    """The value of a type that has no others inside; null where it does not fit exactly."""
    sent, text = f"schema_of_variant({item})", got(item, "string")
    if isinstance(kind, StringType):
        return when((f"{sent} = 'STRING'", text))
    if isinstance(kind, BooleanType):
        return when((f"{sent} = 'BOOLEAN'", got(item, "boolean")))
    if isinstance(kind, DateType):
        return when((f"{sent} = 'STRING' AND {text} RLIKE {quoted(_DATE)}", f"try_cast({text} AS DATE)"))
    if isinstance(kind, TimestampType):
        return let(when((f"{sent} = 'STRING'", text), otherwise=_digits(item, sent, text)), parse_time)
    if isinstance(kind, FloatType | DoubleType):
        number = f"CAST({when((_is_number(sent), got(item, 'double')))} + 0.0D AS {kind.simpleString()})"
        return let(number, lambda value: f"IF(abs({value}) < double('Infinity'), {value}, NULL)")
    scale = kind.scale if isinstance(kind, DecimalType) else 0
    form = rf"^-?\d+(\.\d{{1,{scale}}})?\z" if scale else r"^-?\d+\z"
    cast = kind.simpleString()
    return let(_digits(item, sent, text), lambda digits: f"IF({digits} RLIKE {quoted(form)}, try_cast({digits} AS {cast}), NULL)")


def _is_number(sent: str) -> str:
    return f"({sent} IN ('BIGINT', 'DOUBLE') OR startswith({sent}, 'DECIMAL'))"


def _digits(item: str, sent: str, text: str) -> str:
    """A number in plain digits, without zeros at the end of its fraction; null where they are not known exactly: VARIANT keeps
    numbers with an exponent, or of more than 38 digits, as DOUBLE, which is exact for integers below 2^53."""
    double = got(item, "double")
    exact = f"abs({double}) < {2**53}D AND {double} = CAST(floor({double}) AS DOUBLE)"
    integer = f"IF({exact}, CAST(CAST({double} AS BIGINT) AS STRING), NULL)"
    return when((f"{sent} = 'DOUBLE'", integer), (_is_number(sent), text))
