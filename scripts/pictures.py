"""Remake docs/images from a real run: `make demo` as it looks in a terminal, and its report in Chromium.

    .venv/bin/python -m scripts.pictures

docs/images/flow.svg is written by hand.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.browser import CHROMIUM

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
COLUMNS = 100


def main() -> None:
    # Colours as in a terminal, without the progress bar's redrawing.
    terminal = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS)}
    environment = {**os.environ, **terminal}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S607
    said = Text.from_ansi(f"\x1b[1m$ make demo\x1b[0m\n{done.stdout.replace(f'{ROOT}/', '').rstrip()}")
    (IMAGES / "demo.svg").write_text(svg(said))
    report = re.search(r"report: (\S+)", said.plain)
    assert report, said.plain
    photograph(ROOT / report[1], IMAGES / "report.png")


def svg(text: Text) -> str:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    console.print(text, soft_wrap=False)
    exported = console.export_svg(title="rejoin", unique_id="demo")
    return re.sub(r"@font-face {.*?}\s*", "", exported, flags=re.DOTALL)  # fonts of a foreign host


def photograph(page: Path, image: Path) -> None:
    assert CHROMIUM, "needs Chromium: make tools"
    with tempfile.TemporaryDirectory() as profile:
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        words += ["--window-size=1400,1000", f"--screenshot={image}", page.as_uri()]
        subprocess.run([CHROMIUM, *words], capture_output=True, timeout=120, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
