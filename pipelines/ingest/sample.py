"""A bounded sample of landing files, and how ingest would judge its lines. Nothing is landed."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.ingest.parse.json import parse
from pipelines.ingest.parse.rules import rules_of
from pipelines.model.events import EventStream
from pipelines.model.format import judged
from pipelines.monitor.waiting import files_in

_MOST_BYTES = 16 * 2**20
"""Of a line; a longer one is cut, and is the last of its file."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`lines` with their places (`1.jsonl line 7`), of so many `files`; those that are `unreadable`, with the cause."""

    lines: Sequence[tuple[str, bytes]]
    files: int
    unreadable: dict[str, str]


def sample_files(directory: Path, most: int, *, newest_first: bool = False) -> Sample:
    """At most so many lines of the files below a landing directory, without blank ones; the oldest file first, or the newest."""
    lines: list[tuple[str, bytes]] = []
    files, unreadable = 0, {}
    for path, _ in sorted(files_in(directory), key=lambda file: (file[1], file[0]), reverse=newest_first):
        if len(lines) == most:
            break
        files += 1
        try:
            for number, line in _lines_of(Path(path)):
                lines.append((f"{Path(path).relative_to(directory)} line {number}", line))
                if len(lines) == most:
                    break
        except (OSError, EOFError, zlib.error) as error:
            unreadable[path] = str(error)
    return Sample(lines=lines, files=files, unreadable=unreadable)


def _lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
        while line := file.readline(_MOST_BYTES):
            number += 1
            if line.strip(b" \t\r\n"):
                yield number, line.removesuffix(b"\n")
            if not line.endswith(b"\n"):
                return


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Lines that would be quarantined for one reason; of one of them `detail`, `place`, and the keys that no column has."""

    count: int
    detail: str
    place: str
    unnamed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a sample was judged: the number of lines that pass, and the others by reason, the commonest first."""

    accepted: int
    refused: dict[str, Refused]

    @property
    def quarantined(self) -> int:
        return sum(each.count for each in self.refused.values())

    def __str__(self) -> str:
        return judged(self.accepted, self.quarantined, {reason: each.count for reason, each in self.refused.items()})


def try_lines(spark: SparkSession, config: Config, stream: EventStream, lines: Sequence[tuple[str, bytes]]) -> Trial:
    """Judge lines, with their places, by the stream's schema and rules."""
    now = F.current_timestamp()
    given = spark.createDataFrame(list(lines), "place string, bytes binary")
    value = F.col("bytes").cast("string").alias("value")
    raw = F.struct(value, "place", now.alias("record_time"), now.alias("ingest_time"))
    first = F.first(F.struct("__detail", "__raw.place", F.json_object_keys("__rescued").alias("unnamed"))).alias("first")
    parsed = parse(given.select(raw.alias("__raw")), stream, rules_of(config))
    found = parsed.groupBy("__reason").agg(F.count("*").alias("n"), first).orderBy(F.desc("n")).collect()
    refused = {
        row["__reason"]: Refused(
            count=row["n"],
            detail=row["first"]["__detail"],
            place=row["first"]["place"],
            unnamed=tuple(row["first"]["unnamed"] or ()),
        )
        for row in found
        if row["__reason"]
    }
    return Trial(accepted=sum(row["n"] for row in found if not row["__reason"]), refused=refused)
