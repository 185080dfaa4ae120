"""Many records through a real broker: bad ones by the thousand, and a backlog in bounded micro-batches."""

import base64
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests import oracle, poison
from tests.builders import play, shown
from tests.kafka_replay import KafkaReplay

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

_COPIES = 15
_HUGE = 100_000


def original(row: dict[str, Any]) -> bytes | None:
    """The record's value from its row in quarantine."""
    if row["payload"] is None:
        return None
    return base64.b64decode(row["payload"]) if row["reason"] == "not_utf8" else str(row["payload"]).encode()


def test_a_thousand_bad_records_are_each_judged_by_the_rule_and_kept_byte_for_byte(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka("streams.playbacks.source.max_offsets_per_trigger=500", f"streams.playbacks.schema={poison.SCHEMA}")
    values: list[Any] = [play(f"good{n}", f"10:{n % 60:02d}") for n in range(500)]
    verdicts: dict[bytes | None, str | None] = {}
    for kind, (_, reason) in poison.KINDS.items():
        for _ in range(_COPIES if len(poison.value(kind, 0) or "") < _HUGE else 2):
            value = poison.value(kind, len(values))
            verdicts[value.encode() if isinstance(value, str) else value] = reason
            values.append(value)
    assert len(values) > 1500
    random.Random(7).shuffle(values)
    pipeline.wave([], values)

    sent = pipeline.held("playbacks")
    assert len(sent) == len(values)
    landed = [(r["source_partition"], r["source_offset"]) for r in pipeline.rows("playbacks")]
    rejected = {(r["source_partition"], r["source_offset"]): r for r in pipeline.rows("quarantine")}
    assert len(landed) + pipeline.read("quarantine").count() == len(sent)
    assert {*landed, *rejected} == set(sent)
    assert {place: original(row) for place, row in rejected.items()} == {place: sent[place] for place in rejected}
    assert {place: row["reason"] for place, row in rejected.items()} == {
        place: verdicts[value] for place, value in sent.items() if verdicts.get(value) is not None
    }


def test_a_backlog_is_read_in_micro_batches_of_bounded_size(kafka: Callable[..., KafkaReplay]) -> None:
    most = 8_000
    pipeline = kafka(*(f"streams.{name}.source.max_offsets_per_trigger={most}" for name in ("impressions", "playbacks")))
    chance = random.Random(7)

    def at() -> str:
        return f"{chance.randrange(10, 20)}:{chance.randrange(60):02d}:{chance.randrange(60):02d}"

    impressions = [shown(f"i{n}", at(), who=f"w{chance.randrange(300)}") for n in range(27_000)]
    playbacks = [play(f"p{n}", at(), who=f"w{chance.randrange(330)}") for n in range(3_000)]
    impressions.sort(key=lambda event: str(event["event_time"]))
    playbacks.sort(key=lambda event: str(event["event_time"]))
    pipeline.wave(impressions, playbacks)
    read = [row["rows_in"] for row in pipeline.rows("ledger", "query = 'ingest:impressions'")]
    assert sum(read) == len(impressions)
    assert max(read) <= most
    pipeline.join()
    pipeline.settle(everything=True)
    pipeline.assert_each_record_landed_once()
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert pipeline.dropped() == 0
