"""How long a record takes from Kafka to a readable row (W4): a steady load on `rejoin run`, for some minutes.

    .venv/bin/python benchmarks/latency.py [--rate 2000] [--minutes 5] [--set KEY=VALUE ...]

Events happen as they are sent: nine impressions to a playback, which follows one of the last three minutes. What counts is each
playback that has a match: from the record's timestamp in Kafka to the modification time of the Delta log entry by which its row,
with its exposure, is in the table. The log is read as JSON and the files by DuckDB: no part of Rejoin looks on.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote

import duckdb
from confluent_kafka import Producer

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from workloads import PARTITIONS, ROOT, STREAMS, WORKLOADS, overrides  # noqa: E402

from pipelines.config.model import KafkaSource  # noqa: E402
from pipelines.demo.broker import local_broker  # noqa: E402
from pipelines.kafka.client import create_topic  # noqa: E402

REMEMBERED_SECONDS = 180


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rate", type=int, default=2000, help="events a second, a tenth of them playbacks")
    arguments.add_argument("--minutes", type=float, default=5)
    arguments.add_argument("--warm-up", type=float, default=60, help="seconds before, at the same rate, that do not count")
    arguments.add_argument("--set", action="append", default=[], dest="sets")
    arguments.add_argument("--dir", type=Path, default=ROOT / ".benchmarks")
    options = arguments.parse_args()
    home = options.dir.absolute() / "latency"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with local_broker(home / "broker") as broker:
        for name in STREAMS:
            create_topic(KafkaSource(format="kafka", bootstrap_servers=broker.servers, topic=name), name, PARTITIONS)
        words = [
            *overrides(broker.servers, home / "lake", WORKLOADS["w1"]),
            *(w for each in options.sets for w in ("--set", each)),
        ]
        with (home / "log").open("wb") as log:
            command = [sys.executable, "-m", "pipelines", "run", *words]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)  # noqa: S603
            try:
                _until((home / "lake" / "attributed_playbacks" / "_delta_log").is_dir, process, 120)
                sent = _send(broker.servers, options.rate, options.warm_up, options.minutes * 60)
                _until(
                    lambda: sent.keys() <= _readable(home / "lake" / "attributed_playbacks").keys(), process, 120, strict=False
                )
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
    readable = _readable(home / "lake" / "attributed_playbacks")
    delays = sorted(readable[key] - at for key, at in sent.items() if key in readable)
    if len(delays) < 2:
        raise SystemExit(f"no row became readable; see {home / 'log'}")
    cuts = statistics.quantiles(delays, n=100)
    report = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "events_per_second": options.rate,
        "minutes": options.minutes,
        "warm_up_seconds": options.warm_up,
        "set": options.sets,
        "matched_playbacks": len(sent),
        "readable": len(delays),
        "seconds": {
            "median": round(cuts[49], 2),
            "p90": round(cuts[89], 2),
            "p99": round(cuts[98], 2),
            "max": round(delays[-1], 2),
        },
        "goals": {"median at most 10 s": cuts[49] <= 10, "p99 at most 25 s": cuts[98] <= 25},
    }
    (options.dir.absolute() / "results").mkdir(exist_ok=True)
    (options.dir.absolute() / "results" / "w4.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    raise SystemExit(0 if len(delays) == len(sent) else 1)


def _send(servers: str, rate: int, warm_up: float, seconds: float) -> dict[str, float]:
    """Send the load, in tenths of a second; by playback that has a match, and came after the warm-up, when (seconds) its record
    was made."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "compression.type": "lz4"})
    chance, shown = random.Random(7), deque[tuple[float, str, str]]()
    sent: dict[str, float] = {}

    def delivered(error: object, message: object) -> None:
        if error is not None:
            raise SystemExit(f"Kafka did not take a record: {error}")
        key = json.loads(message.value())["playback_id"]  # type: ignore[attr-defined]
        if key in sent:
            sent[key] = message.timestamp()[1] / 1000  # type: ignore[attr-defined]

    began, number = time.time(), 0
    while (now := time.time()) < began + warm_up + seconds:
        for _ in range(rate // 10):
            number += 1
            at = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            if number % 10:
                who, what = f"profile-{chance.randrange(20_000)}", f"title-{chance.randrange(500)}"
                event = {"impression_id": f"i-{number}", "event_time": at, "profile_id": who, "title_id": what, "row_id": "new"}
                producer.produce("impressions", json.dumps(event), who)
                shown.append((now, who, what))
            else:
                _, who, what = shown[chance.randrange(len(shown))] if shown else (now, "nobody", "nothing")
                event = {"playback_id": f"p-{number}", "event_time": at, "profile_id": who, "title_id": what, "device": "tv"}
                if shown and now >= began + warm_up:
                    sent[event["playback_id"]] = now
                producer.produce("playbacks", json.dumps(event), who, on_delivery=delivered)
        producer.poll(0)
        while shown and shown[0][0] < now - REMEMBERED_SECONDS:
            shown.popleft()
        time.sleep(max(0.0, now + 0.1 - time.time()))
    producer.flush(30)
    return sent


def _readable(table: Path) -> dict[str, float]:
    """By playback with an exposure, when (seconds) the first log entry appeared that has it in the table."""
    found: dict[str, float] = {}
    for entry in sorted((table / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        files = [str(table / unquote(action["add"]["path"])) for action in actions if "add" in action]
        files = [file for file in files if Path(file).is_file()]
        if files:
            at = entry.stat().st_mtime
            rows = duckdb.execute("SELECT playback_id FROM read_parquet(?) WHERE exposure_id IS NOT NULL", [files]).fetchall()
            for (key,) in rows:
                found.setdefault(key, at)
    return found


def _until(done: object, process: subprocess.Popen[bytes], seconds: float, *, strict: bool = True) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        if process.poll() is not None:
            raise SystemExit("rejoin run has ended; see its log")
        if time.monotonic() > deadline:
            if strict:
                raise SystemExit("rejoin run did not begin in time; see its log")
            return
        time.sleep(2)


if __name__ == "__main__":
    main()
