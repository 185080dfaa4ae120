"""What this side of Spark asks of Kafka: is the topic there, make one, produce to it. Python's client, librdkafka."""

import concurrent.futures
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipelines.config.sources import KafkaSource
from pipelines.kafka.connection import TIMEOUT as _TIMEOUT
from pipelines.kafka.connection import client_settings as _settings
from pipelines.kafka.connection import connect, servers_of
from pipelines.kafka.connection import reason as _reason
from pipelines.model.errors import SourceError

_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # of a broker older than topic ids


def partition_count(source: KafkaSource, where: str) -> int:
    """Raises SourceError where the broker cannot be reached, or has no such topic."""
    found = connect(source, where, source.topic)[1][source.topic]
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise SourceError(f"{where}.topic: not allowed to see {source.topic}; let this user describe and read it")
    if found.error is not None or not found.partitions:
        servers = servers_of(source, where)
        raise SourceError(f"{where}.topic: {source.topic} does not exist at {servers}; create it, or correct the name")
    return len(found.partitions)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """`id` tells it from any other topic of its name, before or after it (None where Kafka does not say); `held` is the first
    offset of each partition, and the one after its last."""

    id: str | None
    held: Mapping[int, tuple[int, int]]


def topic_now(source: KafkaSource, where: str) -> Topic:
    """Raises SourceError as above."""
    partitions = range(partition_count(source, where))
    id = topic_id(source, where)
    # Transactions that are open do not make a topic shorter than what has been read of it, whatever was read then.
    held = _held(source, where, partitions, "read_uncommitted", _TIMEOUT)
    return Topic(id=id, held=held)


def ends_now(source: KafkaSource, where: str, seconds: float) -> dict[int, int]:
    """The offset after the last one of each partition that the topic has. Raises SourceError where Kafka does not answer in
    time, and ConfigError."""
    held = _held(source, where, None, "read_committed", seconds)
    return {partition: end for partition, (_, end) in held.items()}


def _held(
    source: KafkaSource, where: str, partitions: Iterable[int] | None, isolation: str, seconds: float
) -> dict[int, tuple[int, int]]:
    own = {"group.id": f"rejoin-{uuid.uuid4().hex[:12]}", "enable.auto.commit": False, "isolation.level": isolation}
    consumer = Consumer({**_settings(source, where), **own})
    try:
        if partitions is None:
            partitions = consumer.list_topics(source.topic, timeout=seconds).topics[source.topic].partitions
        held = {p: consumer.get_watermark_offsets(TopicPartition(source.topic, p), timeout=seconds) for p in partitions}
    except KafkaException as error:
        raise SourceError(f"{where}: topic {source.topic}: no answer from Kafka ({_reason(error)})") from None
    finally:
        consumer.close()
    if None in held.values():
        raise SourceError(f"{where}: topic {source.topic}: no answer from Kafka within {seconds:.0f} s")
    return held


def sample(source: KafkaSource, where: str, most: int) -> list[str]:
    """The values of the first records that a topic has, as text; no more than `most`. Raises SourceError."""
    held = topic_now(source, where).held
    own = {"group.id": f"rejoin-{uuid.uuid4().hex[:12]}", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer, found, ended = Consumer({**_settings(source, where), **own}), list[str](), set[int]()
    try:
        consumer.assign([TopicPartition(source.topic, partition, first) for partition, (first, _) in held.items()])
        while len(ended) < len(held) and len(found) < most:
            message = consumer.poll(_TIMEOUT)
            if message is None:
                raise SourceError(f"{where}: topic {source.topic}: no answer from Kafka within {_TIMEOUT:.0f} s")
            if message.error() is not None:
                ended.add(message.partition() or 0)
            elif (value := message.value()) is not None:
                found.append(value.decode(errors="replace"))
    finally:
        consumer.close()
    return found


def topic_id(source: KafkaSource, where: str) -> str | None:
    """The id of the topic; None where Kafka does not say, or not in time."""
    admin = AdminClient(_settings(source, where))  # by a name of its own: its answers end with it
    try:
        asked = admin.describe_topics(TopicCollection([source.topic]), request_timeout=_TIMEOUT)
        found = asked[source.topic].result(_TIMEOUT).topic_id
    except (KafkaException, concurrent.futures.TimeoutError):
        return None
    return None if found is None or str(found) == _NO_ID else str(found)


def create_topic(source: KafkaSource, where: str, partitions: int) -> None:
    """Create the topic where it is not there yet; one that somebody else creates meanwhile is as good. Raises SourceError."""
    admin, topics = connect(source, where)
    try:
        if source.topic not in topics:
            admin.create_topics([NewTopic(source.topic, num_partitions=partitions)])[source.topic].result(_TIMEOUT)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise SourceError(f"{where}: topic {source.topic} cannot be created ({_reason(error)})") from None
    except concurrent.futures.TimeoutError:
        raise SourceError(f"{where}: topic {source.topic}: no answer from Kafka within {_TIMEOUT:.0f} s") from None


def produce(
    source: KafkaSource,
    where: str,
    records: Iterable[tuple[str | bytes | None, str | bytes | None]],
    *,
    per_second: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Send (key, value) pairs, batched, at most `per_second` (None: as fast as the broker takes them); how many. All are
    acknowledged when this returns. `progress` is told how many have been sent, now and then. Raises SourceError."""
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
            progress(sent)
        if per_second is not None:
            ahead = sent / per_second - (time.monotonic() - began)
            if ahead > 0.01:
                producer.poll(ahead)
                progress(sent)
    left = producer.flush(60)
    if left or failed:
        raise SourceError(
            f"{where}: {left or len(failed)} records were not acknowledged by Kafka ({failed[0] if failed else 'timeout'})"
        )
    return sent
