"""What makes two rows of bronze the same event: the event's own columns, and what of it is in no column; and the id of a line
that nobody has parsed."""

import re

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from pipelines.events import EventStream
from pipelines.ingest.parse import Reason


def comparable(field: StructField, value: Column) -> Column:
    """A column's value as something that can be compared and hashed: maps cannot."""
    return F.to_json(F.struct(value)) if "map<" in field.dataType.simpleString() else value


def content(stream: EventStream) -> Column:
    """A row's event as a number: equal events have equal ones."""
    return F.xxhash64(*(comparable(f, F.col(f.name)) for f in stream.schema), "rescued")


def id_in_text(line: Column, stream: EventStream) -> Column:
    """The id that a line most likely has, at a fraction of what parsing costs; null where none is to be seen."""
    usual = F.regexp_extract(line, f'"{re.escape(stream.id)}"' + r'\s*:\s*"([^"\\]+)"', 1)
    elsewhere = (F.get_json_object(line, f"$['{name}']") for name in stream.names_of(stream.id))
    return F.when(usual != "", usual).otherwise(F.coalesce(*elsewhere))


def payload_text() -> Column:
    """The payload of a row of quarantine as text, whatever form it is kept in."""
    not_text = F.col("reason") == Reason.NOT_UTF8.value
    return F.when(not_text, F.unbase64("payload").cast("string")).otherwise(F.col("payload"))
