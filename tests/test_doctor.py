"""The verb as a user types it, on the demo's own parts: what is found when all is well, and when a part is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.real.programs import free_port

from heartbeat.doctor import app
from heartbeat.doctor.app import Request
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import UsageError

HEARTBEAT = str(Path(sys.executable).with_name("heartbeat"))
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith(("CONNECT_", "REDISCLI_"))}
STRINGS = "org.apache.kafka.connect.storage.StringConverter"
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Where everything is."""

    bootstrap: str
    redis: str
    rest: str
    worker: Path


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """A worker in a process of its own, with one connector that sees its topic."""
    directory = tmp_path_factory.mktemp("doctor")
    rest, worker, connector = free_port(), directory / "worker.properties", directory / "connector.json"
    with EmbeddedBroker({"beats": 2}) as broker, EmbeddedRedis() as redis:
        worker.write_text(
            f"bootstrap.servers={broker.bootstrap}\nlisteners=http://{LOOPBACK}:{rest}\nkey.converter={STRINGS}\nvalue.converter={STRINGS}\n"
            "consumer.fetch.max.wait.ms=10\nconsumer.auto.offset.reset=earliest\n"
        )
        config = {"connector.class": "RedisHeartbeatSink", "topics": "beats", "redis.host": LOOPBACK, "redis.port": str(redis.port)}
        connector.write_text(json.dumps({"name": "pumps", "config": config}))
        output = directory / "output"
        with (
            output.open("wb") as file,
            subprocess.Popen([HEARTBEAT, "connect-standalone", worker, connector], stdout=file, stderr=file, env=ENVIRONMENT) as process,
        ):
            try:
                yield Parts(broker.bootstrap, f"{LOOPBACK}:{redis.port}", f"http://{LOOPBACK}:{rest}", worker)
            finally:
                process.kill()


def found(**given: Any) -> dict[str, list[dict[str, Any]]]:
    """What the verb tells programs, by check."""
    checks: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(app.run(Request(json=True, **given))[0])["findings"]:
        checks.setdefault(finding["check"], []).append(finding)
    return checks


def typed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [HEARTBEAT, "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=ENVIRONMENT)


def healthy(parts: Parts) -> subprocess.CompletedProcess[str]:
    """The verb's run when all has come to be well."""
    deadline = time.monotonic() + DEADLINE_S
    while (done := typed("--worker", parts.worker)).returncode:
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.2)
    return done


def test_all_is_well_and_every_part_is_told_in_a_line(parts: Parts) -> None:
    done = healthy(parts)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == {"OK"}
    for words in (
        f"connect  {' ' * 15}",
        "connector pumps ",
        f" {parts.bootstrap} answered in ",
        "topic beats ",
        "group connect-pumps ",
        f" {parts.redis} answered in ",
        "redis eviction ",
        "redis persistence ",
        "redis replication ",
        "clock redis ",
        "2 partition(s) seen to their ends at most ",
        "keys pumps ",
    ):
        assert words.rstrip() in done.stdout
    assert lines[-1].startswith("0 FAIL, 0 WARN, ")


def test_a_worker_that_is_gone_hides_nothing_of_what_it_left(parts: Parts) -> None:
    healthy(parts)
    checks = found(rest=f"http://{LOOPBACK}:{free_port()}", redis=parts.redis, bootstrap=parts.bootstrap)
    assert checks["connect"][0]["level"] == "FAIL"
    assert checks["connect"][0]["fix"].startswith("start it: heartbeat connect-standalone")
    assert checks["topic beats"][0]["level"] == "OK"
    assert checks["sight pumps"][0]["level"] == "OK"
    assert checks["redis"][0]["level"] == "OK"


def test_a_broker_that_is_gone_hides_nothing_of_redis(parts: Parts) -> None:
    healthy(parts)
    checks = found(rest=parts.rest, bootstrap=f"{LOOPBACK}:{free_port()}")
    assert checks["kafka"][0]["level"] == "FAIL"
    assert "refused" in checks["kafka"][0]["text"]
    assert checks["sight pumps"][0]["level"] == "OK"


def test_a_redis_that_is_gone_hides_nothing_of_kafka(parts: Parts) -> None:
    checks = found(rest=parts.rest, redis=f"{LOOPBACK}:{free_port()}", worker=parts.worker)
    assert checks["redis"][0]["level"] == "FAIL"
    assert checks["sight pumps"][0]["level"] == "FAIL"
    assert checks["topic beats"][0]["level"] == "OK"


def test_one_connector_can_be_asked_for(parts: Parts) -> None:
    healthy(parts)
    checks = found(worker=parts.worker, connector="pumps")
    assert checks["connector pumps"][0]["level"] == "OK"
    other = found(worker=parts.worker, connector="other")
    assert "there is: pumps" in other["connector"][0]["text"]
    assert "connector pumps" not in other


def test_the_demos_addresses_are_taken_where_the_command_line_says_nothing(parts: Parts) -> None:
    healthy(parts)
    checks = found(demo=(parts.bootstrap, parts.redis, parts.rest))
    assert {finding["level"] for findings in checks.values() for finding in findings} == {"OK"}


def test_the_environment_of_a_workers_container_says_where_it_is(parts: Parts) -> None:
    environment = {"CONNECT_BOOTSTRAP_SERVERS": parts.bootstrap, "CONNECT_LISTENERS": parts.rest}
    environment |= {"CONNECT_KEY_CONVERTER": STRINGS, "CONNECT_VALUE_CONVERTER": STRINGS}
    assert found(environment=environment)["connector pumps"][0]["level"] == "OK"


def test_nothing_there_ends_with_1_and_says_so_of_each(tmp_path: Path) -> None:
    nobody = [f"{LOOPBACK}:{free_port()}" for _ in range(3)]
    done = typed("--rest", f"http://{nobody[0]}", "--bootstrap-server", nobody[1], "--redis", nobody[2], "--connector", "c")
    assert done.returncode == 1
    assert done.stderr == ""
    told = [line.split()[:2] for line in done.stdout.splitlines()]
    assert told[:-1] == [["FAIL", "connect"], ["FAIL", "kafka"], ["FAIL", "redis"], ["FAIL", "sight"]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"rest": "127.0.0.1:8083"},
        {"redis": "nowhere"},
        {"redis": "h:0"},
        {"redis": "h:99999"},
        {"worker": Path("none.properties")},
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_asked(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        app.run(Request(**arguments))


def test_help_tells_the_exit_codes() -> None:
    text = typed("--help").stdout
    assert "0 if all is OK" in text
    assert "with 2 if there are only WARNings" in " ".join(text.split())
