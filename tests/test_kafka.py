"""The whole way from a real Kafka broker: each record lands once, whatever happens to broker, query and checkpoint."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from pipelines.demo.broker import Broker
from pipelines.kafka.client import create_topic, partition_count, produce
from pipelines.model.errors import SourceError
from pipelines.reconcile.audit.offsets import Offsets
from tests import oracle
from tests.kafka_replay import KafkaReplay, day

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

WINDOW = timedelta(hours=6)


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

    pipeline.send("playbacks", day(90, 3)[1])
    status = pipeline.status()
    assert status.unread_records == {"impressions": 0, "playbacks": 3}
    assert [f.problem for f in status.findings if "its topic" in f.problem] == [
        "playbacks: 3 records of its topic have not been read"
    ]


def test_offsets_that_are_missing_or_twice_are_found(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka()
    pipeline.wave(day(0, 20)[0], [*day(0, 20)[1], "poison"])
    pipeline.join()
    pipeline.settle(everything=True)
    clean = {audit.stream: audit.offsets for audit in pipeline.reconcile().audits}
    assert clean["impressions"] == clean["playbacks"] == Offsets(partitions=2)
    table = pipeline.lake.identifier("impressions")
    ours = [r["source_offset"] for r in pipeline.rows("impressions", "source_partition = 0")]
    first, second, last = min(ours), min(ours) + 1, max(ours)
    assert second < last
    spark = pipeline.lake.spark
    spark.sql(f"INSERT INTO {table} SELECT * FROM {table} WHERE source_partition = 0 AND source_offset = {first}")
    spark.sql(f"DELETE FROM {table} WHERE source_partition = 0 AND source_offset = {second}")
    found = pipeline.reconcile()
    assert {audit.stream: audit.offsets for audit in found.audits}["impressions"] == Offsets(partitions=2, missing=1, twice=1)
    assert not found.agrees


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


def test_a_topic_that_several_create_at_once_is_made_once(kafka: Callable[..., KafkaReplay]) -> None:
    source = kafka().source("playbacks").model_copy(update={"topic": f"raced-{uuid.uuid4().hex}"})
    with ThreadPoolExecutor(8) as pool:
        for made in [pool.submit(create_topic, source, "here", 3) for _ in range(8)]:
            made.result()
    assert partition_count(source, "here") == 3


def test_progress_is_told_while_records_are_sent(kafka: Callable[..., KafkaReplay]) -> None:
    told: list[int] = []
    produce(kafka().source("playbacks"), "here", [(None, "x")] * 2500, progress=told.append)
    assert told == [1000, 2000]
