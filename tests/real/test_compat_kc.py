"""``kc``, the command of kafka-connect-py: what it prints and how it ends, with our worker as with a real Connect worker.

It ends with 0 on HTTP errors too, so only its text tells whether a worker is good enough for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import parts
from .broker import Kafka
from .compat_requests import config, text
from .parts import ConnectWorker, Redis
from .programs import eventually
from .test_compat import Side, jvm_side, neutral_body, our_side

TOPIC = "compat.kc"
RUNNING = "RUNNING.*RUNNING"
CREATE = text({"name": "SIDE-kc", "config": config(topics=TOPIC)})

# (arguments, a pattern that the output must show before it counts; a command that only reads is repeated until then)
COMMANDS: list[tuple[list[str], str]] = [
    (["info"], ""),
    (["list"], ""),
    (["create", "-d", CREATE], ""),
    (["status", "SIDE-kc"], RUNNING),
    (["create", "-d", CREATE], ""),
    (["create", "-d", text({"name": "SIDE-bad", "config": config(topics=...)})], ""),
    (["create", "-d", "{}"], ""),
    (["list"], ""),
    (["list", "--expand", "status"], ""),
    (["list", "--expand", "info"], ""),
    (["list", "--state", "running"], ""),
    (["list", "--pattern", "no-such-.*"], ""),
    (["get", "SIDE-kc"], ""),
    (["config", "SIDE-kc"], ""),
    (["list-tasks", "SIDE-kc"], ""),
    (["task-status", "SIDE-kc", "0"], ""),
    (["task-status", "SIDE-kc", "7"], ""),
    (["list-topics", "SIDE-kc"], TOPIC),
    (["reset-topics", "SIDE-kc"], ""),
    (["pause", "SIDE-kc"], ""),
    (["status", "SIDE-kc"], "PAUSED.*PAUSED"),
    (["list", "--state", "paused"], ""),
    (["resume", "SIDE-kc"], ""),
    (["status", "SIDE-kc"], RUNNING),
    (["pause", "--all", "--pattern", "SIDE-.*"], ""),
    (["status", "SIDE-kc"], "PAUSED.*PAUSED"),
    (["resume", "--all", "--pattern", "SIDE-.*"], ""),
    (["status", "SIDE-kc"], RUNNING),
    (["restart-task", "SIDE-kc", "0"], ""),
    (["status", "SIDE-kc"], RUNNING),
    (["update", "SIDE-kc", "-d", text(config(topics=TOPIC, tasks__max="2"))], ""),
    (["status", "SIDE-kc"], "RUNNING.*RUNNING.*RUNNING"),
    (["update", "SIDE-kc", "-d", text(config(topics=TOPIC, tasks__max="0"))], ""),
    (["validate-config", "SINKCLASS", "-d", text(config("SIDE-kc"))], ""),
    (["status", "SIDE-none"], ""),
    (["config", "SIDE-none"], ""),
    (["pause", "SIDE-none"], ""),
    (["resume", "SIDE-none"], ""),
    (["delete", "SIDE-none"], ""),
    (["delete", "SIDE-kc"], ""),
    (["status", "SIDE-kc"], "404"),
    (["list"], ""),
]

# These print the status of the moment after a restart, which may or may not have happened by then.
RESTARTS = [["restart", "SIDE-kc"], ["restart", "SIDE-kc", "-i"], ["restart", "SIDE-kc", "-i", "-o"], ["restart", "--all"]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, without what must differ, and its exit code."""

    command: str
    code: int
    output: Any
    errors: Any


def _kc(side: Side, arguments: list[str], until: str = "") -> Outcome:
    argv = [str(Path(sys.executable).with_name("kc")), "--url", side.url, *(side.render(argument) for argument in arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_CONNECT_")}
    seen: list[subprocess.CompletedProcess[bytes]] = []

    def shown() -> bool:
        seen.append(subprocess.run(argv, env=environment, capture_output=True, timeout=100, check=False))
        return re.search(until, seen[-1].stdout.decode()) is not None

    with contextlib.suppress(AssertionError):  # what is seen instead is compared
        eventually(shown, until, timeout_s=20)
    # kc prints the reason phrase of a status, and Jetty has its own for 500: a row of docs/compatibility.md.
    output = seen[-1].stdout.replace(b"Internal Server Error", b"Server Error")
    errors = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+", b"NOW", seen[-1].stderr)
    return Outcome(" ".join(arguments), seen[-1].returncode, neutral_body(side, output), neutral_body(side, errors))


def _states(outcome: Outcome) -> Outcome:
    """Forget which of the states around a restart was seen: ours waits for its partitions in between, and says so."""
    either = re.sub("RESTARTING|RUNNING|UNASSIGNED", "RUNNING or RESTARTING", json.dumps(outcome.output))
    return Outcome(outcome.command, outcome.code, json.loads(either), outcome.errors)


def _conversation(side: Side) -> list[Outcome]:
    outcomes = [_kc(side, arguments, until) for arguments, until in COMMANDS]
    _kc(side, ["create", "-d", CREATE])
    _kc(side, ["status", "SIDE-kc"], RUNNING)
    for arguments in RESTARTS:
        outcomes += [_states(_kc(side, arguments)), _kc(side, ["status", "SIDE-kc"], RUNNING)]
    _kc(side, ["delete", "SIDE-kc"])
    return outcomes


@pytest.fixture(scope="module")
def heard(
    tmp_path_factory: pytest.TempPathFactory, kafka: Kafka, redis_session: Redis, connect_jvm: ConnectWorker
) -> tuple[list[Outcome], list[Outcome]]:
    """What ``kc`` had to say, first of Connect, then of ours."""
    kafka.create_topic(TOPIC, 2)
    kafka.produce(TOPIC, [("0", "a beat")])
    jvm = _conversation(jvm_side(connect_jvm.url))
    with parts.heartbeat_worker(tmp_path_factory.mktemp("compat-kc"), kafka) as worker:
        return jvm, _conversation(our_side(worker.url, redis_session))


def test_kc_prints_and_ends_as_with_a_real_connect_worker(heard: tuple[list[Outcome], list[Outcome]]) -> None:
    connect, ours = heard
    different = [
        f"kc {one.command}\n  Connect: {one}\n  ours:    {other}" for one, other in zip(connect, ours, strict=True) if one != other
    ]
    assert not different, "\n".join(different)


def test_kc_hears_from_a_real_connect_worker_what_this_comparison_rests_on(heard: tuple[list[Outcome], list[Outcome]]) -> None:
    """Without this, two workers that refuse everything would be alike."""
    created = next(outcome for outcome in heard[0] if outcome.command.startswith("create"))
    assert created.code == 0
    assert created.output["tasks"] == [{"connector": "SIDE-kc", "task": 0}]
    assert {
        outcome.output["connector"]["state"] for outcome in heard[0] if outcome.command == "status SIDE-kc" and "name" in outcome.output
    } == {
        "RUNNING",
        "PAUSED",
    }
