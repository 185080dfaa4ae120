"""Make bronze whole again, before anything is compared with it: what it has lost is put back, what it has twice or should not
have is taken out, what is in another partition is brought back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from pipelines.config import Config, FilesSource, KafkaSource
from pipelines.lake import Lake
from pipelines.reconcile.copies import take_out_surplus
from pipelines.reconcile.door import StreamDoor, lost_offsets
from pipelines.reconcile.losses import Losses, find_losses, reading_around
from pipelines.reconcile.place import bring_back
from pipelines.reconcile.reland import reland
from pipelines.reconcile.since import changed_by_hand_since_all_agreed
from pipelines.reconcile.span import Range


@dataclass(frozen=True, kw_only=True)
class Mended:
    """Rows put back, taken out (`copies` of others; `unsourced`, which their source does not have), and brought back to their
    partition, of both streams; `data_files` that are gone and that their tables no longer name."""

    relanded: int = 0
    copies: int = 0
    unsourced: int = 0
    placed: int = 0
    data_files: int = 0

    @property
    def any(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def __add__(self, other: "Mended") -> "Mended":
        return Mended(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def losses_of(lake: Lake, config: Config, spans: Mapping[str, Range]) -> dict[str, Losses]:
    """What each stream's bronze has lost, as far as it concerns its dates."""
    changed = changed_by_hand_since_all_agreed(lake, *spans)
    return {
        stream.name: find_losses(lake, config, stream, spans[stream.name], deeply=stream.name in changed)
        for stream in lake.streams.both
    }


def unchecked_changes(lake: Lake, config: Config, losses: Mapping[str, Losses]) -> int:
    """The streams from files whose bronze has been changed by a commit that no lane makes, since the last run over all dates that
    agreed, while landing files are gone: nothing is left to hold what it has now against."""
    blind = [name for name, lost in losses.items() if isinstance(config.streams[name].source, FilesSource) and lost.blind]
    return len(changed_by_hand_since_all_agreed(lake, *blind))


def mend(lake: Lake, config: Config, losses: Mapping[str, Losses], doors: Sequence[StreamDoor]) -> Mended:
    """One transaction a table and kind. What cannot be put back stays as it is: `losses_of` finds it again."""
    done = Mended()
    for stream in lake.streams.both:
        source, lost = config.streams[stream.name].source, losses[stream.name]
        with reading_around(lake, lost.gone):
            offsets = lost_offsets(lake, stream.name, source) if isinstance(source, KafkaSource) else {}
        relanded = reland(lake, config, stream, lost, offsets)
        if relanded is None:
            continue  # nothing is taken out of what cannot be made whole
        out = take_out_surplus(lake, config, stream, lost)
        wrong = any(door.rows_misplaced for door in doors if door.stream == stream.name)
        placed = bring_back(lake, stream) if wrong else 0
        done += Mended(relanded=relanded, copies=out.copies, unsourced=out.unsourced, placed=placed, data_files=len(lost.gone))
    return done
