"""A steady load on two Kafka topics, and the times at which the rows of a Delta table became readable.

The log of the table is read as JSON and its files by DuckDB: neither Spark nor Rejoin takes part in the measurement.
"""

import json
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote

import duckdb
from confluent_kafka import Producer
from workloads import PARTITIONS, STREAMS

from pipelines.config import KafkaSource
from pipelines.kafka_client import create_topic

REMEMBERED_SECONDS = 180
_STEP_SECONDS = 0.1


class Load(threading.Thread):
    """Sends `rate` events a second until stopped: nine impressions to a playback, each event with the current time.

    A playback follows one of the impressions of the last three minutes. `sent` is, by the id of a playback that has a match, the
    timestamp of its record in seconds; it is complete once `stop` has returned.
    """

    def __init__(self, servers: str, rate: int, prefix: str = "") -> None:
        super().__init__(daemon=True)
        self.rate, self.prefix = rate, prefix
        self.sent: dict[str, float] = {}
        self._producer = producer(servers)
        self._stopped = threading.Event()
        self._error: object = None

    def run(self) -> None:
        chance, shown = random.Random(7), deque[tuple[float, str, str]]()
        began, number = time.time(), 0
        while not self._stopped.is_set():
            now = time.time()
            while number < (now - began) * self.rate:
                number += 1
                if number % 10:
                    who, what = f"profile-{chance.randrange(20_000)}", f"title-{chance.randrange(500)}"
                    self._produce("impressions", impression(f"i-{number}", now, who, what))
                    shown.append((now, who, what))
                else:
                    _, who, what = shown[chance.randrange(len(shown))]
                    self.sent[f"p-{number}"] = now
                    self._produce("playbacks", playback(f"p-{number}", now, who, what))
            self._producer.poll(0)
            while shown[0][0] < now - REMEMBERED_SECONDS:
                shown.popleft()
            time.sleep(max(0.0, now + _STEP_SECONDS - time.time()))

    def stop(self) -> None:
        """End the load once all records are in the topics. Raises RuntimeError where a record was refused."""
        self._stopped.set()
        if self.ident is not None:
            self.join()
        self._producer.flush(30)
        if self._error is not None:
            raise RuntimeError(f"Kafka refused a record: {self._error}")

    def _produce(self, stream: str, event: dict[str, str]) -> None:
        self._producer.produce(self.prefix + stream, json.dumps(event), event["profile_id"], on_delivery=self._delivered)

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self._error = error
            return
        key = json.loads(message.value()).get("playback_id")  # type: ignore[attr-defined]
        if key is not None:
            self.sent[key] = message.timestamp()[1] / 1000  # type: ignore[attr-defined]


class ReadableRows:
    """The rows with an exposure of an attributed table: `read` looks at the log entries that are new since its last call."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.found: dict[str, float] = {}
        self._seen: set[str] = set()

    def read(self) -> dict[str, float]:
        """By playback, the modification time (seconds) of the first log entry that adds a file with its row."""
        for entry in sorted((self.table / "_delta_log").glob("*.json")):
            if entry.name in self._seen:
                continue
            self._seen.add(entry.name)
            actions = [json.loads(line) for line in entry.read_text().splitlines()]
            files = [self.table / unquote(action["add"]["path"]) for action in actions if "add" in action]
            names = [str(file) for file in files if file.is_file()]
            if names:
                at = entry.stat().st_mtime
                query = "SELECT playback_id FROM read_parquet(?) WHERE exposure_id IS NOT NULL"
                for (key,) in duckdb.execute(query, [names]).fetchall():
                    self.found.setdefault(key, at)
        return self.found


def create_topics(servers: str, prefix: str = "") -> None:
    for name in STREAMS:
        source = KafkaSource(format="kafka", bootstrap_servers=servers, topic=prefix + name)
        create_topic(source, name, PARTITIONS)


def send_pairs(servers: str, count: int, prefix: str = "") -> None:
    """Produce `count` impressions and as many playbacks, one to each: all of them of the last two minutes."""
    to, now = producer(servers), time.time()
    for number in range(count):
        who, what = f"profile-{number}", f"title-{number % 500}"
        to.produce(f"{prefix}impressions", json.dumps(impression(f"i-{number}", now - 120, who, what)), who)
        to.produce(f"{prefix}playbacks", json.dumps(playback(f"p-{number}", now - 60, who, what)), who)
    if to.flush(30):
        raise RuntimeError("Kafka did not accept all records in 30 s")


def producer(servers: str) -> Producer:
    return Producer({"bootstrap.servers": servers, "linger.ms": 5, "compression.type": "lz4", "log_level": 0})


def impression(key: str, at: float, who: str, what: str) -> dict[str, str]:
    return {"impression_id": key, "event_time": iso(at), "profile_id": who, "title_id": what, "row_id": "new"}


def playback(key: str, at: float, who: str, what: str) -> dict[str, str]:
    return {"playback_id": key, "event_time": iso(at), "profile_id": who, "title_id": what, "device": "tv"}


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def percentiles(delays: list[float]) -> dict[str, float]:
    """Median, 90 %, 99 % and maximum of two or more delays, in seconds."""
    cuts = statistics.quantiles(delays, n=100)
    return {
        "median": round(cuts[49], 2),
        "p90": round(cuts[89], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(delays), 2),
    }


def all_readable(keys: set[str], rows: ReadableRows) -> Callable[[], bool]:
    return lambda: keys <= rows.read().keys()
