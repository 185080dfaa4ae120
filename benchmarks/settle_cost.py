"""What a run of settle costs for nothing, 1 k and 100 k late outcomes, over a bronze of 5 M rows: seconds and bytes read.

    .venv/bin/python benchmarks/settle_cost.py [--rows 5000000] [--dir DIR]

The bronze is written straight into the tables (12 hours of event time, 10 impressions a playback), joined and settled; then late
playbacks land and settle runs, three times for each size. Each size is another set of playbacks; results are checked: every late
one at or below the horizon must have its row. Bytes are what Spark's tasks read, lake and logs together.
"""

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.config.load import load_config
from pipelines.jobs.join import join
from pipelines.jobs.settle import settle
from pipelines.lake.tables import Lake, at
from pipelines.model.time import to_micros
from pipelines.session import spark_session

ROOT = Path(__file__).parent.parent
HOURS = 12
COMMITS = 24


def events(spark: SparkSession, lake: Lake, name: str, count: int, first: int, *, late: bool, start: int, tag: str) -> DataFrame:
    """`count` events spread evenly over the half day, as bronze rows of one stream; playbacks have the keys of impressions."""
    stream = next(s for s in lake.streams.both if s.name == name)
    step = HOURS * 3_600_000_000 // max(1, count)
    number = F.col("id")
    values = {
        "impression_id": F.concat(F.lit(tag), number),
        "playback_id": F.concat(F.lit(tag), number),
        "event_time": F.timestamp_micros(F.lit(start) + number * F.lit(step)),
        # One key for a stretch of time, so that both streams meet: 200 k keys in the half day.
        "profile_id": F.concat(F.lit("u"), F.floor(number * F.lit(200_000) / F.lit(count))),
        "title_id": F.lit("t"),
        "late": F.lit(late),
        "door_watermark": F.timestamp_micros(F.lit(start) + number * F.lit(step)) - F.expr("INTERVAL 10 MINUTES"),
        "ingest_time": F.current_timestamp(),
        "ingest_batch": F.lit(first).cast("bigint"),
        "event_date": F.to_date(F.timestamp_micros(F.lit(start) + number * F.lit(step))),
    }
    rows = spark.range(count)
    return rows.select(*(values.get(f.name, F.lit(None)).cast(f.dataType).alias(f.name) for f in stream.bronze_schema))


def bytes_read(spark: SparkSession) -> int:
    """By all tasks so far."""
    time.sleep(0.5)  # Spark's own books are a moment behind
    executors = spark.sparkContext._jsc.sc().statusStore().executorList(True)
    return sum(executors.apply(i).totalInputBytes() for i in range(executors.size()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=5_000_000, help="impressions")
    arguments.add_argument("--dir", type=Path, default=Path(".benchmarks/settle"))
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    shutil.rmtree(options.dir, ignore_errors=True)
    config = load_config(ROOT / "conf/playback.yml", [f"lake={options.dir}/lake", "state_store.provider=memory"])
    spark = spark_session(config.spark)
    lake = Lake(spark, config)
    lake.ensure(*lake.all_tables)
    start = to_micros(config.ingest.earliest_event_time) + 86_400_000_000 * 9_000
    clock = time.monotonic()
    for name, count in (("impressions", options.rows), ("playbacks", options.rows // 10)):
        whole = events(spark, lake, name, count, 0, late=False, start=start, tag="").persist()
        span = HOURS * 3_600_000_000 // COMMITS
        for commit in range(COMMITS):
            low, high = start + commit * span, start + (commit + 1) * span
            part = whole.where((F.col("event_time") >= at(low)) & (F.col("event_time") < at(high)))
            door = F.lit(None).cast("timestamp") if commit == 0 else at(low - 600_000_000)
            lake.append(name, part.withColumn("door_watermark", door))
        whole.unpersist()
    print(f"bronze of {options.rows:,} + {options.rows // 10:,} rows written in {time.monotonic() - clock:.0f} s")
    clock = time.monotonic()
    join(lake, config, once=True)
    print(f"joined in {time.monotonic() - clock:.0f} s")
    clock = time.monotonic()
    settle(lake, config)
    print(f"first settle in {time.monotonic() - clock:.0f} s")

    results = []
    for size in (0, 1_000, 100_000):
        seconds, reads = [], []
        for run in range(options.runs):
            if size:
                tag = f"late-{size}-{run}-"
                lake.append("playbacks", events(spark, lake, "playbacks", size, 1, late=True, start=start, tag=tag))
            before = bytes_read(spark)
            clock = time.monotonic()
            outcome = settle(lake, config)
            seconds.append(time.monotonic() - clock)
            reads.append(bytes_read(spark) - before)
            # Those above the horizon wait for it.
            horizon = outcome.settled.horizon
            due = 0 if horizon is None else min(size, (horizon - start) * size // (HOURS * 3_600_000_000) + 1)
            rows = lake.read(lake.attributed).where(F.col("playback_id").startswith(f"late-{size}-{run}-")).count()
            assert abs(rows - due) <= 1, (rows, due, outcome.causes)
        results.append({"late playbacks": size, "seconds": sorted(seconds), "bytes": sorted(reads)})
    base = statistics.median(results[0]["seconds"])
    total = sum(
        f.stat().st_size for name in ("impressions", "playbacks") for f in (options.dir / "lake" / name).rglob("*.parquet")
    )
    print(
        f"\nbronze: {total / 2**20:.0f} MiB\n\n  to settle    seconds (min, median, max)    of nothing     MiB read    of bronze"
    )
    for row in results:
        low, middle, high = row["seconds"][0], statistics.median(row["seconds"]), row["seconds"][-1]
        mib = statistics.median(row["bytes"])
        print(
            f"  {row['late playbacks']:>9,}    {low:>7.2f} {middle:>7.2f} {high:>7.2f}          {middle / base:>7.1f} x"
            f"   {mib / 2**20:>10.2f}   {mib / total:>9.2%}"
        )
    (options.dir / "settle_cost.json").write_text(json.dumps(results, indent=2) + "\n")
    spark.stop()


if __name__ == "__main__":
    main()
