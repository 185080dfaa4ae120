"""Events for the two Kafka topics of a benchmark: a steady load, or some pairs that match."""

import json
import random
import threading
import time
from collections import deque
from datetime import datetime, timezone

from confluent_kafka import Producer
from workloads import PARTITIONS, STREAMS

from pipelines.config.sources import KafkaSource
from pipelines.kafka.client import create_topic

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
