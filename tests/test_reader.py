"""Looking at a local lake without a JVM: what both readers answer, status and explain on literal tables, show and export."""

import csv
import json
import subprocess
import sys
import tarfile
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyarrow import parquet
from pyspark.sql import SparkSession

from pipelines.config.load import load_config
from pipelines.config.model import Config
from pipelines.control.facts import Fact, Facts, facts_in
from pipelines.control.origin import check_origin, origin
from pipelines.jobs.tables import export, show
from pipelines.lake.reader import LocalReader, SparkReader, open_reader, rows_of
from pipelines.lake.tables import Lake
from pipelines.model.errors import LakeError, RejoinError
from pipelines.monitor.entries import latest_and_recent
from pipelines.monitor.explain import explain
from tests.processes import ROOT

NOON = datetime(2026, 1, 10, 12, tzinfo=timezone.utc)
MINUTE = 60_000_000
TIME = pa.timestamp("us", "UTC")


def config(root: Path, *overrides: str) -> Config:
    return load_config(ROOT / "conf" / "playback.yml", [f"lake={root}", *overrides])


def write(root: Path, table: str, rows: list[dict[str, Any]], **types: pa.DataType) -> None:
    """A Delta table of the rows; a column's type is that of its values where it is not given."""
    arrow = pa.Table.from_pylist(rows)
    schema = pa.schema([(field.name, types.get(field.name, field.type)) for field in arrow.schema])
    partitions = [name for name in ("event_date", "run_date") if name in arrow.schema.names]
    write_deltalake(root / table, pa.Table.from_pylist(rows, schema), partition_by=partitions)


def no_spark() -> Lake:
    raise AssertionError("Spark is not needed")


# Both readers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def merged(spark: SparkSession, tmp_path: Path) -> Lake:
    """A lake whose attributed table has a deletion vector: 100 rows, of which MERGE has changed p5."""
    lake = Lake(spark, config(tmp_path))
    table = f"delta.`{lake.path('attributed_playbacks')}`"
    spark.sql(
        f"CREATE TABLE {table} USING delta PARTITIONED BY (event_date) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true') AS "
        "SELECT concat('p', id) AS playback_id, CAST(id AS INT) AS seen, timestamp_millis(id) AS event_time, "
        "map('k', named_struct('a', id)) AS more, DATE '2026-01-10' AS event_date FROM range(0, 100, 1, 1)"
    )
    spark.sql(f"MERGE INTO {table} t USING (SELECT 'p5' AS id) s ON t.playback_id = s.id WHEN MATCHED THEN UPDATE SET seen = 555")
    return lake


def test_deletion_vectors_are_honoured_and_both_readers_agree(merged: Lake) -> None:
    local = open_reader(merged.config, no_spark)
    assert isinstance(local, LocalReader)
    assert pa.table(DeltaTable(merged.path("attributed_playbacks")).deletion_vectors()).num_rows == 1
    for where in (
        (),
        "seen > 90",
        [("playback_id", "=", "p5")],
        [("seen", "in", [5, 6]), ("event_date", "=", date(2026, 1, 10))],
    ):
        found = [rows_of(reader.scan("attributed_playbacks", None, where)) for reader in (local, SparkReader(merged))]
        by_id = [sorted(rows, key=lambda row: str(row["playback_id"])) for rows in found]
        assert by_id[0] == by_id[1], where
    assert len(rows_of(local.scan("attributed_playbacks"))) == 100
    assert [row["seen"] for row in rows_of(local.scan("attributed_playbacks", ["seen"], [("playback_id", "=", "p5")]))] == [555]
    for reader in (local, SparkReader(merged)):
        assert reader.dates("attributed_playbacks") == ["2026-01-10"]
        assert not reader.exists("ledger")
        assert reader.appended_after("attributed_playbacks", 1) == (0, 0)
        files, size = reader.appended_after("attributed_playbacks", -1)
        assert files == 1
        assert size > 0


def test_a_table_that_delta_rs_does_not_read_is_left_to_spark(merged: Lake) -> None:
    table = merged.identifier("attributed_playbacks")
    merged.spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
    merged.spark.sql(f"ALTER TABLE {table} ALTER COLUMN seen TYPE BIGINT")
    reader = open_reader(merged.config, lambda: merged)
    assert isinstance(reader, SparkReader)
    assert [row["seen"] for row in rows_of(reader.scan("attributed_playbacks", ["seen"], "playback_id = 'p5'"))] == [555]


@pytest.mark.parametrize("lake", ["s3://bucket/lake", "dbfs:/lake", "main.events"])
def test_a_lake_at_a_uri_or_in_a_catalog_is_left_to_spark(lake: str) -> None:
    settings = load_config(ROOT / "conf" / "playback.yml", [f"lake={lake}", "checkpoints=/tmp/checkpoints"])
    assert isinstance(open_reader(settings, lambda: cast(Lake, None)), SparkReader)


WRONG = {
    "nope = 1": "no column nope; there are playback_id, seen, event_time, more, event_date",
    "seen = = 1": "=",
    "event_date = 'soon'": "soon",
    "CAST(playback_id AS INT) = 1": "Cannot cast|CAST_INVALID_INPUT",  # known when rows are read
    "seen = (SELECT 1 FROM nowhere)": "subquery|nowhere",  # at which delta-rs panics
}


def test_a_wrong_condition_is_one_line_of_either_reader(merged: Lake, capfd: pytest.CaptureFixture[str]) -> None:
    for reader in (LocalReader(merged.root), SparkReader(merged)):
        for where, reason in WRONG.items():
            with pytest.raises(RejoinError, match=reason) as error:
                show(reader, "attributed_playbacks", where, 5)
            assert str(error.value).startswith(f"--where {where}: attributed_playbacks: ")
            assert not [word for word in ("\n", "An error occurred", "backtrace") if word in str(error.value)]
    assert capfd.readouterr().err == ""
    # Of Spark too, times have their zone.
    assert SparkReader(merged).scan("attributed_playbacks").schema.field("event_time").type == TIME


# The ledger -------------------------------------------------------------------------------------------------------------


def entry(query: str, minute: float, **more: Any) -> dict[str, Any]:
    at = NOON + timedelta(minutes=minute)
    figures: dict[str, Any] = {"batch": 1, "started_at": at, "finished_at": at, "rows_in": 1, "horizon": None, "watermark": None}
    rest = {"state_rows": None, "consumed": "{}", "durations_ms": "{}", "detail": "{}", "run_date": at.date()}
    return {"query": query, **figures, **rest, **more}


LEDGER = {"horizon": TIME, "watermark": TIME, "state_rows": pa.int64()}


def test_recent_entries_are_within_ten_minutes_of_the_latest_of_their_query(tmp_path: Path) -> None:
    minutes = {"join": (-700, -11, -10, -3, 0), "ingest:a": (-60, -55)}
    write(tmp_path, "ledger", [entry(query, at) for query, times in minutes.items() for at in times], **LEDGER)
    latest, recent = latest_and_recent(LocalReader(str(tmp_path)), ["join", "ingest:a", "settle"])
    noon = round(NOON.timestamp() * 1e6)
    assert [e["finished_at"] - noon for e in recent["join"]] == [-10 * MINUTE, -3 * MINUTE, 0]
    assert [e["finished_at"] - noon for e in recent["ingest:a"]] == [-60 * MINUTE, -55 * MINUTE]
    assert latest["settle"] is None
    assert latest["join"] == recent["join"][-1]


def test_facts_are_those_of_table_control(tmp_path: Path) -> None:
    assert facts_in(LocalReader(str(tmp_path))).rows == ()
    gap = {"topic": "t", "gaps": [{"partition": 0, "first": 5, "last": 7}]}
    rows = [("horizon", None, NOON, {}), ("gap", "a", None, gap), ("settled", None, None, {"run": 3, "horizon": 40})]
    write(
        tmp_path,
        "control",
        [{"kind": k, "stream": s, "event_time": t, "version": None, "detail": json.dumps(d), "at": NOON} for k, s, t, d in rows],
        version=pa.int64(),
    )
    facts = facts_in(LocalReader(str(tmp_path)))
    assert facts.horizon == round(NOON.timestamp() * 1e6)
    assert (facts.settled.run, facts.settled.horizon) == (3, 40)
    assert [(fact.stream, fact.detail) for fact in facts.of_kind("gap")] == [("a", gap)]


# Explain ----------------------------------------------------------------------------------------------------------------


def exposure(id: str, before: timedelta, **more: Any) -> dict[str, Any]:
    at = NOON - before
    values = {"impression_id": id, "event_time": at, "profile_id": "ann", "title_id": "t", "late": False, "event_date": at.date()}
    return {**values, "row_id": None, "position": 1, "device": "tv", "model_version": "m", **more}


def outcome(id: str, **more: Any) -> dict[str, Any]:
    values = {"playback_id": id, "event_time": NOON, "profile_id": "ann", "title_id": "t", "late": False, "source": "f.json"}
    return {**values, "door_watermark": None, "event_date": NOON.date(), **more}


@pytest.fixture
def explained(tmp_path: Path) -> Any:
    hours = timedelta(hours=1)
    exposures = [
        exposure("other key", hours, title_id="u"),
        exposure("after", -timedelta(microseconds=1)),
        exposure("at 6 h", 6 * hours),
        exposure("too old", 6 * hours + timedelta(microseconds=1)),
        exposure("a", hours),
        exposure("b", hours, late=True),
        exposure("same time", 0 * hours),
    ]
    write(tmp_path, "impressions", exposures, row_id=pa.string())
    write(tmp_path, "playbacks", [outcome("it's p"), outcome("no key", title_id=None)], door_watermark=TIME)
    answer = {"playback_id": "it's p", "exposure_id": "b", "exposure_time": NOON, "attributed_by": "join", "updated_at": NOON}
    write(tmp_path, "attributed_playbacks", [{**answer, "event_date": NOON.date()}])
    settings = config(tmp_path)
    return lambda id: explain(open_reader(settings, no_spark), settings, id)


def test_explain_names_the_matching_exposures_the_answer_first(explained: Any) -> None:
    lines = explained("it's p").splitlines()
    shown = [line.split("  ")[2] for line in lines[lines.index("row in the table") :] if " s before" in line]
    assert shown == ["same time", "b", "a", "at 6 h"]
    assert "  2026-01-10T11:00:00.000Z  b  3,600.000 s before, from the lake, late" in lines
    assert any("exposure_id=b" in line and "by join at 2026-01-10T12:00:00.000Z" in line for line in lines)


def test_explain_matches_nothing_by_a_null_key(explained: Any) -> None:
    lines = explained("no key").splitlines()
    assert lines[lines.index("row in the table") + 1] == "  none yet"
    assert lines[-3] == "  none"


def test_explain_says_where_an_unknown_outcome_may_be(explained: Any) -> None:
    with pytest.raises(RejoinError, match="no event of playbacks has this playback_id"):
        explained("nobody")


# Show and export --------------------------------------------------------------------------------------------------------

BEFORE_1970 = datetime(1969, 12, 31, 23, 59, 59, 999_999, timezone.utc)
ROWS = [
    {"id": 1, "text": 'say "hi", é\n', "price": Decimal("1.50"), "at": NOON, "tags": ["x", None], "more": {"a": 1.5, "at": NOON}},
    {
        "id": 2,
        "text": "",
        "price": None,
        "at": datetime(1969, 12, 31, 23, 59, 59, 999_999, timezone.utc),
        "tags": [],
        "more": None,
    },
    {"id": 3, "text": None, "price": Decimal("-0.01"), "at": None, "tags": None, "more": {"a": None, "at": None}},
]
NESTED = pa.struct([("a", pa.float64()), ("at", TIME)])


@pytest.fixture
def values(tmp_path: Path) -> LocalReader:
    write(tmp_path, "quarantine", ROWS, price=pa.decimal128(10, 2), more=NESTED)
    return LocalReader(str(tmp_path))


def test_jsonl_has_every_value(values: LocalReader, tmp_path: Path) -> None:
    assert export(values, "quarantine", None, tmp_path / "out.jsonl") == 3
    text = (tmp_path / "out.jsonl").read_text()
    assert '"price":1.50' in text
    found = {row["id"]: row for row in map(json.loads, text.splitlines())}
    assert found[1] == {
        "id": 1, "text": 'say "hi", é\n', "price": 1.5, "at": "2026-01-10T12:00:00.000Z",
        "tags": ["x", None], "more": {"a": 1.5, "at": "2026-01-10T12:00:00.000Z"},
    }  # fmt: skip
    assert found[2]["at"] == "1969-12-31T23:59:59.999Z"
    assert found[3]["more"] == {"a": None, "at": None}


def test_csv_has_nested_values_as_json_and_tells_empty_from_null(values: LocalReader, tmp_path: Path) -> None:
    assert export(values, "quarantine", "id < 3", tmp_path / "out.csv") == 2
    with (tmp_path / "out.csv").open(newline="") as lines:
        found = {row["id"]: row for row in csv.DictReader(lines)}
    assert found["1"]["text"] == 'say "hi", é\n'
    assert (found["1"]["price"], found["1"]["at"]) == ("1.50", "2026-01-10T12:00:00.000Z")
    assert json.loads(found["1"]["more"])["a"] == 1.5
    assert (found["2"]["price"], found["2"]["tags"], found["2"]["more"]) == ("", "[]", "")


def test_csv_is_exact_unless_it_is_to_be_safe_for_spreadsheets(tmp_path: Path) -> None:
    texts = ["\t=1", "=1+1", "+1", "-1", "@x", " a ", "", "a=1"]
    write(tmp_path, "quarantine", [{"id": text, "price": -1.5} for text in texts])

    def exported(**options: bool) -> list[str]:
        export(LocalReader(str(tmp_path)), "quarantine", None, tmp_path / "out.csv", **options)
        with (tmp_path / "out.csv").open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert {row["price"] for row in rows} == {"-1.5"}
        return sorted(row["id"] for row in rows)

    assert exported() == sorted(texts)
    assert exported(spreadsheet_safe=True) == sorted([*("'" + text for text in texts[:5]), *texts[5:]])


@pytest.mark.parametrize("where", [None, "id > 99"], ids=["rows", "no rows"])
def test_parquet_keeps_types(values: LocalReader, tmp_path: Path, where: str | None) -> None:
    count = export(values, "quarantine", where, tmp_path / "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet")
    assert (count, found.num_rows) == ((3, 3) if where is None else (0, 0))
    assert (found.schema.field("price").type, found.schema.field("text").type) == (pa.decimal128(10, 2), pa.string())
    assert (found.schema.field("at").type, found.schema.field("more").type.field("at").type) == (TIME, TIME)
    assert list(tmp_path.glob(".out*")) == []


def test_show_cuts_nothing(values: LocalReader, capsys: pytest.CaptureFixture[str]) -> None:
    show(values, "quarantine", "id = 1", 20)
    said = capsys.readouterr().out
    assert 'say "hi"' in said
    assert "2026-01-10T12:00:00.000Z" in said


def test_looking_at_a_local_lake_imports_neither_spark_nor_pandas(tmp_path: Path) -> None:
    with tarfile.open(ROOT / "tests" / "data" / "lake-of-0.1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    lake = next(tmp_path.rglob("ledger")).parent
    code = (
        "import sys; from pipelines.cli.app import app\n"
        "for words in (['status'], ['status', '--format', 'json'], ['show', 'playbacks'], ['explain', 'p1']):\n"
        f"    app([*words, '--set', 'lake={lake}'], standalone_mode=False)\n"
        "assert not {'pyspark', 'pandas', 'great_expectations'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "row in the table" in done.stdout
    assert "final outcomes" in done.stdout


def test_another_pipelines_lake_is_told_by_its_configuration(tmp_path: Path) -> None:
    own = config(tmp_path)
    facts = Facts((Fact(kind="streams", detail={"streams.orders.role": "outcome", "streams.views.role": "exposure"}),))
    with pytest.raises(
        LakeError, match=r"another configuration \(streams orders, views\), and .*playback.yml has impressions, pl"
    ):
        check_origin(facts, own, "./lake")
    mine = facts.with_fact(Fact(kind="configuration", detail={"file": str(Path("my.yml").absolute())}))
    with pytest.raises(LakeError, match=r"this lake was written with my.yml .* did you mean --conf my.yml\?"):
        check_origin(mine, own, "./lake")
    recorded = origin(mine, own)
    assert recorded is not None
    assert origin(mine.with_fact(recorded), own) is None
