"""Configuration: every mistake is one line that names the file, the key and the remedy."""

import doctest
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.cli import app
from pipelines.config import secrets
from pipelines.config.load import load_config
from pipelines.config.secrets import resolve
from pipelines.control import gaps
from pipelines.model import durations, errors, format, time
from pipelines.model.durations import format_duration, parse_duration
from pipelines.model.errors import ConfigError

CONF = Path(__file__).parent.parent / "conf"
PLAYBACK = CONF / "playback.yml"


def test_the_shipped_configurations_load() -> None:
    playback, ads = load_config(PLAYBACK), load_config(CONF / "ads.yml")
    assert playback.join.attribution_window == timedelta(hours=6)
    assert playback.stream_name("outcome") == "playbacks"
    assert (ads.partition_by, ads.outcome.partition_by) == ("date", "hour")
    assert ads.state_store.provider == "memory"


# column -> what is said of it, after "column "
REFUSED = {
    "c CHAR(3)": "c: CHAR(3) is not a type of events; use STRING",
    "c VARCHAR(5)": "c: VARCHAR(5) is not a type of events; use STRING",
    "c STRING COLLATE UTF8_LCASE": "c: only NOT NULL and COMMENT may follow its type, not COLLATE UTF8_LCASE",
    "c BINARY": "c: BINARY is not a type of events; use STRING, which keeps base64",
    "c ARRAY<BINARY>": "c: BINARY is not a type of events",
    "c VARIANT": "c: VARIANT is not a type of events; use STRUCT or MAP",
    "c TIMESTAMP_NTZ": "c: TIMESTAMP_NTZ is not a type of events; use TIMESTAMP",
    "c STRUCT<t: TIMESTAMP_NTZ>": "c: field t: TIMESTAMP_NTZ is not a type of events",
    "c TIME": "c: TIME is not a type of events",
    "c INTERVAL DAY": "c: INTERVAL DAY is not a type of events",
    "c DATETIME": "c: DATETIME is not a type of events; use TIMESTAMP",
    "c DECIMAL(39,2)": "c: DECIMAL(39, 2): 38 digits at most",
    "c MAP<INT, STRING>": "c: the keys of a MAP must be STRING",
    "c STRUCT<p: INT NOT NULL>": "c: NOT NULL is for columns; inside a STRUCT leave it out",
    "c INT DEFAULT 5": "c: only NOT NULL and COMMENT may follow its type, not DEFAULT 5",
    "c INT GENERATED ALWAYS AS (1)": "c: only NOT NULL and COMMENT may follow its type",
    "`a.b` INT": '"a.b": a name has letters, digits and _',
    "`play id` INT": '"play id": a name has letters, digits and _',
    "`@timestamp` INT": '"@timestamp": a name has letters',
    "`x-y` INT": '"x-y": a name has letters',
    "__cause INT": '"__cause": a name has letters',
    "c STRUCT<`a.b`: INT>": 'c: field "a.b": a name has letters',
    "c INT, C INT": "C stands twice",
    "c " + "ARRAY<" * 30 + "INT" + ">" * 30: "c: more than 20 ARRAY, MAP and STRUCT in one column",
}
MISTAKES = [
    ("join.hot_windw=3m", "join.hot_windw: unknown key; did you mean hot_window? allowed: keys, attribution_window"),
    ("hot_window=3m", "hot_window: unknown key"),
    (
        "reconcile.tolerances.columns={exposure_tim: {time: 1s}}",
        "columns.exposure_tim: not a column that is compared (playback_id,",
    ),
    (
        "reconcile.tolerances.columns={device: {time: 1s}}",
        "columns.device.time: the column is STRING; a duration is for a TIMESTAMP",
    ),
    (
        "reconcile.tolerances.columns={device: {absolute: 1}}",
        "columns.device: the column is STRING; absolute and relative are for",
    ),
    ("reconcile.tolerances.columns={exposure_position: {absolute: -1}}", "columns.exposure_position.absolute"),
    ("join.hot_window=3 minutes", "join.hot_window: '3 minutes' is not a duration such as"),
    ("join.hot_window=30", "join.hot_window: 30 is not a duration"),
    ("join.hot_window=7h", "join.hot_window: 7h is longer than attribution_window (6h)"),
    ("tables.vacuum_retention=23h", "tables.vacuum_retention: 23h is less than 1d"),
    ("join.attribution_window=0", "join.attribution_window: must be longer than 0"),
    ("join.idle_timeout=0", "join.idle_timeout: must be longer than 0"),
    ("join.keys=[]", "join.keys: Tuple should have at least 1 item"),
    ("join.keys=[nope]", "join.keys: column nope is not in the schema of streams.playbacks"),
    ("join.keys=[profile_id,profile_id]", "join.keys: names a column twice"),
    ("join.carry=[nope]", "join.carry: column nope is not in the schema of streams.impressions"),
    ("streams.playbacks.id=nope", "streams.playbacks.id: column nope is not in the schema"),
    ("streams.playbacks.event_time=device", "column device is the event time, so it must be TIMESTAMP, not STRING"),
    ("streams.playbacks.role=exposure", "streams: exactly one exposure and one outcome stream are needed"),
    ("streams.playbacks.role=both", "streams.playbacks.role: Input should be 'exposure' or 'outcome'"),
    ("streams.playbacks.schema=a STRIN", "streams.playbacks.schema: "),
    (
        "streams.playbacks.schema='playback_id STRING, event_time TIMESTAMP, late INT'",
        "column late is one that Rejoin itself adds",
    ),
    ("streams.playbacks.aliases={nope: [x]}", "streams.playbacks.aliases.nope: not a column of the schema (playback_id, "),
    ("streams.playbacks.aliases={device: [Title_ID]}", "streams.playbacks.aliases.device: Title_ID is column title_id already"),
    (
        "streams.playbacks.aliases={device: [a], title_id: [A]}",
        "streams.playbacks.aliases.title_id: A is an alias of device already",
    ),
    ("streams.playbacks.partition_by=minute", "streams.playbacks.partition_by: Input should be 'date' or 'hour'"),
    (
        "streams.playbacks.source.format=carrier_pigeon",
        "streams.playbacks.source.format: Input should be one of 'files', 'kafka', not carrier",
    ),
    ("streams.playbacks.source={format: kafka}", "streams.playbacks.source.bootstrap_servers: missing"),
    ("streams.playbacks.source.topic=plays", "streams.playbacks.source.topic: unknown key; allowed: format, path"),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, options: {group.id: x}}",
        "streams.playbacks.source.options.group.id: not an option that is passed on",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, options: {ssl.key.password: hunter2}}",
        "streams.playbacks.source.options.ssl.key.password: holds a secret, which a file must not",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, max_offsets_per_trigger: 1, "
        "min_offsets_per_trigger: 2}",
        "streams.playbacks.source.min_offsets_per_trigger: 2 is more than max_offsets_per_trigger (1)",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, value: {format: avro}}",
        "streams.playbacks.source.value.schema_file: missing; avro needs the file of a schema",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, value: {framing: confluent}}",
        "streams.playbacks.source.value.format: json takes neither schema_file nor framing",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, "
        "value: {format: avro, schema_file: s, framing: confluent}}",
        "streams.playbacks.source.value.schema_id: missing; give the registry's id of the schema in schema_file",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, "
        "value: {format: avro, schema_file: s, framing: confluent, schema_id: seven}}",
        "streams.playbacks.source.value.schema_id: Input should be a valid tuple",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, value: {format: avro, schema_file: s, "
        "schema_id: 7}}",
        "streams.playbacks.source.value.schema_id: stands in the frame of a value, so it needs framing: confluent",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, value: {format: protobuf}}",
        "streams.playbacks.source.value.format: Input should be 'json' or 'avro'",
    ),
    (
        "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t, value: {formt: avro}}",
        "streams.playbacks.source.value.formt: unknown key; did you mean format? allowed: format, schema_file, framing",
    ),
    ("streams.quarantine.role=outcome", "streams.quarantine.id: missing"),
    ("state_store.provider=mongodb", "state_store.provider: Input should be 'rocksdb' or 'memory'"),
    ("trigger.max_files=0", "trigger.max_files: Input should be greater than 0"),
    ("lake=cat.schema", "checkpoints: needed where lake is a catalog.schema"),
    ("lake=''", "lake: is empty; give a directory"),
    ("streams.playbacks.source.path=' '", "streams.playbacks.source.path: is empty"),
    (
        "lake=landing/../landing/playbacks/lake",
        "lake: landing/../landing/playbacks/lake lies in streams.playbacks.source.path",
    ),
    ("checkpoints=./landing/impressions", "checkpoints: ./landing/impressions lies in streams.impressions.source.path"),
    (
        "streams.playbacks.source.path=landing/impressions/",
        "streams.impressions.source.path: ./landing/impressions lies in streams.",
    ),
    ("streams._delta_log={}", "streams._delta_log.role: missing"),
    (
        f"streams.playbacks.schema='playback_id STRING, event_time TIMESTAMP, c {'ARRAY<' * 200}INT{'>' * 200}'",
        "streams.playbacks.schema: types are nested too deeply",
    ),
    ("join=" + "[" * 5000, "--set join: nested too deeply"),
    *(
        (
            f"streams.playbacks.schema='playback_id STRING, event_time TIMESTAMP, {ddl}'",
            f"streams.playbacks.schema: column {message}",
        )
        for ddl, message in REFUSED.items()
    ),
    ("join", "must read key.path=value"),
    ("join.keys.x=1", "join.keys is not a group of keys"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_names_key_and_remedy(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(PLAYBACK, [override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_doctests_hold() -> None:
    for module in (durations, app, time, format, secrets, gaps, errors):
        assert doctest.testmod(module).failed == 0


def test_a_mistake_in_the_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(PLAYBACK.read_text().replace("hot_window: 30m", "hot_window: 30q"))
    with pytest.raises(ConfigError, match=r"mine\.yml: join\.hot_window: '30q' is not"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must be a mapping"),
        ("lake: a\nlake: b", "key 'lake' stands twice"),
        ("lake: 2026-13-45", "not valid YAML (month must be in 1..12; put what is no date in quotes)"),
        ("lake: " + "[" * 5000, "nested too deeply"),
        ("lake: a", "streams: missing; this key is required (and 1 more: join)"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert message in str(raised.value)
    assert "broken.yml" in str(raised.value)


def test_a_file_that_is_not_there_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml: cannot be read .* --conf FILE"):
        load_config(Path("nowhere.yml"))


def test_an_override_is_yaml() -> None:
    config = load_config(PLAYBACK, ["join.hot_window=0", "join.carry=[device]", "lake=/elsewhere"])
    assert (config.join.hot_window, config.join.carry, config.lake) == (timedelta(0), ("device",), "/elsewhere")


@pytest.mark.parametrize("text", ["250ms", "30s", "10m", "6h", "2d", "1h30m", "1d2h3m4s5ms"])
def test_a_duration_reads_back(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", "m", "-5m", "1.5h", "10 m", "5", 5, True, None, "99999999999999999999d"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration|longer than time"):
        parse_duration(text)


def test_references_resolve_late_and_never_print(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAKE_ROOT", "/secret/place")
    config = load_config(PLAYBACK, ["lake=${env:LAKE_ROOT}/lake"])
    assert "/secret/place" not in repr(config)
    assert resolve(config.lake, "lake") == "/secret/place/lake"
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "password").write_text("hunter2\n")
    monkeypatch.setenv("REJOIN_SECRETS_DIR", str(tmp_path))
    assert resolve("${secret:kafka/password}", "x") == "hunter2"


@pytest.mark.parametrize("text", ["${env:NOT_SET_ANYWHERE}", "${secret:one}", "${secret:../up}", "${secret:a/b}"])
def test_a_reference_that_leads_nowhere_names_its_key(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("REJOIN_SECRETS_DIR", raising=False)
    with pytest.raises(ConfigError, match="streams.x.source.path: "):
        resolve(text, "streams.x.source.path")


def test_a_file_of_overrides_comes_in_its_order(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yml"
    profile.write_text("join: {hot_window: 20m}\nspark: {conf: {spark.a.b: '1'}}\n")
    config = load_config(CONF / "playback.yml", ["join.hot_window=5m", f"@{profile}", "join.watermark_delay=7m"])
    assert config.join.hot_window == timedelta(minutes=20)
    assert config.join.watermark_delay == timedelta(minutes=7)
    assert config.spark.conf == {"spark.a.b": "1"}
    profile.write_text("? [a]\n: b\n")
    with pytest.raises(ConfigError, match="a key is a list or a group"):
        load_config(CONF / "playback.yml", [f"@{profile}"])
    with pytest.raises(ConfigError, match=r"nowhere\.yml: cannot be read"):
        load_config(CONF / "playback.yml", ["@nowhere.yml"])
