"""What it takes to catch up with a backlog in Kafka, in little memory: records a second, micro-batches, peak memory.

    .venv/bin/python benchmarks/kafka_backlog.py [--records 1000000] [--memory 1g] [--offsets 100000] [--dir DIR]

A broker is started, and the records (nine impressions to each playback, 12 hours of event time, one in a hundred hours late) are
produced to it before anything reads. Then `ingest --once`, `join --once` and `settle --all` run as processes, whose memory (RSS,
with all their children) is sampled. The table they make is compared, row by row, with what DuckDB computes from the events sent.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from processes import measured  # noqa: E402

from pipelines.config.load import load_config  # noqa: E402
from pipelines.demo.broker import local_broker  # noqa: E402
from pipelines.kafka.client import create_topic, produce  # noqa: E402

ROOT = Path(__file__).parent.parent
START = datetime(2026, 1, 10, 6, tzinfo=timezone.utc)
SPAN = timedelta(hours=12)
LATE_BY = timedelta(hours=3)
PROFILES, TITLES = 5_000, 40

EXPECTED = """
    WITH plays AS (SELECT * FROM read_json('{dir}/playbacks.jsonl', columns = {{
            playback_id: 'VARCHAR', event_time: 'TIMESTAMP', profile_id: 'VARCHAR', title_id: 'VARCHAR'}})),
        shown AS (SELECT * FROM read_json('{dir}/impressions.jsonl', columns = {{
            impression_id: 'VARCHAR', event_time: 'TIMESTAMP', profile_id: 'VARCHAR', title_id: 'VARCHAR'}}))
    SELECT p.playback_id, arg_max(s.impression_id, (s.event_time, s.impression_id)) AS exposure_id
    FROM plays p LEFT JOIN shown s ON s.profile_id = p.profile_id AND s.title_id = p.title_id
        AND s.event_time BETWEEN p.event_time - INTERVAL 6 HOUR AND p.event_time
    GROUP BY p.playback_id
"""
FOUND = "SELECT playback_id, exposure_id FROM '{dir}/attributed.parquet'"


def events(stream: str, count: int) -> Iterator[tuple[str, str]]:
    """(key, JSON) in order of arrival; the same each time."""
    chance, id = random.Random(stream), "impression_id" if stream == "impressions" else "playback_id"
    for n in range(count):
        at = START + SPAN * n / count
        if chance.random() < 0.01:
            at -= LATE_BY * chance.random()
        who, what = f"u{chance.randrange(PROFILES)}", f"t{chance.randrange(TITLES)}"
        time = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
        yield who, json.dumps({id: f"{stream[0]}{n}", "event_time": time, "profile_id": who, "title_id": what})


def run(log: Path, *words: str) -> tuple[float, int]:
    """Seconds, and peak memory in bytes, of a command of Rejoin."""
    done = measured([sys.executable, "-m", "pipelines", *words], log, cwd=ROOT)
    return done.seconds, done.peak


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=1_000_000, help="a tenth of them playbacks")
    arguments.add_argument("--memory", default="1g", help="spark.driver_memory")
    arguments.add_argument("--offsets", type=int, default=100_000, help="max_offsets_per_trigger")
    arguments.add_argument("--dir", type=Path, default=Path(".benchmarks/kafka"))
    options = arguments.parse_args()
    folder = options.dir.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with local_broker(folder / "broker") as broker:
        counts = {"impressions": options.records - options.records // 10, "playbacks": options.records // 10}
        kafka = f"format: kafka, bootstrap_servers: '{broker.servers}', max_offsets_per_trigger: {options.offsets}"
        sets = [f"lake={folder}/lake", f"spark.driver_memory={options.memory}", "trigger.join_max_files=16"]
        sets += [f"streams.{name}.source={{{kafka}, topic: {name}}}" for name in counts]
        config = load_config(ROOT / "conf/playback.yml", sets)
        clock = time.monotonic()
        for name, count in counts.items():
            source = config.streams[name].source
            create_topic(source, name, 4)
            produce(source, name, events(name, count))
            (folder / f"{name}.jsonl").write_text("".join(line + "\n" for _, line in events(name, count)))
        print(f"{options.records:,} records produced in {time.monotonic() - clock:.0f} s", flush=True)
        words = [word for each in sets for word in ("--set", each)]
        for command in (("ingest", "--once"), ("join", "--once"), ("settle", "--all")):
            seconds, peak = run(folder / command[0], *command, *words)
            rate = options.records / seconds
            print(
                f"{' '.join(command):<14} {seconds:>6.0f} s {rate:>9,.0f} records/s   peak {peak / 2**20:>6,.0f} MiB", flush=True
            )
        for table in ("ledger", "attributed_playbacks"):
            run(folder / "export", "export", table, "--out", f"{folder}/{table.split('_')[0]}.parquet", *words)
    figures = "query, count(*), max(rows_in), sum(rows_dropped_by_watermark)"
    batches = duckdb.sql(f"SELECT {figures} FROM '{folder}/ledger.parquet' GROUP BY 1 ORDER BY 1").fetchall()
    for query, count, most, dropped in batches:
        print(f"{query:<20} {count:>4} micro-batches, at most {most or 0:,} rows, {int(dropped or 0)} dropped")
    expected, found = EXPECTED.format(dir=folder), FOUND.format(dir=folder)
    differing = duckdb.sql(
        f"SELECT count(*) FROM (({expected} EXCEPT ALL {found}) UNION ALL ({found} EXCEPT ALL ({expected})))"
    ).fetchall()[0][0]
    rows, matched = duckdb.sql(f"SELECT count(*), count(exposure_id) FROM ({found})").fetchall()[0]
    print(f"{rows:,} rows, {matched:,} with an impression; {differing} differ from DuckDB's")
    raise SystemExit(0 if differing == 0 and rows == counts["playbacks"] else 1)


if __name__ == "__main__":
    main()
