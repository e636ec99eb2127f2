"""Real Kafka brokers, 4.1 and 3.4 with ZooKeeper, and Kafka's own tools, from the jars that Maven fetches."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from .programs import Program, answers, eventually, free_port, missing, require

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# The second compiler and parallel collectors would fight over the few cores that the tests run on.
JVM = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def jars(version: str) -> Path:
    """Return the directory with the jars of ``tests/real/kafka/kafka-<version>.xml``, fetched on first use.

    They are kept in ``$HEARTBEAT_JARS``, else in the clone's ignored ``.cache``, under the digest of the pom: a changed
    pom is fetched anew, and two sessions at once do no harm.
    """
    pom = HERE / "kafka" / f"kafka-{version}.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("HEARTBEAT_JARS") or ROOT / ".cache" / "jars")
    target = cache / f"kafka-{version}-{digest}"
    if target.is_dir():
        return target
    maven = require("mvn", "maven")
    part = cache / f"{target.name}.{os.getpid()}"
    # The second logging binding that 3.4 brings along would leave it to chance which one is used.
    arguments = ["dependency:copy-dependencies", f"-DoutputDirectory={part.absolute()}", "-DexcludeArtifactIds=slf4j-reload4j"]
    done = subprocess.run([maven, "-q", "-B", "-f", pom, *arguments], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        missing(f"Kafka {version} (from Maven)", f"mvn -f tests/real/kafka/{pom.name} {arguments[0]}; it said {done.stdout[-1500:]}")
    try:
        part.rename(target)
    except OSError:  # another session was first
        shutil.rmtree(part, ignore_errors=True)
    return target


class Java:
    """How to run a main class of one set of jars."""

    def __init__(self, version: str) -> None:
        self.binary = require("java", "openjdk-17-jdk-headless")
        self.jars = jars(version)

    def argv(self, main: str, *arguments: str, without: str = "") -> list[str]:
        """Return the command line; jars whose name starts with ``without`` stay off the class path."""
        path = sorted(str(jar) for jar in self.jars.glob("*.jar") if not without or not jar.name.startswith(without))
        return [self.binary, *JVM, "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", os.pathsep.join(path), main, *arguments]

    def run(self, main: str, *arguments: str, lines: str | None = None, timeout_s: float = 90.0) -> str:
        """Run a main class to its end and return its standard output.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(self.argv(main, *arguments), input=lines, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{main} {arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


class Kafka:
    """A broker on loopback. ``version`` is ``4.1`` (KRaft) or ``3.4`` (with ZooKeeper)."""

    def __init__(self, version: str, directory: Path) -> None:
        self.version = version
        self.directory = directory
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._java = Java(version)
        self._admin: AdminClient | None = None
        self._zookeeper: Program | None = None
        self._zookeeper_port = free_port()
        self._broker = self._zookeeper_broker() if version.startswith("3.") else self._kraft_broker()

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._broker.pid

    def start(self) -> None:
        """Start the broker, on the same port and data as before, and wait until it answers."""
        if self._zookeeper and not self._zookeeper.alive:
            self._zookeeper.start()
            self._zookeeper.wait_until(lambda: answers(self._zookeeper_port), timeout_s=60)
        self._broker.start()
        self._broker.wait_until(lambda: answers(self.port), timeout_s=90)
        self.admin().list_topics(timeout=60)

    def stop(self) -> None:
        """Stop the broker (not ZooKeeper) in order; after 30 s it is killed."""
        try:
            self._broker.terminate(30)
        except AssertionError:
            assert not self._broker.alive

    def end(self) -> None:
        """End everything that belongs to this broker."""
        self._broker.end()
        if self._zookeeper:
            self._zookeeper.end()

    def admin(self) -> AdminClient:
        """Return the admin client of this broker.

        There is one, kept: a client that is dropped while a request is under way never completes the request's future.
        """
        if self._admin is None:
            # Without a log of its own: it outlives restarts of the broker and would tell of every failed attempt.
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        return self._admin

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Create a topic, wait until it has its leaders, and return its name."""
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)

        def led() -> bool:
            topic = admin.list_topics(name, timeout=10).topics[name]
            return len(topic.partitions) == partitions and all(p.leader >= 0 for p in topic.partitions.values())

        eventually(led, f"topic {name} has leaders")
        return name

    def produce(self, topic: str, records: Iterable[tuple[str | None, str]], **settings: Any) -> None:
        """Produce (key, value) pairs quickly, in this process, and wait until the broker has them all."""
        failures: list[object] = []
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, **settings})
        for key, value in records:
            producer.produce(topic, value, key, on_delivery=lambda error, _: failures.append(error) if error else None)
        assert producer.flush(60) == 0
        assert not failures

    def console_producer(self, topic: str, lines: Sequence[str], *arguments: str) -> None:
        """Send lines by Kafka's own console producer, as ``kafka-console-producer`` does."""
        main = "kafka.tools.ConsoleProducer" if self._zookeeper else "org.apache.kafka.tools.ConsoleProducer"
        self.java(main, "--bootstrap-server", self.bootstrap, "--topic", topic, *arguments, lines="".join(f"{line}\n" for line in lines))

    def java(self, main: str, *arguments: str, lines: str | None = None) -> str:
        """Run one of Kafka's own tools and return what it printed; ``lines`` is its standard input."""
        return self._java.run(main, *arguments, lines=lines)

    def _kraft_broker(self) -> Program:
        controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }
        file = self._write_settings(settings)
        cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        self._java.run("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(file))
        return Program("kafka", self._java.argv("kafka.Kafka", str(file)), self.directory)

    def _zookeeper_broker(self) -> Program:
        port = self._zookeeper_port
        settings = {
            "dataDir": str(self.directory / "zookeeper"),
            "clientPort": str(port),
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
        }
        file = write_properties(self.directory / "zookeeper.properties", settings)
        self._zookeeper = Program(
            "zookeeper", self._java.argv("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(file)), self.directory
        )
        broker = {"broker.id": "1", "listeners": f"PLAINTEXT://127.0.0.1:{self.port}", "zookeeper.connect": f"127.0.0.1:{port}"}
        return Program("kafka", self._java.argv("kafka.Kafka", str(self._write_settings(broker))), self.directory)

    def _write_settings(self, settings: Mapping[str, str]) -> Path:
        common = {
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",  # lets a test wait less for a killed worker's membership to lapse
            "log.cleaner.dedupe.buffer.size": "2097152",  # the default is half of our heap
        }
        return write_properties(self.directory / "server.properties", {**common, **settings})


def write_properties(file: Path, settings: Mapping[str, str]) -> Path:
    """Write a ``.properties`` file of simple keys and values and return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return file


@contextmanager
def running(version: str, directory: Path) -> Iterator[Kafka]:
    """Run a broker of ``version`` while the block lasts."""
    kafka = Kafka(version, directory)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.end()
