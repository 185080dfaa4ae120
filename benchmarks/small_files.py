"""What a round of ingest, join and settle costs with the small files of a day of micro-batches, and once they are compacted.

    .venv/bin/python benchmarks/small_files.py [--micro-batches 8640] [--rounds 5]

8,640 micro-batches are a day of a trigger of 10 s. Their files are put into the tables at once, a row each, as a pipeline that
runs would have left them on one event date; then rounds of two events are timed in this process, before and after `compact_open`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from processes import usage  # noqa: E402
from workloads import ROOT  # noqa: E402

from pipelines.lake.compaction import compact_open  # noqa: E402
from pipelines.session import spark_session  # noqa: E402
from tests.builders import play, shown  # noqa: E402
from tests.replay import Replay  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--micro-batches", type=int, default=8640)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        pipeline = Replay(spark_session(), Path(directory) / "run")
        rounds = Rounds(pipeline)
        report: dict[str, Any] = {"micro_batches": options.micro_batches}
        rounds.some(3)  # what is compiled once
        report["few files"] = rounds.some(options.rounds)
        leave_bronze(pipeline, options.micro_batches)
        rounds.some(1)  # what has landed is read
        leave_answers(pipeline, options.micro_batches)
        report["a day's files"] = {"files": files(pipeline), **rounds.some(options.rounds)}
        clock = time.monotonic()
        compact_open(pipeline.lake)
        report["compaction"] = {"seconds": round(time.monotonic() - clock, 1)}
        report["compacted"] = {"files": files(pipeline), **rounds.some(options.rounds)}
    results = ROOT / ".benchmarks" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "small_files.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


class Rounds:
    """Rounds over a pipeline: an impression and a playback each, one stage after the other."""

    def __init__(self, pipeline: Replay) -> None:
        self.pipeline = pipeline
        jvm = pipeline.lake.spark._jvm
        assert jvm is not None
        self._jvm: int = jvm.java.lang.ProcessHandle.current().pid()
        self._number = 0

    def some(self, rounds: int) -> dict[str, Any]:
        """The median seconds and processor seconds (the JVM's) of each stage."""
        stages = {"ingest": self._ingest, "join": self.pipeline.join, "settle": self.pipeline.settle}
        taken = [{name: self._timed(stage) for name, stage in stages.items()} for _ in range(rounds)]
        return {
            name: {
                "seconds": round(statistics.median(each[name][0] for each in taken), 2),
                "processor_seconds": round(statistics.median(each[name][1] for each in taken), 2),
            }
            for name in stages
        }

    def _ingest(self) -> None:
        self._number += 1
        at = f"12:{self._number // 60:02d}:{self._number % 60:02d}"
        self.pipeline.wave([shown(f"i{self._number}", at)], [play(f"p{self._number}", at)])

    def _timed(self, stage: Callable[[], Any]) -> tuple[float, float]:
        clock, processor = time.monotonic(), self._processor_seconds()
        stage()
        return time.monotonic() - clock, self._processor_seconds() - processor

    def _processor_seconds(self) -> float:
        return usage(self._jvm)[self._jvm][0]


def leave_bronze(pipeline: Replay, micro_batches: int) -> None:
    """Files in bronze as so many micro-batches would have left."""
    for stream in pipeline.lake.streams.both:
        _append(pipeline, stream.name, _copies(pipeline.read(stream.name), stream.id, micro_batches))


def leave_answers(pipeline: Replay, micro_batches: int) -> None:
    """Files in the attributed table as so many micro-batches would have left; in the ledger those of three queries, and of settle
    each minute."""
    lake = pipeline.lake
    _append(pipeline, lake.attributed, _copies(lake.read(lake.attributed), lake.streams.outcome.id, micro_batches))
    latest = lake.read("ledger").groupBy("query").agg(F.max_by(F.struct("*"), "finished_at").alias("entry"))
    numbers = lake.spark.range(micro_batches)

    def earlier(query: str, every_seconds: int) -> DataFrame:
        rows = latest.where(F.col("query") == query).select("entry.*").crossJoin(numbers.where(f"id % {every_seconds // 10} = 0"))
        return rows.withColumn("finished_at", F.expr("finished_at - make_interval(0, 0, 0, 0, 0, 0, 10 * (id + 1))"))

    queries = {"join": 10, "settle": 60, **{f"ingest:{stream.name}": 10 for stream in lake.streams.both}}
    _append(pipeline, "ledger", reduce(DataFrame.unionByName, (earlier(*each) for each in queries.items())))


def _copies(rows: DataFrame, id: str, number: int) -> DataFrame:
    copies = rows.limit(1).crossJoin(rows.sparkSession.range(number).select(F.col("id").alias("__number")))
    return copies.withColumn(id, F.concat(F.col(id), F.lit("-"), "__number")).drop("__number")


def _append(pipeline: Replay, table: str, rows: DataFrame) -> None:
    files = rows.select(*pipeline.read(table).columns).coalesce(2).write.format("delta").mode("append")
    pipeline.lake.save(files.option("maxRecordsPerFile", 1), table)


def files(pipeline: Replay) -> dict[str, int]:
    lake = pipeline.lake
    return {table: lake.size(table)[0] for table in (*(s.name for s in lake.streams.both), lake.attributed, "ledger")}


if __name__ == "__main__":
    main()
