"""One line of text becomes an accepted event or a quarantined payload with its reason; nothing is dropped.

The rules (DESIGN section 6, docs/types.md): a line is one JSON object; a value fits its column's type exactly
(`pipelines.ingest.parse.types`); a column that may be null may also be absent; of a key given twice the last value counts. What
is in no column is kept in `rescued`: the keys that the schema does not name, and columns whose value has more in it.

A line is read through VARIANT, by those rules, unless `pipelines.ingest.parse.quick` has read it in a cheaper way. Everything
here is a pure function of a DataFrame.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType, TimestampType

from pipelines.ingest.parse.quick import can_be_quick, read_quickly
from pipelines.ingest.parse.rules import ParseRules, end_of, judge
from pipelines.ingest.parse.times import before_all_events, from_the_future
from pipelines.ingest.parse.types import OBJECT, converted, misfit
from pipelines.model.events import EventStream
from pipelines.model.reasons import Reason
from pipelines.model.sql import each, first_of, quoted, struct, when

_HALF = r"(?i)\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]"
_LINE = "__raw.value"
_UTF16 = "UTF-16, by its bytes; write UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
_NO_NUMBER = r'"([^"\\]*)"\s*:\s*([+-]?(?:NaN|nan|Infinity|inf))\b'


def parse(raw: DataFrame, stream: EventStream, rules: ParseRules) -> DataFrame:
    """From `__raw` to `__raw`, `__event` (struct of the stream's columns), `__rescued`, `__reason` and `__detail`.

    `__reason` is null exactly where the event is accepted. Own columns stay inside `__event`, so that no name of an
    event's column can clash with one of ours. Persist or checkpoint it before a join by columns of `__event`: what Spark infers
    for these it carries through all the rules, and does not end.
    """
    readable = f"coalesce(octet_length({_LINE}) <= {rules.max_event_bytes} AND is_valid_utf8({_LINE}), false)"
    rows = raw.select("__raw", F.expr(readable).alias("__readable"))
    nothing = F.lit(None).cast(stream.schema).alias("__quick"), F.lit(False).alias("__whole")
    rows = read_quickly(rows, stream) if can_be_quick(stream) else rows.select("*", *nothing)
    items = f"IF(__readable AND (__quick IS NULL OR NOT __whole), {_ITEMS}, NULL)"
    known = "IF(__whole OR __fields IS NOT NULL, __quick, NULL)"
    exact = struct(**{f.name: converted(_item(f.name, stream), f.dataType) for f in stream.schema})
    event = struct(**{f.name: f"coalesce(__quick.`{f.name}`, __exact.`{f.name}`.value)" for f in stream.schema})
    verdict = first_of([*_undecodable(raw), _verdict(stream, rules)])
    return (
        rows.selectExpr("*", f"{items} AS __items")
        .selectExpr("__raw", "__readable", "__quick", "__whole", f"{_FIELDS} AS __fields")
        .selectExpr("__raw", "__readable", f"{known} AS __quick", "__fields")
        .selectExpr("*", f"IF(__quick IS NULL, {exact}, NULL) AS __exact")
        .selectExpr("*", f"{event} AS __event")
        .selectExpr("__raw", "__event", f"{_rescued(stream)} AS __rescued", f"{verdict} AS __verdict")
        .selectExpr("__raw", "__event", "__rescued", "__verdict.reason AS __reason", "__verdict.detail AS __detail")
    )


def is_decoded(rows: DataFrame) -> bool:
    """Whether the text in `__raw` has been decoded from other bytes, which are there too."""
    raw = rows.schema["__raw"].dataType
    return isinstance(raw, StructType) and "encoded" in raw.names


# A list of the line and of an end, as VARIANT: where the line is not one JSON object, that stands elsewhere.
_ITEMS = f"try_parse_json(concat('[', {_LINE}, ',\"', {end_of(_LINE)}, '\"]'))"
# The values of the line's keys, each a VARIANT; null where it is not one JSON object and nothing else.
_ALONE = f"try_variant_get(__items, '$[1]', 'string') = {end_of(_LINE)}"
_FIELDS = f"IF({_ALONE}, try_variant_get(__items, '$[0]', '{OBJECT}'), NULL)"


def _given(name: str) -> str:
    """The value of a key, null where it is null or absent."""
    item = f"try_element_at(__fields, {quoted(name)})"
    return f"IF(is_variant_null({item}), NULL, {item})"


def _item(column: str, stream: EventStream) -> str:
    """The value of a column: of its names, the first that has one."""
    return first_of([_given(name) for name in stream.names_of(column)])


def _verdict(stream: EventStream, rules: ParseRules) -> str:
    """A struct of reason and detail, null where the event is accepted. The first rule that an event breaks names it."""
    size = f"octet_length({_LINE})"
    too_big = f"concat(CAST({size} AS STRING), ' bytes; at most {rules.max_event_bytes} are accepted')"
    unreadable = when(
        (f"{_LINE} IS NULL", judge(Reason.TOMBSTONE, "'a record without a value'")),
        (f"{size} > {rules.max_event_bytes}", judge(Reason.OVERSIZE, too_big)),
        otherwise=judge(Reason.NOT_UTF8, _NOT_UTF8),
    )
    half = quoted("\\ud8.. to \\udf.. without its other half")
    times = [f.name for f in stream.schema if isinstance(f.dataType, TimestampType)]
    slow = when(
        ("NOT __readable", unreadable),
        (_HALF_A_CHARACTER, judge(Reason.NOT_JSON, half)),
        ("__fields IS NULL", judge(Reason.NOT_JSON, _NOT_JSON)),
        *(_misfit(f.name, Reason.WRONG_TYPE) for f in stream.schema if f.name not in times),
    )
    return first_of(
        [
            f"IF(__quick IS NULL, {slow}, NULL)",
            *(_absent(name) for name in stream.required if name not in times),
            _empty_id(stream),
            when(*(_misfit(name, Reason.UNPARSEABLE_TIME) for name in times)),
            *(_absent(name) for name in stream.required if name in times),
            from_the_future(stream, rules),
            before_all_events(stream, rules),
        ]
    )


# Why a line is not one JSON object, in words that say what to do.
_START, _NUMBER = f"left(trim({_LINE}), 1)", [f"regexp_extract({_LINE}, {quoted(_NO_NUMBER)}, {group})" for group in (1, 2)]
_NOT_JSON = when(
    (f"startswith({_LINE}, '\ufeff')", "'begins with a byte-order mark; write UTF-8 without one'"),
    (
        f"{_NUMBER[1]} != ''",
        f"concat({_NUMBER[0]}, ': JSON has no ', {_NUMBER[1]}, '; send null, or leave the key out')",
    ),
    (f"{_START} = '['", quoted("not one JSON object on the line but a list; one object a line: jq -c '.[]' FILE")),
    (
        f"trim({_LINE}) = '{{'",
        "'not one JSON object on the line but the start of one over several; jq -c . FILE'",
    ),
    (f"contains({_LINE}, chr(0))", quoted(_UTF16)),
    otherwise="'not one JSON object on the line'",
)
# The same of bytes that are no text.
_BYTES = f"hex(substring(CAST({_LINE} AS BINARY), 1, 2))"
_NOT_UTF8 = when(
    (f"{_BYTES} = '1F8B'", "'gzip, by its first bytes; name the file .gz. The payload is kept as base64'"),
    (f"{_BYTES} IN ('FFFE', 'FEFF')", quoted(f"{_UTF16}. The payload is kept as base64")),
    otherwise="'not UTF-8; the payload is kept as base64'",
)
# Whether a string escapes one half of a surrogate pair, which is no character: the parser would make a `?` of it. An escaped
# backslash is none that escapes.
_ESCAPES = f"replace({_LINE}, {quoted(chr(92) * 2)}, '  ')"
_HALF_A_CHARACTER = f"contains({_LINE}, {quoted(chr(92) + 'u')}) AND {_ESCAPES} RLIKE {quoted(_HALF)}"


def _misfit(name: str, reason: Reason) -> tuple[str, str]:
    wrong = f"__exact.`{name}`.wrong"
    return f"{wrong} IS NOT NULL", judge(reason, misfit(name, wrong, _LINE))


def _undecodable(raw: DataFrame) -> list[str]:
    problem = "__raw.problem"
    return [when((f"{problem} IS NOT NULL", judge(Reason.NOT_AVRO, problem)))] if is_decoded(raw) else []


def _absent(name: str) -> str:
    there = f"array_contains(json_object_keys({_LINE}), {quoted(name)})"
    detail = f"IF({there}, {quoted(f'{name} is null')}, {quoted(f'{name} is absent')})"
    return when((f"__event.`{name}` IS NULL", judge(Reason.MISSING_REQUIRED, detail)))


def _empty_id(stream: EventStream) -> str:
    """A text without a character names no event: all that have it would be taken for one."""
    empty = f"CAST(__event.`{stream.id}` AS STRING) = ''"
    return when((empty, judge(Reason.MISSING_REQUIRED, quoted(f"{stream.id} is empty"))))


def _rescued(stream: EventStream) -> str:
    """JSON of the keys that are not wholly in a column, sorted; null where there is none."""
    left = f"array_sort(array_except(map_keys(__fields), {_taken(stream)}))"
    entries = each(left, lambda key: f"struct({key}, element_at(__fields, {key}))")
    return f"IF(size({left}) > 0, to_json(map_from_entries({entries})), NULL)"


def _taken(stream: EventStream) -> str:
    """The names whose values are whole in columns. An alias beside a value that came first is not among them."""
    names = []
    for f in stream.schema:
        earlier = f"__exact.`{f.name}`.more"
        for name in stream.names_of(f.name):
            names.append(f"IF(NOT ({earlier}), {quoted(name)}, NULL)")
            earlier = f"{earlier} OR {_given(name)} IS NOT NULL"
    every = ", ".join(quoted(f.name) for f in stream.schema)
    return f"IF(__quick IS NOT NULL, array({every}), array({', '.join(names)}))"
