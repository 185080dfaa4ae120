"""Where raw events come from. Every source yields the same column, so that what follows knows nothing of files or brokers.

`__raw` is a struct of `value` (the event as text, its bytes untouched; null for a Kafka record without a value), `source` (file
path or topic), `source_partition` and `source_offset` (null for files), `source_time` (Kafka's record timestamp; null for files),
`record_time` (the record's timestamp; for files the time of the micro-batch), and `ingest_time` (the time of the micro-batch,
which a replay keeps). Where `value` has been decoded from Avro, there are `encoded` (the record's own bytes) and `problem` (why
there is no `value`; null where there is) too.
"""

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession

from pipelines.config.model import TriggerConfig
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.ingest.sources.files import read_files
from pipelines.ingest.sources.kafka import read_kafka


def read_stream(
    spark: SparkSession, source: FilesSource | KafkaSource, trigger: TriggerConfig, where: str, offsets: Mapping[int, int]
) -> DataFrame:
    """Open the source as a stream of `__raw`. Raises SourceError or ConfigError; `where` is the key path that they name.
    `offsets` as for `read_kafka`."""
    if isinstance(source, KafkaSource):
        return read_kafka(spark, source, where, offsets)
    return read_files(spark, source, trigger, where)
