"""What makes two rows of bronze the same event: the event's own columns, and what of it is in no column."""

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from pipelines.events import EventStream


def comparable(field: StructField, value: Column) -> Column:
    """A column's value as something that can be compared and hashed: maps cannot."""
    return F.to_json(F.struct(value)) if "map<" in field.dataType.simpleString() else value


def content(stream: EventStream) -> Column:
    """A row's event as a number: equal events have equal ones."""
    return F.xxhash64(*(comparable(f, F.col(f.name)) for f in stream.schema), "rescued")
