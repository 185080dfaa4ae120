"""The Kafka client options of a source, for both clients that take them.

A source names options as Kafka's Java client does, and that is what Spark gets. librdkafka, Python's client, calls some of them
otherwise, and reads certificates and keys as PEM or PKCS12 only, so that is what is allowed here. `sasl.username` and
`sasl.password` stand for the `sasl.jaas.config` that Java wants; librdkafka gets the two from a `sasl.jaas.config`.

Pure functions of options. A mistake is a ValueError, `name: what is wrong; what is allowed`, and never holds a value.
"""

import re
from collections.abc import Mapping

from pipelines.config.secrets import is_reference

SECRETS = (
    "sasl.password",
    "sasl.jaas.config",
    "ssl.keystore.key",
    "ssl.keystore.password",
    "ssl.key.password",
    "ssl.truststore.password",
)
FILES = ("ssl.truststore.location", "ssl.keystore.location")

_ALIKE = ("security.protocol", "sasl.mechanism", "client.id", "client.rack", "request.timeout.ms")
_SPARK_ONLY = ("isolation.level", "default.api.timeout.ms", "fetch.max.bytes", "max.partition.fetch.bytes")
NAMES = (
    *_ALIKE,
    *_SPARK_ONLY,
    "sasl.username",
    *FILES,
    "ssl.truststore.type",
    "ssl.truststore.certificates",
    "ssl.keystore.type",
    "ssl.keystore.certificate.chain",
    "ssl.endpoint.identification.algorithm",
    *SECRETS,
)

_VALUES = {
    "isolation.level": ("read_uncommitted", "read_committed"),
    "security.protocol": ("SASL_SSL", "SSL", "SASL_PLAINTEXT", "PLAINTEXT"),
    "sasl.mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    "ssl.truststore.type": ("PEM",),
    "ssl.keystore.type": ("PEM", "PKCS12"),
    "ssl.endpoint.identification.algorithm": ("https", ""),
}
_REMEDY = {
    "ssl.truststore.type": ", which both Kafka clients read; `keytool -exportcert -rfc` makes PEM of a certificate in a store",
    "ssl.keystore.type": ", which both Kafka clients read; `keytool -importkeystore` makes PKCS12 of a JKS store",
    "ssl.endpoint.identification.algorithm": ' (""), which switches the check of host names off',
}

_LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
# What Java's tokenizer makes of a backslash in a quoted string; any other character stands for itself.
_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}


def check_as_written(options: Mapping[str, str]) -> None:
    """What a configuration may say: known names, secrets by reference only, nothing by halves."""
    for name, value in options.items():
        if name not in NAMES:
            raise ValueError(f"{name}: not an option that is passed on; allowed: {', '.join(NAMES)}")
        if name in SECRETS and not is_reference(value):
            raise ValueError(
                f"{name}: holds a secret, which a file must not; give a reference, ${{env:NAME}} or ${{secret:scope/key}}"
            )
    check(options)


def check(options: Mapping[str, str]) -> None:
    """What holds for options as written, where a reference may still turn out to be anything, and once resolved."""
    for name, allowed in _VALUES.items():
        if name in options and options[name] not in allowed and not is_reference(options[name]):
            raise ValueError(f"{name}: allowed: {', '.join(value or 'nothing' for value in allowed)}{_REMEDY.get(name, '')}")
    protocol = options.get("security.protocol", "PLAINTEXT")
    if not is_reference(protocol):
        _check_protocol(options, protocol)
    _check_credentials(options)
    _check_truststore(options)
    _check_keystore(options)


def _check_protocol(options: Mapping[str, str], protocol: str) -> None:
    for layer, needed in (("ssl", "SASL_SSL or SSL"), ("sasl", "SASL_SSL or SASL_PLAINTEXT")):
        given = [name for name in options if name.startswith(f"{layer}.")]
        if given and layer.upper() not in protocol.split("_"):
            raise ValueError(f"security.protocol: {given[0]} has no effect with {protocol}; allowed with it: {needed}")
    if "SASL" in protocol:
        if "sasl.mechanism" not in options:
            raise ValueError(f"sasl.mechanism: missing, {protocol} needs it; allowed: {', '.join(_VALUES['sasl.mechanism'])}")
        if not {"sasl.username", "sasl.password", "sasl.jaas.config"} & options.keys():
            raise ValueError(f"sasl.username: missing, {protocol} needs it and sasl.password, or sasl.jaas.config")


def _check_credentials(options: Mapping[str, str]) -> None:
    given = [name for name in ("sasl.username", "sasl.password") if options.get(name)]
    if "sasl.jaas.config" in options:
        if given:
            raise ValueError(f"{given[0]}: stands beside sasl.jaas.config, which has the same; give one of them")
    elif len(given) == 1 or (not given and {"sasl.username", "sasl.password"} & options.keys()):
        missing = next(name for name in ("sasl.username", "sasl.password") if name not in given)
        raise ValueError(f"{missing}: missing or empty; sasl.username and sasl.password go together")


def _check_truststore(options: Mapping[str, str]) -> None:
    given = _one_of(options, "ssl.truststore.location", "ssl.truststore.certificates")
    if given and "ssl.truststore.type" not in options:
        raise ValueError(f"ssl.truststore.type: missing, {given} needs it; allowed: PEM{_REMEDY['ssl.truststore.type']}")
    if "ssl.truststore.password" in options:
        raise ValueError("ssl.truststore.password: a truststore must be PEM here, which has no password; leave it out")


def _check_keystore(options: Mapping[str, str]) -> None:
    given = _one_of(options, "ssl.keystore.location", "ssl.keystore.key")
    kind = options.get("ssl.keystore.type")
    if given and kind is None:
        raise ValueError(f"ssl.keystore.type: missing, {given} needs it; allowed: PEM, PKCS12{_REMEDY['ssl.keystore.type']}")
    if ("ssl.keystore.key" in options) != ("ssl.keystore.certificate.chain" in options):
        raise ValueError("ssl.keystore.certificate.chain: goes with ssl.keystore.key; give both, or ssl.keystore.location")
    if kind == "PEM" and "ssl.keystore.password" in options:
        raise ValueError("ssl.keystore.password: a PEM file has none; the password of an encrypted key is ssl.key.password")
    if kind == "PKCS12" and "ssl.keystore.key" in options:
        raise ValueError("ssl.keystore.type: ssl.keystore.key is PEM; allowed with it: PEM")
    if kind == "PKCS12" and "ssl.keystore.location" in options and not options.get("ssl.keystore.password"):
        raise ValueError("ssl.keystore.password: missing or empty; a PKCS12 keystore needs it")


def _one_of(options: Mapping[str, str], file: str, inline: str) -> str | None:
    if file in options and inline in options:
        raise ValueError(f"{inline}: stands beside {file}, which has the same; give one of them")
    return next((name for name in (file, inline) if name in options), None)


def for_java(options: Mapping[str, str], *, shaded: bool = False) -> dict[str, str]:
    """Resolved options as Kafka's Java client takes them; `shaded` is for Databricks, whose Kafka classes have a prefix."""
    java = {name: value for name, value in options.items() if name not in ("sasl.username", "sasl.password")}
    if "sasl.username" in options:
        module = f"{'kafkashaded.' if shaded else ''}{_LOGIN_MODULES[options['sasl.mechanism']]}"
        username, password = _quoted(options["sasl.username"]), _quoted(options["sasl.password"])
        java["sasl.jaas.config"] = f"{module} required username={username} password={password};"
    return java


def for_librdkafka(options: Mapping[str, str]) -> dict[str, str]:
    """Resolved options as librdkafka takes them, without those that only Spark uses."""
    rd = {name: options[name] for name in _ALIKE if name in options}
    if "sasl.jaas.config" in options:
        rd["sasl.username"], rd["sasl.password"] = _credentials(options["sasl.jaas.config"])
    pem_file = options.get("ssl.keystore.type") == "PEM" and "ssl.keystore.location" in options
    renamed = {
        "sasl.username": "sasl.username",
        "sasl.password": "sasl.password",
        "ssl.truststore.location": "ssl.ca.location",
        "ssl.truststore.certificates": "ssl.ca.pem",
        "ssl.keystore.location": "ssl.certificate.location" if pem_file else "ssl.keystore.location",
        "ssl.keystore.password": "ssl.keystore.password",
        "ssl.keystore.certificate.chain": "ssl.certificate.pem",
        "ssl.keystore.key": "ssl.key.pem",
        "ssl.key.password": "ssl.key.password",
        "ssl.endpoint.identification.algorithm": "ssl.endpoint.identification.algorithm",
    }
    rd |= {theirs: options[ours] for ours, theirs in renamed.items() if ours in options}
    if pem_file:
        rd["ssl.key.location"] = options["ssl.keystore.location"]
    if rd.get("ssl.endpoint.identification.algorithm") == "":
        rd["ssl.endpoint.identification.algorithm"] = "none"
    return rd


def _quoted(text: str) -> str:
    for letter, character in _ESCAPES.items():
        text = text.replace(character, f"\\{letter}")
    return f'"{text}"'


def _credentials(jaas: str) -> tuple[str, str]:
    found = {key: _unquoted(text) for key, text in re.findall(r'\b(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"', jaas)}
    if not found.get("username") or not found.get("password"):
        raise ValueError(
            'sasl.jaas.config: must read `MODULE required username="..." password="...";`; or give sasl.username, sasl.password'
        )
    return found["username"], found["password"]


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text, flags=re.DOTALL)
