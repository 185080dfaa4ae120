"""A generated day through Avro topics lands as the same day does through files."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.demo.broker import local_broker
from pipelines.demo.generator import DayModel
from pipelines.jobs.doctor import examine
from pipelines.jobs.generate import run_generate
from pipelines.model.errors import ConfigError
from tests.kafka_replay import KafkaReplay
from tests.replay import Replay

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

TIME = {"type": "long", "logicalType": "timestamp-micros"}
FIELDS = {
    "impressions": {
        **{"impression_id": "string", "event_time": TIME, "profile_id": "string", "title_id": "string", "row_id": "string"},
        **{"position": "int", "device": "string", "model_version": "string"},
    },
    "playbacks": {
        **{"playback_id": "string", "event_time": TIME, "profile_id": "string", "title_id": "string", "device": "string"},
        "seconds_watched": "int",
    },
}
MODEL = DayModel(
    day=date(2026, 1, 10), seed=3, impressions=400, playbacks=150, malformed_share=0.05, late_share=0.05, future_share=0.05
)


def values(root: Path) -> list[str]:
    """The overrides for Avro, with a schema file each."""
    found = []
    for name, fields in FIELDS.items():
        file = root / f"{name}.avsc"
        record = {"type": "record", "name": name, "fields": [{"name": n, "type": ["null", t]} for n, t in fields.items()]}
        file.write_text(json.dumps(record))
        found.append(f"streams.{name}.source.value={{format: avro, schema_file: {file}, framing: confluent, schema_id: [7, 8]}}")
    return found


def test_a_day_through_avro_topics_equals_the_day_through_files(
    spark: SparkSession, tmp_path: Path, replay: Callable[..., Replay]
) -> None:
    files = replay()
    run_generate(files.config, MODEL, 2, None)
    files.ingest()
    with local_broker(tmp_path / "broker") as broker:
        kafka = KafkaReplay(spark, tmp_path / "avro", broker, values(tmp_path))
        written = run_generate(kafka.config, MODEL, 2, None)
        kafka.ingest()
        kafka.send("playbacks", [None, b"\0\0\0\0\7 cut", b"no magic", b"\0\0\0\0\1 of another schema"])
        kafka.lose_checkpoint("ingest-playbacks")
        kafka.ingest()
        kafka.assert_each_record_landed_once()

        own = {name: list(fields) for name, fields in FIELDS.items()}
        for name, columns in own.items():
            ours, theirs = (sorted(tuple(row[c] for c in columns) for row in pipeline.rows(name)) for pipeline in (kafka, files))
            assert ours == theirs
            assert len(ours) > 100
        rejected = kafka.rows("quarantine")
        assert sum(count for count, _ in written.values()) + 4 == len(rejected) + sum(len(kafka.rows(name)) for name in own)
        assert {row["reason"] for row in rejected} == {"tombstone", "not_avro", "missing_required", "future_time"}
        assert any(row["detail"] == "has schema id 1; the schema's is 7 or 8 (value.schema_id)" for row in rejected)

        (tmp_path / "playbacks.avsc").write_text("{")
        with pytest.raises(ConfigError, match="streams.playbacks.source.value.schema_file: .* is not an Avro schema"):
            kafka.ingest()
        findings = examine(lambda: kafka.config, lambda _: kafka.lake)
        assert ["schema_file" in finding.what for finding in findings if not finding.ok] == [True]
