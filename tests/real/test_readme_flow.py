"""The original project's README, from its first command to its last, with local clients in place of ``docker compose exec``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import SUCCESS_LOGGER, Connector, is_beat, newest_stamp, now_ms, original_config, wait_for_value

NAME = "redis-heartbeat-sink"
TOPIC = "heartbeat-topic"
SUCCESS_LINE = re.compile(
    r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] "
    rf"INFO Successfully processed 1 records and updated Redis heartbeat \({re.escape(SUCCESS_LOGGER)}\)$",
    re.MULTILINE,
)


@pytest.fixture(params=["kafka", "kafka_zk"])
def broker(request: pytest.FixtureRequest) -> Kafka:
    """Each Kafka in turn: today's, and the one the original's compose file starts."""
    kafka: Kafka = request.getfixturevalue(request.param)
    if TOPIC not in kafka.admin().list_topics(timeout=30).topics:
        kafka.create_topic(TOPIC)
    return kafka


@pytest.fixture
def worker(tmp_path: Path, broker: Kafka) -> Iterator[HeartbeatWorker]:
    """A worker on that broker."""
    with parts.heartbeat_worker(tmp_path, broker) as worker:
        yield worker


def test_the_original_readme_works_from_its_first_command_to_its_last(broker: Kafka, worker: HeartbeatWorker, redis: Redis) -> None:
    connector = Connector(worker, broker, NAME)
    _create(connector, redis)
    _check_the_status_reply(connector)
    _send_a_single_message(connector, redis)
    _stop_sending_and_recover(connector, redis)
    _change_ttl_and_key(connector, redis)
    assert worker.rest("POST", f"{connector.path}/restart").status_code == 204
    connector.wait_for("RUNNING", "RUNNING")
    _delete(connector)


def _create(connector: Connector, redis: Redis) -> None:
    body = original_config(redis)
    reply = connector.worker.rest("POST", "/connectors", body)
    assert reply.status_code == 201, reply.text
    assert reply.headers["Location"] == f"{connector.worker.url}{connector.path}"
    created = reply.json()
    assert created["name"] == NAME
    assert created["config"] == body["config"] | {"name": NAME}
    assert created["tasks"] == [{"connector": NAME, "task": 0}]
    assert created["type"] == "sink"


def _check_the_status_reply(connector: Connector) -> None:
    connector.wait_for("RUNNING", "RUNNING")
    status = connector.status()
    place = {"state": "RUNNING", "worker_id": connector.worker.url.removeprefix("http://")}
    version = status["connector"]["version"]
    assert status == {
        "name": NAME,
        "connector": {**place, "version": version},
        "tasks": [{"id": 0, **place, "version": version}],
        "type": "sink",
    }


def _send_a_single_message(connector: Connector, redis: Redis) -> None:
    before_ms = now_ms()
    connector.kafka.console_producer(TOPIC, ["test-message"])
    eventually(lambda: redis.cli("GET", "heartbeat"), "heartbeat is set")
    value = redis.cli("GET", "heartbeat")
    assert is_beat(value, newest_stamp(connector.kafka, TOPIC))
    assert before_ms <= int(value) <= now_ms()
    assert 0 < int(redis.cli("TTL", "heartbeat")) <= 60
    eventually(lambda: SUCCESS_LINE.search(connector.worker.log()), "the success line is in the log")


def _stop_sending_and_recover(connector: Connector, redis: Redis) -> None:
    short = original_config(redis)["config"] | {"redis.ttl": "5"}
    connector.put(short)
    connector.wait_for("RUNNING", "RUNNING")
    connector.wait_for_members(1)
    connector.kafka.console_producer(TOPIC, ["last message before the silence"])
    # The key had most of its first 60 s left: only the new ttl can end it within the 30 s that are waited here.
    eventually(lambda: redis.cli("TTL", "heartbeat") == "-2", "heartbeat expires in silence")
    assert redis.cli("GET", "heartbeat") == ""
    connector.put(short | {"redis.ttl": "60"})
    connector.kafka.console_producer(TOPIC, ["recovery"])
    wait_for_value(redis, "heartbeat", newest_stamp(connector.kafka, TOPIC))
    assert 0 < int(redis.cli("TTL", "heartbeat")) <= 60


def _change_ttl_and_key(connector: Connector, redis: Redis) -> None:
    connector.put(original_config(redis)["config"] | {"redis.ttl": "120", "redis.key": "my-service-heartbeat"})
    connector.wait_for("RUNNING", "RUNNING")
    connector.kafka.console_producer(TOPIC, ["under another name"])
    wait_for_value(redis, "my-service-heartbeat", newest_stamp(connector.kafka, TOPIC))
    assert 60 < int(redis.cli("TTL", "my-service-heartbeat")) <= 120


def _delete(connector: Connector) -> None:
    assert connector.worker.rest("DELETE", connector.path).status_code == 204
    assert connector.worker.rest("GET", f"{connector.path}/status").status_code == 404
    assert connector.worker.rest("GET", "/connectors").json() == []
    connector.wait_for_members(0)
