"""Kinds of values that no producer should send, each with what becomes of it.

The rule: a value is accepted exactly where it is one JSON object in UTF-8 (no byte order mark, no half of a surrogate pair), of
`max_event_bytes` at most, that has each required column, and in each column a value of its type, in its range, a time with an
offset that is neither ahead of its record nor before all events. Keys that the schema does not name, whatever they are called,
are kept beside (`rescued`). Of a key that comes twice the last one counts. An object nests 1,000 deep at most, and a key has
50,000 characters at most. Everything else is quarantined, with its bytes.
"""

SCHEMA = (
    "playback_id STRING NOT NULL, event_time TIMESTAMP NOT NULL, profile_id STRING, title_id STRING, device STRING, "
    "seconds_watched INT, bytes_sent BIGINT, rating DOUBLE"
)
_TIME = '"event_time":"2026-01-10T10:00:00Z"'


def _with(fields: str) -> str:
    """An event that would be accepted, with these fields; `#` stands for a number of its own."""
    return '{"playback_id":"x#",' + _TIME + "," + fields + "}"


def _at(time: str) -> str:
    return '{"playback_id":"x#","event_time":' + time + "}"


# kind -> value, and the reason (None: accepted)
KINDS: dict[str, tuple[str | bytes | None, str | None]] = {
    "tombstone": (None, "tombstone"),
    "empty": ("", "not_json"),
    "whitespace only": (" \t\r\n ", "not_json"),
    "text": ("not json #", "not_json"),
    "null": ("null", "not_json"),
    "number": ("5", "not_json"),
    "string": ('"text #"', "not_json"),
    "array": ("[1, 2]", "not_json"),
    "array of an object": ("[" + _with('"device":"tv"') + "]", "not_json"),
    "cut off": ('{"playback_id": "cut #', "not_json"),
    "two objects": (_with('"device":"tv"') * 2, "not_json"),
    "two objects on two lines": (_with('"device":"tv"') + "\n" + _with('"device":"tv"'), "not_json"),
    "trailing garbage": (_with('"device":"tv"') + " garbage", "not_json"),
    "trailing comma": ('{"playback_id":"x#",' + _TIME + ",}", "not_json"),
    "comment": ("{/* # */" + _with('"device":"tv"')[1:], "not_json"),
    "single quotes": ("{'playback_id':'x#'}", "not_json"),
    "empty object": ("{}", "missing_required"),
    "byte order mark": ("\ufeff" + _with('"device":"tv"'), "not_json"),
    "UTF-16": (_with('"device":"tv"').encode("utf-16"), "not_utf8"),
    "Latin-1": (_with('"device":"\xe9"').encode("latin-1"), "not_utf8"),
    "surrogates in UTF-8": (b'{"playback_id":"x#","device":"\xed\xa0\x80"}', "not_utf8"),
    "compressed": (b"\x1f\x8b\x08\x00\x00#", "not_utf8"),
    "NUL bytes": ("\x00\x00#\x00", "not_json"),
    "NUL in a string": (_with('"device":"t\x00v"'), "not_json"),
    "control character in a string": (_with('"device":"t\x07v"'), "not_json"),
    "line break in a string": (_with('"device":"t\nv"'), "not_json"),
    "escaped NUL": (_with('"device":"t\\u0000v"'), None),
    "escaped pair of surrogates": (_with('"device":"\\ud83d\\uDE00\\\\ud800"'), None),
    "half a pair, escaped": (_with('"device":"\\ud83d\\ud83d\\ude00"'), "not_json"),
    "the other half, escaped": (_with('"device":"\\\\\\uDE00"'), "not_json"),
    "deep nesting": ('{"a#":' * 2000 + "1" + "}" * 2000, "not_json"),
    "deep nesting in an unknown key": (_with('"more":' + '{"a":' * 2000 + "1" + "}" * 2000), "not_json"),
    "a million characters": ("x" * 1_000_000, "not_json"),
    "a million characters in a string": (_with('"device":"' + "y" * 1_000_000 + '"'), None),
    "oversize": (_with('"device":"' + "y" * 2_000_000 + '"'), "oversize"),
    "duplicate keys": (_with('"device":"tv","device":"web"'), None),
    "duplicate ids": (_with('"playback_id":"x#"'), None),
    "required null": ('{"playback_id":null,' + _TIME + "}", "missing_required"),
    "required absent": ("{" + _TIME + "}", "missing_required"),
    "wrong-case keys": ('{"Playback_Id":"x#",' + _TIME + "}", "missing_required"),
    "number for a STRING": (_with('"device":5'), "wrong_type"),
    "bool for a STRING": (_with('"device":true'), "wrong_type"),
    "object for a STRING": ('{"playback_id":{"a":1},' + _TIME + "}", "wrong_type"),
    "array for a STRING": (_with('"device":["tv"]'), "wrong_type"),
    "text for an INT": (_with('"seconds_watched":"60"'), "wrong_type"),
    "fraction for an INT": (_with('"seconds_watched":1.5'), "wrong_type"),
    "beyond INT": (_with('"seconds_watched":2147483648'), "wrong_type"),
    "least INT": (_with('"seconds_watched":-2147483648'), None),
    "beyond BIGINT": (_with('"bytes_sent":9223372036854775808'), "wrong_type"),
    "far beyond BIGINT": (_with('"bytes_sent":' + "9" * 400), "wrong_type"),
    "beyond DOUBLE": (_with('"rating":1e400'), "wrong_type"),
    "NaN": (_with('"rating":NaN'), "not_json"),
    "Infinity": (_with('"rating":-Infinity'), "not_json"),
    "NaN as text": (_with('"rating":"NaN"'), "wrong_type"),
    "leading zero": (_with('"seconds_watched":060'), "not_json"),
    "unknown huge key": (_with('"' + "k" * 50_000 + '":1'), None),
    "unknown key beyond huge": (_with('"' + "k" * 50_001 + '":1'), "not_json"),
    "unknown keys of all sorts": (_with('"a.b":1,"$":2,"c`d\'e":3,"f\\"g":4,"":5,"[0]":6,"h i":7,"\\n":8'), None),
    "unknown key beyond DOUBLE": (_with('"more":1e400'), None),
    "time: text": (_at('"yesterday"'), "unparseable_time"),
    "time: empty": (_at('""'), "unparseable_time"),
    "time: no offset": (_at('"2026-01-10T10:00:00"'), "unparseable_time"),
    "time: date only": (_at('"2026-01-10"'), "unparseable_time"),
    "time: no such day": (_at('"2026-02-30T10:00:00Z"'), "unparseable_time"),
    "time: leap second": (_at('"2016-12-31T23:59:60Z"'), "unparseable_time"),
    "time: hour 24": (_at('"2026-01-10T24:00:00Z"'), "unparseable_time"),
    "time: offset of 30 hours": (_at('"2026-01-10T10:00:00+30:00"'), "unparseable_time"),
    "time: year 10000": (_at('"10000-01-10T10:00:00Z"'), "unparseable_time"),
    "time: year 0": (_at('"0000-01-10T10:00:00Z"'), "unparseable_time"),
    "time: year 2999": (_at('"2999-01-01T00:00:00Z"'), "future_time"),
    "time: epoch seconds": (_at("1767952800"), "implausible_time"),
    "time: epoch microseconds": (_at("1767952800000000"), "unparseable_time"),
    "time: negative": (_at("-1"), "implausible_time"),
    "time: 20 digits": (_at("9" * 20), "unparseable_time"),
    "time: fraction of a millisecond": (_at("1767952800000.5"), "unparseable_time"),
    "time: bool": (_at("true"), "unparseable_time"),
    "time: object": (_at('{"ms":1}'), "unparseable_time"),
    "time: full-width digits": (_at('"\uff12\uff10\uff12\uff16-01-10T10:00:00Z"'), "unparseable_time"),
}


def value(kind: str, number: int) -> str | bytes | None:
    """A value of the kind, told from others of it by `number` where it has a place for that."""
    template = KINDS[kind][0]
    if isinstance(template, bytes):
        return template.replace(b"#", b"%d" % number)
    return None if template is None else template.replace("#", str(number))
