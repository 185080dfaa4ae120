"""Make bronze whole again, before anything is compared with it: what it has lost is put back, what it has twice is taken out."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.config import Config, KafkaSource
from pipelines.lake import Lake
from pipelines.reconcile.copies import take_out_copies
from pipelines.reconcile.door import lost_offsets
from pipelines.reconcile.losses import Losses, find_losses, reading_around
from pipelines.reconcile.reland import reland
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class Mended:
    """Rows put back and rows taken out, of both streams."""

    relanded: int = 0
    copies: int = 0

    @property
    def rows(self) -> int:
        return self.relanded + self.copies


def losses_of(lake: Lake, config: Config, span: Range) -> dict[str, Losses]:
    """What each stream's bronze has lost, as far as it concerns the dates."""
    return {stream.name: find_losses(lake, config, stream, span) for stream in lake.streams.both}


def mend(lake: Lake, config: Config, losses: Mapping[str, Losses]) -> Mended:
    """One transaction a table and kind. What cannot be put back stays as it is: `losses_of` finds it again."""
    relanded = copies = 0
    for stream in lake.streams.both:
        source, lost = config.streams[stream.name].source, losses[stream.name]
        with reading_around(lake, lost.gone):
            offsets = lost_offsets(lake, stream.name, source) if isinstance(source, KafkaSource) else {}
        relanded += reland(lake, config, stream, lost, offsets)
        with reading_around(lake, lost.gone):
            copies += take_out_copies(lake, config, stream, lost)
    return Mended(relanded=relanded, copies=copies)
