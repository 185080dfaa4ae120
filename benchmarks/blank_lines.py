"""What it costs to see which lines of landing files are blank: by a pattern, as `pipelines.ingest.sources.files` does it, and by
translating each line, as it did before. In turns, over the impressions of W1, counted by file.

    .venv/bin/python benchmarks/blank_lines.py [--rounds 3] [--dir DIR]
"""

import argparse
import sys
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from workloads import ROOT, WORKLOADS, generate  # noqa: E402

from pipelines.config.model import SparkConfig  # noqa: E402
from pipelines.ingest.sources.files import landed_lines  # noqa: E402
from pipelines.session import spark_session  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--dir", type=Path, default=ROOT / ".benchmarks")
    options = arguments.parse_args()
    files = generate(WORKLOADS["w1"], options.dir.absolute() / "events")["impressions"]
    spark = spark_session(SparkConfig(master="local[2]", driver_memory="2g"))
    folder = str(files[0].parent)
    ways = {"pattern": landed_lines(spark, folder), "translated": translated(spark, folder)}
    print(f"{ways['pattern'].count():,} lines", flush=True)
    for number in range(1, options.rounds + 1):
        seconds = {name: seconds_of(lines) for name, lines in ways.items()}
        told = ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items())
        print(f"round {number}: {told}, {seconds['translated'] / seconds['pattern']:.1f} times as long", flush=True)
    spark.stop()


def translated(spark: SparkSession, folder: str) -> DataFrame:
    lines = spark.read.format("text").option("lineSep", "\n").load(folder)
    return lines.where(F.length(F.trim(F.translate("value", "\r\t", "  "))) != 0)


def seconds_of(lines: DataFrame) -> float:
    started = time.monotonic()
    lines.groupBy(F.col("_metadata.file_path")).count().collect()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
