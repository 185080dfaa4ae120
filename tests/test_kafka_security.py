"""A broker that asks for a password over TLS: whom it lets in, whom it refuses in one line; and the password shows nowhere."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pyspark.sql import SparkSession

from pipelines.config.load import load_config
from pipelines.config.sources import KafkaSource
from pipelines.demo.broker import Broker, local_broker
from pipelines.ingest.sources.kafka import read_kafka
from pipelines.jobs.ingest import ingest
from pipelines.kafka.client import create_topic, produce
from pipelines.lake.tables import Lake
from tests import processes
from tests.builders import play, shown
from tests.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

# With all that needs escaping on its way to Java.
SECRET = 'hunter2-"quoted"\\back;slash'  # noqa: S105
# Options, with _ for each dot.
SECURED = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "ann",
    "sasl_password": "${env:KAFKA_PASSWORD}",
    "ssl_truststore_type": "PEM",
    "ssl_keystore_type": "PKCS12",
    "ssl_keystore_password": "${env:STORE_PASSWORD}",
}
STORE_PASSWORD = "changeit"  # noqa: S105


def keytool(*words: object) -> None:
    subprocess.run(["keytool", *map(str, words), "-storepass", STORE_PASSWORD], check=True, capture_output=True)


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A key store with a certificate that signs itself, for 127.0.0.1; and the certificate as PEM."""
    store, pem = directory / f"{name}.p12", directory / f"{name}.pem"
    what = ["-dname", f"CN={name}", "-ext", "SAN=ip:127.0.0.1", "-ext", "bc:c", "-keyalg", "EC", "-groupname", "secp256r1"]
    keytool("-genkeypair", "-alias", name, *what, "-keystore", store)
    keytool("-exportcert", "-rfc", "-alias", name, "-file", pem, "-keystore", store)
    return store, pem


@dataclass(frozen=True, kw_only=True)
class Secured:
    """A broker, the authority that signed its certificate, another one, and the key store of a client that it knows."""

    broker: Broker
    ca: Path
    other_ca: Path
    client: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    store, ca = certificate(directory, "broker")
    client, known = certificate(directory, "client")
    trusted = directory / "trusted.pem"
    trusted.write_text(ca.read_text() + known.read_text())
    quoted = SECRET.replace("\\", "\\\\").replace('"', '\\"')
    module = "org.apache.kafka.common.security"
    settings = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required "
        f'username="broker" password="inside" user_broker="inside" user_ann="{quoted}";',
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": STORE_PASSWORD,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(trusted),
        "listener.name.sasl_ssl.ssl.client.auth": "required",
    }
    with local_broker(directory / "broker", settings, protocol="SASL_SSL") as broker:
        yield Secured(broker=broker, ca=ca, other_ca=certificate(directory, "other")[1], client=client)


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", SECRET)
    monkeypatch.setenv("STORE_PASSWORD", STORE_PASSWORD)


def written(root: Path, secured: Secured, **changed: str | None) -> Path:
    """A configuration of two secured topics in `root`, with options changed, or left out (None)."""
    places = {"ssl_truststore_location": str(secured.ca), "ssl_keystore_location": str(secured.client)}
    given = {**SECURED, **places, **changed}
    options = {name.replace("_", "."): value for name, value in given.items() if value is not None}
    raw = yaml.safe_load((ROOT / "conf" / "playback.yml").read_text())
    raw |= {"lake": str(root / "lake"), "spark": {"shuffle_partitions": 2}}
    for name, stream in raw["streams"].items():
        stream["source"] = {
            "format": "kafka",
            "bootstrap_servers": secured.broker.servers,
            "topic": f"{root.name}-{name}",
            "options": options,
        }
    file = root / "secured.yml"
    file.write_text(yaml.safe_dump(raw))
    return file


def send(conf: Path) -> None:
    events: dict[str, list[object]] = {"impressions": [shown("i1", "10:00")], "playbacks": [play("p1", "10:05"), "poison"]}
    for name, stream in load_config(conf).streams.items():
        assert isinstance(stream.source, KafkaSource)
        create_topic(stream.source, name, 1)
        produce(stream.source, name, [(None, json.dumps(event)) for event in events[name]])


def rejoin(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process."""
    done = processes.rejoin(*words)
    return done.returncode, done.stdout, done.stderr


def assert_secret_is_nowhere(root: Path, *texts: str) -> None:
    """Not in any file below `root`, nor in the texts."""
    found = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found |= {f"text {n}": text.encode() for n, text in enumerate(texts)}
    for part in ("hunter2", "back;slash", "back\\\\slash"):
        assert not [name for name, content in found.items() if part.encode() in content]


def let_in_by_scram(secured: Secured, user: str) -> None:
    admin = AdminClient(
        {
            "bootstrap.servers": secured.broker.servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "ann",
            "sasl.password": SECRET,
            "ssl.ca.location": str(secured.ca),
            "ssl.keystore.location": str(secured.client),
            "ssl.keystore.password": STORE_PASSWORD,
        }
    )
    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    for future in admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, how, SECRET.encode())]).values():
        future.result(30)


@pytest.mark.parametrize(("mechanism", "user"), [("PLAIN", "ann"), ("SCRAM-SHA-512", "bob")])
def test_who_has_the_password_gets_in_and_it_shows_nowhere(
    spark: SparkSession, tmp_path: Path, secured: Secured, capfd: pytest.CaptureFixture[str], mechanism: str, user: str
) -> None:
    let_in_by_scram(secured, "bob")
    conf = written(tmp_path, secured, sasl_mechanism=mechanism, sasl_username=user)
    config = load_config(conf)
    lake = Lake(spark, config)
    send(conf)
    ingest(lake, config, once=True)
    assert [lake.read(table).count() for table in ("impressions", "playbacks", "quarantine")] == [1, 1, 1]

    source = config.streams["playbacks"].source
    assert isinstance(source, KafkaSource)
    read_kafka(spark, source, "streams.playbacks.source", {}).explain(extended=True)
    settings = str(spark.sql("SET -v").collect()) + str(spark.sql("SET").collect())
    printed = "".join(capfd.readouterr())
    assert "kafka.sasl.jaas.config=*********(redacted)" in printed
    assert_secret_is_nowhere(tmp_path, printed, settings, repr(config))


def test_a_process_that_tells_all_does_not_tell_the_secret(tmp_path: Path, secured: Secured) -> None:
    conf = written(tmp_path, secured)
    send(conf)
    code, *said = rejoin("ingest", "--once", "--debug", "--conf", conf)
    assert code == 0, said
    # Java refuses what librdkafka does not look at, so the query fails, and the trace has its plan.
    broken = "streams.playbacks.source.options.fetch.max.bytes=lots"
    send(conf)
    code, *more = rejoin("ingest", "--once", "--debug", "--conf", conf, "--set", broken, "--set", f"checkpoints={tmp_path}/anew")
    assert code == 2
    assert "StreamingQueryException" in more[1]
    assert_secret_is_nowhere(tmp_path, *said, *more)


NO_TLS = {f"ssl_{store}_{part}": None for store in ("truststore", "keystore") for part in ("location", "type", "password")}
REFUSALS: list[tuple[dict[str, str | None], str]] = [
    (
        {"sasl_username": "nobody"},
        r"Kafka at 127.0.0.1:\d+ refused the credentials \(.*Invalid username or password\); correct options.sasl",
    ),
    ({"sasl_mechanism": "SCRAM-SHA-256"}, r"refused the credentials \(.*supported mechanisms: .*PLAIN.*\); correct"),
    ({"ssl_truststore_location": "OTHER"}, r"a certificate that does not hold \(certificate verify failed\); give the PEM"),
    (
        {"ssl_truststore_location": None, "ssl_truststore_type": None},
        r"has a certificate that does not hold \(certificate verify failed\); give the PEM",
    ),
    (
        {**NO_TLS, "security_protocol": "SASL_PLAINTEXT"},
        r"closes each connection; is options.security.protocol \(SASL_PLAINTEXT\) what its listener speaks\?",
    ),
    (
        {**NO_TLS, **dict.fromkeys(SECURED)},
        r"closes each connection; is options.security.protocol \(PLAINTEXT, the default\) what its listener speaks\?",
    ),
    (
        {"ssl_keystore_location": None, "ssl_keystore_type": None, "ssl_keystore_password": None},
        r"makes no TLS connection \(.*bad certificate.*\); correct options.ssl",
    ),
    ({"ssl_truststore_location": "/nowhere/ca.pem"}, r"/nowhere/ca.pem cannot be read \(No such file or directory\)"),
    ({"ssl_truststore_location": "/etc/hostname"}, r"options: Kafka's client does not take them \(.*ssl.ca.location"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSALS, ids=[str(changed) for changed, _ in REFUSALS])
def test_a_refusal_is_one_line_and_soon(tmp_path: Path, secured: Secured, changed: dict[str, str | None], message: str) -> None:
    other = {name: str(secured.other_ca) if value == "OTHER" else value for name, value in changed.items()}
    conf = written(tmp_path, secured, **other)
    clock = time.monotonic()
    code, out, err = rejoin("generate", "--impressions", 10, "--playbacks", 10, "--conf", conf)
    assert time.monotonic() - clock < 15
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(r"rejoin: streams.impressions.source.*" + message, err), err


@pytest.mark.parametrize("command", [["ingest", "--once"], ["doctor"]])
def test_a_wrong_password_is_told_by_every_command(tmp_path: Path, secured: Secured, command: list[str]) -> None:
    conf = written(tmp_path, secured, sasl_username="nobody")
    code, *said = rejoin(*command, "--debug", "--conf", conf)
    assert code == 2
    assert "streams.impressions.source: Kafka at 127.0.0.1" in "".join(said)
    assert "refused the credentials" in "".join(said)
    assert_secret_is_nowhere(tmp_path, *said)
