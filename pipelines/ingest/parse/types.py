"""Whether JSON values have exactly their columns' types: Spark's parser takes numbers for text, and text for numbers."""

from functools import reduce

from pyspark.sql import Column
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

from pipelines.ingest.parse.rules import CORRUPT, Reason, any_of, judge, parsed_column
from pipelines.model.events import EventStream


def suspicious(column: str, stream: EventStream) -> Column:
    """Whether a STRING column may have been given as another JSON type, which Spark's parser takes as text.

    Only text that is a literal, or begins like a number, an object or a list, can have; and not where the line has it quoted
    behind its own key, in either of the two usual spacings, and that key nowhere else.
    """
    line, text, names = F.col("__raw.value"), parsed_column(column), stream.names_of(column)
    starts = F.substring(text, 1, 1).isin(*"-0123456789{[") | text.isin("true", "false")
    quoted = [F.contains(line, F.concat(F.lit(f'"{name}":{gap}"'), text, F.lit('"'))) for name in names for gap in ("", " ")]
    once = reduce(lambda a, b: a + b, (_times(line, f'"{name}"') for name in names)) == 1
    return starts & ~(any_of(quoted) & once)


def _times(line: Column, part: str) -> Column:
    """How many times a line has a part, which has no other beginning inside itself."""
    without = F.replace(line, F.lit(part), F.lit(""))
    return (F.octet_length(line) - F.octet_length(without)) / F.lit(len(part.encode()))


def infinite(field: StructField) -> Column:
    """Whether a number lies beyond what the column's type holds: JSON itself has none that is infinite."""
    return F.abs(parsed_column(field.name)) == F.lit(float("inf"))


def mistyped(stream: EventStream) -> Column:
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
            fits = fits & parsed_column(field.name).isNotNull()
        if isinstance(field.dataType, FloatType | DoubleType):
            fits = fits & ~infinite(field)
        wanted = F.lit(f"{field.name} must be {field.dataType.simpleString().upper()}, got ")
        detail = F.concat(wanted, F.coalesce(F.left(F.to_json(item), F.lit(100)), F.lit("?")))
        verdicts.append(F.when(given & ~fits, judge(Reason.WRONG_TYPE, detail)))
    nested = F.when(F.col(CORRUPT), judge(Reason.WRONG_TYPE, F.lit("a value does not fit its column's type")))
    unknown = F.when(line.isNull(), judge(Reason.WRONG_TYPE, F.lit("the line's values cannot be examined")))
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
