"""Trouble: with Redis, with its credentials, with the broker, with a record. What passes is waited out, what does not is told."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, is_beat, kcat_send, newest_stamp, newest_stamps, sink_config, unique, wait_for_value

JSON = {"value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false"}
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def worker(tmp_path: Path, kafka: Kafka) -> Iterator[HeartbeatWorker]:
    """A worker of its own for each test, because its log is looked at."""
    with parts.heartbeat_worker(tmp_path / "worker", kafka) as worker:
        yield worker


def _connector(worker: HeartbeatWorker, kafka: Kafka, prefix: str, partitions: int = 1) -> tuple[Connector, str]:
    topic = kafka.create_topic(unique(prefix), partitions)
    return Connector(worker, kafka, topic), topic


def test_an_outage_of_redis_is_waited_out_in_the_group_and_nothing_is_committed_meanwhile(
    worker: HeartbeatWorker, kafka: Kafka, tmp_path: Path
) -> None:
    connector, topic = _connector(worker, kafka, "outage", 2)
    limits = {"consumer.override.max.poll.interval.ms": "6000", "consumer.override.session.timeout.ms": "6000"}
    with parts.redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as redis:
        connector.put(sink_config(redis, topic, limits | {"redis.key": "${key}", "redis.ttl": "3600"}))
        kafka.produce(topic, [(f"source-{n % 100}", "before") for n in range(500)])
        connector.wait_until_caught_up(topic)
        members, committed = connector.members(), connector.committed(topic)
        assert len(members) == 1
        redis.stop()
        deadline = time.monotonic() + 10  # well past max.poll.interval.ms
        while time.monotonic() < deadline:
            kafka.produce(topic, [(f"source-{n}", "during") for n in range(100)])
            assert connector.states() == ["RUNNING", "RUNNING"]
            assert connector.committed(topic) == committed
            assert connector.members() == members
            time.sleep(0.5)  # the pace of the load
        redis.start()
        connector.wait_until_caught_up(topic)
        assert connector.members() == members
        oracle = newest_stamps(kafka, topic)
        assert [key for key, stamp in oracle.items() if not is_beat(redis.cli("GET", key), stamp)] == []


def test_a_redis_that_is_down_at_first_is_no_failure(worker: HeartbeatWorker, kafka: Kafka, tmp_path: Path) -> None:
    connector, topic = _connector(worker, kafka, "down-first")
    with parts.redis_server(tmp_path / "redis") as redis:
        redis.stop()
        connector.put(sink_config(redis, topic))
        kcat_send(kafka, topic, "beat")
        connector.wait_for_members(1)
        assert connector.states() == ["RUNNING", "RUNNING"]
        redis.start()
        wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))


def test_a_redis_that_refuses_writes_for_a_while_is_waited_out(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    connector, topic = _connector(worker, kafka, "oom")
    connector.put(sink_config(redis, topic))
    connector.wait_for_members(1)
    redis.cli("CONFIG", "SET", "maxmemory", "1")  # every write is now answered by OOM
    try:
        kcat_send(kafka, topic, "beat")
        eventually(lambda: re.search("OOM|maxmemory", worker.log()), "the log tells what Redis answers")
        assert connector.states() == ["RUNNING", "RUNNING"]
        assert set(connector.committed(topic).values()) <= {-1001, 0}
    finally:
        redis.cli("CONFIG", "SET", "maxmemory", "0")
    wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))
    connector.wait_until_caught_up(topic)


@pytest.mark.parametrize("password", [f"not-{SECRET}", None], ids=["wrong", "none"])
def test_a_wrong_password_fails_the_task_and_is_never_told(
    password: str | None, worker: HeartbeatWorker, kafka: Kafka, tmp_path: Path
) -> None:
    connector, topic = _connector(worker, kafka, "password")
    with parts.redis_server(tmp_path / "redis", "--requirepass", SECRET) as redis:
        connector.put(sink_config(redis, topic, {"redis.password": password} if password else {}))
        kcat_send(kafka, topic, "beat")
        trace = connector.wait_for_failure()
    assert re.search("WRONGPASS|NOAUTH|invalid username-password|Authentication required", trace)
    assert SECRET not in trace
    assert SECRET not in worker.log()
    assert connector.states() == ["RUNNING", "FAILED"]


def test_the_right_password_works_and_is_shown_only_in_the_stored_config(worker: HeartbeatWorker, kafka: Kafka, tmp_path: Path) -> None:
    connector, topic = _connector(worker, kafka, "password")
    with parts.redis_server(tmp_path / "redis", "--requirepass", SECRET) as redis:
        config = sink_config(redis, topic, {"redis.password": SECRET})
        connector.put(config)
        kcat_send(kafka, topic, "beat")
        connector.wait_until_caught_up(topic)
        assert redis.cli("--no-auth-warning", "-a", SECRET, "EXISTS", f"{topic}-key") == "1"
    path = "/connector-plugins/com.example.RedisHeartbeatSinkConnector/config/validate"
    validated = worker.rest("PUT", path, config | {"name": topic})
    assert validated.status_code == 200, validated.text
    assert SECRET not in validated.text
    assert SECRET not in worker.log()


def test_an_unknown_database_fails_the_task_and_the_trace_says_so(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    connector, topic = _connector(worker, kafka, "database")
    connector.put(sink_config(redis, topic, {"redis.database": "99"}))
    kcat_send(kafka, topic, "beat")
    assert re.search(r"DB index is out of range|database", connector.wait_for_failure())


def test_another_database_is_written_to(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    connector, topic = _connector(worker, kafka, "database")
    connector.put(sink_config(redis, topic, {"redis.database": "3"}))
    kcat_send(kafka, topic, "beat")
    connector.wait_until_caught_up(topic)
    assert redis.cli("-n", "3", "EXISTS", f"{topic}-key") == "1"
    assert redis.cli("EXISTS", f"{topic}-key") == "0"


def test_an_undecodable_record_fails_the_task_until_it_is_tolerated(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    connector, topic = _connector(worker, kafka, "undecodable")
    connector.put(sink_config(redis, topic, JSON))
    kcat_send(kafka, topic, '{"good": 1}')
    connector.wait_until_caught_up(topic)
    good = newest_stamp(kafka, topic)
    kcat_send(kafka, topic, "{not json")
    trace = connector.wait_for_failure()
    assert trace.splitlines()[0] == "org.apache.kafka.connect.errors.ConnectException: Tolerance exceeded in error handler"
    assert "Converting byte[] to Kafka Connect data failed due to serialization error" in trace
    assert is_beat(redis.cli("GET", f"{topic}-key"), good)
    assert connector.committed(topic) == {0: 1}
    assert worker.rest("GET", f"{connector.path}/tasks/0/status").json()["trace"] == trace
    connector.put(sink_config(redis, topic, JSON | {"errors.tolerance": "all"}))
    connector.wait_for("RUNNING", "RUNNING")
    connector.wait_until_caught_up(topic)
    assert is_beat(redis.cli("GET", f"{topic}-key"), good)
    kcat_send(kafka, topic, '{"good": 2}')
    wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))


def test_a_restarted_broker_is_found_again(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    connector, topic = _connector(worker, kafka, "broker-restart")
    connector.put(sink_config(redis, topic))
    kcat_send(kafka, topic, "before")
    wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))
    kafka.stop()
    try:
        assert connector.states() == ["RUNNING", "RUNNING"]
        told = len(worker.log().splitlines())
        time.sleep(3)  # an outage that lasts, for its log
        recited = len(worker.log().splitlines()) - told
    finally:
        kafka.start()  # the tests after this one need it too
    kafka.produce(topic, [(None, "after")])
    wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))
    connector.wait_until_caught_up(topic)
    assert connector.states() == ["RUNNING", "RUNNING"]
    assert recited < 40, "an outage is told, not recited at every attempt to connect"
