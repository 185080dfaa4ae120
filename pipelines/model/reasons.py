"""Why an event is in quarantine."""

from enum import Enum


class Reason(str, Enum):
    """Why an event is in quarantine."""

    TOMBSTONE = "tombstone"
    UNREADABLE_FILE = "unreadable_file"
    NOT_AVRO = "not_avro"
    NOT_UTF8 = "not_utf8"
    OVERSIZE = "oversize"
    NOT_JSON = "not_json"
    WRONG_TYPE = "wrong_type"
    MISSING_REQUIRED = "missing_required"
    UNPARSEABLE_TIME = "unparseable_time"
    FUTURE_TIME = "future_time"
    IMPLAUSIBLE_TIME = "implausible_time"
