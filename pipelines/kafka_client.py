"""What this side of Spark asks of Kafka: is the topic there, make one, produce to it. Python's client, librdkafka."""

import time
import uuid
from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from pipelines.config import KafkaSource
from pipelines.errors import SourceError
from pipelines.kafka_connection import TIMEOUT as _TIMEOUT
from pipelines.kafka_connection import client_settings as _settings
from pipelines.kafka_connection import connect, servers_of
from pipelines.kafka_connection import reason as _reason


def partition_count(source: KafkaSource, where: str) -> int:
    """Raises SourceError where the broker cannot be reached, or has no such topic."""
    found = connect(source, where, source.topic)[1][source.topic]
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise SourceError(f"{where}.topic: not allowed to see {source.topic}; let this user describe and read it")
    if found.error is not None or not found.partitions:
        servers = servers_of(source, where)
        raise SourceError(f"{where}.topic: {source.topic} does not exist at {servers}; create it, or correct the name")
    return len(found.partitions)


def check_continues(source: KafkaSource, where: str, consumed: Mapping[int, int], checkpoint: str) -> None:
    """Raise SourceError where Kafka no longer has what comes next: `consumed` is the next offset to read of each partition."""
    consumer = Consumer({**_settings(source, where), "group.id": f"rejoin-{uuid.uuid4().hex[:12]}", "enable.auto.commit": False})
    try:
        for partition, ahead in sorted(consumed.items()):
            held = consumer.get_watermark_offsets(TopicPartition(source.topic, partition), timeout=_TIMEOUT)
            if held is None:
                raise SourceError(f"{where}: topic {source.topic}: no answer from Kafka within {_TIMEOUT:.0f} s")
            first, end = held
            problem = None
            if first > ahead:
                problem = f"offsets {ahead} to {first - 1} are no longer in Kafka"
            elif end < ahead:
                problem = f"ends at offset {end}, but {ahead} records of it have been read: it was made anew"
            if problem:
                raise SourceError(
                    f"{where}: topic {source.topic} partition {partition}: {problem}; bring them back, or delete {checkpoint} "
                    "to go on with what Kafka has (what has landed does not land again)"
                )
    except KafkaException as error:
        raise SourceError(f"{where}: topic {source.topic}: no answer from Kafka ({_reason(error)})") from None
    finally:
        consumer.close()


def create_topic(source: KafkaSource, where: str, partitions: int) -> None:
    """Create the topic where it is not there yet. Raises SourceError."""
    admin, topics = connect(source, where)
    try:
        if source.topic not in topics:
            admin.create_topics([NewTopic(source.topic, num_partitions=partitions)])[source.topic].result(_TIMEOUT)
    except KafkaException as error:
        raise SourceError(f"{where}: topic {source.topic} cannot be created ({_reason(error)})") from None


def produce(
    source: KafkaSource,
    where: str,
    records: Iterable[tuple[str | bytes | None, str | bytes | None]],
    *,
    per_second: float | None = None,
) -> int:
    """Send (key, value) pairs, batched, at most `per_second` (None: as fast as the broker takes them); how many. All are
    acknowledged when this returns. Raises SourceError."""
    failed: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(str(error))

    settings = {"linger.ms": 50, "compression.type": "lz4", "enable.idempotence": True, "message.max.bytes": 64 * 2**20}
    producer = Producer({**settings, **_settings(source, where)})
    began, sent = time.monotonic(), 0
    for key, value in records:
        while True:
            try:
                producer.produce(source.topic, value=value, key=key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.5)
        sent += 1
        if sent % 1000 == 0:
            producer.poll(0)
        if per_second is not None:
            ahead = sent / per_second - (time.monotonic() - began)
            if ahead > 0.01:
                producer.poll(ahead)
    left = producer.flush(60)
    if left or failed:
        raise SourceError(
            f"{where}: {left or len(failed)} records were not acknowledged by Kafka ({failed[0] if failed else 'timeout'})"
        )
    return sent
