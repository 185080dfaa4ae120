"""Reading times: ISO-8601 with an offset, or epoch milliseconds; and what disqualifies an event's time."""

from pipelines.ingest.parse.rules import ParseRules, judge
from pipelines.model.events import EventStream
from pipelines.model.reasons import Reason
from pipelines.model.sql import let, quoted, when

_ISO = (
    r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?"
    r"(?:([Zz])|([+-]\d{2}):?(\d{2})?)\z"
)
_USUAL_ISO = r"^(?!0000)\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z\z"
_EPOCH_MILLIS = r"^-?\d{1,15}\z"
# The years 1 to 9999, in milliseconds: what tools that read the tables can hold.
_HELD = "BETWEEN -62135596800000L AND 253402300799999L"


def parse_time(text: str) -> str:
    """ISO-8601 with offset (seconds and fraction optional, cut to microseconds), or epoch milliseconds, of the years 1 to
    9999; else null."""
    # What nearly all events have is read by Spark itself, which is lenient, but not with text of that form.
    usual = f"IF({text} RLIKE {quoted(_USUAL_ISO)}, try_cast({text} AS TIMESTAMP), NULL)"
    part = [f"regexp_extract({text}, {quoted(_ISO)}, {group})" for group in range(8)]
    clock = f"{part[2]}, IF({part[3]} = '', ':00', {part[3]}), '.'"
    fraction = f"rpad(substring({part[4]}, 1, 6), 6, '0')"
    offset = f"IF({part[5]} != '', 'Z', concat({part[6]}, ':', IF({part[7]} = '', '00', {part[7]})))"
    iso = f"concat({part[1]}, 'T', {clock}, {fraction}, {offset})"
    written = let(f"try_cast({iso} AS TIMESTAMP)", lambda time: f"IF(unix_millis({time}) {_HELD}, {time}, NULL)")
    millis = f"try_cast({text} AS BIGINT)"
    epoch = f"IF({millis} {_HELD}, timestamp_millis({millis}), NULL)"
    unusual = when((f"{text} RLIKE {quoted(_EPOCH_MILLIS)}", epoch), (f"{text} RLIKE {quoted(_ISO)}", written))
    return f"coalesce({usual}, {unusual})"


def from_the_future(stream: EventStream, rules: ParseRules) -> str:
    """Ahead of the time of ingest, or of the record's own, where that can be: a clock in seconds, of 1970 or of next year tells
    nothing of the event."""
    record, ingested = "unix_micros(__raw.record_time)", "unix_micros(__raw.ingest_time)"
    can_be = f"{record} BETWEEN {rules.earliest_us}L AND {ingested}"
    ahead = f"(unix_micros(__event.`{stream.event_time}`) - IF({can_be}, {record}, {ingested}))"
    of = f"IF({can_be} AND {record} < {ingested}, ' s ahead of its record', ' s ahead of its ingest')"
    detail = f"concat({quoted(f'{stream.event_time} is ')}, CAST(floor({ahead} / 1000000) AS STRING), {of})"
    return when((f"{ahead} > {rules.max_future_skew_us}L", judge(Reason.FUTURE_TIME, detail)))


def before_all_events(stream: EventStream, rules: ParseRules) -> str:
    time = f"__event.`{stream.event_time}`"
    detail = f"concat({quoted(f'{stream.event_time} ')}, CAST({time} AS STRING), ' UTC is too early: seconds for milliseconds?')"
    return when((f"unix_micros({time}) < {rules.earliest_us}L", judge(Reason.IMPLAUSIBLE_TIME, detail)))
