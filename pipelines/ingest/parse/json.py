"""One line of text becomes an accepted event or a quarantined payload with its reason; nothing is dropped.

The rules (DESIGN section 6, docs/types.md): a line is one JSON object; a value fits its column's type exactly
(`pipelines.ingest.parse.types`); a column that may be null may also be absent; of a key given twice the last value counts. What
is in no column is kept in `rescued`: the keys that the schema does not name, and columns whose value has more in it.

A line is read through VARIANT, by those rules, unless `pipelines.ingest.parse.quick` has read it in a cheaper way. Everything
here is a pure function of a DataFrame.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType, TimestampType

from pipelines.ingest.parse.quick import can_be_quick, read_quickly
from pipelines.ingest.parse.rules import ParseRules, end_of, judge
from pipelines.ingest.parse.times import before_all_events, from_the_future
from pipelines.ingest.parse.types import OBJECT, converted, misfit
from pipelines.model.events import EventStream
from pipelines.model.reasons import Reason

_HALF = r"(?i)\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]"
_UTF16 = "UTF-16, by its bytes; write UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
_NO_NUMBER = r'"([^"\\]*)"\s*:\s*([+-]?(?:NaN|nan|Infinity|inf))\b'


def parse(raw: DataFrame, stream: EventStream, rules: ParseRules) -> DataFrame:
    """From `__raw` to `__raw`, `__event` (struct of the stream's columns), `__rescued`, `__reason` and `__detail`.

    `__reason` is null exactly where the event is accepted. Own columns stay inside `__event`, so that no name of an
    event's column can clash with one of ours. Persist or checkpoint it before a join by columns of `__event`: what Spark infers
    for these it carries through all the rules, and does not end.
    """
    line = F.col("__raw.value")
    readable = F.coalesce((F.octet_length(line) <= rules.max_event_bytes) & F.is_valid_utf8(line), F.lit(False))
    rows = raw.select("__raw", readable.alias("__readable"))
    nothing = F.lit(None).cast(stream.schema).alias("__quick"), F.lit(False).alias("__whole")
    rows = read_quickly(rows, stream) if can_be_quick(stream) else rows.select("*", *nothing)
    slow = F.col("__quick").isNull()
    rows = rows.select("*", F.when(F.col("__readable") & (slow | ~F.col("__whole")), _items(line)).alias("__items"))
    rows = rows.select("__raw", "__readable", "__quick", "__whole", _fields(line).alias("__fields"))
    known = F.when(F.col("__whole") | F.col("__fields").isNotNull(), F.col("__quick"))
    rows = rows.select("__raw", "__readable", known.alias("__quick"), "__fields")
    exact = F.struct(*(converted(_item(f.name, stream), f.dataType).alias(f.name) for f in stream.schema))
    rows = rows.select("*", F.when(slow, exact).alias("__exact"))
    event = F.struct(*(_value(f.name).alias(f.name) for f in stream.schema))
    verdict = F.coalesce(*_undecodable(raw), _verdict(stream, rules))
    judged = rows.select("__raw", "__readable", "__quick", "__fields", "__exact", event.alias("__event")).select(
        "__raw", "__event", _rescued(stream).alias("__rescued"), verdict.alias("__verdict")
    )
    return judged.select(
        "__raw",
        "__event",
        "__rescued",
        F.col("__verdict.reason").alias("__reason"),
        F.col("__verdict.detail").alias("__detail"),
    )


def is_decoded(rows: DataFrame) -> bool:
    """Whether the text in `__raw` has been decoded from other bytes, which are there too."""
    raw = rows.schema["__raw"].dataType
    return isinstance(raw, StructType) and "encoded" in raw.names


def _items(line: Column) -> Column:
    """A list of the line and of an end, as VARIANT: where the line is not one JSON object, that stands elsewhere."""
    return F.try_parse_json(F.concat(F.lit("["), line, F.lit(',"'), end_of(line), F.lit('"]')))


def _fields(line: Column) -> Column:
    """The values of the line's keys, each a VARIANT; null where it is not one JSON object and nothing else."""
    alone = F.try_variant_get("__items", "$[1]", "string") == end_of(line)
    return F.when(alone, F.try_variant_get("__items", "$[0]", OBJECT))


def _given(name: str) -> Column:
    """The value of a key, null where it is null or absent."""
    item = F.try_element_at("__fields", F.lit(name))
    return F.when(~F.is_variant_null(item), item)


def _item(column: str, stream: EventStream) -> Column:
    """The value of a column: of its names, the first that has one."""
    return F.coalesce(*map(_given, stream.names_of(column)))


def _exact(column: str, part: str) -> Column:
    return F.col("__exact").getField(column).getField(part)


def _value(column: str) -> Column:
    return F.coalesce(F.col("__quick").getField(column), _exact(column, "value"))


def _verdict(stream: EventStream, rules: ParseRules) -> Column:
    """A struct of reason and detail, null where the event is accepted. The first rule that an event breaks names it."""
    line = F.col("__raw.value")
    size = F.octet_length(line)
    too_big = F.concat(size.cast("string"), F.lit(f" bytes; at most {rules.max_event_bytes} are accepted"))
    unreadable = F.coalesce(
        F.when(line.isNull(), judge(Reason.TOMBSTONE, F.lit("a record without a value"))),
        F.when(size > rules.max_event_bytes, judge(Reason.OVERSIZE, too_big)),
        judge(Reason.NOT_UTF8, _not_utf8(line)),
    )
    half = F.lit("\\ud8.. to \\udf.. without its other half")
    times = [f.name for f in stream.schema if isinstance(f.dataType, TimestampType)]
    others = [f.name for f in stream.schema if f.name not in times]
    slow = F.coalesce(
        F.when(~F.col("__readable"), unreadable),
        F.when(_half_a_character(line), judge(Reason.NOT_JSON, half)),
        F.when(F.col("__fields").isNull(), judge(Reason.NOT_JSON, _not_json(line))),
        *(_misfit(name, Reason.WRONG_TYPE) for name in others),
    )
    return F.coalesce(
        F.when(F.col("__quick").isNull(), slow),
        *(_absent(name) for name in stream.required if name not in times),
        _empty_id(stream),
        *(_misfit(name, Reason.UNPARSEABLE_TIME) for name in times),
        *(_absent(name) for name in stream.required if name in times),
        from_the_future(stream, rules),
        before_all_events(stream, rules),
    )


def _not_json(line: Column) -> Column:
    """Why a line is not one JSON object, in words that say what to do."""
    start, name = F.left(F.trim(line), F.lit(1)), F.regexp_extract(line, _NO_NUMBER, 1)
    literal = F.regexp_extract(line, _NO_NUMBER, 2)
    return (
        F.when(line.startswith("\ufeff"), F.lit("begins with a byte-order mark; write UTF-8 without one"))
        .when(literal != "", F.concat(name, F.lit(": JSON has no "), literal, F.lit("; send null, or leave the key out")))
        .when(start == "[", F.lit("not one JSON object on the line but a list; one object a line: jq -c '.[]' FILE"))
        .when(F.trim(line) == "{", F.lit("not one JSON object on the line but the start of one over several; jq -c . FILE"))
        .when(F.contains(line, F.lit("\0")), F.lit(_UTF16))
        .otherwise(F.lit("not one JSON object on the line"))
    )


def _not_utf8(line: Column) -> Column:
    """The same of bytes that are no text."""
    start = F.hex(F.substring(line.cast("binary"), 1, 2))
    return (
        F.when(start == "1F8B", F.lit("gzip, by its first bytes; name the file .gz. The payload is kept as base64"))
        .when(start.isin("FFFE", "FEFF"), F.lit(f"{_UTF16}. The payload is kept as base64"))
        .otherwise(F.lit("not UTF-8; the payload is kept as base64"))
    )


def _misfit(name: str, reason: Reason) -> Column:
    wrong = _exact(name, "wrong")
    return F.when(wrong.isNotNull(), judge(reason, misfit(name, wrong, F.col("__raw.value"))))


def _undecodable(raw: DataFrame) -> list[Column]:
    problem = F.col("__raw.problem")
    return [F.when(problem.isNotNull(), judge(Reason.NOT_AVRO, problem))] if is_decoded(raw) else []


def _absent(name: str) -> Column:
    detail = F.when(F.array_contains(F.json_object_keys("__raw.value"), name), f"{name} is null").otherwise(f"{name} is absent")
    return F.when(F.col("__event").getField(name).isNull(), judge(Reason.MISSING_REQUIRED, detail))


def _empty_id(stream: EventStream) -> Column:
    """A text without a character names no event: all that have it would be taken for one."""
    empty = F.col("__event").getField(stream.id).cast("string") == ""
    return F.when(empty, judge(Reason.MISSING_REQUIRED, F.lit(f"{stream.id} is empty")))


def _half_a_character(line: Column) -> Column:
    """Whether a string escapes one half of a surrogate pair, which is no character: the parser would make a `?` of it."""
    escapes = F.replace(line, F.lit("\\\\"), F.lit("  "))  # an escaped backslash is none that escapes
    return F.contains(line, F.lit("\\u")) & escapes.rlike(_HALF)


def _rescued(stream: EventStream) -> Column:
    """JSON of the keys that are not wholly in a column, sorted; null where there is none."""
    left = F.array_sort(F.array_except(F.map_keys("__fields"), _taken(stream)))
    entries = F.transform(left, lambda key: F.struct(key, F.element_at("__fields", key)))
    return F.when(F.size(left) > 0, F.to_json(F.map_from_entries(entries)))


def _taken(stream: EventStream) -> Column:
    """The names whose values are whole in columns. An alias beside a value that came first is not among them."""
    names = []
    for f in stream.schema:
        earlier = _exact(f.name, "more")
        for name in stream.names_of(f.name):
            names.append(F.when(~earlier, F.lit(name)))
            earlier = earlier | _given(name).isNotNull()
    every = F.array(*(F.lit(f.name) for f in stream.schema))
    return F.when(F.col("__quick").isNotNull(), every).otherwise(F.array(*names))
