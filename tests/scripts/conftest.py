"""Embedded mode on free ports, shared by a test process, and a stage for each test."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.real.programs import free_port

from .stage import HEARTBEAT, Stage, eventually, set_up


@dataclass(frozen=True, slots=True)
class Demo:
    """A running ``heartbeat demo --no-producer``, found by its state file in ``tmp``."""

    tmp: Path
    kafka: str
    redis_port: int
    rest: str

    def redis(self, *command: str) -> str:
        """Send one command and return the reply as printed into a pipe."""
        line = [str(HEARTBEAT), "redis", "-p", str(self.redis_port), *command]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout.rstrip("\n")

    def connectors(self) -> list[str]:
        """The names of the connectors it has now."""
        with urllib.request.urlopen(f"{self.rest}/connectors", timeout=10) as reply:
            names: list[str] = json.load(reply)
            return sorted(names)

    def delete_connectors(self) -> None:
        """Begin anew."""
        for name in self.connectors():
            request = urllib.request.Request(f"{self.rest}/connectors/{name}", method="DELETE")
            urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture(scope="session")
def running_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    tmp = tmp_path_factory.mktemp("demo")
    kafka, redis, rest = free_port(), free_port(), free_port()
    ports = ["--kafka-port", str(kafka), "--redis-port", str(redis), "--rest-port", str(rest)]
    output = tmp / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [HEARTBEAT, "demo", "--no-producer", *ports], env={**os.environ, "TMPDIR": str(tmp)}, stdout=file, stderr=file
        )
    try:
        (state,) = eventually(
            lambda: [text for file in tmp.glob("redis-heartbeat-sink-*.json") if (text := file.read_text())], "embedded mode runs"
        )
        said = json.loads(state)
        yield Demo(tmp, said["kafka"], said["redis_port"], said["rest"])
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def demo(running_demo: Demo) -> Demo:
    """Embedded mode with an empty Redis."""
    running_demo.redis("FLUSHALL")
    return running_demo


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Nothing runs beside it, and nothing is installed in it."""
    nowhere = str(free_port())
    ports = {f"HEARTBEAT_{name}_PORT": nowhere for name in ("REST", "KAFKA", "REDIS")}
    (tmp_path / "tmp").mkdir()
    return set_up(tmp_path, {"TMPDIR": str(tmp_path / "tmp"), **ports})


@pytest.fixture
def beside_demo(tmp_path: Path, demo: Demo) -> Stage:
    """A clone in which ``heartbeat`` is installed, on a machine where embedded mode runs."""
    stage = set_up(tmp_path, {"TMPDIR": str(demo.tmp)})
    (stage.root / ".venv").symlink_to(HEARTBEAT.parents[1])
    return stage
