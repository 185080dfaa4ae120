"""A page as a real browser has it: headless Chromium, without a network."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Written into the page itself, for headless Chromium tells no more than the page; which stands in a frame, for no window is as
# narrow as a phone.
_PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  width: innerWidth,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  plots: [...document.querySelectorAll("figure svg")].filter(s => s.getBoundingClientRect().height > 50).length,
  fetched: performance.getEntriesByType("resource").length,
}), "*"));</script></body>"""
_FRAME = """<body><script>addEventListener("message", said => {
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = said.data;
  document.body.appendChild(probe);
});</script><iframe src="%s" style="border: 0; width: %dpx; height: 2000px"></iframe></body>"""


@dataclass(frozen=True)
class Look:
    """In CSS pixels: the page's inner width, and by how much what is on it is wider; `plots` that are drawn; further files
    `fetched`; lines of the console."""

    width: int
    overflow: int
    plots: int
    fetched: int
    console: list[str]


def look(html: str, width: int, folder: Path) -> Look:
    assert CHROMIUM, "needs Chromium"
    page, frame = folder / "page.html", folder / f"frame-{width}.html"
    page.write_text(html.replace("</body>", _PROBE))
    frame.write_text(_FRAME % (page.name, width))
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    words += [f"--user-data-dir={folder / 'profile'}", "--window-size=1600,2000", frame.as_uri()]
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert found, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Look(**json.loads(found[1]), console=console)
