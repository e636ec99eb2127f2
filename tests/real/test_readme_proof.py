"""The README's commands about signals and proof, typed by a shell against a real broker and a real Redis."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import parts
from .broker import ROOT, Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually, require
from .scenario import Connector, is_beat, now_ms, sink_config, unique

SIGNAL, STATUS, PROOF = "kcat ", ":status", ":proof"
OPTIONS = '-H hb-status=fail -H hb-run=4711 -H "hb-message=disk full"'


@pytest.fixture
def worker(tmp_path: Path, kafka: Kafka) -> Iterator[HeartbeatWorker]:
    with parts.heartbeat_worker(tmp_path, kafka) as worker:
        yield worker


def shown_commands() -> dict[str, str]:
    """The README's lines about signals and proof, each under the word it is known by."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return {
        word: next(line for line in lines if word in line and line.startswith(("echo ", "docker "))) for word in (SIGNAL, STATUS, PROOF)
    }


def typed(command: str, connector: Connector, topic: str, redis: Redis) -> str:
    """Type a line of the README, with the names and ports of this test, and return what it prints."""
    require("kcat", "kcat")
    client = shlex.join([require("redis-cli", "redis-tools"), "-h", "127.0.0.1", "-p", str(redis.port)])
    for shown, here in (
        ("docker compose exec redis redis-cli", client),
        ("localhost:9092", connector.kafka.bootstrap),
        ("heartbeat-topic", topic),
        ("redis-heartbeat-sink", connector.name),
    ):
        command = command.replace(shown, here)
    argv = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_readmes_signal_is_kept_and_its_proof_is_shown(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("signals"))
    connector = Connector(worker, kafka, unique("sink"))
    connector.put(sink_config(redis, topic, {"redis.key": "heartbeat"}))
    commands = shown_commands()
    assert OPTIONS in commands[SIGNAL]
    before_ms = now_ms()
    typed(commands[SIGNAL], connector, topic, redis)
    kept = eventually(lambda: typed(commands[STATUS], connector, topic, redis).strip(), "the signal is kept")
    signal = json.loads(kept or "")
    at_ms = signal.pop("at_ms")
    assert signal == {"partition": f"{topic}/0", "offset": 0, "status": "fail", "run": "4711", "message": "disk full"}
    assert before_ms - 2_000 <= at_ms <= now_ms() + 2_000
    assert is_beat(redis.cli("GET", "heartbeat"), at_ms), "also who fails is alive"

    def proven() -> bool:
        since, until = typed(commands[PROOF], connector, topic, redis).split("\n")[:2]
        return bool(since) and int(since) <= int(until) and int(until) > at_ms

    eventually(proven, "the silence after it is proven")
    worker.rest("DELETE", connector.path)
    assert redis.cli("--raw", "KEYS", f"hb:{{{connector.name}}}:*") == ""
