"""Topics with offsets that have no record: markers and aborted records of transactions, and what compaction removed. None of them
lands or is a loss; losses among them are found."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from pipelines.demo.broker import Broker
from pipelines.jobs.accept_gap import accept_gap
from pipelines.reconcile.audit.holes import Checked
from pipelines.reconcile.audit.offsets import Offsets, audit_offsets
from pipelines.reconcile.report.document import to_json
from pipelines.reconcile.report.text import to_text
from tests import oracle
from tests.builders import play, shown
from tests.kafka_replay import KafkaReplay, day

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


def audit(pipeline: KafkaReplay, last: Sequence[Checked]) -> Offsets:
    return audit_offsets(pipeline.lake, pipeline.lake.streams.outcome, pipeline.source("playbacks"), last)


def test_holes_of_transactions_are_told_from_losses(kafka: Callable[..., KafkaReplay], broker: Broker) -> None:
    pipeline = kafka()
    impressions, playbacks = day(0, 40)
    pipeline.send("impressions", impressions)
    # Ten records a transaction, and a marker in each of two partitions.
    pipeline.transaction("playbacks", playbacks[:10])
    pipeline.transaction("playbacks", day(100, 10)[1], commit=False)
    pipeline.ingest()
    pipeline.settle(everything=True)
    first = pipeline.reconcile()
    seen = next(each for each in first.audits if each.stream == "playbacks")
    assert (first.verdict, seen.offsets) == ("agrees", Offsets(partitions=2, holes=14))
    assert "; 14 offsets without a record" in to_text(first)
    jsonschema.validate(json.loads(to_json(first)), json.loads((ROOT / "docs" / "report.schema.json").read_text()))

    for number in (10, 20, 30):
        pipeline.transaction("playbacks", playbacks[number : number + 10])
        pipeline.transaction("playbacks", day(100, 10)[1], commit=False)
    pipeline.ingest()
    pipeline.settle(everything=True)
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    # One loss among offsets that Kafka has been asked about already, one among those that it has not.
    table = pipeline.lake.identifier("playbacks")
    pipeline.lake.spark.sql(f"DELETE FROM {table} WHERE playback_id IN ('p5', 'p25')")
    broker.stop()
    try:
        down = audit(pipeline, seen.offsets.checked)
    finally:
        broker.start()
    assert down == Offsets(partitions=2, missing=1, holes=14, unasked=43, why=down.why)
    said = [str(each) for each in replace(seen, offsets=down).findings]
    assert "43 Kafka offsets that ingest has read have no row, and Kafka was not asked about them" in said[-1]
    assert "(streams.playbacks.source: no answer from Kafka at" in said[-1]
    found = audit(pipeline, down.checked)
    assert found == Offsets(partitions=2, missing=2, holes=56)
    assert pipeline.reland("playbacks").rows == 2
    pipeline.settle(everything=True)

    # Retention takes the offsets: what was told of them is remembered.
    pipeline.delete_records("playbacks", pipeline.ends("playbacks"))
    assert audit(pipeline, found.checked) == Offsets(partitions=2, holes=56)
    # Without the reports it is not, and nobody can tell any more.
    shutil.rmtree(Path(pipeline.lake.root) / "reconciliations")
    forgotten = pipeline.reconcile()
    assert (forgotten.differences, forgotten.verdict) == (0, "differs")
    assert "playbacks: 56 Kafka offsets that ingest has read have no row, and Kafka no longer keeps them" in to_text(forgotten)
    assert len(accept_gap(pipeline.lake, pipeline.config, "playbacks", really=True)) == 2
    assert accept_gap(pipeline.lake, pipeline.config, "playbacks", really=True) == []
    unproven = next(each.offsets for each in forgotten.audits if each.stream == "playbacks")
    assert unproven == Offsets(partitions=2, unproven=56)
    assert audit(pipeline, unproven.checked) == Offsets(partitions=2, given_up=56)


def test_holes_of_a_compacted_topic_are_no_losses(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka()
    pipeline.compact("playbacks")
    impressions = [shown(f"i{n}", f"10:{n:02d}", who=f"w{n % 7}") for n in range(40)]
    playbacks = [play(f"p{n}", f"10:{n:02d}:30", who=f"w{n % 7}") for n in range(40)]
    pipeline.send("impressions", impressions)
    for number in range(0, 30, 10):
        pipeline.send("playbacks", playbacks[number : number + 10])
        time.sleep(0.2)  # the next record begins a segment, so that this one may be compacted
    deadline = time.monotonic() + 120
    while (left := len(pipeline.kept("playbacks"))) == 30:
        assert time.monotonic() < deadline, "the broker did not compact"
        time.sleep(0.5)
    pipeline.ingest()
    # Compacted further once it has landed.
    pipeline.send("playbacks", playbacks[30:])
    while len(pipeline.kept("playbacks")) >= left + 10:
        assert time.monotonic() < deadline, "the broker did not compact"
        time.sleep(0.5)
    pipeline.ingest()
    pipeline.settle(everything=True)
    report = pipeline.reconcile()
    landed = {row["playback_id"] for row in pipeline.rows("playbacks")}
    seen = next(each.offsets for each in report.audits if each.stream == "playbacks")
    assert 10 < len(landed) < 40
    assert (report.verdict, seen) == ("agrees", Offsets(partitions=2, holes=40 - len(landed)))
    expected = oracle.attribute([p for p in playbacks if p["playback_id"] in landed], impressions, window=timedelta(hours=6))
    assert pipeline.attributed() == expected
