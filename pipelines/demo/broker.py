"""A Kafka broker of one's own, on loopback, for the demo and the tests: one process in KRaft mode, stopped by its own id.

Its JARs come from `make broker`; where they lie, `REJOIN_BROKER_JARS` can say.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.model.errors import RejoinError

_STARTS_WITHIN = 60.0
_STOPS_WITHIN = 20.0


@dataclass(kw_only=True)
class Broker:
    """A broker that listens on `servers`; its data survives `stop` and `start`."""

    directory: Path
    port: int
    controller_port: int
    protocol: str
    settings: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers. Raises RejoinError with the end of its log otherwise."""
        log = self.directory / "broker.log"
        with log.open("ab") as out:
            # A group of its own: an interrupt of ours is not one of its.
            self._process = subprocess.Popen(  # noqa: S603
                [*_java(), "kafka.Kafka", str(self.directory / "server.properties")],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _STARTS_WITHIN
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RejoinError(f"the Kafka broker did not start: {_last_line(log)}; its log is {log}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end; make it, where it does not. Does nothing where it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def local_broker(directory: Path, settings: Mapping[str, str] | None = None, *, protocol: str = "PLAINTEXT") -> Iterator[Broker]:
    """Format and start a broker that keeps its data under `directory`; stopped on the way out, however that comes.

    Clients speak `protocol` with it, for which `settings` has the certificates and users."""
    directory.mkdir(parents=True, exist_ok=True)
    port, controller_port = _free_ports(2)
    broker = Broker(directory=directory, port=port, controller_port=controller_port, protocol=protocol, settings=settings or {})
    _format(broker)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def _format(broker: Broker) -> None:
    shutil.rmtree(broker.directory / "data", ignore_errors=True)
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{broker.controller_port}",
        "listeners": f"{broker.protocol}://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{broker.controller_port}",
        "advertised.listeners": f"{broker.protocol}://127.0.0.1:{broker.port}",
        "inter.broker.listener.name": broker.protocol,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": f"{broker.protocol}:{broker.protocol},CONTROLLER:PLAINTEXT",
        "log.dirs": str((broker.directory / "data").absolute()),
        "num.partitions": "2",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(64 * 2**20),
        "replica.fetch.max.bytes": str(64 * 2**20),
        **broker.settings,
    }
    file = broker.directory / "server.properties"
    file.write_text("".join(f"{key}={_escaped(value)}\n" for key, value in lines.items()))
    tool = [*_java(), "kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c", str(file)]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RejoinError(
            f"the Kafka broker's storage could not be made: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
        )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")


def _java() -> list[str]:
    folder = Path(os.environ.get("REJOIN_BROKER_JARS") or Path(sys.prefix) / "rejoin-broker")
    if not any(folder.glob("kafka_*.jar")):
        checkout = (Path(__file__).parents[2] / "Makefile").is_file()
        remedy = "`make broker` fetches it" if checkout else "`make broker` in a checkout of Rejoin fetches it"
        raise RejoinError(f"no Kafka broker in {folder}: {remedy}; or name a directory with its JARs by REJOIN_BROKER_JARS")
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{folder}/*"]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return next((line for line in reversed(lines) if "ERROR" in line or "Exception" in line), lines[-1] if lines else "no output")
