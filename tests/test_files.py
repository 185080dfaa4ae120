"""Landing files as they come: cut short, mislabelled, written again, of any name, in a directory that is moved."""

import gzip
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.ingest.writer import BronzeWriter
from pipelines.jobs.ingest import ingest
from pipelines.jobs.reland import report_reland, run_reland
from pipelines.jobs.reporting import Lines
from pipelines.model.errors import RejoinError, SourceError
from tests import oracle
from tests.builders import play, shown
from tests.replay import Replay

pytestmark = pytest.mark.slow

NAMES = [
    "events-2026-01-10T10:00:00Z.json",
    "{a}[b]*?.jsonl",
    "100%25 done+ö.json",
    "back\\slash.json",
    "new\nline.json",
    "sub dir/a.json",
]


def events(numbers: range) -> tuple[list[Any], list[Any]]:
    return [shown(f"i{n}", f"10:{n:02d}") for n in numbers], [play(f"p{n}", f"10:{n:02d}") for n in numbers]


def text(lines: list[Any]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def ingested(pipeline: Replay) -> list[str]:
    said: list[str] = []
    ingest(pipeline.lake, pipeline.config, once=True, say=Lines(echo=said.append))
    return said


def unread(pipeline: Replay) -> list[str]:
    return [finding.problem for finding in pipeline.status().findings if "have not been read" in finding.problem]


def assert_right(pipeline: Replay, playbacks: list[Any], impressions: list[Any]) -> None:
    pipeline.join()
    pipeline.settle(everything=True)
    assert unread(pipeline) == []
    assert pipeline.attributed() == oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert len(pipeline.rows("playbacks")) == len(playbacks)
    run = pipeline.reconcile()
    assert run.verdict == "agrees", run.findings


def test_files_that_cannot_be_read_are_named_and_read_once_they_are_mended(replay: Callable[..., Replay]) -> None:
    pipeline, (impressions, playbacks) = replay(), events(range(16))
    landing = pipeline.root / "landing" / "playbacks"
    pipeline.land("impressions", impressions)
    cut, label, late = playbacks[4:8], playbacks[8:12], playbacks[12:]
    put(landing / "cut.json.gz", gzip.compress(text([*cut, {"playback_id": None}]))[:-20])
    put(landing / "label.json.gz", text(label))
    for n, event in enumerate(playbacks[:4]):
        put(landing / f"good-{n}.json", text([event]))
    said = ingested(pipeline)
    assert said[-1] == "playbacks: 6 read = 4 accepted (0 late) + 2 quarantined (unreadable_file 2)"
    assert (
        len([line for line in said if "cut.json.gz cannot be read (" in line and "label.json.gz cannot be read (" in line]) == 1
    )
    details = {row["source"].rpartition("/")[2]: row["detail"] for row in pipeline.rows("quarantine")}
    assert sorted(details) == ["cut.json.gz", "label.json.gz"]
    assert "not a gzip file" in details["label.json.gz"]
    found = pipeline.reconcile()
    assert found.verdict == "differs"
    assert "playbacks: 2 landing files cannot be read" in str(found.audits[0].findings[0])
    [finding] = [f for f in pipeline.status().findings if "cannot be read" in f.problem]
    assert "rejoin reland playbacks" in finding.remedy

    # One is mended, and read by the next ingest: what is wrong in it goes to quarantine. The other is relanded, once.
    put(landing / "cut.json.gz", gzip.compress(text([*cut, {"playback_id": None}])))
    said = ingested(pipeline)
    read = "1 files that could not be read have been: 4 rows landed, 1 quarantined"
    assert len([line for line in said if read in line and "label.json.gz cannot be read" in line]) == 1, said
    left = pipeline.rows("quarantine", "relanded_at IS NULL")
    assert sorted(row["reason"] for row in left) == ["missing_required", "unreadable_file"]
    assert [finding.what for finding in pipeline.reconcile().findings] == ["playbacks: 1 landing files cannot be read"]
    put(landing / "label.json.gz", gzip.compress(text(label)))
    assert "1 files that could not be read have been: 4 rows" in report_reland("playbacks", *run_reland(*_of(pipeline)))
    put(landing / "late.json", text(late))
    assert [problem.partition(" in ")[0] for problem in unread(pipeline)] == ["playbacks: 1 files"]
    assert ingested(pipeline)[-1].startswith("playbacks: 4 read")
    assert "nothing to do" in report_reland("playbacks", *run_reland(*_of(pipeline)))
    assert_right(pipeline, playbacks, impressions)


def _of(pipeline: Replay) -> tuple[Any, Any, str]:
    return pipeline.lake, pipeline.config, "playbacks"


def test_files_of_any_name_in_a_directory_of_any_name_that_is_moved(replay: Callable[..., Replay]) -> None:
    pipeline, (impressions, playbacks) = replay(), events(range(len(NAMES) + 3))
    first = pipeline.root / "la{nd,s}[1] ü%20"
    pipeline.reconfigure(f"streams.playbacks.source.path={json.dumps(str(first))}")
    with pytest.raises(SourceError, match="does not exist; create it"):
        pipeline.ingest()
    pipeline.land("impressions", impressions)
    for name, event in zip(NAMES, playbacks, strict=False):
        put(first / name, text([event, "{"]))
    put(first / "cut.json.gz", gzip.compress(text(playbacks[-3:-2]))[:-9])
    rejected = len(NAMES)
    judged = f"{2 * rejected + 1} read = {rejected} accepted (0 late) + {rejected + 1} quarantined"
    assert judged in ingested(pipeline)[-1]

    # Moved: nothing lands twice. Of a file of a name that was there what is new lands, for it is another one.
    second = pipeline.root / "moved"
    first.rename(second)
    pipeline.reconfigure(f"streams.playbacks.source.path={second}/../moved/")
    put(second / NAMES[0], text([playbacks[0], playbacks[-1]]))
    put(second / "new.json", text([playbacks[-2]]))
    assert ingested(pipeline)[-1].startswith("playbacks: 2 read = 2 accepted")
    assert ingested(pipeline)[-1].startswith("playbacks: 0 read")

    # Once more, to a directory within that; the file that could not be read is mended there, and read.
    third = second / "within"
    first.mkdir()
    for path in [*second.iterdir()]:
        path.rename(first / path.name)
    first.rename(third)
    pipeline.reconfigure(f"streams.playbacks.source.path={third}")
    put(third / "cut.json.gz", gzip.compress(text(playbacks[-3:-2])))
    said = ingested(pipeline)
    read = "1 files that could not be read have been: 1 rows landed, 0 quarantined"
    assert len([line for line in said if read in line]) == 1, said
    assert said[-1].startswith("playbacks: 0 read")
    pipeline.lose_checkpoint("ingest-playbacks")
    assert ingested(pipeline)[-1].startswith("playbacks: 0 read")
    assert len(pipeline.rows("quarantine")) == rejected + 1
    assert_right(pipeline, playbacks, impressions)
    assert "nothing to do" in report_reland("playbacks", *run_reland(*_of(pipeline)))


def test_files_that_change_or_vanish_after_they_were_planned(
    replay: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, (impressions, playbacks) = replay(), events(range(8))
    landing = pipeline.root / "landing" / "playbacks"
    pipeline.land("impressions", impressions)
    put(landing / "growing.json", text(playbacks[:2]) + b'{"playback_id": "p')
    put(landing / "gone.json", text(playbacks[2:4]))

    def dies(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RejoinError, match="killed"):
        patch.setattr(BronzeWriter, "_land", dies)
        pipeline.ingest()
    gone = landing / "gone.json"
    kept = gone.read_bytes()
    gone.unlink()
    pipeline.ingest()
    put(landing / "growing.json", text(playbacks[:2]) + text(playbacks[4:]) + b"{")
    os.utime(landing / "growing.json", (4e9, 4e9))
    found = pipeline.reconcile()
    assert found.verdict == "differs"
    said = [str(each) for each in found.audits[0].findings]
    assert [line for line in said if "1 landing files were written again after ingest had read them" in line], said
    assert [line for line in said if "1 landing files that ingest has read have no row" in line], said
    put(gone, kept)
    os.utime(landing / "growing.json")
    report = report_reland("playbacks", *run_reland(*_of(pipeline)))
    assert "6 rows landed again; 1 lines quarantined of files that were written again" in report
    assert "nothing to do" in report_reland("playbacks", *run_reland(*_of(pipeline)))
    assert_right(pipeline, playbacks, impressions)
