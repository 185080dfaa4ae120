"""Reaching a Kafka cluster from Python, or telling in one line why not.

librdkafka tries again whatever happens, until a request times out; why its connections fail it says by callback meanwhile.
Refused credentials and a certificate that does not hold will not mend, so they end the attempt at once.
"""

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.config.kafka_options import FILES, check, for_librdkafka
from pipelines.config.secrets import resolve
from pipelines.config.sources import KafkaSource
from pipelines.model.errors import ConfigError, SourceError

TIMEOUT = 15.0
# How long each attempt waits for an answer; and the one by which a broker that is being restarted would have shown itself.
_ATTEMPTS = (1.0, 1.0, 1.0, TIMEOUT - 3.0)
_CERTAIN = 3

# librdkafka prints each of its many attempts; what matters comes by callback.
_QUIET = logging.getLogger("pipelines.librdkafka")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


def servers_of(source: KafkaSource, where: str) -> str:
    return resolve(source.bootstrap_servers, f"{where}.bootstrap_servers")


def resolved_options(source: KafkaSource, where: str) -> dict[str, str]:
    """The client options with their references resolved, and found in order. They hold secrets: not to be logged. Raises
    ConfigError."""
    options = {name: resolve(value, f"{where}.options.{name}") for name, value in source.options.items()}
    try:
        check(options)
    except ValueError as error:
        raise ConfigError(f"{where}.options.{error}") from None
    for name in FILES:
        if name in options:
            _check_readable(options[name], f"{where}.options.{name}")
    return options


def client_settings(source: KafkaSource, where: str) -> dict[str, Any]:
    """What a librdkafka client is made with. Holds secrets: not to be logged. Raises ConfigError."""
    try:
        options = for_librdkafka(resolved_options(source, where))
    except ValueError as error:
        raise ConfigError(f"{where}.options.{error}") from None
    return {"bootstrap.servers": servers_of(source, where), **options, "logger": _QUIET}


def connect(source: KafkaSource, where: str, topic: str | None = None) -> tuple[AdminClient, Mapping[str, Any]]:
    """A client of the cluster; and what the cluster says of `topic` (None: of all topics), by name. Raises ConfigError or
    SourceError."""
    said: list[KafkaError] = []
    settings = {**client_settings(source, where), "error_cb": said.append}
    servers = settings["bootstrap.servers"]
    try:
        client = AdminClient(settings)
    except KafkaException as error:
        raise ConfigError(f"{where}.options: Kafka's client does not take them ({reason(error)})") from None
    asked = {} if topic is None else {"topic": topic}
    failure = ""
    for attempt, seconds in enumerate(_ATTEMPTS, start=1):
        until = time.monotonic() + _ATTEMPTS[0]
        try:
            return client, client.list_topics(**asked, timeout=seconds).topics
        except KafkaException as error:
            failure = reason(error)
        client.poll(0)
        while (left := until - time.monotonic()) > 0:
            client.poll(left)
        refusal = _refusal(said, settings.get("security.protocol", "PLAINTEXT, the default"), certain=attempt == _CERTAIN)
        if refusal:
            raise SourceError(f"{where}: Kafka at {servers} {refusal}")
    raise SourceError(f"{where}: no answer from Kafka at {servers} ({_why(said) or failure}); is it up, and reachable?")


def reason(error: KafkaException) -> str:
    return str(error.args[0].str()) if error.args and hasattr(error.args[0], "str") else str(error)


def _check_readable(path: str, where: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read ({error.strerror}); correct the path") from None


def _refusal(said: list[KafkaError], protocol: str, *, certain: bool) -> str | None:
    """What a cluster that is up has against this client, with the remedy; None where it may be down, or not up yet. `certain`:
    what looks like a refusal but may pass is one."""
    texts = {error.code(): _text(error) for error in said}
    if KafkaError._AUTHENTICATION in texts:
        found = texts[KafkaError._AUTHENTICATION]
        return f"refused the credentials ({found}); correct options.sasl.username, sasl.password or sasl.mechanism"
    if "certificate verify failed" in texts.get(KafkaError._SSL, ""):
        return (
            "has a certificate that does not hold (certificate verify failed); give the PEM of the authority that signed it as "
            "options.ssl.truststore.location, and call the host what the certificate does"
        )
    dropped = texts.get(KafkaError._TRANSPORT, "")
    tls = texts.get(KafkaError._SSL) or (dropped if "SSL alert" in dropped else None)
    if tls:
        return f"makes no TLS connection ({tls}); correct options.ssl.*, of which ssl.keystore.* is the client's certificate"
    # A listener of another protocol hangs up, as one that is being restarted may.
    hung_up = texts.keys() == {KafkaError._ALL_BROKERS_DOWN} or "PLAINTEXT broker" in dropped
    if hung_up and certain:
        return f"closes each connection; is options.security.protocol ({protocol}) what its listener speaks?"
    return None


def _why(said: list[KafkaError]) -> str | None:
    return next((_text(error) for error in said if error.code() != KafkaError._ALL_BROKERS_DOWN), None)


def _text(error: KafkaError) -> str:
    """Without the address before it and the state of the connection behind it."""
    return re.sub(r"^(\w+://)?\S+/(bootstrap|\d+): | \(after \d+ms in state \w+\)", "", str(error.str()))
