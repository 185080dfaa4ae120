"""Avro values in Spark. Decoding runs in Python, on the executors, which so need this package too."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.kafka.avro_values import NotAvroError, to_json


def decoded(payload: Column, schema: str, ids: Sequence[int] = ()) -> Column:
    """A struct of `value`, the JSON text, and `problem`, why there is none; both null for a record without a value."""

    def decode(record: bytes | None) -> tuple[str | None, str | None]:
        if record is None:
            return None, None
        try:
            return to_json(record, schema, ids), None
        except NotAvroError as error:
            return None, str(error)

    return F.udf(decode, "value string, problem string", useArrow=True)(payload)
