"""The whole way from a real Kafka broker: each record lands once, whatever happens to broker, query and checkpoint."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.errors import RejoinError, SourceError
from pipelines.generate.broker import Broker, local_broker
from pipelines.kafka_client import partition_count
from tests import oracle
from tests.builders import play, shown
from tests.kafka_replay import KafkaReplay

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

WINDOW = timedelta(hours=6)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with local_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def kafka(spark: SparkSession, tmp_path: Path, broker: Broker) -> Callable[..., KafkaReplay]:
    return lambda *overrides: KafkaReplay(spark, tmp_path / "lake", broker, overrides)


def day(first: int, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A minute apart, some keys null, some playbacks without an impression."""
    who = [f"w{n % 7}" if n % 11 else None for n in range(first, first + count)]
    at = [f"{10 + n // 60:02d}:{n % 60:02d}" for n in range(first, first + count)]
    impressions = [shown(f"i{first + k}", at[k], who=who[k]) for k in range(count)]
    playbacks = [play(f"p{first + k}", f"{at[k]}:30", who=who[k] if k % 5 else "nobody") for k in range(count)]
    return impressions, playbacks


POISON = [
    None,
    "",
    "not json",
    "[1, 2]",
    '{"playback_id": "cut',
    b"\xff\xfe\x00 not utf-8",
    b'{"playback_id": "x", "event_time": "2026-01-10T10:00:00Z", "device": "\xc3"}',
    '{"playback_id": null, "event_time": "2026-01-10T10:00:00Z"}',
    '{"playback_id": "x", "event_time": "yesterday"}',
    '{"playback_id": "x", "event_time": "2999-01-01T00:00:00Z"}',
    '{"playback_id": "x", "event_time": 1767952800}',
    '{"playback_id": "x", "event_time": NaN}',
    '{"playback_id": "x", "event_time": "2026-01-10T10:00:00Z", "seconds_watched": 1e400}',
    '{"playback_id": "x", "event_time": "2026-01-10T10:00:00Z", "seconds_watched": 99999999999}',
    '{"playback_id": {"a": 1}, "event_time": "2026-01-10T10:00:00Z"}',
    '{"a":' * 2000 + "1" + "}" * 2000,
    "x" * 1_000_000,
    '{"playback_id": "' + "y" * 2_000_000 + '", "event_time": "2026-01-10T10:00:00Z"}',
]


def test_from_topics_to_rows_with_poison_restarts_and_a_lost_checkpoint(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka("streams.impressions.source.max_offsets_per_trigger=20")
    impressions: list[Any] = []
    playbacks: list[Any] = []
    for first in (0, 30, 60):
        more = day(first, 30)
        impressions += more[0]
        playbacks += more[1]
        pipeline.wave(more[0], [*more[1], *POISON] if first == 30 else more[1])
        pipeline.join()
        pipeline.settle()
        if first == 30:
            pipeline.lose_checkpoint("ingest-playbacks")
            pipeline.lose_checkpoint("ingest-impressions")
    pipeline.assert_each_record_landed_once()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=WINDOW)
    assert pipeline.dropped() == 0
    assert pipeline.reconcile().verdict == "agrees"
    landed = pipeline.rows("playbacks")
    assert {r["source"] for r in landed} == {pipeline.source("playbacks").topic}
    assert all(r["source_time"] is not None for r in landed)

    rejected = {(r["source_partition"], r["source_offset"]): r for r in pipeline.rows("quarantine")}
    assert len(rejected) == len(POISON)
    reasons = [r["reason"] for r in rejected.values()]
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        "tombstone": 1,
        "not_utf8": 2,
        "not_json": 7,
        "missing_required": 1,
        "unparseable_time": 1,
        "future_time": 1,
        "implausible_time": 1,
        "wrong_type": 3,
        "oversize": 1,
    }
    by_reason = {r["reason"]: r["payload"] for r in rejected.values()}
    assert by_reason["tombstone"] is None
    assert len(by_reason["oversize"]) > 2_000_000


def test_a_broker_that_goes_away_and_comes_back(kafka: Callable[..., KafkaReplay], broker: Broker) -> None:
    pipeline = kafka()
    impressions, playbacks = day(0, 20)
    pipeline.wave(impressions, playbacks)
    broker.stop()
    with pytest.raises(SourceError, match="no answer from Kafka"):
        pipeline.ingest()
    broker.start()
    more = day(20, 20)
    pipeline.wave(*more)
    pipeline.settle(everything=True)
    pipeline.assert_each_record_landed_once()
    assert pipeline.attributed() == oracle.attribute(playbacks + more[1], impressions + more[0], window=WINDOW)


def test_a_topic_that_is_not_there_is_one_clear_line(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka()
    missing = pipeline.source("playbacks").model_copy(update={"topic": "nowhere"})
    with pytest.raises(SourceError, match=r"streams.playbacks.source.topic: nowhere does not exist at 127.0.0.1"):
        partition_count(missing, "streams.playbacks.source")


def test_records_that_kafka_has_deleted_stop_the_query(kafka: Callable[..., KafkaReplay], broker: Broker) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    pipeline = kafka()
    pipeline.wave(*day(0, 20))
    impressions, playbacks = day(20, 20)
    pipeline.send("impressions", impressions)
    pipeline.send("playbacks", playbacks)
    topic = pipeline.source("playbacks").topic
    gone = [TopicPartition(topic, p, end - 1) for p, end in pipeline.ends("playbacks").items() if end > 1]
    admin = AdminClient({"bootstrap.servers": broker.servers})
    for future in admin.delete_records(gone).values():
        future.result(30)
    with pytest.raises(RejoinError, match="playbacks"):
        pipeline.ingest()
