"""A Kafka topic as a source. Data that Kafka no longer has stops the query (`failOnDataLoss`): no gap is passed in silence.

Of a topic written in transactions only committed records are read, unless `isolation.level` says otherwise.
"""

import json
import os
from collections.abc import Collection, Mapping
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.config.kafka_options import for_java
from pipelines.config.sources import KafkaSource
from pipelines.ingest.sources.avro import decoded
from pipelines.kafka.avro_values import read_schema
from pipelines.kafka.client import partition_count
from pipelines.kafka.connection import resolved_options, servers_of
from pipelines.model.durations import micros

_EARLIEST = -2  # as Spark's option says it


def read_kafka(spark: SparkSession, source: KafkaSource, where: str, offsets: Mapping[int, int]) -> DataFrame:
    """The records' values as `__raw` (see `pipelines.ingest.sources`), each with its topic, partition, offset and timestamp.
    A checkpoint that has read nothing yet starts at `offsets`; at `starting_offsets`, where that is empty.
    Raises SourceError where there is no such topic, or no broker that answers."""
    partitions = partition_count(source, where)  # a broker out of reach, or a topic misspelt, is told in one line
    value = values(source, where, F.col("value"))
    reader = spark.readStream.format("kafka").options(**_options(source, where))
    records = reader.option("startingOffsets", _starting(source, offsets, partitions)).load()
    return records.select(_raw(value))


def read_kafka_ranges(
    spark: SparkSession, source: KafkaSource, where: str, ranges: Mapping[int, Collection[tuple[int, int]]]
) -> DataFrame:
    """As `read_kafka`, a batch: the records at some offsets, by partition and both ends inclusive, as far as Kafka has them."""
    partition_count(source, where)  # as above
    wanted = {partition: sorted(spans) for partition, spans in ranges.items() if spans}
    first = {str(p): spans[0][0] for p, spans in wanted.items()}
    last = {str(p): max(end for _, end in spans) + 1 for p, spans in wanted.items()}
    options = {name: value for name, value in _options(source, where).items() if name != "subscribe" and "PerTrigger" not in name}
    options |= {"assign": json.dumps({source.topic: sorted(wanted)}), "failOnDataLoss": "false"}
    options |= {"startingOffsets": json.dumps({source.topic: first}), "endingOffsets": json.dumps({source.topic: last})}
    records = spark.read.format("kafka").options(**options).load()
    inside = [
        (F.col("partition") == partition) & F.col("offset").between(*span)
        for partition, spans in wanted.items()
        for span in spans
    ]
    return records.where(reduce(or_, inside)).select(_raw(values(source, where, F.col("value"))))


def _raw(value: list[Column]) -> Column:
    return F.struct(
        *value,
        F.col("topic").alias("source"),
        F.col("partition").alias("source_partition"),
        F.col("offset").alias("source_offset"),
        F.col("timestamp").alias("source_time"),
        F.col("timestamp").alias("record_time"),
        F.current_timestamp().alias("ingest_time"),
    ).alias("__raw")


def values(source: KafkaSource, where: str, record: Column) -> list[Column]:
    """The event as text; where that is decoded from other bytes, these and the problem with them too. Raises ConfigError."""
    if source.value.format == "json":
        return [record.cast("string").alias("value")]
    found = decoded(record, read_schema(source.value, where), source.value.schema_id)
    return [
        found.getField("value").alias("value"),
        found.getField("problem").alias("problem"),
        record.alias("encoded"),
    ]


def _starting(source: KafkaSource, offsets: Mapping[int, int], partitions: int) -> str:
    if not offsets:
        return source.starting_offsets
    return json.dumps({source.topic: {str(p): offsets.get(p, _EARLIEST) for p in range(partitions)}})


def _options(source: KafkaSource, where: str) -> dict[str, str]:
    """Spark's options. Hold secrets, of which the session keeps its plans and its page free (pipelines/session.py)."""
    client = for_java(resolved_options(source, where), shaded="DATABRICKS_RUNTIME_VERSION" in os.environ)
    client = {"isolation.level": "read_committed", **client}
    options = {"kafka.bootstrap.servers": servers_of(source, where), **{f"kafka.{name}": value for name, value in client.items()}}
    options |= {"subscribe": source.topic, "failOnDataLoss": "true"}
    if source.max_offsets_per_trigger is not None:
        options["maxOffsetsPerTrigger"] = str(source.max_offsets_per_trigger)
    if source.min_offsets_per_trigger is not None:
        options["minOffsetsPerTrigger"] = str(source.min_offsets_per_trigger)
        options["maxTriggerDelay"] = f"{micros(source.max_trigger_delay) // 1000}ms"
    return options
