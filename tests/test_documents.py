"""What README, tutorial and runbook tell a reader to type works, and every link of the documents leads somewhere."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.builders import play, shown
from tests.processes import PATIENCE_SECONDS, QUICK, REJOIN, ROOT, Command

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README, RUNBOOK, TUTORIAL = ROOT / "README.md", ROOT / "docs/runbook.md", ROOT / "docs/tutorial.md"

_PROGRAMS = r"(?:rejoin|\.venv/bin/rejoin|make|spark-submit|source|export|docker|kubectl)\b"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")

# Commands that never end, or need what the tests themselves stand on, with what runs them.
ELSEWHERE = {
    "make setup": ".ci/run",
    "make test": ".ci/run",
    "make demo-kafka": "tests/test_kafka.py",
    "source .venv/bin/activate": "scripts/setup",
    "spark-submit": "tests/test_submit.py",
    "rejoin run": "tests/test_run.py",
    "rejoin ingest": "tests/test_run.py",
    "rejoin join": "tests/test_run.py",
    "rejoin settle": "tests/test_run.py",
    "rejoin accept-gap playbacks": "tests/test_kafka_gaps.py",
    "rejoin --install-completion": "tests/test_completion.py",
}
SMALLER = {"make demo": "rejoin demo --impressions 300 --playbacks 100 --waves 1 --dir HERE/demo"}
PLACEHOLDERS = {"STREAM": "playbacks", "PLAYBACK_ID": "p1", "D": "2026-01-31"}


def commands_in(page: Path) -> list[str]:
    """The commands of a page in their order: of fenced and indented blocks, and those in backticks; without here-documents."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: list[tuple[int, str]] = []
    for block in _FENCE.finditer(text):
        if block[1] in ("sh", "bash"):
            found += [(block.start(), line) for line in block[2].replace("\\\n", " ").splitlines()]
    rest = _FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    for pattern in (rf"^ {{4,}}({_PROGRAMS}.*)$", r"`((?:rejoin|\.venv/bin/rejoin|make) [^`]+)`"):
        found += [(match.start(), match[1]) for match in re.finditer(pattern, rest, re.MULTILINE)]
    ordered = [line for _, line in sorted(found, key=lambda each: each[0])]
    lines = [line if "$(" in line else shlex.join(shlex.split(line, comments=True)) for line in ordered]
    return [line for line in lines if line]


def substituted(command: str) -> str:
    """As it is run here; whatever configuration it names, it is one."""
    words = re.sub(r" --conf (my|rejoin)\.yml", "", SMALLER.get(command, command)).split(" ")
    return " ".join(PLACEHOLDERS.get(word, word) for word in words)


def place_of(command: str) -> str | None:
    """The key of ELSEWHERE that a command is under."""
    first = command.split(" ", maxsplit=1)[0]
    return next((key for key in (command, first) if key in ELSEWHERE), None)


def test_every_command_is_run_here_or_elsewhere() -> None:
    typed = {substituted(command) for page in (README, RUNBOOK, TUTORIAL) for command in commands_in(page)}
    assert set(ELSEWHERE) <= {place_of(command) for command in typed}
    assert all((ROOT / place).exists() for place in ELSEWHERE.values())
    told = {substituted(command) for page in (README, RUNBOOK) for command in commands_in(page)}
    assert [line for line in told if place_of(line) is None and not re.match(r"(\.venv/bin/)?rejoin ", line)] == []


@pytest.mark.slow
def test_every_command_of_readme_and_runbook_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, in its order, over one lake, which they make. Paths are absolute: Spark is somewhere else."""
    monkeypatch.chdir(tmp_path)
    conf = tmp_path / "my.yml"
    conf.write_text(re.sub(r"\./(?=lake|landing)", f"{tmp_path}/", (ROOT / "conf/playback.yml").read_text()))
    ids = range(40)
    land("impressions", [shown(f"i{n}", f"2026-01-31T10:{n:02}:00Z", who=f"u{n}", what=f"t{n}") for n in ids])
    land("playbacks", [play(f"p{n}", f"2026-01-31T10:{n:02}:30Z", who=f"u{n}", what=f"t{n}") for n in ids], "nonsense")
    typed = [line for page in (README, RUNBOOK) for line in commands_in(page)]
    failed = {}
    for line in dict.fromkeys(map(substituted, typed)):
        if place_of(line) is None:
            _, *words = shlex.split(line.replace("HERE", str(tmp_path)))
            done = command(*words, *([] if words[0] == "init" else ["--conf", conf]))
            if done.returncode:
                failed[line] = done.stderr + done.stdout
    assert failed == {}


def land(stream: str, events: list[dict[str, Any]], *lines: str) -> None:
    file = Path("landing", stream, "1.jsonl")
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{line}\n" for line in [*map(json.dumps, events), *lines]))


@pytest.mark.slow
def test_the_tutorial_from_top_to_bottom(tmp_path: Path) -> None:
    """As written, by a shell; what it shows comes out, and the table is the oracle's."""
    blocks = [(block[1], block[2]) for block in _FENCE.finditer(TUTORIAL.read_text())]
    script = "".join(text for kind, text in blocks if kind == "sh")
    script = "".join(line for line in script.splitlines(True) if place_of(substituted(line.partition(" #")[0].strip())) is None)
    env = {**os.environ, **QUICK, "PATH": f"{REJOIN.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-eux", "-c", f"exec 2>&1\n{script}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=env,
        timeout=3 * PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    folder = tmp_path / "trips"
    came = {masked(line) for text in (done.stdout, (folder / "rejoin.yml").read_text()) for line in text.splitlines()}
    told = [line for kind, text in blocks if kind in ("text", "yaml") for line in text.splitlines()]
    assert [line for line in told if "..." not in line and line and masked(line) not in came] == [], done.stdout
    table = {row["booking"]: row for row in read(folder / "table.jsonl")}
    bookings = [{"booking": event.pop("booking_no", None), **event} for event in read(*folder.glob("landing/bookings/*"))]
    expected = oracle.attribute(
        bookings,
        list(read(*folder.glob("landing/searches/*"))),
        window=timedelta(hours=6),
        outcome_id="booking",
        exposure_id="search-id",
        outcome_time="ts",
        exposure_time="shown",
        keys=("guest", "hotel"),
        carry=("rank", "device"),
    )
    columns = ("guest", "hotel", "nights", "exposure_id", "exposure_rank", "exposure_device", "event_date")
    assert len(expected) == 60
    assert {id: [row[c] for c in columns] for id, row in table.items()} == {
        id: [row[c] for c in columns] for id, row in expected.items()
    }


def masked(line: str) -> str:
    """Without what differs from one run to the next."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d{8}T\d{6}-\w+|(file:)?/\S*(?=/trips/)", "*", line).strip()


def read(*files: Path) -> Iterator[dict[str, Any]]:
    """The events, or rows, of files; a line that is cut off is none."""
    for file in sorted(files):
        yield from (json.loads(line) for line in file.read_text().splitlines() if line.endswith("}"))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as code hosts make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?)\s*$", _FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{n}" if n else slug for slug, last in found.items() for n in range(last + 1)}
