"""What a run says while it works: what it reads, how its lines are judged, how far it is. On stderr: stdout is for results."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from pipelines.config.model import Config
from pipelines.config.sources import KafkaSource
from pipelines.ingest.writer import BronzeWriter, Totals
from pipelines.model.time import iso

_EVERY_SECONDS = 60.0

log = structlog.get_logger()


class Say:
    """Says nothing."""

    def line(self, text: str) -> None:
        """Something that the user is to know, once."""

    def progress(self, judged: Mapping[str, Totals], horizon: str) -> None:
        """How the lines of each stream have been judged so far, and the horizon. Called often."""


UNSAID = Say()


class _Logged(Say):
    """Logs each thing; the progress is in the lines of the micro-batches."""

    def line(self, text: str) -> None:
        log.info(text)


LOGGED = _Logged()


@dataclass(kw_only=True)
class Lines(Say):
    """A line for each thing, of the progress one a minute."""

    echo: Callable[[str], object]
    _said: float = field(default_factory=time.monotonic)

    def line(self, text: str) -> None:
        self.echo(text)

    def progress(self, judged: Mapping[str, Totals], horizon: str) -> None:
        if time.monotonic() - self._said >= _EVERY_SECONDS:
            self._said = time.monotonic()
            self.echo(f"{'; '.join(f'{name}: {totals}' for name, totals in judged.items())}; horizon {horizon}")


@contextmanager
def on_stderr() -> Iterator[Say]:
    """Lines; on a terminal the progress is a table that is kept up to date below them."""
    if not sys.stderr.isatty():
        yield Lines(echo=lambda text: print(text, file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    class OnTerminal(Say):
        def line(self, text: str) -> None:
            live.console.print(text, markup=False, highlight=False, soft_wrap=True)

        def progress(self, judged: Mapping[str, Totals], horizon: str) -> None:
            table = Table("stream", "read", "accepted", "late", "quarantined", "for", title=f"horizon {horizon}")
            for name, each in judged.items():
                counts = (each.accepted + each.quarantined, each.accepted, each.late, each.quarantined)
                table.add_row(name, *(f"{count:,}" for count in counts), ", ".join(each.reasons))
            live.update(table)

    with Live(console=Console(stderr=True), refresh_per_second=1, transient=True) as live:
        yield OnTerminal()


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """Of the ingest of one process. Behind Spark Connect it has nothing to say: writers run in a process of their own."""

    config: Config
    writers: Sequence[BronzeWriter]
    say: Say

    def begin(self) -> None:
        for writer in self.writers:
            source = self.config.streams[writer.stream.name].source
            place = f"topic {source.topic}" if isinstance(source, KafkaSource) else source.path
            self.say.line(f"{writer.stream.name}: reading {place}")

    def tick(self, horizon: int | None) -> None:
        self.say.progress({writer.stream.name: writer.totals for writer in self.writers}, iso(horizon) or "none yet")

    def end(self) -> None:
        for writer in self.writers:
            self.say.line(f"{writer.stream.name}: {writer.totals}")
