"""Reading times: ISO-8601 with an offset, or epoch milliseconds; and what disqualifies an event's time."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.ingest.parse.rules import ParseRules, judge, let
from pipelines.model.events import EventStream
from pipelines.model.reasons import Reason

_ISO = (
    r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?"
    r"(?:([Zz])|([+-]\d{2}):?(\d{2})?)\z"
)
_USUAL_ISO = r"^(?!0000)\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z\z"
_EPOCH_MILLIS = r"^-?\d{1,15}\z"
# The years 1 to 9999, in milliseconds: what tools that read the tables can hold.
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999


def parse_time(text: Column) -> Column:
    """ISO-8601 with offset (seconds and fraction optional, cut to microseconds), or epoch milliseconds, of the years 1 to
    9999; else null."""
    # What nearly all events have is read by Spark itself, which is lenient, but not with text of that form.
    usual = F.when(text.rlike(_USUAL_ISO), text.try_cast("timestamp"))
    part = [F.regexp_extract(text, _ISO, group) for group in range(8)]
    clock = F.concat(part[2], F.when(part[3] == "", ":00").otherwise(part[3]), F.lit("."))
    fraction = F.rpad(F.substring(part[4], 1, 6), 6, "0")
    minutes = F.when(part[7] == "", "00").otherwise(part[7])
    offset = F.when(part[5] != "", "Z").otherwise(F.concat(part[6], F.lit(":"), minutes))
    iso = F.concat(part[1], F.lit("T"), clock, fraction, offset)
    millis = text.try_cast("bigint")
    epoch = F.when(millis.between(_FIRST, _LAST), F.timestamp_millis(millis))
    written = let(iso.try_cast("timestamp"), lambda time: F.when(F.unix_millis(time).between(_FIRST, _LAST), time))
    unusual = F.when(text.rlike(_EPOCH_MILLIS), epoch).when(text.rlike(_ISO), written)
    return F.coalesce(usual, unusual)


def from_the_future(stream: EventStream, rules: ParseRules) -> Column:
    """Ahead of the time of ingest, or of the record's own, where that can be: a clock in seconds, of 1970 or of next year tells
    nothing of the event."""
    record, ingested = F.unix_micros("__raw.record_time"), F.unix_micros("__raw.ingest_time")
    can_be = record.between(F.lit(rules.earliest_us), ingested)
    ahead = F.unix_micros(F.col("__event").getField(stream.event_time)) - F.when(can_be, record).otherwise(ingested)
    seconds = F.floor(ahead / 1_000_000).cast("string")
    of = F.when(can_be & (record < ingested), " s ahead of its record").otherwise(" s ahead of its ingest")
    detail = F.concat(F.lit(f"{stream.event_time} is "), seconds, of)
    return F.when(ahead > F.lit(rules.max_future_skew_us), judge(Reason.FUTURE_TIME, detail))


def before_all_events(stream: EventStream, rules: ParseRules) -> Column:
    time = F.col("__event").getField(stream.event_time)
    detail = F.concat(F.lit(f"{stream.event_time} "), time.cast("string"), F.lit(" UTC is too early: seconds for milliseconds?"))
    return F.when(F.unix_micros(time) < F.lit(rules.earliest_us), judge(Reason.IMPLAUSIBLE_TIME, detail))
