"""The parts themselves: what the other tests build on starts, answers, comes back with its data, and ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import parts
from .broker import Kafka
from .parts import ConnectWorker, Redis
from .programs import eventually, require


def _read_all(kafka: Kafka, topic: str) -> list[str]:
    argv = [require("kcat", "kcat"), "-b", kafka.bootstrap, "-C", "-t", topic, "-e", "-q"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


def test_a_kafka_4_1_broker_takes_what_its_console_producer_sends(kafka: Kafka) -> None:
    topic = kafka.create_topic("parts", 1)
    kafka.console_producer(topic, ["one", "two"])
    assert _read_all(kafka, topic) == ["one", "two"]


def test_a_kafka_3_4_broker_takes_what_its_console_producer_sends(kafka_zk: Kafka) -> None:
    topic = kafka_zk.create_topic("parts", 1)
    kafka_zk.console_producer(topic, ["one", "two"])
    assert _read_all(kafka_zk, topic) == ["one", "two"]


def test_a_restarted_broker_has_its_port_and_its_data(kafka: Kafka) -> None:
    topic = kafka.create_topic("parts-restart", 1)
    kafka.produce(topic, [(None, "kept")])
    pid, bootstrap = kafka.pid, kafka.bootstrap
    kafka.stop()
    kafka.start()
    assert kafka.pid != pid
    assert kafka.bootstrap == bootstrap
    assert eventually(lambda: _read_all(kafka, topic), "the record is read") == ["kept"]


def test_redis_comes_back_on_its_port_and_keeps_what_it_was_told_to_keep(tmp_path: Path) -> None:
    with parts.redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as redis:
        redis.cli("SET", "kept", "1")
        redis.stop()
        redis.start()
        assert redis.cli("GET", "kept") == "1"


def test_every_test_finds_redis_empty(redis: Redis) -> None:
    assert redis.cli("DBSIZE") == "0"


def test_the_jvm_connect_worker_has_the_file_sink(connect_jvm: ConnectWorker) -> None:
    assert connect_jvm.rest("GET", "/").json()["version"] == "4.1.0"
    classes = [plugin["class"] for plugin in connect_jvm.rest("GET", "/connector-plugins").json()]
    assert "org.apache.kafka.connect.file.FileStreamSinkConnector" in classes


def test_a_missing_part_skips_and_names_the_remedy_unless_real_parts_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTBEAT_REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is missing: apt-get install no-such-package"):
        require("no-such-program", "no-such-package")
    monkeypatch.setenv("HEARTBEAT_REQUIRE_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-package"):
        require("no-such-program", "no-such-package")
