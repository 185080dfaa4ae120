"""How long a record takes from Kafka to a readable row (W4): a steady load on `rejoin run`, for some minutes.

    .venv/bin/python benchmarks/latency.py [--rate 2000] [--minutes 5] [--set KEY=VALUE ...]

Events happen as they are sent: nine impressions to a playback, which follows one of the last three minutes. What counts is each
playback that has a match: from the record's timestamp in Kafka to the modification time of the Delta log entry by which its row,
with its exposure, is in the table. The log is read as JSON and the files by DuckDB: no part of Rejoin looks on.
"""

import argparse
import json
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from processes import running, wait_until  # noqa: E402
from readable_rows import ReadableRows, all_readable, percentiles  # noqa: E402
from traffic import Load, create_topics  # noqa: E402
from workloads import ROOT, WORKLOADS, overrides  # noqa: E402

from pipelines.demo.broker import local_broker  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rate", type=int, default=2000, help="events a second, a tenth of them playbacks")
    arguments.add_argument("--minutes", type=float, default=5)
    arguments.add_argument("--warm-up", type=float, default=60, help="seconds after the first row that do not count")
    arguments.add_argument("--set", action="append", default=[], dest="sets")
    arguments.add_argument("--dir", type=Path, default=ROOT / ".benchmarks")
    options = arguments.parse_args()
    home = options.dir.absolute() / "latency"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    rows = ReadableRows(home / "lake" / "attributed_playbacks")
    with local_broker(home / "broker") as broker:
        create_topics(broker.servers)
        words = [
            *overrides(broker.servers, home / "lake", WORKLOADS["w1"]),
            *(w for each in options.sets for w in ("--set", each)),
        ]
        load = Load(broker.servers, options.rate)
        with running([sys.executable, "-m", "pipelines", "run", *words], home / "log", cwd=ROOT) as process:
            load.start()
            wait_until(lambda: bool(rows.read()), process, 180)
            time.sleep(options.warm_up)
            began = time.time()
            time.sleep(options.minutes * 60)
            load.stop()
            sent = {key: at for key, at in load.sent.items() if at >= began}
            wait_until(all_readable(set(sent), rows), process, 120, strict=False)
    delays = [rows.found[key] - at for key, at in sent.items() if key in rows.found]
    if len(delays) < 2:
        raise SystemExit(f"no row became readable; see {home / 'log'}")
    seconds = percentiles(delays)
    report = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "events_per_second": options.rate,
        "minutes": options.minutes,
        "warm_up_seconds": options.warm_up,
        "set": options.sets,
        "matched_playbacks": len(sent),
        "readable": len(delays),
        "seconds": seconds,
        "goals": {"median at most 10 s": seconds["median"] <= 10, "p99 at most 25 s": seconds["p99"] <= 25},
    }
    (options.dir.absolute() / "results").mkdir(exist_ok=True)
    (options.dir.absolute() / "results" / "w4.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    raise SystemExit(0 if len(delays) == len(sent) else 1)


if __name__ == "__main__":
    main()
