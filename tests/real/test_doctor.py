"""The doctor before a real broker, Redis and worker: nothing to mend when all is well, and with one fault the line that names it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually, require
from .scenario import Connector, end_offsets, sink_config, unique

TIMEOUT_S = 60.0
TTL = {"redis.ttl": "3600", "redis.key": "${key}"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's."""

    level: str
    check: str
    text: str
    fix: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """A worker with one connector that sees its topic, and the doctor that looks at it."""

    kafka: Kafka
    redis: Redis
    worker: HeartbeatWorker
    connector: Connector
    topic: str
    properties: Path

    def look(self, *more: str) -> tuple[int, list[Finding]]:
        """Return the exit code and what is told."""
        argv = parts.heartbeat_argv("doctor", "--json", "--worker", str(self.properties), *more)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, env=parts.clean_environment(), check=False)
        assert (done.stderr, done.returncode in {0, 1, 2}) == ("", True)
        return done.returncode, [Finding(**row) for row in json.loads(done.stdout)["findings"]]

    def wait_until(self, code: int, *more: str) -> list[Finding]:
        """Look until the exit code is this one."""

        def seen() -> list[Finding]:
            found_code, findings = self.look(*more)
            assert found_code == code, [finding for finding in findings if finding.level != "OK"]
            return findings

        return eventually(seen, f"the doctor ends with {code}", timeout_s=90, every_s=0.5)

    def wait_for(self, level: str, check: str, words: str, *more: str) -> Finding:
        """Look until there is a finding of this level whose text has these words."""

        def seen() -> Finding | None:
            findings = self.look(*more)[1]
            fits = [one for one in findings if (one.level, one.check) == (level, check) and words in one.text]
            assert fits, findings
            return fits[0]

        found = eventually(seen, f"{level} {check}: {words}", timeout_s=90, every_s=0.5)
        assert found is not None
        return found


@pytest.fixture
def scene(kafka: Kafka, tmp_path: Path) -> Iterator[Scene]:
    """All is well."""
    topic = kafka.create_topic(unique("doctor"), 3)
    with parts.redis_server(tmp_path / "redis") as redis, parts.heartbeat_worker(tmp_path / "worker", kafka) as worker:
        connector = Connector(worker, kafka, topic)
        connector.put(sink_config(redis, topic, TTL))
        scene = Scene(kafka, redis, worker, connector, topic, tmp_path / "worker" / "worker.properties")
        kafka.produce(topic, [(f"{topic}-{n}", "beat") for n in range(100)])
        connector.wait_until_caught_up(topic)
        scene.wait_until(0)
        yield scene


def levels(findings: list[Finding]) -> dict[str, str]:
    """The worst level of each check."""
    order = ["OK", "WARN", "FAIL"]
    worst: dict[str, str] = {}
    for finding in findings:
        worst[finding.check] = max(worst.get(finding.check, "OK"), finding.level, key=order.index)
    return worst


def typed(fix: str) -> None:
    """Type what the doctor says, the command alone."""
    argv = shlex.split(fix)
    program = {"heartbeat": [sys.executable, "-m", "heartbeat"], "curl": [require("curl", "curl"), "-sf"]}[argv[0]]
    subprocess.run([*program, *argv[1:]], timeout=TIMEOUT_S, check=True, capture_output=True)


def test_all_is_well_with_every_part_told_and_nothing_written(scene: Scene) -> None:
    before = _everything(scene)
    code, findings = scene.look()
    assert code == 0
    by_check = {finding.check: finding.text for finding in findings}
    assert list(by_check) == [
        "connect",
        f"connector {scene.topic}",
        "kafka",
        "clock kafka",
        f"topic {scene.topic}",
        f"group connect-{scene.topic}",
        "redis",
        "redis eviction",
        "redis memory",
        "redis persistence",
        "redis replication",
        "clock redis",
        f"sight {scene.topic}",
        f"keys {scene.topic}",
    ]
    assert "group protocols classic,consumer" in by_check["kafka"]
    assert "3 partition(s), cleanup.policy delete, retention.ms 604800000" in by_check[f"topic {scene.topic}"]
    assert "with 1 member(s); 0 record(s) are not committed yet" in by_check[f"group connect-{scene.topic}"]
    assert "3 partition(s) seen to their ends" in by_check[f"sight {scene.topic}"]
    assert "100 of 100 source(s) looked at, 100 of them alive" in by_check[f"keys {scene.topic}"]
    assert _everything(scene) == before


def _everything(scene: Scene) -> tuple[Any, ...]:
    admin = scene.kafka.admin()
    groups = sorted(group.group_id for group in admin.list_consumer_groups().result(30).valid)
    topics = sorted(admin.list_topics(timeout=30).topics)
    return groups, topics, end_offsets(scene.kafka, scene.topic), scene.redis.cli("DBSIZE"), sorted(scene.redis.cli("KEYS", "*").split())


def test_an_older_broker_says_its_version(kafka_zk: Kafka, tmp_path: Path) -> None:
    topic = kafka_zk.create_topic(unique("doctor"))
    with parts.redis_server(tmp_path / "redis") as redis, parts.heartbeat_worker(tmp_path / "worker", kafka_zk) as worker:
        connector = Connector(worker, kafka_zk, topic)
        connector.put(sink_config(redis, topic, TTL))
        scene = Scene(kafka_zk, redis, worker, connector, topic, tmp_path / "worker" / "worker.properties")
        findings = scene.wait_until(0)
    assert any("inter.broker.protocol.version 3.4" in finding.text for finding in findings)


def test_a_stopped_redis_is_named_and_hides_nothing_else(scene: Scene) -> None:
    scene.redis.stop()
    code, findings = scene.look()
    told = levels(findings)
    assert code == 1
    assert (told["redis"], told[f"sight {scene.topic}"]) == ("FAIL", "FAIL")
    assert {told[check] for check in ("connect", f"connector {scene.topic}", "kafka", f"topic {scene.topic}")} == {"OK"}
    (redis,) = [finding for finding in findings if finding.check == "redis"]
    assert f"127.0.0.1:{scene.redis.port} does not answer" in redis.text
    assert "redis-server" in (redis.fix or "")
    scene.redis.start()
    scene.wait_until(0)


def test_an_eviction_policy_that_may_drop_keys_is_mended_by_what_the_fix_says(scene: Scene) -> None:
    scene.redis.cli("CONFIG", "SET", "maxmemory", "100mb")
    assert scene.look()[0] == 0
    scene.redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    code, findings = scene.look()
    (bad,) = [finding for finding in findings if finding.level != "OK"]
    assert (code, bad.level, bad.check) == (1, "FAIL", "redis eviction")
    typed((bad.fix or "").partition(";")[0])
    assert scene.redis.cli("CONFIG", "GET", "maxmemory-policy").splitlines()[-1] == "noeviction"
    scene.wait_until(0)


@pytest.mark.parametrize(("verb", "level", "code"), [("stop", "FAIL", 1), ("pause", "WARN", 2)])
def test_a_connector_that_somebody_holds_goes_on_by_what_the_fix_says(scene: Scene, verb: str, level: str, code: int) -> None:
    assert scene.worker.rest("PUT", f"{scene.connector.path}/{verb}").status_code in {202, 204}
    scene.kafka.produce(
        scene.topic, [(f"{scene.topic}-{n}", "waits") for n in range(100)]
    )  # with nothing waiting, a pause leaves sight as it is
    sight = scene.wait_for(level, f"sight {scene.topic}", "as the connector is held")
    found_code, findings = scene.look()
    (held,) = [finding for finding in findings if finding.check == f"connector {scene.topic}"]
    assert (found_code, held.level) == (code, level)
    assert held.fix == sight.fix
    typed(held.fix or "")
    scene.wait_until(0)


def test_a_failed_task_is_told_by_its_trace(scene: Scene) -> None:
    scene.connector.put(sink_config(scene.redis, scene.topic, TTL | {"redis.database": "99"}))
    scene.connector.wait_for_failure()
    code, findings = scene.look()
    (failed,) = [finding for finding in findings if finding.check == f"connector {scene.topic}"]
    assert (code, failed.level) == (1, "FAIL")
    assert "task 0 is FAILED" in failed.text
    assert "DB index is out of range" in failed.text
    assert "/restart?includeTasks=true&onlyFailed=true" in (failed.fix or "")


def test_a_password_is_used_and_never_told(scene: Scene, tmp_path: Path) -> None:
    secret = "correct-horse-battery-staple"
    with parts.redis_server(tmp_path / "guarded", "--requirepass", secret) as guarded:
        scene.connector.put(sink_config(guarded, scene.topic, TTL | {"redis.password": secret}))
        scene.wait_until(0)
        scene.connector.put(sink_config(guarded, scene.topic, TTL | {"redis.password": f"not-{secret}"}))
        scene.connector.wait_for_failure()
        argv = parts.heartbeat_argv("doctor", "--worker", str(scene.properties))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, env=parts.clean_environment(), check=False)
        assert done.returncode == 1
        assert secret not in done.stdout + done.stderr
        env = parts.clean_environment(REDISCLI_AUTH=secret)
        told = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, env=env, check=False).stdout
        assert "OK    redis eviction" in told
        assert secret not in told


def test_a_missing_topic_is_told_with_how_to_make_it(scene: Scene) -> None:
    missing = unique("missing")
    scene.connector.put(sink_config(scene.redis, missing, TTL))
    found = scene.wait_for("FAIL", f"topic {missing}", "does not exist")
    assert f"kafka-topics --bootstrap-server {scene.kafka.bootstrap} --create --topic {missing}" in (found.fix or "")
    assert missing not in scene.kafka.admin().list_topics(timeout=30).topics


def test_a_topic_that_keeps_less_than_a_rebuild_needs_is_a_warning(scene: Scene) -> None:
    topic = scene.kafka.create_topic(unique("short"), 1, **{"retention.ms": "600000", "message.timestamp.type": "LogAppendTime"})
    scene.connector.put(sink_config(scene.redis, topic, TTL))
    found = scene.wait_for("WARN", f"topic {topic}", "retention.ms 600000 is shorter than the rebuild horizon of 7200000 ms")
    assert "--add-config retention.ms=7200000" in (found.fix or "")
    scene.connector.put(sink_config(scene.redis, topic, TTL | {"redis.ttl": "30"}))
    assert "LogAppendTime" in scene.wait_for("OK", f"topic {topic}", "retention.ms 600000").text


def test_public_keys_that_somebody_deletes_or_takes_are_named(scene: Scene) -> None:
    scene.redis.cli("DEL", f"{scene.topic}-0")
    scene.redis.cli("DEL", f"{scene.topic}-1")
    scene.redis.cli("RPUSH", f"{scene.topic}-1", "theirs")
    code, findings = scene.look()
    told = [finding.text for finding in findings if finding.level == "WARN"]
    assert code == 2
    assert len(told) == 2
    assert f"1 of 100 source(s) looked at ({scene.topic}-1) have a public key that holds something else" in told[0]
    assert f"1 of 100 source(s) looked at ({scene.topic}-0) are alive in the index but have no public key" in told[1]


def test_a_stopped_broker_is_named_and_sight_is_told_to_grow_old(scene: Scene) -> None:
    scene.kafka.stop()
    try:
        code, findings = scene.look()
        told = levels(findings)
        assert (code, told["kafka"]) == (1, "FAIL")
        assert {told[check] for check in (f"connector {scene.topic}", "redis", "clock redis")} == {"OK"}
        blind = scene.wait_for("FAIL", f"sight {scene.topic}", "blind, its sources are UNKNOWN, not DOWN")
        assert "mend what FAILs above" in (blind.fix or "")
    finally:
        scene.kafka.start()  # the tests after this one need it too
    scene.wait_until(0)


def test_a_worker_that_sleeps_is_named_and_its_sight_is_told_from_redis_alone(scene: Scene) -> None:
    os.kill(scene.worker.pid, signal.SIGSTOP)
    try:
        at = ("--redis", f"127.0.0.1:{scene.redis.port}")
        blind = scene.wait_for("FAIL", f"sight {scene.topic}", "blind, its sources are UNKNOWN, not DOWN", *at)
        assert "start (or wake) the worker" in (blind.fix or "")
        code, findings = scene.look(*at)
        told = levels(findings)
        assert (code, told["connect"], told[f"topic {scene.topic}"]) == (1, "FAIL", "OK")
        (silent,) = [finding for finding in findings if finding.check == "connect"]
        assert "no answer in 4 s" in silent.text
        assert "if it hangs or is stopped" in (silent.fix or "")
    finally:
        os.kill(scene.worker.pid, signal.SIGCONT)
    scene.wait_until(0)
