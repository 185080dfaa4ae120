"""Write a generated day as newline-delimited JSON files, in order of arrival, in waves."""

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.demo.generator import Day


@dataclass(frozen=True, kw_only=True)
class Wave:
    """The lines of one span of arrival time: `number` from 0, `end` in microseconds (exclusive), lines by stream."""

    number: int
    end: int
    lines: dict[str, list[str]]


def waves(day: Day, count: int) -> Iterator[Wave]:
    """Cut the day into `count` spans of arrival time, equal but for the last, which takes the stragglers too: the hundredth of
    events that arrives last, some of it many hours after all others."""
    times = sorted(arrival.at for arrivals in day.arrivals.values() for arrival in arrivals)
    if not times:
        return
    first, last = times[0], times[len(times) * 99 // 100]
    step = (last - first) // count + 1
    cut: list[dict[str, list[str]]] = [{name: [] for name in day.arrivals} for _ in range(count)]
    for name, arrivals in day.arrivals.items():
        for arrival in arrivals:
            cut[min((arrival.at - first) // step, count - 1)][name].append(arrival.line)
    for number, lines in enumerate(cut):
        yield Wave(number=number, end=first + (number + 1) * step, lines=lines)


def write_lines(wave: Wave, name: str, directory: Path, *, compress: bool = False) -> None:
    """The file of one stream, whole by rename; none where the wave has no lines for it.

    The modification time is the end of the wave's arrival span, so that files are read in order of arrival.
    """
    lines = wave.lines[name]
    if not lines:
        return
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"wave-{wave.number:04d}.jsonl{'.gz' if compress else ''}"
    hidden = directory / f".{final.name}.tmp"
    text = "".join(line + "\n" for line in lines).encode()
    # No name and no time in the gzip header: the same seed gives the same bytes.
    hidden.write_bytes(gzip.compress(text, mtime=0) if compress else text)
    os.utime(hidden, ns=(wave.end * 1000, wave.end * 1000))
    hidden.rename(final)
