"""Records that Kafka no longer has: ingest stops, somebody accepts the gap, everything else lands once, and reconcile knows."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.jobs.accept_gap import accept_gap
from pipelines.model.errors import SourceError
from pipelines.reconcile.audit.offsets import Offsets
from tests import oracle
from tests.kafka_replay import KafkaReplay, day

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

WINDOW = timedelta(hours=6)


def accept(pipeline: KafkaReplay, *, really: bool = True) -> list[str]:
    return [str(gap) for gap in accept_gap(pipeline.lake, pipeline.config, "playbacks", really=really)]


def offsets_of(pipeline: KafkaReplay, stream: str = "playbacks") -> Offsets:
    pipeline.settle(everything=True)
    run = pipeline.reconcile()
    assert run.agrees
    return next(audit.offsets for audit in run.audits if audit.stream == stream)


def test_deleted_records_are_given_up_only_on_request_and_all_others_land_once(kafka: Callable[..., KafkaReplay]) -> None:
    # `latest` must not make a checkpoint of an accepted gap skip what Kafka still has.
    pipeline = kafka("streams.playbacks.source.starting_offsets=latest")
    pipeline.send("playbacks", ["lost before the first start"])
    pipeline.ingest()
    pipeline.wave(*day(0, 20))
    read = pipeline.ends("playbacks")
    pipeline.send("playbacks", day(20, 20)[1])
    lost = {p: end - 2 for p, end in pipeline.ends("playbacks").items()}
    assert all(lost[p] > read[p] for p in lost)
    pipeline.delete_records("playbacks", lost)
    for _ in range(2):
        with pytest.raises(
            SourceError,
            match=r"streams.playbacks.source: topic .* partition 0: offsets \d+ to \d+ are no longer in .*accept-gap playbacks`",
        ):
            pipeline.ingest()
        said = accept(pipeline, really=False)
    assert said == [
        f"partition {p}: offsets {read[p]} to {lost[p] - 1} are no longer in Kafka ({lost[p] - read[p]:,} records)"
        for p in (0, 1)
    ]
    assert accept(pipeline) == said
    assert accept(pipeline) == []
    pipeline.send("playbacks", day(40, 20)[1])
    pipeline.ingest()
    for partition, offsets in pipeline.offsets("playbacks").items():
        end = pipeline.ends("playbacks")[partition]
        first = offsets[0]
        assert offsets == [*range(first, read[partition]), *range(lost[partition], end)]
    given_up = sum(lost[p] - read[p] for p in lost)
    assert offsets_of(pipeline) == Offsets(partitions=2, given_up=given_up)
    assert "gap accepted playbacks: topic" in pipeline.status().to_text()

    # Retention goes on, and the checkpoint gets lost: what was accepted then is no gap now.
    pipeline.delete_records("playbacks", pipeline.ends("playbacks"))
    pipeline.send("playbacks", day(60, 6)[1])
    pipeline.ingest()
    before = pipeline.offsets("playbacks")
    for directory in Path(pipeline.lake.checkpoints).glob("ingest-playbacks*"):
        pipeline.lose_checkpoint(directory.name)
    pipeline.ingest()
    assert pipeline.offsets("playbacks") == before


def test_of_an_accepted_gap_only_what_has_not_landed_is_given_up(kafka: Callable[..., KafkaReplay]) -> None:
    pipeline = kafka()
    pipeline.wave(*day(0, 20))
    pipeline.wave(*day(20, 20))
    # A kill between the write of a micro-batch and its commit to the checkpoint; then Kafka loses it, and one more.
    commits = Path(pipeline.lake.checkpoint("ingest-playbacks")) / "commits"
    last = max(int(path.name) for path in commits.iterdir() if path.name.isdigit())
    for name in (f"{last}", f".{last}.crc"):
        (commits / name).unlink()
    landed = pipeline.ends("playbacks")
    pipeline.send("playbacks", day(40, 20)[1])
    pipeline.delete_records("playbacks", {p: end + 1 for p, end in landed.items()})
    accept(pipeline)
    pipeline.ingest()
    expected = {p: [*range(landed[p]), *range(landed[p] + 1, end)] for p, end in pipeline.ends("playbacks").items()}
    assert pipeline.offsets("playbacks") == expected
    assert offsets_of(pipeline) == Offsets(partitions=2, given_up=2)


@pytest.mark.parametrize("count", [6, 40], ids=["shorter than what has been read", "longer"])
def test_a_topic_made_anew_is_read_from_its_start(kafka: Callable[..., KafkaReplay], count: int) -> None:
    pipeline = kafka()
    impressions, playbacks = day(0, 20)
    pipeline.wave(impressions, playbacks)
    pipeline.make_anew("playbacks")
    more = day(20, count)[1]
    pipeline.send("playbacks", more)
    with pytest.raises(SourceError, match="it was made anew .*`rejoin accept-gap playbacks`"):
        pipeline.ingest()
    assert len(accept(pipeline)) == 2
    pipeline.ingest()
    assert offsets_of(pipeline) == Offsets(partitions=2)
    assert pipeline.attributed() == oracle.attribute(playbacks + more, impressions, window=WINDOW)
    again = day(60, 6)[1]
    pipeline.send("playbacks", again)
    pipeline.ingest()
    assert len(pipeline.rows("playbacks")) == len(playbacks + more + again)
    # Among the offsets of the new topic one that is missing shows, though the old one had it.
    pipeline.lake.spark.sql(
        f"DELETE FROM {pipeline.lake.identifier('playbacks')} WHERE playback_id = '{one_in_the_middle(pipeline, more + again)}'"
    )
    pipeline.settle(everything=True)
    offsets = {each.stream: each.offsets for each in pipeline.reconcile().audits}
    assert offsets["playbacks"] == Offsets(partitions=2, missing=1)


def one_in_the_middle(pipeline: KafkaReplay, events: list[dict[str, str]]) -> str:
    """An event of these that is neither the first nor the last of its partition."""
    ids = [event["playback_id"] for event in events]
    rows = [row for row in pipeline.rows("playbacks") if row["playback_id"] in ids]
    ends = pipeline.ends("playbacks")
    return str(next(r["playback_id"] for r in rows if 0 < r["source_offset"] < ends[r["source_partition"]] - 1))
