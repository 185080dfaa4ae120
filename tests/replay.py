"""Feeds waves of events through the real stages. Each call to a stage starts its query from its checkpoint: a restart."""

import json
import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, TimestampType

from pipelines.config.load import load_config
from pipelines.ingest.reland import Relanded
from pipelines.jobs.ingest import ingest
from pipelines.jobs.join import join
from pipelines.jobs.reconcile import run_reconcile
from pipelines.jobs.reland import run_reland
from pipelines.jobs.settle import settle
from pipelines.lake.reader import open_reader
from pipelines.lake.tables import Lake
from pipelines.monitor.status import Status, read_status
from pipelines.reconcile.expectations import Check
from pipelines.reconcile.result import Reconciliation
from pipelines.reconcile.span import Range
from pipelines.settle.run import SettleResult

CONF = Path(__file__).parent.parent / "conf" / "playback.yml"


def differences(report: Reconciliation) -> dict[str, int]:
    """The rows of a reconciliation by class, as far as there are any that differ."""
    return {name: count for name, count in report.counts.items() if count and name != "matched"}


RUN, FILES = "pipelines.reconcile.run", "pipelines.jobs.reconcile.write_files"


def checks_of(frames: dict[str, Any], suites: dict[str, Any], given: dict[str, Any], _: Path) -> list[Check]:
    """The bounds on columns of the summary suite, by comparison."""
    checks = []
    for each in suites["summary"]:
        kwargs = {k: given[v["$PARAMETER"]] if isinstance(v, dict) else v for k, v in each["kwargs"].items()}
        least, most = (0, 0) if each["type"] == "expect_none_of" else (kwargs.get("min_value"), kwargs.get("max_value"))
        observed = float(frames["summary"][kwargs["column"]].iloc[0])
        success = (least is None or observed >= least) and (most is None or observed <= most)
        said = str(each["meta"]["says"]).format(**{k: v for k, v in given.items() if v is not None})
        checks.append(Check(name=said, severity=each["severity"], success=success, observed=observed))
    return checks


def no_files(_: Reconciliation, reports: Path) -> Path:
    return reports / "none.html"


class Replay:
    """A pipeline of the default configuration (or `conf`) in a directory of its own."""

    def __init__(self, spark: SparkSession, root: Path, overrides: Iterable[str] = (), conf: Path = CONF) -> None:
        names = load_config(conf).streams
        landing = [f"streams.{name}.source.path={root}/landing/{name}" for name in names]
        self.root = root
        self._files = 0
        self._conf, self._settings = conf, [f"lake={root}/lake", *landing, *overrides]
        self.config = load_config(conf, self._settings)
        self.lake = Lake(spark, self.config)
        for name in names:
            (root / "landing" / name).mkdir(parents=True)

    def freeze(self) -> "Frozen":
        """Keep the directory as it is, so that many tests can begin there."""
        kept = self.root.with_name(f"{self.root.name}-kept")
        shutil.copytree(self.root, kept)
        return Frozen(self, kept)

    def reconfigure(self, *overrides: str) -> None:
        """Go on with a changed configuration, as after a stop and a start."""
        self._settings += overrides
        self.config = load_config(self._conf, self._settings)
        self.lake = Lake(self.lake.spark, self.config)

    def land(self, stream: str, events: Iterable[dict[str, Any] | str], name: str | None = None) -> Path | None:
        """One file of events (or raw lines); none where there are no events."""
        lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
        if not lines:
            return None
        self._files += 1
        path = self.root / "landing" / stream / (name or f"file-{self._files:04d}.jsonl")
        hidden = path.with_name(f".{path.name}")
        hidden.write_text("".join(line + "\n" for line in lines))
        return hidden.rename(path)

    def wave(self, impressions: Iterable[Any] = (), playbacks: Iterable[Any] = ()) -> None:
        """Land one file each and ingest them."""
        self.land("impressions", impressions)
        self.land("playbacks", playbacks)
        self.ingest()

    def ingest(self) -> None:
        ingest(self.lake, self.config, once=True)

    def join(self) -> None:
        join(self.lake, self.config, once=True)

    def settle(self, *, everything: bool = False) -> SettleResult:
        return settle(self.lake, self.config, everything=everything)

    def reconcile(self, span: Range | None = None, *, whole: bool = False, **how: Any) -> Reconciliation:
        """Reconcile; unless `whole`, without Great Expectations and the files of the report, which take most of the time."""
        with nullcontext() if whole else patch(f"{RUN}.validate", checks_of), nullcontext() if whole else patch(FILES, no_files):
            return run_reconcile(self.lake, self.config, span or Range(), **how)[0]

    def reland(self, stream: str) -> Relanded:
        return run_reland(self.lake, self.config, stream)[0]

    def status(self) -> Status:
        return read_status(open_reader(self.config, lambda: self.lake), self.config)

    def lose_checkpoint(self, query: str) -> None:
        shutil.rmtree(self.lake.checkpoint(query), ignore_errors=True)

    def read(self, table: str) -> DataFrame:
        return self.lake.read(table)

    def rows(self, table: str, where: str = "true") -> list[dict[str, Any]]:
        """The rows with times in microseconds and dates as text, so that Python's time zone plays no part."""
        frame = self.read(table).where(where)
        for field in frame.schema:
            if isinstance(field.dataType, TimestampType):
                frame = frame.withColumn(field.name, F.unix_micros(field.name))
            if isinstance(field.dataType, DateType):
                frame = frame.withColumn(field.name, F.col(field.name).cast("string"))
        return [row.asDict(recursive=True) for row in frame.collect()]

    def attributed(self) -> dict[Any, dict[str, Any]]:
        """The attributed rows by outcome id, without what says who wrote them and when; asserts one row an id."""
        id = self.lake.streams.outcome.id
        rows = self.rows(self.lake.attributed)
        by_id = {row[id]: {k: v for k, v in row.items() if k not in ("attributed_by", "updated_at")} for row in rows}
        assert len(by_id) == len(rows), "an outcome has more than one row"
        return by_id

    def answers(self) -> dict[Any, tuple[Any, str]]:
        """Outcome id -> (exposure id, lane)."""
        id = self.lake.streams.outcome.id
        return {row[id]: (row["exposure_id"], row["attributed_by"]) for row in self.rows(self.lake.attributed)}

    def dropped(self) -> int:
        return sum(row["rows_dropped_by_watermark"] or 0 for row in self.rows("ledger"))


class Frozen:
    """A pipeline as it once was. Paths stand in checkpoints, so it is put back where it was, one at a time."""

    def __init__(self, replay: Replay, kept: Path) -> None:
        self._replay, self._kept = replay, kept

    def thawed(self) -> Replay:
        spark, root = self._replay.lake.spark, self._replay.root
        shutil.rmtree(root)
        shutil.copytree(self._kept, root)
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # it remembers what was here before
        again = copy(self._replay)
        again._settings = list(self._replay._settings)
        again.lake = Lake(spark, again.config)
        return again
