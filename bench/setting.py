"""What every figure needs: a broker without rebalance delay, a Redis, and a worker, ours or the JVM's, whose start is watched.

The parts are those of the tests. Workers are started here, because a fixture that waits for its worker cannot time it.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Consumer, Producer
from tests.real.broker import Java, Kafka, write_properties
from tests.real.parts import clean_environment, heartbeat_argv
from tests.real.programs import Program, free_port

POLL_S = 0.002
"""How often a figure looks: seldom enough to leave the cores to what is measured."""
_PATIENCE_S = 90.0
_STRING = "org.apache.kafka.connect.storage.StringConverter"


@dataclass(frozen=True, slots=True)
class Setting:
    """The parts that all figures share; ``directory`` is scratch."""

    kafka: Kafka
    redis: redis.Redis
    redis_port: int
    directory: Path

    def scratch(self, name: str) -> Path:
        """Return a new directory."""
        directory = self.directory / unique(name)
        directory.mkdir()
        return directory

    def sink(self, topic: str, **more: str) -> dict[str, Any]:
        """Return the body that creates a connector named like its topic; dots in option names are written ``__``."""
        config = {
            "connector.class": "com.example.RedisHeartbeatSinkConnector",
            "topics": topic,
            "redis.host": "127.0.0.1",
            "redis.port": str(self.redis_port),
            "redis.key": "${key}",
        }
        return {"name": topic, "config": config | {name.replace("__", "."): value for name, value in more.items()}}

    def send(self, topic: str, *beats: tuple[int, str]) -> None:
        """Send one beat for each (partition, key), and wait until the broker has them."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "linger.ms": 0})
        for partition, key in beats:
            producer.produce(topic, b"beat", key, partition)
        if producer.flush(30):
            raise RuntimeError(f"the broker did not take beats for {topic}")

    def let_a_group_come_and_go(self, topic: str) -> None:
        """Join a group and leave it: the first group of a new broker may wait for its coordinator for seconds (see ``cold-start``)."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": unique("first")})
        try:
            consumer.subscribe([topic])
            wait_until(lambda: consumer.poll(0.05) is not None or bool(consumer.assignment()), "the first group has its partitions")
        finally:
            consumer.close()

    def wait_for_keys(self, *keys: str) -> None:
        """Wait until all these keys are in Redis."""
        wait_until(lambda: self.redis.exists(*keys) == len(keys), f"{keys} in Redis")


class Worker:
    """A worker process, and the way to its REST API (a process that has none is started, watched and ended all the same)."""

    def __init__(self, program: Program, port: int) -> None:
        self._program = program
        self._port = port
        self.started_at = 0.0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._program.pid

    def start(self) -> None:
        """Start it and note the moment, without waiting for anything."""
        self.started_at = time.perf_counter()
        self._program.start()

    def wait_for_rest(self) -> float:
        """Wait until ``GET /connectors`` is answered with 200; return the seconds since its exec."""
        wait_until(self._answers, "REST answers", self.check_alive)
        return time.perf_counter() - self.started_at

    def since_start(self) -> float:
        """Return the seconds since its exec."""
        return time.perf_counter() - self.started_at

    def create(self, body: Mapping[str, Any]) -> None:
        """Create a connector."""
        self._request("POST", "/connectors", body)

    def delete(self, name: str) -> None:
        """Delete a connector; its tasks have left their group then."""
        self._request("DELETE", f"/connectors/{name}")

    def wait_until_running(self, name: str) -> None:
        """Wait until the connector has tasks and all of them are RUNNING."""

        def running() -> bool:
            tasks = json.loads(self._request("GET", f"/connectors/{name}/status"))["tasks"]
            return bool(tasks) and all(task["state"] == "RUNNING" for task in tasks)

        wait_until(running, f"{name} is RUNNING", self.check_alive, every_s=0.1)

    def stop(self) -> None:
        """Let it leave its groups and end."""
        self._program.terminate()

    def end(self) -> None:
        """Make sure that it is gone."""
        self._program.end()

    def log(self) -> str:
        """Return what it has logged."""
        return self._program.log()

    def check_alive(self) -> None:
        """Raise RuntimeError, with its log's end, if it has ended."""
        if not self._program.alive:
            raise RuntimeError(f"the worker ended\n{self.log()[-2000:]}")

    def _answers(self) -> bool:
        try:
            self._request("GET", "/connectors")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _request(self, method: str, path: str, body: Any = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status >= 300:
            raise http.client.HTTPException(f"{method} {path}: {reply.status} {content.decode()}")
        return content


def ours(directory: Path, kafka: Kafka, connectors: Sequence[Mapping[str, Any]] = (), *, compiled: bool = True) -> Worker:
    """Return our worker, not started yet; its properties are the defaults apart from addresses.

    Its bytecode is compiled and kept, as the installation leaves it, unless it is not to be ``compiled``.
    """
    port = free_port()
    files = [write_properties(directory / "worker.properties", _properties(directory, kafka, port))]
    for number, connector in enumerate(connectors):
        files.append(directory / f"connector-{number}.json")
        files[-1].write_text(json.dumps(connector))
    argv = heartbeat_argv("connect-standalone", *map(str, files))
    environment = python_environment()
    if not compiled:
        environment["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")
    return Worker(Program("heartbeat", argv, directory, environment), port)


def jvm(directory: Path, kafka: Kafka, discovery: str) -> Worker:
    """Return Kafka's own worker, not started yet, with the file connectors as its only plugins."""
    java, port = Java("4.1"), free_port()
    plugin = directory / "plugins" / "connect-file"
    plugin.mkdir(parents=True)
    for jar in java.jars.glob("connect-file-*.jar"):
        (plugin / jar.name).symlink_to(jar)
    settings = _properties(directory, kafka, port) | {"plugin.path": str(plugin.parent), "plugin.discovery": discovery}
    file = write_properties(directory / "worker.properties", settings)
    argv = java.argv("org.apache.kafka.connect.cli.ConnectStandalone", str(file), without="connect-file")
    return Worker(Program("connect-jvm", argv, directory), port)


def python_environment() -> dict[str, str]:
    """Return the environment of a Python program that is measured: nothing configures it, and its bytecode is compiled and kept."""
    environment = clean_environment()
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONPROFILEIMPORTTIME"):
        environment.pop(name, None)
    return environment


@contextmanager
def ended(worker: Worker) -> Iterator[Worker]:
    """Make sure that the worker is gone after the block; show its log if the block failed."""
    try:
        yield worker
    except Exception:
        print(worker.log()[-4000:], file=sys.stderr)
        raise
    finally:
        worker.end()


def wait_until(check: Callable[[], bool], what: str, still: Callable[[], None] = lambda: None, every_s: float = POLL_S) -> None:
    """Call ``check`` every few milliseconds until it is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not check():
        still()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_PATIENCE_S:.0f} s: {what}")
        time.sleep(every_s)


def unique(prefix: str) -> str:
    """Return a name that nothing else on a shared broker has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def _properties(directory: Path, kafka: Kafka, port: int) -> dict[str, str]:
    return {
        "bootstrap.servers": kafka.bootstrap,
        "listeners": f"http://127.0.0.1:{port}",
        "key.converter": _STRING,
        "value.converter": _STRING,
        "offset.storage.file.filename": str(directory / "connect.offsets"),
    }
