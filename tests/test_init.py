"""`rejoin init`: from samples to a configuration that is right, or one line that says what to give."""

import doctest
import json
import random
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.cli.app import app
from pipelines.config import infer as inferring
from pipelines.config.infer import Event, infer, micros_of, type_of
from pipelines.config.load import load_config
from pipelines.config.propose import propose, to_yaml
from pipelines.jobs.init import Place, initialise
from pipelines.jobs.reconcile import run_reconcile
from pipelines.jobs.run import run_once
from pipelines.lake.tables import Lake
from pipelines.model.errors import RejoinError
from pipelines.reconcile.span import Range
from tests import oracle
from tests.builders import play
from tests.processes import rejoin

START = datetime(2026, 3, 1, 8, tzinfo=timezone.utc)

# values -> type (None: left out), and a part of the note
TYPES: list[tuple[list[Any], str | None, str]] = [
    ([True, False], "BOOLEAN", ""),
    ([1, 2, 3_000_000_000], "BIGINT", ""),
    ([1.0, 2.0], "BIGINT", ""),  # what pandas makes of integers with gaps
    ([1, 2.5], "DOUBLE", ""),
    ([2**63], "DECIMAL(38,0)", ""),
    ([10**40], None, "too large"),
    (["a", "1"], "STRING", ""),
    (["2026-01-31"] * 2, "DATE", ""),
    (["2026-01-31T10:00:00Z", "2026-01-31 10:00+0200"], "TIMESTAMP", ""),
    (["2026-01-31T10:00:00Z"] * 19 + ["soon"], "TIMESTAMP", "1 of 20 values are no TIMESTAMP"),
    (["2026-01-31T10:00:00"] * 2, "STRING", "times without an offset"),
    ([{"a": 1, "b": ["x"]}, {"a": None}], "STRUCT<a: BIGINT, b: ARRAY<STRING>>", ""),
    ([{"case": 1}], "STRUCT<`case`: BIGINT>", ""),
    ([{"a.b": 1, "c d": 2.5}], "MAP<STRING, DOUBLE>", ""),
    ([{}, {}], None, "no value"),
    ([[], [None]], None, "no value"),
    ([[1, 2], [0.5]], "ARRAY<DOUBLE>", ""),
    ([1, "a"], None, "several types (50% number, 50% text)"),
    ([1] * 19 + ["a"], "BIGINT", "1 of 20 values are not number"),
    ([], None, "no value"),
]


@pytest.mark.parametrize(("values", "kind", "note"), TYPES, ids=[str(values)[:40] for values, _, _ in TYPES])
def test_the_type_of_values(values: list[Any], kind: str | None, note: str) -> None:
    found, said = type_of(values)
    assert found == kind
    assert note in said if note else not said


def test_doctests_hold() -> None:
    assert doctest.testmod(inferring).failed == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01t00:00:01.5+00:00", 1_500_000),
        ("1970-01-01 02:00:00,250+0200", 250_000),
        ("1970-01-01T02:00+02", 0),
        (1_700_000_000_000, 1_700_000_000_000_000),
        ("1700000000000", 1_700_000_000_000_000),
        (1_700_000_000, None),
        ("2026-01-31T10:00:00", None),
        ("2026-02-31T10:00:00Z", None),
        (10**400, None),
        (True, None),
        (None, None),
    ],
)
def test_times_are_read_as_the_parser_reads_them(value: Any, expected: int | None) -> None:
    assert micros_of(value) == expected


def common(n: int) -> Event:
    return {"user": f"u{n % 23}", "kind": n % 3}


def views(count: int = 200, **more: Any) -> list[Event]:
    return [
        {
            "view": f"v{n}",
            "seen at": (START + timedelta(minutes=n)).isoformat(),
            **common(n),
            "late": n,
            **more,
        }
        for n in range(count)
    ]


def buys(count: int = 60) -> list[Event]:
    at = START + timedelta(minutes=7, seconds=30)
    return [
        {"no": n, "ts": int((at + timedelta(minutes=3 * n)).timestamp() * 1000), "user": f"u{3 * n % 23}", "kind": n % 3}
        for n in range(count)
    ]


def test_ids_times_keys_and_roles_are_found_whatever_the_order_of_the_streams() -> None:
    for given in ([infer("views", views()), infer("buys", buys())], [infer("buys", buys()), infer("views", views())]):
        found = propose(given)
        assert (found.exposure.name, found.exposure.id, found.exposure.event_time) == ("views", "view", "seen_at")
        assert (found.outcome.name, found.outcome.id, found.outcome.event_time) == ("buys", "no", "ts")
        assert found.keys == ("user",)
        assert found.why["kind"] == "no key: 3 values only"
        assert found.within[6] > found.backwards


def test_names_that_a_table_cannot_have_become_aliases(tmp_path: Path) -> None:
    found = propose([infer("views", views(**{"a.b": 1, "order": "x"})), infer("buys", buys())])
    file = tmp_path / "conf.yml"
    file.write_text(to_yaml(found, {name: {"format": "files", "path": f"./in/{name}"} for name in ("views", "buys")}, "./lake"))
    config = load_config(file)
    assert config.streams["views"].aliases == {"seen_at": ("seen at",), "late_": ("late",), "a_b": ("a.b",)}
    assert [c.name for c in config.streams["views"].columns if not c.nullable] == ["view", "seen_at"]
    assert config.join.carry == ("kind", "late_", "a_b", "order")


UNTOLD: list[tuple[list[Event], list[Event], str]] = [
    ([{**e, "view": 1, "late": 1} for e in views()], buys(), r"views: no id found \(no column .*name it: --id views=COLUMN"),
    (
        [{**e, "seen at": e["seen at"][:19]} for e in views()],
        buys(),
        "views: no event_time found .*times without an offset, such as",
    ),
    (views(), [{**e, "ts": e["ts"] // 1000} for e in buys()], "buys: no event_time found .*looks like epoch seconds"),
    (
        views(),
        [{**e, "user": f"x{e['no']}"} for e in buys()],
        r"no keys found \(user: no key: 0% of 23 values.*--keys COLUMN,COLUMN",
    ),
    (views(), [{"no": e["no"], "ts": e["ts"]} for e in buys()], "no keys found .the two have no column in common"),
]


@pytest.mark.parametrize(("exposures", "outcomes", "message"), UNTOLD)
def test_what_the_samples_do_not_tell_is_asked_for(exposures: list[Event], outcomes: list[Event], message: str) -> None:
    with pytest.raises(RejoinError, match=message):
        propose([infer("views", exposures), infer("buys", outcomes)])


def test_what_is_given_is_taken() -> None:
    streams = [infer("views", views(), id="user", event_time="seen_at"), infer("buys", buys())]
    found = propose(streams, ["kind", "user"], outcome="views")
    assert (found.outcome.name, found.outcome.id, found.keys) == ("views", "user", ("kind", "user"))
    with pytest.raises(RejoinError, match="--keys: nope is not a column of views"):
        propose(streams, ["nope"])
    with pytest.raises(RejoinError, match="--event-time: nope is not a column of buys"):
        propose([streams[0], infer("buys", buys(), event_time="nope")])


MISUSE = [
    (["a=./a"], "two streams are needed"),
    (["a=./a", "b"], "NAME=PLACE: 'b' is not NAME=..."),
    (["a=./nowhere", "b=./nowhere"], "nowhere: is not a directory"),
    (["a=./scripts", "b=./scripts"], "scripts: has no events"),
    (["a=./docs", "b=./docs", "--id", "c=x"], "--id: c is neither a nor b"),
    (["a=./docs", "b=./docs", "--out", "README.md"], "--out: README.md is there already"),
    (["a=./docs", "b=./docs", "--out", "nowhere/x.yml"], "--out: nowhere is not a directory"),
    (["a=kafka://host", "b=./docs"], "kafka://host: give kafka://HOST:PORT/TOPIC"),
    (["a=kafka://127.0.0.1:1/t", "b=./docs"], "kafka://127.0.0.1:1/t"),
]


@pytest.mark.parametrize(("args", "message"), MISUSE, ids=[" ".join(args) for args, _ in MISUSE])
def test_misuse_is_exit_2_and_one_line(args: list[str], message: str) -> None:
    done = rejoin("init", *args)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
    assert "init" in {command.callback.__name__ for command in app.registered_commands if command.callback}


@pytest.mark.slow
@pytest.mark.kafka
def test_a_topic_is_sampled(kafka: Any) -> None:
    pipeline = kafka()
    pipeline.send("playbacks", [play(f"p{n}", "10:00", who=f"w{n}") for n in range(50)])
    pipeline.send("playbacks", [None, b"\xff"])
    source = pipeline.source("playbacks")
    place = Place(name="plays", where=f"kafka://{source.bootstrap_servers}/{source.topic}")
    lines = place.lines()
    assert len(lines) == 51
    found = infer("plays", [json.loads(line) for line in lines if line.startswith("{")])
    assert (found.id, found.event_time) == ("playback_id", "event_time")
    assert place.source == {"format": "kafka", "bootstrap_servers": source.bootstrap_servers, "topic": source.topic}
    with pytest.raises(RejoinError, match="has no events; a sample is needed"):
        Place(name="empty", where=place.where.replace("playbacks", "impressions")).lines()


def test_from_files_to_a_reconciliation_that_agrees(spark: SparkSession, tmp_path: Path) -> None:
    """A shop's own files: times with offsets and in milliseconds, blanks in names, numbers with gaps, some garbage."""
    draw = random.Random(5)
    at = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    shown = [
        {
            "Offer No": n,
            "shown at": (at + timedelta(seconds=draw.randrange(40_000))).astimezone(timezone(timedelta(hours=2))).isoformat(),
            "customer": f"c{draw.randrange(60)}",
            "shop": draw.choice(["north", "south"]),
            "price": draw.choice([1.5, 2.0, None]),
            "slot": draw.choice([1.0, 2.0, None]),
            "tags": {"a": draw.randrange(3)},
        }
        for n in range(600)
    ]
    orders = [
        {
            "order_id": f"o{n}",
            "timestamp": int((at + timedelta(seconds=draw.randrange(40_000))).timestamp() * 1000),
            "customer": f"c{draw.randrange(60)}",
            "shop": draw.choice(["north", "south"]),
        }
        for n in range(150)
    ]
    for name, events in (("offers", shown), ("orders", orders)):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for part in range(3):
            lines = [json.dumps(event) for event in events[part::3]]
            (folder / f"{part}.jsonl").write_text("\n".join([*lines, "no json", '{"customer": NaN}']) + "\n")
    said: list[str] = []
    out = tmp_path / "shop.yml"
    clock = time.monotonic()
    places = [Place(name=name, where=f"{tmp_path}/in/{name}") for name in ("offers", "orders")]
    initialise(places, out, keys=[], outcome=None, ids={}, times={}, spark=lambda _: spark, say=said.append)
    assert time.monotonic() - clock < 300
    text = "\n".join(said)
    assert "offers: id Offer_No (all distinct); event time shown_at" in text
    assert "outcome: orders" in text
    assert "shop: no key: 2 values only" in text
    assert "offers: 606 read = 600 accepted + 6 quarantined (not_json 6)" in text
    config = load_config(out, [f"lake={tmp_path}/lake"])
    lake = Lake(spark, config)
    run_once(lake, config, everything=True)
    report = run_reconcile(lake, config, Range())[0]
    assert (report.verdict, report.counts["matched"]) == ("agrees", 150)
    found = {row["order_id"]: row["exposure_id"] for row in lake.read("attributed_orders").collect()}
    stamped = [{**o, "timestamp": datetime.fromtimestamp(o["timestamp"] / 1000, timezone.utc).isoformat()} for o in orders]
    names = {"outcome_id": "order_id", "exposure_id": "Offer No", "outcome_time": "timestamp", "exposure_time": "shown at"}
    expected = oracle.attribute(stamped, shown, window=timedelta(hours=6), keys=("customer",), carry=(), **names)
    assert found == {id: row["exposure_id"] for id, row in expected.items()}
