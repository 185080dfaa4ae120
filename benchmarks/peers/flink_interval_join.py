"""Flink 2.3: a LEFT OUTER interval join over the whole attribution window in Flink SQL, Kafka to Parquet files.

    .benchmarks/peers/flink/venv/bin/python benchmarks/peers/flink_interval_join.py --bootstrap HOST:PORT --window-hours 6
        --backend rocksdb|hashmap --out DIR --jars .benchmarks/peers/flink/jars --work DIR [--delay-minutes 10]

`benchmarks/setup-peers` makes the environment and the JARs. Both topics are read from the earliest offset to the one that is the
latest at start; then the watermark goes to the end of time, and all that is in state comes out. One process, parallelism 2,
exactly-once checkpoints each 30 s with which the Parquet files appear.

It writes every matching pair, and an unmatched playback once: choosing the last touch is left to who reads the files, and so are
duplicates of playbacks. A late impression finds only playbacks that are still in state, a late playback only impressions that
are. That is less work than Rejoin does. The files are not partitioned, and no table format keeps account of them.

Records that are no JSON, or have no id, no readable time, or one more than five minutes after the record was written, get the
time 0, which moves no watermark, and are filtered out ahead of the join.

Settings, with the page of Flink's documentation that advises or offers them:
- RocksDB with incremental checkpoints, and half of the memory as managed memory, of which RocksDB takes all ("Tuning Checkpoints
  and Large State", "Memory tuning guide"); its timers on the heap, which the first of these pages advises where they are few:
  here one for each key with state, for which there is room; the predefined options for SSDs ("State Backends"), and bloom filters
  ("Configuration"), because the join looks up each row's time before it adds the row.
- The hashmap backend with no managed memory, so that all of it is heap ("State Backends", "Memory tuning guide").
- Some 4 GiB for the process in either case, of which 0.5 GiB is the JVM's own, network buffers and clients.
- Object reuse, and buffers sent when they are full, not each 100 ms ("Configuration": pipeline.object-reuse,
  execution.buffer-timeout.enabled).
- A pause of 10 s at least between checkpoints ("Tuning Checkpoints and Large State").
- An idle partition holds up the watermark for 10 s ("Configuration": table.exec.source.idle-timeout).
- 5,000 records a poll of Kafka instead of 500; snappy in RocksDB, and in the Parquet files, as both have it by default.
Watermark alignment ("Generating Watermarks") is off; an hour of it (`--max-drift-minutes 60`) made no difference in small trials.

The last line is JSON. `seconds` is from the submission of the job to its end, without the start of the JVM. `state_bytes` is the
greatest full size of a completed checkpoint, as Flink's REST API tells it, asked every two seconds (null where the job ended
before its first). Flink does not tell how many rows that is, so `state_rows` is null.
"""

import argparse
import json
import os
import socket
import threading
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

# Heap and managed memory in MiB. Some 0.5 GiB more goes to the JVM itself, network buffers and clients.
MEMORY = {"rocksdb": (1792, 1792), "hashmap": (3584, 0)}

EVENTS = {
    "impressions": (
        "impression_id STRING, event_time TIMESTAMP_LTZ(3), profile_id STRING, title_id STRING, "
        "row_id STRING, `position` INT, device STRING, model_version STRING"
    ),
    "playbacks": (
        "playback_id STRING, event_time TIMESTAMP_LTZ(3), profile_id STRING, title_id STRING, device STRING, seconds_watched INT"
    ),
}

SOURCE = """
    CREATE TABLE {topic} (
        {columns},
        record_time TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
        happened AS CASE WHEN event_time <= record_time + INTERVAL '5' MINUTE THEN event_time ELSE TO_TIMESTAMP_LTZ(0, 3) END,
        WATERMARK FOR happened AS happened - {delay}
    ) WITH (
        'connector' = 'kafka',
        'topic' = '{topic}',
        'properties.bootstrap.servers' = '{bootstrap}',
        'properties.group.id' = 'flink-interval-join',
        'properties.max.poll.records' = '5000',
        'scan.startup.mode' = 'earliest-offset',
        'scan.bounded.mode' = 'latest-offset',
        'format' = 'json',
        'json.timestamp-format.standard' = 'ISO-8601',
        'json.ignore-parse-errors' = 'true'{alignment}
    )
"""

ALIGNMENT = """,
        'scan.watermark.alignment.group' = 'both',
        'scan.watermark.alignment.max-drift' = '{drift} min',
        'scan.watermark.alignment.update-interval' = '200 ms'
"""

SINK = """
    CREATE TABLE attributed (
        playback_id STRING, event_time TIMESTAMP(3), profile_id STRING, title_id STRING, device STRING, seconds_watched INT,
        exposure_id STRING, exposure_time TIMESTAMP(3),
        exposure_row_id STRING, exposure_position INT, exposure_device STRING, exposure_model_version STRING
    ) WITH (
        'connector' = 'filesystem',
        'path' = '{out}',
        'format' = 'parquet',
        'parquet.utc-timezone' = 'true',
        'parquet.write.int64.timestamp' = 'true',
        'parquet.timestamp.time.unit' = 'micros'
    )
"""

JOIN = """
    INSERT INTO attributed
    SELECT p.playback_id, CAST(p.happened AS TIMESTAMP(3)), p.profile_id, p.title_id, p.device, p.seconds_watched,
        i.impression_id, CAST(i.happened AS TIMESTAMP(3)), i.row_id, i.`position`, i.device, i.model_version
    FROM (SELECT * FROM playbacks WHERE playback_id IS NOT NULL AND happened > TO_TIMESTAMP_LTZ(0, 3)) p
    LEFT JOIN (
        SELECT * FROM impressions
        WHERE impression_id IS NOT NULL AND happened > TO_TIMESTAMP_LTZ(0, 3)
            AND (model_version IS NULL OR model_version NOT LIKE '{{%')
    ) i
    ON p.profile_id = i.profile_id AND p.title_id = i.title_id
        AND i.happened BETWEEN p.happened - {window} AND p.happened
"""


def settings(backend: str, work: Path, port: int, checkpoint_seconds: int) -> dict[str, str]:
    common = {
        "parallelism.default": "2",
        "pipeline.object-reuse": "true",
        "execution.buffer-timeout.enabled": "false",
        "execution.checkpointing.interval": f"{checkpoint_seconds}s",
        "execution.checkpointing.min-pause": f"{checkpoint_seconds // 3}s",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": (work / "checkpoints").as_uri(),
        "state.backend.type": backend,
        "table.local-time-zone": "UTC",
        "table.exec.source.idle-timeout": "10s",
        "taskmanager.memory.managed.size": f"{MEMORY[backend][1]}m",
        "io.tmp.dirs": str(work / "tmp"),
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.bind-port": str(port),
        "jobmanager.bind-host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.host": "127.0.0.1",
    }
    rocksdb = {
        "execution.checkpointing.incremental": "true",
        "state.backend.rocksdb.localdir": str(work / "rocksdb"),
        "state.backend.rocksdb.timer-service.factory": "HEAP",
        "state.backend.rocksdb.predefined-options": "FLASH_SSD_OPTIMIZED",
        "state.backend.rocksdb.use-bloom-filter": "true",
    }
    return {**common, **(rocksdb if backend == "rocksdb" else {})}


def environment(options: argparse.Namespace, port: int) -> TableEnvironment:
    """Starts the JVM: its memory and class path are read from the environment of this process."""
    os.environ["JVM_ARGS"] = f"-Xmx{MEMORY[options.backend][0]}m"
    os.environ["HADOOP_CLASSPATH"] = str(options.jars / "*")  # as good as Flink's lib directory
    os.environ["FLINK_LOG_DIR"] = str(options.work / "log")
    for name in ("log", "tmp", "rocksdb", "checkpoints"):
        (options.work / name).mkdir(parents=True, exist_ok=True)
    configuration = Configuration()
    for key, value in settings(options.backend, options.work, port, options.checkpoint_seconds).items():
        configuration.set_string(key, value)
    builder = EnvironmentSettings.new_instance().in_streaming_mode()
    return TableEnvironment.create(builder.with_configuration(configuration).build())


class Checkpoints(threading.Thread):
    """Asks Flink every two seconds for its completed checkpoints, and keeps the last answer."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.completed, self.state_bytes = url, 0, None
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(2):
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:  # noqa: S310
                    found = json.load(answer)
            except OSError:
                continue  # not yet, or no more
            self.completed = found["counts"]["completed"]
            if self.completed:
                self.state_bytes = found["summary"]["state_size"]["max"]

    def end(self) -> None:
        self._ended.set()
        self.join()


def interval(length: timedelta) -> str:
    """SQL, of whole seconds; an INTERVAL of seconds alone takes no more than two digits."""
    minutes, seconds = divmod(round(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"INTERVAL '{hours // 24} {hours % 24:02d}:{minutes:02d}:{seconds:02d}' DAY TO SECOND"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--window-hours", type=float, default=6)
    arguments.add_argument("--backend", choices=sorted(MEMORY), default="rocksdb")
    arguments.add_argument("--out", type=lambda p: Path(p).absolute(), required=True)
    arguments.add_argument("--jars", type=lambda p: Path(p).absolute(), required=True)
    arguments.add_argument("--work", type=lambda p: Path(p).absolute(), required=True, help="for checkpoints, state and logs")
    arguments.add_argument("--delay-minutes", type=float, default=10)
    arguments.add_argument("--checkpoint-seconds", type=int, default=30)
    arguments.add_argument("--max-drift-minutes", type=int, default=0, help="of one topic ahead of the other; 0: any")
    options = arguments.parse_args()
    port, drift = free_port(), options.max_drift_minutes
    tables = environment(options, port)
    delay, window = interval(timedelta(minutes=options.delay_minutes)), interval(timedelta(hours=options.window_hours))
    for topic, columns in EVENTS.items():
        names = {"topic": topic, "columns": columns, "bootstrap": options.bootstrap, "delay": delay}
        tables.execute_sql(SOURCE.format(**names, alignment=ALIGNMENT.format(drift=drift) if drift else ""))
    tables.execute_sql(SINK.format(out=options.out.as_uri()))
    clock = time.monotonic()
    result = tables.execute_sql(JOIN.format(window=window))
    checkpoints = Checkpoints(f"http://127.0.0.1:{port}/jobs/{result.get_job_client().get_job_id()}/checkpoints")
    checkpoints.start()
    result.wait()
    seconds = time.monotonic() - clock
    checkpoints.end()
    figures = {
        "state_rows": None,
        "state_bytes": checkpoints.state_bytes,
        "checkpoints": checkpoints.completed,
        "seconds": round(seconds, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
