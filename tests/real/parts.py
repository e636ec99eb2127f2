"""The real parts that tests start: Kafka 4.1 and 3.4, Redis, the JVM Connect worker, and our own worker as a user starts it.

Each is a context manager over a directory of its own; each takes free loopback ports, keeps port and data over
``stop()`` and ``start()``, and is gone at the end. A machine that lacks a part skips (see ``programs.missing``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from .broker import Java, Kafka, running, write_properties
from .programs import Program, free_port, require

STRING = "org.apache.kafka.connect.storage.StringConverter"


def kafka_4_1(directory: Path) -> AbstractContextManager[Kafka]:
    """A Kafka 4.1 broker in KRaft mode."""
    return running("4.1", directory)


def kafka_3_4(directory: Path) -> AbstractContextManager[Kafka]:
    """A Kafka 3.4 broker with ZooKeeper 3.6, what Confluent Platform 7.4.0 ships."""
    return running("3.4", directory)


class Redis:
    """Debian's ``redis-server`` on loopback, in memory unless ``arguments`` say otherwise (``--appendonly yes``)."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.port = free_port()
        self._client = require("redis-cli", "redis-tools")
        server = require("redis-server", "redis-server")
        directory.mkdir(parents=True, exist_ok=True)
        fixed = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory), "--save", "", "--appendonly", "no"]
        self._server = Program("redis", [server, *fixed, *arguments], directory)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""
        self._server.start()
        self._server.wait_until(lambda: self._run("PING").stdout.startswith(("PONG", "NOAUTH")), timeout_s=30)

    def stop(self) -> None:
        """Stop it in order; what is not persisted is gone."""
        self._server.terminate(30)

    def end(self) -> None:
        """Make sure that it is gone."""
        self._server.end()

    def cli(self, *arguments: str) -> str:
        """Return what ``redis-cli`` prints, without the last line feed.

        Raises:
            AssertionError: no connection, or the server answered with an error.
        """
        done = self._run("-e", *arguments)
        assert done.returncode == 0, f"redis-cli {arguments}: {done.stdout}{done.stderr}"
        return done.stdout.removesuffix("\n")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [self._client, "-h", "127.0.0.1", "-p", str(self.port), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def redis_server(directory: Path, *arguments: str) -> Iterator[Redis]:
    """Run a Redis server while the block lasts."""
    redis = Redis(directory, *arguments)
    try:
        redis.start()
        yield redis
    finally:
        redis.end()


class ConnectWorker:
    """A worker that speaks Connect's REST API at ``url``: the JVM's or ours."""

    def __init__(self, program: Program, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._program = program

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._program.pid

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until its REST API answers."""
        self._program.start()
        self._program.wait_until(self._ready, timeout_s=timeout_s)

    def _ready(self) -> bool:
        try:
            return self.rest("GET", "/").status_code == 200
        except httpx2.TransportError:
            return False

    def rest(self, method: str, path: str, body: Any = None, *, timeout_s: float = 95.0) -> httpx2.Response:
        """Send one request, ``body`` as JSON; Connect's own limit for a request is 90 s."""
        return httpx2.request(method, self.url + path, json=body, timeout=timeout_s, trust_env=False)

    def log(self) -> str:
        """Return everything the worker has logged, over all its starts."""
        return self._program.log()

    def kill9(self) -> None:
        """Kill it as an out-of-memory killer would."""
        self._program.kill9()

    def terminate(self, timeout_s: float = 15.0) -> int:
        """Send SIGTERM and return the exit code."""
        return self._program.terminate(timeout_s)

    def end(self) -> None:
        """Make sure that it is gone."""
        self._program.end()


@contextmanager
def connect_jvm(directory: Path, kafka: Kafka) -> Iterator[ConnectWorker]:
    """Run Kafka's own standalone Connect worker, with the file connectors that Kafka ships as its plugins."""
    java, port = Java("4.1"), free_port()
    plugin = directory / "plugins" / "connect-file"
    plugin.mkdir(parents=True)
    for jar in java.jars.glob("connect-file-*.jar"):
        (plugin / jar.name).symlink_to(jar)
    settings = {
        "plugin.path": str(plugin.parent),
        "plugin.discovery": "service_load",
        "offset.flush.interval.ms": "1000",
    }
    file = write_properties(directory / "worker.properties", _worker_settings(directory, kafka.bootstrap, port) | settings)
    argv = java.argv("org.apache.kafka.connect.cli.ConnectStandalone", str(file), without="connect-file")
    worker = ConnectWorker(Program("connect-jvm", argv, directory), port)
    try:
        worker.start(120)
        yield worker
    finally:
        worker.end()


def _worker_settings(directory: Path, bootstrap: str, port: int) -> dict[str, str]:
    return {
        "bootstrap.servers": bootstrap,
        "listeners": f"http://127.0.0.1:{port}",
        "key.converter": STRING,
        "value.converter": STRING,
        "offset.storage.file.filename": str(directory / "connect.offsets"),
    }


class HeartbeatWorker(ConnectWorker):
    """Our worker in a process of its own, started as a user starts it."""


def heartbeat_argv(*arguments: str) -> list[str]:
    """Return the command line of ``heartbeat ARGUMENTS`` in this very environment."""
    return [sys.executable, "-m", "heartbeat", *arguments]


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what would configure a worker, plus ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONNECT_", "HEARTBEAT_"))}
    return kept | more


@contextmanager
def heartbeat_worker(
    directory: Path, kafka: Kafka, properties: Mapping[str, str] | None = None, connectors: Sequence[Mapping[str, Any]] = ()
) -> Iterator[HeartbeatWorker]:
    """Run ``heartbeat connect-standalone worker.properties [connector.json ...]`` while the block lasts.

    ``properties`` are laid over the worker's; ``connectors`` are bodies as POSTed, given as files on the command line.
    """
    port = free_port()
    settings = _worker_settings(directory, kafka.bootstrap, port) | {"offset.flush.interval.ms": "500"} | dict(properties or {})
    files = [str(write_properties(directory / "worker.properties", settings))]
    for number, connector in enumerate(connectors):
        file = directory / f"connector-{number}.json"
        file.write_text(json.dumps(connector))
        files.append(str(file))
    program = Program("heartbeat", heartbeat_argv("connect-standalone", *files), directory, clean_environment())
    worker = HeartbeatWorker(program, port)
    try:
        worker.start()
        yield worker
    finally:
        worker.end()
