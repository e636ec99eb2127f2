"""The compose stack of a copy of this repository, under a project name and on ports that clash with nobody's."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from confluent_kafka import Message, Producer

from ..programs import eventually, free_port
from ..scenario import is_beat
from .engine import docker
from .terminal import Terminal

ROOT = Path(__file__).parents[3]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".cache", ".*_cache", ".hypothesis", "__pycache__", "bench", "tests")
CONNECTOR = "redis-heartbeat-sink"
TOPIC = "heartbeat-topic"
SERVICES = ("zookeeper", "kafka", "redis", "kafka-connect", "test-runner")


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports on loopback: the documented ones where they are free, others where they are not."""

    rest: int
    kafka: int
    redis: int
    exporter: int

    @classmethod
    def free(cls) -> Ports:
        """Choose them now."""
        return cls(*(port if _is_free(port) else free_port() for port in (8083, 9092, 6379, 9121)))

    def environment(self) -> dict[str, str]:
        """The variables by which the compose file takes them."""
        return {f"HEARTBEAT_{name.upper()}_PORT": str(getattr(self, name)) for name in ("rest", "kafka", "redis", "exporter")}


class Stack:
    """One project. Commands run in the copy, so that they may edit its files; ``docker compose`` there means this project."""

    def __init__(self, project: str, directory: Path, files: tuple[str, ...] = ("docker-compose.yml",), **variables: str) -> None:
        self.project = project
        self.directory = directory
        self.ports = Ports.free()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "HEARTBEAT_", "CONNECT_"))}
        compose = {"COMPOSE_PROJECT_NAME": project, "COMPOSE_FILE": os.pathsep.join(files)}
        self.environment = {**inherited, **compose, **self.ports.environment(), **variables}
        self._producer: Producer | None = None

    def compose(self, *arguments: str, input: str | None = None, timeout_s: float = 240.0) -> str:
        """Run ``docker compose`` and return its standard output.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=self.directory,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *options: str) -> float:
        """Bring it up until everything is healthy; return how many seconds that took."""
        started_s = time.monotonic()
        self.compose("up", "-d", "--wait", "--wait-timeout", "180", *options)
        return time.monotonic() - started_s

    def down(self, *options: str) -> None:
        """Take it down, and forget clients whose broker that takes away."""
        self._producer = None
        self.compose("down", "--timeout", "20", *options)

    def exec(self, service: str, *command: str, input: str | None = None) -> str:
        """Run a command in a service's container, without a terminal, and return what it prints."""
        return self.compose("exec", "-T", service, *command, input=input, timeout_s=120).strip()

    def redis(self, *command: str) -> str:
        """Ask Redis, as redis-cli prints the reply into a pipe."""
        return self.exec("redis", "redis-cli", *command)

    def set_up(self) -> str:
        """Run ``setup.sh``, which applies the connector's config, and return what it says."""
        return self.exec("test-runner", "/scripts/setup.sh")

    def terminal(self, command: str) -> Terminal:
        """Run a command as it stands in a document, on a terminal; other ports than the documented ones are put in."""
        return Terminal(self.localised(command), self.directory, self.environment)

    def localised(self, text: str) -> str:
        """Return a document's text with this stack's ports in place of the documented ones."""
        text = re.sub(r"\blocalhost:8083\b", f"localhost:{self.ports.rest}", text)
        text = text.replace('REDIS_PORT="6379"', f'REDIS_PORT="{self.ports.redis}"')
        return text if self.ports.redis == 6379 else re.sub(r"^if redis-cli ", f"if redis-cli -p {self.ports.redis} ", text, flags=re.M)

    def rest(self, path: str) -> Any:
        """GET from the REST API through its published port, and decode the JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.rest}{path}", timeout=10) as reply:
            return json.load(reply)

    def states(self) -> tuple[str, ...]:
        """Return the states of the connector and its tasks, () while nobody answers."""
        try:
            status = self.rest(f"/connectors/{CONNECTOR}/status")
        except (OSError, HTTPException):  # also URLError and HTTPError; the engine's proxy hangs up while nobody listens behind it
            return ()
        return (status["connector"]["state"], *(task["state"] for task in status["tasks"]))

    def wait_for_running(self, timeout_s: float = 60.0) -> None:
        """Wait until the connector and its task are RUNNING."""
        eventually(lambda: self.states() == ("RUNNING", "RUNNING"), "the connector is RUNNING", timeout_s=timeout_s)

    def produce(self, text: str) -> int:
        """Send one beat through the published port; return the record's time in ms once the broker has it."""
        times: list[int] = []
        failures: list[object] = []

        def delivered(error: object, message: Message) -> None:
            failures.append(error) if error else times.append(message.timestamp()[1])

        if self._producer is None:
            self._producer = Producer({"bootstrap.servers": f"127.0.0.1:{self.ports.kafka}", "log_level": 0})
        self._producer.produce(TOPIC, text, on_delivery=delivered)
        self._producer.flush(120)
        assert times, f"the beat was not delivered: {failures}"
        return times[0]

    def wait_for_beat(self, time_ms: int, key: str = "heartbeat", timeout_s: float = 60.0) -> None:
        """Wait until the key holds that beat."""
        eventually(lambda: is_beat(self.redis("GET", key), time_ms), f"{key} is {time_ms}", timeout_s=timeout_s)

    def container(self, service: str) -> Any:
        """Return what the engine knows about a service's container."""
        return json.loads(docker("inspect", self.compose("ps", "-aq", service).strip()))[0]

    def account(self) -> str:
        """Return what the containers are doing, and their newest log lines."""
        try:
            return self.compose("ps", "-a") + self.compose("logs", "--no-color", "--tail", "40")
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return str(error)

    def volumes(self) -> set[str]:
        """Return the names of this project's volumes, without the project's."""
        names = docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={self.project}").split()
        return {name.removeprefix(f"{self.project}_") for name in names}


@contextmanager
def copied(project: str, parent: Path, *files: str, **variables: str) -> Iterator[Stack]:
    """Have a stack, not started, of a copy of the repository; nothing of it is left afterwards."""
    project = f"{project}-{os.getpid()}"  # nobody else's, on an engine that has other work
    directory = parent / project
    shutil.copytree(ROOT, directory, ignore=NOT_COPIED, symlinks=True)
    stack = Stack(project, directory, files or ("docker-compose.yml",), **variables)
    try:
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "-v", "--rmi", "local", "--remove-orphans", "--timeout", "5")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
