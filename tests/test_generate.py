"""The generated day: believable, and the same for the same seed, byte for byte."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path

from pipelines.config.load import load_config
from pipelines.demo.generator import DayModel
from pipelines.jobs.generate import run_generate

CONF = Path(__file__).parent.parent / "conf"
MODEL = DayModel(day=date(2026, 1, 1), impressions=4000, playbacks=1500)


def write(tmp_path: Path, name: str, model: DayModel = MODEL, conf: str = "playback.yml", **options: bool) -> dict[str, bytes]:
    run_generate(load_config(CONF / conf), model, 6, tmp_path / name, **options)
    return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path, "a")
    assert first == write(tmp_path, "b")
    assert write(tmp_path, "c", compress=True) == write(tmp_path, "d", compress=True)
    other = DayModel(day=MODEL.day, impressions=4000, playbacks=1500, seed=8)
    assert first != write(tmp_path, "e", other)


def test_a_day_has_what_a_day_has(tmp_path: Path) -> None:
    files = write(tmp_path, "a")
    assert len(files) <= 12
    events, broken = [], 0
    for name, content in files.items():
        for line in content.decode().splitlines():
            try:
                events.append((name.split("/")[0], json.loads(line)))
            except json.JSONDecodeError:
                broken += 1
    playbacks = [e for stream, e in events if stream == "playbacks" and "playback_id" in e]
    ids = [e["playback_id"] for e in playbacks]
    assert 0 < broken < 20
    assert len(ids) > len(set(ids)), "some are sent twice"
    assert any(str(e["event_time"]) > "2030" for _, e in events if e.get("event_time")), "some clocks are ahead"
    shown: dict[tuple[str, str], list[str]] = {}
    for stream, event in events:
        if stream == "impressions" and isinstance(event.get("device"), str):
            shown.setdefault((event["profile_id"], event["title_id"]), []).append(event["event_time"])
    assert max(len(times) for times in shown.values()) > 3, "a title is shown to a profile several times"
    gaps = []
    for event in playbacks:
        at = str(event["event_time"])
        before = [t for t in shown.get((event["profile_id"], event["title_id"]), []) if t <= at]
        if before and at < "2030" and at[:2] == "20":
            gaps.append(datetime.fromisoformat(at[:23]) - datetime.fromisoformat(max(before)[:23]))
    gaps.sort()
    assert 0.8 < len(gaps) / len(playbacks) < 1, "a tenth comes from search"
    assert timedelta(seconds=60) < gaps[len(gaps) // 2] < timedelta(minutes=6)


def test_a_day_may_be_short(tmp_path: Path) -> None:
    files = write(
        tmp_path, "a", DayModel(day=MODEL.day, hours=3, impressions=500, playbacks=100, malformed_share=0, future_share=0)
    )
    lines = [json.loads(line) for name, content in files.items() if "impressions" in name for line in content.splitlines()]
    times = sorted(line["event_time"] for line in lines)
    assert times[len(times) // 100][11:13] == "00"
    assert "02" <= times[len(times) * 9 // 10][11:13] <= "03", "what follows an impression may come some minutes after"


def test_another_domain_needs_no_code(tmp_path: Path) -> None:
    files = write(tmp_path, "ads", conf="ads.yml")
    click = json.loads(files["clicks/wave-0002.jsonl"].decode().splitlines()[0])
    assert sorted(click) == ["campaign", "click_id", "clicked_at", "referrer", "visitor"]
    assert isinstance(click["campaign"], int)
