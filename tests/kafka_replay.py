"""A pipeline whose streams come from Kafka topics of one broker; tells what each topic holds, for the oracle."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from pyspark.sql import SparkSession

from pipelines.config.sources import KafkaSource
from pipelines.demo.broker import Broker
from pipelines.kafka.client import create_topic, produce
from tests.builders import play, shown
from tests.replay import Replay


def day(first: int, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A minute apart, some keys null, some playbacks without an impression."""
    who = [f"w{n % 7}" if n % 11 else None for n in range(first, first + count)]
    at = [f"{10 + n // 60:02d}:{n % 60:02d}" for n in range(first, first + count)]
    impressions = [shown(f"i{first + k}", at[k], who=who[k]) for k in range(count)]
    playbacks = [play(f"p{first + k}", f"{at[k]}:30", who=who[k] if k % 5 else "nobody") for k in range(count)]
    return impressions, playbacks


class KafkaReplay(Replay):
    """`Replay` with one topic a stream; topics are named after the directory, so that tests share a broker."""

    def __init__(self, spark: SparkSession, root: Path, broker: Broker, overrides: Iterable[str] = ()) -> None:
        self.broker = broker
        topics = {name: f"{root.parent.name}-{root.name}-{name}" for name in ("impressions", "playbacks")}
        sources = [
            f"streams.{name}.source={{format: kafka, bootstrap_servers: '{broker.servers}', topic: {topic}}}"
            for name, topic in topics.items()
        ]
        self.overrides = [f"lake={root}/lake", *sources, *overrides]
        super().__init__(spark, root, self.overrides)
        for name in topics:
            create_topic(self.source(name), name, 2)

    def source(self, stream: str) -> KafkaSource:
        source = self.config.streams[stream].source
        assert isinstance(source, KafkaSource)
        return source

    def send(self, stream: str, events: Iterable[dict[str, Any] | str | bytes | None]) -> None:
        """Produce events (or raw values), keyed by profile where there is one."""
        records = []
        for event in events:
            key = event.get("profile_id") if isinstance(event, dict) else None
            records.append((key, json.dumps(event) if isinstance(event, dict) else event))
        produce(self.source(stream), stream, records)

    def transaction(self, stream: str, events: Iterable[dict[str, Any]], *, commit: bool = True) -> None:
        """Produce events in a transaction, which ends with a marker in each partition: an offset without a record."""
        producer = Producer({"bootstrap.servers": self.broker.servers, "transactional.id": self.source(stream).topic})
        producer.init_transactions(30)
        producer.begin_transaction()
        for number, event in enumerate(events):
            producer.produce(self.source(stream).topic, json.dumps(event), partition=number % 2)
        producer.flush(30)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)

    def wave(self, impressions: Iterable[Any] = (), playbacks: Iterable[Any] = ()) -> None:
        self.send("impressions", impressions)
        self.send("playbacks", playbacks)
        self.ingest()

    def ends(self, stream: str) -> dict[int, int]:
        """The offset after the last record of each partition, as the broker says."""
        topic = self.source(stream).topic
        consumer = Consumer({"bootstrap.servers": self.broker.servers, "group.id": "tests"})
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}
        finally:
            consumer.close()

    def held(self, stream: str) -> dict[tuple[int, int], bytes | None]:
        """The value of each record of the topic, by partition and offset, as another client reads it."""
        topic, ends = self.source(stream).topic, self.ends(stream)
        consumer = Consumer(
            {"bootstrap.servers": self.broker.servers, "group.id": "tests", "fetch.message.max.bytes": 64 * 2**20}
        )
        found: dict[tuple[int, int], bytes | None] = {}
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
            while len(found) < sum(ends.values()):
                for message in consumer.consume(1000, timeout=10):
                    assert message.error() is None, message.error()
                    found[message.partition(), message.offset()] = message.value()
        finally:
            consumer.close()
        return found

    def kept(self, stream: str) -> dict[tuple[int, int], bytes | None]:
        """As `held`, of a topic that lacks records."""
        topic, ends = self.source(stream).topic, self.ends(stream)
        settings = {"bootstrap.servers": self.broker.servers, "group.id": "tests", "enable.partition.eof": True}
        consumer, found, ended = Consumer(settings), dict[tuple[int, int], bytes | None](), set[int]()
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
            while len(ended) < len(ends):
                for message in consumer.consume(1000, timeout=1):
                    if message.error():
                        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                        ended.add(message.partition())
                    else:
                        found[message.partition(), message.offset()] = message.value()
        finally:
            consumer.close()
        return found

    def compact(self, stream: str) -> None:
        """Have the broker keep of each key the last record, but for the segment that is written to: a new one ten times a
        second."""
        settings = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
        entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.source(stream).topic, incremental_configs=entries)
        admin = AdminClient({"bootstrap.servers": self.broker.servers})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def delete_records(self, stream: str, before: dict[int, int]) -> None:
        """As retention does: the partitions begin at these offsets then."""
        topic = self.source(stream).topic
        admin = AdminClient({"bootstrap.servers": self.broker.servers})
        for future in admin.delete_records([TopicPartition(topic, p, offset) for p, offset in before.items()]).values():
            future.result(30)

    def make_anew(self, stream: str) -> None:
        """Delete the topic and create one of the same name."""
        topic = self.source(stream).topic
        admin = AdminClient({"bootstrap.servers": self.broker.servers})
        admin.delete_topics([topic])[topic].result(30)
        deadline = time.monotonic() + 30
        while topic in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        create_topic(self.source(stream), stream, 2)

    def offsets(self, stream: str) -> dict[int, list[int]]:
        """The offsets in bronze and quarantine, by partition, sorted."""
        found: dict[int, list[int]] = {p: [] for p in self.ends(stream)}
        for row in (*self.rows(stream), *self.rows("quarantine", f"stream = '{stream}'")):
            found[row["source_partition"]].append(row["source_offset"])
        return {partition: sorted(offsets) for partition, offsets in found.items()}

    def assert_each_record_landed_once(self) -> None:
        for stream in ("impressions", "playbacks"):
            assert self.offsets(stream) == {p: list(range(end)) for p, end in self.ends(stream).items()}
