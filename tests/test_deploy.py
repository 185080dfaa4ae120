"""The systemd units, by systemd's own checker; their commands, by ours."""

import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from pipelines.cli.app import app

UNITS = Path(__file__).parent.parent / "deploy" / "systemd"
COMMANDS = [
    (unit.name, line.partition("=")[2])
    for unit in sorted(UNITS.glob("*.service"))
    for line in unit.read_text().splitlines()
    if line.startswith("Exec")
]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        # What it starts is not installed here.
        text = unit.read_text().replace("/srv/rejoin/.venv/bin/rejoin", "/bin/true").replace("/srv/rejoin", str(tmp_path))
        (tmp_path / unit.name).write_text(text)
    names = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "rejoin" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize(("unit", "line"), COMMANDS)
def test_a_unit_starts_a_command_with_options_that_exist(unit: str, line: str) -> None:
    _, command, *words = shlex.split(line)
    get_command(app).commands[command].make_context(command, words)  # type: ignore[attr-defined]
