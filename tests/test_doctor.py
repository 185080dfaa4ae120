"""`rejoin doctor` on what waits in landing directories."""

import gzip
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.jobs import doctor
from tests.builders import play, shown
from tests.replay import Replay


@pytest.fixture
def pipeline(replay: Callable[..., Replay]) -> Replay:
    made = replay()
    made.land("impressions", [shown("a", "10:00")])
    return made


def said(pipeline: Replay, about: str) -> str:
    """The findings about a stream's files, as they are printed."""
    findings = map(str, doctor.examine(lambda: pipeline.config, lambda _: pipeline.lake))
    return "\n".join(finding for finding in findings if about in finding.partition("\n")[0])


def plays(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{**play(f"p{n}", "10:00"), **more} for n in range(count)]


def test_lines_that_pass(pipeline: Replay) -> None:
    pipeline.land("playbacks", plays(2))
    assert said(pipeline, "playbacks: tried") == (
        "ok    playbacks: tried the newest 2 lines, of 1 files: 2 read = 2 accepted + 0 quarantined"
    )


def test_refused_lines_by_reason_with_place_cause_and_remedy_but_no_value(pipeline: Replay) -> None:
    renamed = {**play("p9", "10:00"), "playbackId": "secret"}
    del renamed["playback_id"]
    pipeline.land("playbacks", [*plays(4), {**play("p8", "10:00"), "seconds_watched": "secret, got it"}, "{secret", renamed])
    found = said(pipeline, "playbacks: tried")
    assert found.startswith("note  playbacks: tried the newest 7 lines, of 1 files: 7 read = 4 accepted + 3 quarantined")
    assert "wrong_type, e.g. file-0002.jsonl line 5: seconds_watched must be INT" in found
    assert "not_json, e.g. file-0002.jsonl line 6: not one JSON object on the line" in found
    assert "missing_required, e.g. file-0002.jsonl line 7: playback_id is absent (in no column: playbackId)" in found
    assert found.endswith("for what has been read: `rejoin reland playbacks --quarantine`")
    assert "secret" not in found


def test_a_key_of_a_map_is_not_said(replay: Callable[..., Replay]) -> None:
    columns = "playback_id STRING, event_time TIMESTAMP, profile_id STRING, title_id STRING, m MAP<STRING, INT>"
    pipeline = replay(f"streams.playbacks.schema='{columns}'")
    pipeline.land("playbacks", plays(1, m={"secret": "x"}))
    found = said(pipeline, "playbacks: tried")
    assert "m[...] must be INT" in found
    assert "secret" not in found


def test_a_stream_that_is_mostly_refused_is_broken(pipeline: Replay) -> None:
    pipeline.land("playbacks", [*plays(1), *plays(2, event_time="yesterday")])
    assert said(pipeline, "playbacks: tried").startswith("FAIL  playbacks: tried the newest 3 lines")
    pipeline.land("playbacks", plays(1))
    assert said(pipeline, "playbacks: tried").startswith("note  playbacks: tried the newest 4 lines, of 2 files")


def test_bytes_are_judged_as_ingest_does(pipeline: Replay) -> None:
    (pipeline.root / "landing/playbacks/a.jsonl").write_bytes(b'{"playback_id": "\xff"}\n\n \t\n{"playback_id": "long')
    (pipeline.root / "landing/playbacks/b.json").write_bytes("\ufeff{}".encode("utf-16"))
    found = said(pipeline, "playbacks: tried")
    pipeline.ingest()
    reasons = sorted(row["reason"] for row in pipeline.rows("quarantine"))
    assert reasons == ["not_json", "not_utf8", "not_utf8"]
    assert "3 read = 0 accepted + 3 quarantined (not_utf8 2, not_json 1)" in found


def test_only_the_newest_lines_are_looked_at(pipeline: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MOST_LINES", 3)
    pipeline.land("playbacks", ["old and broken"] * 5)
    pipeline.land("playbacks", plays(2))
    assert "the newest 3 lines, of 2 files: 3 read = 2 accepted + 1 quarantined" in said(pipeline, "playbacks: tried")


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_tried(pipeline: Replay) -> None:
    cut = gzip.compress(b"".join(b'{"a": %d}\n' % n for n in range(9_999)))[:-200]
    (pipeline.root / "landing/playbacks/cut.jsonl.gz").write_bytes(cut)
    (pipeline.root / "landing/playbacks/none.json.gz").write_bytes(b"{}\n")
    pipeline.land("playbacks", plays(1))
    found = said(pipeline, "cannot be read")
    assert found.count("FAIL  playbacks: ") == 2
    assert "cut.jsonl.gz cannot be read (Compressed file ended" in found
    assert "none.json.gz cannot be read (Not a gzipped file" in found
    assert found.count("then `rejoin reland playbacks` (docs/files.md)") == 2
    assert "playbacks: tried" in said(pipeline, "playbacks: tried")


def test_what_is_not_there_or_not_read(pipeline: Replay) -> None:
    folder = pipeline.root / "landing/playbacks"
    assert said(pipeline, "playbacks: no event").startswith("note  playbacks: no event in ")
    (folder / "events.csv").write_text("a,b\n")
    (folder / ".hidden.json").write_text("{}")
    found = said(pipeline, "streams.playbacks.source.path")
    assert found.startswith("note  streams.playbacks.source.path: 1 files are not read, e.g. events.csv; rename")
    shutil.rmtree(folder)
    assert said(pipeline, "streams.playbacks.source.path").startswith("FAIL")
    assert said(pipeline, "playbacks: ") == ""
