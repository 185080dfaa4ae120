"""One set of options for two Kafka clients: what each gets, and what is refused, without a broker."""

from pathlib import Path

import pytest

from pipelines.config.kafka_options import for_java, for_librdkafka
from pipelines.config.load import load_config
from pipelines.model.errors import ConfigError

PLAYBACK = Path(__file__).parent.parent / "conf" / "playback.yml"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
LOGIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}

# resolved options -> what Java gets, what librdkafka gets
TRANSLATIONS = [
    ({}, {}, {}),
    (
        {**LOGIN, "sasl.username": "ann", "sasl.password": "pw"},
        {**LOGIN, "sasl.jaas.config": f'{PLAIN} username="ann" password="pw";'},
        {**LOGIN, "sasl.username": "ann", "sasl.password": "pw"},
    ),
    (
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "a", "sasl.password": 'q"\\\n\t;'},
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.jaas.config": SCRAM + r' username="a" password="q\"\\\n\t;";',
        },
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "a", "sasl.password": 'q"\\\n\t;'},
    ),
    (
        {**LOGIN, "sasl.jaas.config": PLAIN + r'  password = "a\"username=\"x" username="ann";'},
        {**LOGIN, "sasl.jaas.config": PLAIN + r'  password = "a\"username=\"x" username="ann";'},
        {**LOGIN, "sasl.username": "ann", "sasl.password": 'a"username="x'},
    ),
    (
        {"ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca.pem", "ssl.endpoint.identification.algorithm": ""},
        {"ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca.pem", "ssl.endpoint.identification.algorithm": ""},
        {"ssl.ca.location": "/ca.pem", "ssl.endpoint.identification.algorithm": "none"},
    ),
    (
        {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": "-----BEGIN"},
        {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": "-----BEGIN"},
        {"ssl.ca.pem": "-----BEGIN"},
    ),
    (
        {"ssl.keystore.type": "PEM", "ssl.keystore.location": "/me.pem", "ssl.key.password": "pw"},
        {"ssl.keystore.type": "PEM", "ssl.keystore.location": "/me.pem", "ssl.key.password": "pw"},
        {"ssl.certificate.location": "/me.pem", "ssl.key.location": "/me.pem", "ssl.key.password": "pw"},
    ),
    (
        {"ssl.keystore.type": "PEM", "ssl.keystore.key": "K", "ssl.keystore.certificate.chain": "C"},
        {"ssl.keystore.type": "PEM", "ssl.keystore.key": "K", "ssl.keystore.certificate.chain": "C"},
        {"ssl.key.pem": "K", "ssl.certificate.pem": "C"},
    ),
    (
        {"ssl.keystore.type": "PKCS12", "ssl.keystore.location": "/me.p12", "ssl.keystore.password": "pw"},
        {"ssl.keystore.type": "PKCS12", "ssl.keystore.location": "/me.p12", "ssl.keystore.password": "pw"},
        {"ssl.keystore.location": "/me.p12", "ssl.keystore.password": "pw"},
    ),
    (
        {"isolation.level": "read_uncommitted", "default.api.timeout.ms": "2", "client.id": "c"},
        {"isolation.level": "read_uncommitted", "default.api.timeout.ms": "2", "client.id": "c"},
        {"client.id": "c"},
    ),
]


@pytest.mark.parametrize(("options", "java", "librdkafka"), TRANSLATIONS)
def test_each_client_gets_its_own_names(options: dict[str, str], java: dict[str, str], librdkafka: dict[str, str]) -> None:
    assert for_java(options) == java
    assert for_librdkafka(options) == librdkafka


@pytest.mark.parametrize("text", ["plain", 'with "quotes"', "back\\slash\\", "line\nend\r", "tab\t", "\\n", "ü ;=' {}"])
def test_what_java_is_told_reads_back(text: str) -> None:
    told = for_java({**LOGIN, "sasl.username": text, "sasl.password": text[::-1]})
    read = for_librdkafka(told)
    assert (read["sasl.username"], read["sasl.password"]) == (text, text[::-1])


def test_databricks_has_kafka_under_another_name() -> None:
    told = for_java({**LOGIN, "sasl.username": "a", "sasl.password": "b"}, shaded=True)
    assert told["sasl.jaas.config"].startswith("kafkashaded.org.apache.kafka.")


def test_a_login_that_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(ValueError, match="sasl.jaas.config: must read") as raised:
        for_librdkafka({**LOGIN, "sasl.jaas.config": "Module required username=ann password=hunter2;"})
    assert "hunter2" not in str(raised.value)


SASL = "security.protocol: SASL_SSL, sasl.mechanism: PLAIN"
MISTAKES = [
    ("isolation.level: committed", "isolation.level: allowed: read_uncommitted, read_committed"),
    ("security.protocol: sasl_ssl", "security.protocol: allowed: SASL_SSL, SSL, SASL_PLAINTEXT, PLAINTEXT"),
    ("security.protocol: SASL_SSL", "sasl.mechanism: missing, SASL_SSL needs it; allowed: PLAIN, SCRAM-SHA-256"),
    ("security.protocol: SASL_SSL, sasl.mechanism: GSSAPI", "sasl.mechanism: allowed: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
    (SASL, "sasl.username: missing, SASL_SSL needs it"),
    (SASL + ", sasl.username: ann", "sasl.password: missing or empty; sasl.username and sasl.password go together"),
    (SASL + ", sasl.password: '${env:P}'", "sasl.username: missing or empty"),
    (SASL + ", sasl.password: hunter2, sasl.username: ann", "sasl.password: holds a secret, which a file must not; give a ref"),
    (SASL + ", sasl.password: '${env:P}hunter2${env:P}', sasl.username: ann", "sasl.password: holds a secret"),
    (SASL + ", sasl.jaas.config: 'M required password=hunter2;'", "sasl.jaas.config: holds a secret"),
    (SASL + ", sasl.jaas.config: '${env:J}', sasl.username: ann", "sasl.username: stands beside sasl.jaas.config"),
    ("sasl.username: ann, sasl.password: '${env:P}'", "security.protocol: sasl.username has no effect with PLAINTEXT"),
    (
        "ssl.truststore.type: PEM",
        "security.protocol: ssl.truststore.type has no effect with PLAINTEXT; allowed with it: SASL_SSL or",
    ),
    (
        "security.protocol: SSL, ssl.truststore.location: /a.jks",
        "ssl.truststore.type: missing, ssl.truststore.location needs it; ",
    ),
    (
        "security.protocol: SSL, ssl.truststore.type: JKS",
        "ssl.truststore.type: allowed: PEM, which both Kafka clients read; `keyt",
    ),
    ("security.protocol: SSL, ssl.keystore.type: JKS", "ssl.keystore.type: allowed: PEM, PKCS12, which both"),
    ("security.protocol: SSL, ssl.truststore.password: '${env:P}'", "ssl.truststore.password: a truststore must be PEM here"),
    (
        "security.protocol: SSL, ssl.truststore.type: PEM, ssl.truststore.location: /a, ssl.truststore.certificates: b",
        "ssl.truststore.certificates: stands beside ssl.truststore.location",
    ),
    ("security.protocol: SSL, ssl.keystore.location: /a.p12", "ssl.keystore.type: missing, ssl.keystore.location needs it"),
    (
        "security.protocol: SSL, ssl.keystore.type: PKCS12, ssl.keystore.location: /a.p12",
        "ssl.keystore.password: missing or empty; a PKCS12 keystore needs it",
    ),
    (
        "security.protocol: SSL, ssl.keystore.type: PEM, ssl.keystore.location: /a, ssl.keystore.password: '${env:P}'",
        "ssl.keystore.password: a PEM file has none",
    ),
    ("security.protocol: SSL, ssl.keystore.type: PEM, ssl.keystore.key: '${env:K}'", "ssl.keystore.certificate.chain: goes with"),
    (
        "security.protocol: SSL, ssl.endpoint.identification.algorithm: none",
        "ssl.endpoint.identification.algorithm: allowed: https, n",
    ),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[options for options, _ in MISTAKES])
def test_a_half_configuration_is_refused_at_load(tmp_path: Path, options: str, message: str) -> None:
    file = tmp_path / "mine.yml"
    source = f"source: {{format: kafka, bootstrap_servers: b, topic: t, options: {{{options}}}}}"
    file.write_text(PLAYBACK.read_text().replace("source: {format: files, path: ./landing/playbacks}", source))
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert f"mine.yml: streams.playbacks.source.options.{message}" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_references_may_stand_anywhere() -> None:
    options = (
        "security.protocol: '${env:A}', sasl.mechanism: '${env:B}', sasl.username: '${env:C}', sasl.password: '${secret:d/e}'"
    )
    load_config(PLAYBACK, [f"streams.playbacks.source={{format: kafka, bootstrap_servers: b, topic: t, options: {{{options}}}}}"])


TYPED = [
    ("streams.playbacks.source.options.sasl.password=hunter2", "--set: streams.playbacks.source.options.sasl.password: holds"),
    ("streams.playbacks.source.options={sasl.password: hunter2}", "--set: streams.playbacks.source.options.sasl.password: holds"),
    (
        "streams.playbacks.source.options.sasl={password: hunter2}",
        "streams.playbacks.source.options.sasl: Input should be a valid st",
    ),
    ("streams.playbacks.source.options.sasl.password:hunter2", "--set: must read key.path=value"),
    ("streams.playbacks.source.options.sasl.password=[hunter2]", "source.options.sasl.password: Input should be a valid string"),
]


@pytest.mark.parametrize(("override", "message"), TYPED, ids=[override for override, _ in TYPED])
def test_a_secret_typed_in_is_refused_and_not_shown(override: str, message: str) -> None:
    kafka = "streams.playbacks.source={format: kafka, bootstrap_servers: b, topic: t}"
    with pytest.raises(ConfigError) as raised:
        load_config(PLAYBACK, [kafka, override])
    assert message in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("value", ["*hunter2", "!hunter2 x"])
def test_a_secret_that_breaks_the_yaml_is_not_shown(tmp_path: Path, value: str) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(f"lake: {value}\n")
    with pytest.raises(ConfigError, match="line 1.*a value that begins with . or ! needs quotes") as raised:
        load_config(file)
    assert "hunter2" not in str(raised.value)
