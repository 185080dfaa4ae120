"""What a run says while it works: what it reads, once a minute how far it is, and at the end how its lines were judged."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipelines.config.model import Config, KafkaSource
from pipelines.ingest.writer import BronzeWriter
from pipelines.model.time import iso

Say = Callable[[str], None]
"""Takes a line for the user."""

_EVERY_SECONDS = 60.0


def unsaid(_: str) -> None:
    """Say nothing."""


@dataclass(kw_only=True)
class IngestReport:
    """Of the ingest of one process. Behind Spark Connect it has nothing to say: writers run in a process of their own."""

    config: Config
    writers: Sequence[BronzeWriter]
    say: Say = unsaid
    _said: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for writer in self.writers:
            source = self.config.streams[writer.stream.name].source
            place = f"topic {source.topic}" if isinstance(source, KafkaSource) else source.path
            self.say(f"{writer.stream.name}: reading {place}")

    def tick(self, horizon: int | None) -> bool:
        """Whether a minute has passed since it last was true."""
        if time.monotonic() - self._said < _EVERY_SECONDS:
            return False
        self._said = time.monotonic()
        self.say(f"{'; '.join(map(str, self._judged()))}; horizon {iso(horizon) or 'none yet'}")
        return True

    def end(self) -> None:
        for line in self._judged():
            self.say(line)

    def _judged(self) -> list[str]:
        return [f"{writer.stream.name}: {writer.totals}" for writer in self.writers]
