"""Figure ``compose``: how long the stack takes from ``up -d --wait`` to a running connector, with our worker and with a JVM's."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.real.compose import engine
from tests.real.compose.engine import docker
from tests.real.compose.stack import CONNECTOR, ROOT, TOPIC, Stack, copied

from bench.results import Section, row
from bench.setting import Setting

_RUNS = 5
_JVM = Path(__file__).parent / "compose-jvm.yml"
_JVM_SINK = {"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "topics": TOPIC, "file": "/tmp/beats"}  # noqa: S108
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class _Run:
    whole_s: float
    worker_s: float
    memory_mb: float


def compose(setting: Setting) -> Section:
    """``docker compose up -d --wait`` -> the connector is RUNNING."""
    scratch = setting.scratch("compose")
    shipped: Mapping[str, str] = json.loads((ROOT / "config" / f"{CONNECTOR}.json").read_text())["config"]
    with engine.running() as found, copied("heartbeat-bench", scratch) as ours, copied("heartbeat-bench-jvm", scratch, *_with_jvm()) as jvm:
        for stack in (ours, jvm):
            stack.compose("build", timeout_s=600)
        image, base = (
            int(docker("image", "inspect", "-f", "{{.Size}}", name)) for name in (f"{ours.project}-kafka-connect", "python:3.11-slim")
        )
        pairs = [(_run(ours, shipped), _run(jvm, _JVM_SINK)) for _ in range(_RUNS)]
    own, other = zip(*pairs, strict=True)
    rows = [
        row("our image without its base", [(image - base) / 1e6], "MB", 90, 1),
        row("whole stack, ours", [run.whole_s for run in own], "s", digits=1),
        row("whole stack, JVM worker", [run.whole_s for run in other], "s", digits=1),
        row("the worker's container started -> RUNNING, ours", [run.worker_s for run in own], "s"),
        row("the worker's container started -> RUNNING, JVM worker", [run.worker_s for run in other], "s"),
        row("memory of the worker's container, ours", [run.memory_mb for run in own], "MB", digits=0),
        row("memory of the worker's container, JVM worker", [run.memory_mb for run in other], "MB", digits=0),
    ]
    notes = [
        "Images are there, volumes are not; ours and the JVM's take turns. The whole stack: `docker compose up -d --wait`, which ends when "
        "all services are healthy, then the connector is PUT and asked for every 20 ms until it and its task are RUNNING.",
        "The worker alone: its container is removed and started again beside the running rest; from the engine's start of it until the "
        "connector, PUT as soon as REST takes it, is RUNNING.",
        "JVM: Kafka 4.1's `connect-standalone` with the file sink, `plugin.discovery=service_load`, `-XX:TieredStopAtLevel=1 "
        "-XX:+UseSerialGC -Xmx256m`: `bench/compose-jvm.yml`. The broker is the same, Kafka 3.4 with ZooKeeper.",
    ]
    notes.append("The containers are the engine's children, not the bench's: \"others\" counts what they use.")
    if found.stand_in:
        notes.append("The public images are local stand-ins (`tests/real/compose/standins.sh`): same programs, other sizes.")
    return Section("compose", "`docker compose up -d --wait` -> the connector is RUNNING.", rows, notes)


def _with_jvm() -> tuple[str, str]:
    return "docker-compose.yml", str(_JVM)


def _run(stack: Stack, config: Mapping[str, str]) -> _Run:
    stack.compose("down", "-v", "--timeout", "5")
    started_s = time.time()
    stack.up()
    whole_s = _running_s(stack, config) - started_s
    used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", stack.container("kafka-connect")["Id"]).split("MiB")[0]
    _request(stack, "DELETE", "")
    stack.compose("rm", "-sf", "kafka-connect")
    stack.compose("up", "-d", "--no-deps", "kafka-connect")
    running_s = _running_s(stack, config)
    started_s = datetime.fromisoformat(stack.container("kafka-connect")["State"]["StartedAt"]).timestamp()
    stack.compose("down", "-v", "--timeout", "5")
    return _Run(whole_s, running_s - started_s, float(used))


def _running_s(stack: Stack, config: Mapping[str, str]) -> float:
    """Put the connector as soon as it is taken, and return when it was seen running."""
    deadline_s = time.time() + 180
    taken = False
    while not (taken and stack.states() == ("RUNNING", "RUNNING")):
        assert time.time() < deadline_s, stack.states()
        taken = taken or _request(stack, "PUT", "/config", config)
        time.sleep(_POLL_S)
    return time.time()


def _request(stack: Stack, method: str, path: str, body: Mapping[str, str] | None = None) -> bool:
    url = f"http://127.0.0.1:{stack.ports.rest}/connectors/{CONNECTOR}{path}"
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60):
            return True
    except (OSError, http.client.HTTPException):  # it does not listen yet, or the engine's proxy hangs up for it
        return False
