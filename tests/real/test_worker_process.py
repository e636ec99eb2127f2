"""The worker as a process: how it ends, what it says when it cannot start, where its settings come from, what survives it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import parts
from .broker import Kafka, write_properties
from .parts import STRING, HeartbeatWorker, Redis, clean_environment, heartbeat_argv
from .programs import Program, eventually, free_port
from .scenario import Connector, is_beat, kcat_send, newest_stamp, newest_stamps, sink_config, unique, wait_for_value

NOBODY = "127.0.0.1:9"
"""An address that refuses connections: for a worker that must not get as far as the broker."""

LOG_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] (TRACE|DEBUG|INFO|WARN|ERROR|FATAL) .+ \([\w.$-]+\)$")


def _run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``heartbeat ARGUMENTS``, which must end by itself."""
    argv = heartbeat_argv(*arguments)
    return subprocess.run(
        argv, cwd=directory, env=clean_environment(**environment), capture_output=True, text=True, timeout=60, check=False
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    output = done.stdout + done.stderr
    assert "Traceback" not in output, output
    return output


def _worker_file(directory: Path, **settings: str) -> str:
    """Write a worker file that would start; ``settings`` have ``_`` for dots."""
    port = free_port()
    base = {"bootstrap.servers": NOBODY, "key.converter": STRING, "value.converter": STRING, "listeners": f"http://127.0.0.1:{port}"}
    return str(write_properties(directory / "worker.properties", base | {key.replace("_", "."): value for key, value in settings.items()}))


# How it ends


def test_sigterm_commits_what_is_applied_leaves_the_group_and_exits_with_0(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("sigterm"), 2)
    config = sink_config(redis, topic, {"redis.key": "${key}", "redis.ttl": "3600"})
    # An hour between commits: only the end of the worker can commit.
    with parts.heartbeat_worker(tmp_path, kafka, {"offset.flush.interval.ms": "3600000"}) as worker:
        connector = Connector(worker, kafka, topic)
        connector.put(config)
        kafka.produce(topic, [(f"source-{n % 20}", "beat") for n in range(1000)])
        oracle = newest_stamps(kafka, topic)
        eventually(lambda: all(is_beat(redis.cli("GET", key), stamp) for key, stamp in oracle.items()), "all is applied")
        assert worker.terminate() == 0
        connector.wait_for_members(0)
        connector.wait_until_caught_up(topic, timeout_s=5)


def test_sigterm_while_redis_is_down_exits_with_0_and_commits_nothing_unapplied(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("sigterm-redis"))
    with parts.redis_server(tmp_path / "redis") as redis, parts.heartbeat_worker(tmp_path / "worker", kafka) as worker:
        connector = Connector(worker, kafka, topic)
        connector.put(sink_config(redis, topic))
        kcat_send(kafka, topic, "applied")
        connector.wait_until_caught_up(topic)
        redis.stop()
        kcat_send(kafka, topic, "never applied")
        eventually(lambda: str(redis.port) in worker.log() or "Redis" in worker.log(), "the trouble is in the log")
        assert worker.terminate() == 0
        assert connector.committed(topic) == {0: 1}
        connector.wait_for_members(0)


def test_sigterm_while_the_broker_is_down_exits_with_0(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("sigterm-broker"))
    with parts.heartbeat_worker(tmp_path, kafka) as worker:
        Connector(worker, kafka, topic).put(sink_config(redis, topic))
        kcat_send(kafka, topic, "applied")
        wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))
        kafka.stop()
        try:
            assert worker.terminate() == 0
        finally:
            kafka.start()


def test_sigterm_without_any_connector_exits_with_0(kafka: Kafka, tmp_path: Path) -> None:
    with parts.heartbeat_worker(tmp_path, kafka) as worker:
        assert worker.terminate() == 0


# What it says when it cannot start


@pytest.mark.parametrize("arguments", [("connect-standalone",), ("connect-standalone", "--no-such-option"), ("no-such-verb",)])
def test_a_wrong_command_line_ends_with_1(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = _run(tmp_path, *arguments)
    assert done.returncode == 1
    assert "usage" in _said(done).lower()


def test_a_missing_worker_file_ends_with_2_and_is_named(tmp_path: Path) -> None:
    done = _run(tmp_path, "connect-standalone", "absent.properties")
    assert done.returncode == 2
    assert "absent.properties" in _said(done)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"offset_flush_interval_ms": "soon"}, "Invalid value soon for configuration offset.flush.interval.ms: Not a number of type LONG"),
        ({"listeners": "gopher://127.0.0.1:1"}, "listeners"),
        ({"value_converter": "com.example.NoSuchConverter"}, "com.example.NoSuchConverter"),
    ],
)
def test_an_unusable_worker_file_ends_with_2_and_says_why(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    done = _run(tmp_path, "connect-standalone", _worker_file(tmp_path, **settings))
    assert done.returncode == 2
    assert reason in _said(done)


def test_a_worker_file_without_converters_ends_with_2_and_names_what_is_missing(tmp_path: Path) -> None:
    file = write_properties(tmp_path / "worker.properties", {"bootstrap.servers": NOBODY})
    done = _run(tmp_path, "connect-standalone", str(file))
    assert done.returncode == 2
    assert 'Missing required configuration "key.converter" which has no default value.' in _said(done)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "connector.json"),
        ("{broken", "connector.json"),
        (json.dumps({"connector.class": "FileStreamSink"}), "name"),
        (json.dumps({"name": "n", "connector.class": "com.example.NoSuchConnector", "topics": "t"}), "com.example.NoSuchConnector"),
        (
            json.dumps({"name": "n", "connector.class": "RedisHeartbeatSink", "topics": "t", "redis.ttl": "soon"}),
            "Invalid value soon for configuration redis.ttl: Not a number of type",
        ),
    ],
    ids=["missing", "broken", "nameless", "unknown class", "bad value"],
)
def test_a_connector_file_that_cannot_be_used_ends_with_3_and_says_why(content: str | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "connector.json").write_text(content)
    done = _run(tmp_path, "connect-standalone", _worker_file(tmp_path), "connector.json")
    assert done.returncode == 3
    assert reason in _said(done)


def test_a_taken_port_ends_with_3_and_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        done = _run(tmp_path, "connect-standalone", _worker_file(tmp_path, listeners=f"http://127.0.0.1:{port}"))
    assert done.returncode == 3
    assert str(port) in _said(done)


# Where its settings come from


@contextmanager
def _worker_from(directory: Path, port: int, environment: dict[str, str], *files: str) -> Iterator[HeartbeatWorker]:
    argv = heartbeat_argv("connect-standalone", *files)
    worker = HeartbeatWorker(Program("heartbeat", argv, directory, clean_environment(**environment)), port)
    try:
        worker.start()
        yield worker
    finally:
        worker.end()


def _environment(kafka: Kafka, port: int) -> dict[str, str]:
    return {
        "CONNECT_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "CONNECT_KEY_CONVERTER": STRING,
        "CONNECT_VALUE_CONVERTER": STRING,
        "CONNECT_LISTENERS": f"http://127.0.0.1:{port}",
        "CONNECT_REST_ADVERTISED_HOST_NAME": "kafka-connect",
        "CONNECT_OFFSET_FLUSH_INTERVAL_MS": "500",
        # What a compose file written for Confluent's image carries along for distributed mode.
        "CONNECT_GROUP_ID": "compose-connect-group",
        "CONNECT_CONFIG_STORAGE_TOPIC": "docker-connect-configs",
    }


def test_the_environment_of_confluents_image_configures_a_worker_without_a_file(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic, port = kafka.create_topic(unique("environment")), free_port()
    with _worker_from(tmp_path, port, _environment(kafka, port)) as worker:
        connector = Connector(worker, kafka, topic)
        connector.put(sink_config(redis, topic))
        kcat_send(kafka, topic, "beat")
        connector.wait_until_caught_up(topic)
        assert redis.cli("EXISTS", f"{topic}-key") == "1"
        assert connector.status()["connector"]["worker_id"] == f"kafka-connect:{port}"
        unused = [line for line in worker.log().splitlines() if "config.storage.topic" in line]
        assert len(unused) == 1
        assert "group.id" in unused[0]


def test_the_environment_wins_over_the_file(kafka: Kafka, tmp_path: Path) -> None:
    port = free_port()
    file = _worker_file(tmp_path)
    with _worker_from(tmp_path, port, _environment(kafka, port), file) as worker:
        assert worker.rest("GET", "/").json()["version"] == "4.1.0"
        assert worker.rest("GET", "/").json()["kafka_cluster_id"]


def test_the_log_level_of_the_environment_is_honoured(kafka: Kafka, tmp_path: Path) -> None:
    port = free_port()
    with _worker_from(tmp_path, port, _environment(kafka, port) | {"CONNECT_LOG4J_ROOT_LOGLEVEL": "ERROR"}) as worker:
        assert worker.terminate() == 0
        assert worker.log() == ""


def test_every_log_line_has_connects_form(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("log"))
    with parts.heartbeat_worker(tmp_path, kafka) as worker:
        connector = Connector(worker, kafka, topic)
        connector.put(sink_config(redis, topic))
        kcat_send(kafka, topic, "beat")
        connector.wait_until_caught_up(topic)
        worker.rest("POST", "/connectors", {"name": "bad", "config": {}})
        assert worker.terminate() == 0
        lines = worker.log().splitlines()
        assert lines
        assert [line for line in lines if not LOG_LINE.match(line)] == []


def test_listening_everywhere_without_authentication_is_said_once_with_the_fix(kafka: Kafka, tmp_path: Path) -> None:
    port = free_port()
    with _worker_from(tmp_path, port, _environment(kafka, port) | {"CONNECT_LISTENERS": f"http://:{port}"}) as worker:
        warnings = [line for line in worker.log().splitlines() if "WARN" in line and "authentication" in line]
        assert len(warnings) == 1
        assert "listeners" in warnings[0]


# What survives it


def test_stored_connectors_and_their_target_states_survive_kill_9(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    stored = {"config.storage.file": str(tmp_path / "connectors.json")}
    with parts.heartbeat_worker(tmp_path, kafka, stored) as worker:
        names = [kafka.create_topic(unique(kind)) for kind in ("started", "paused", "stopped", "deleted")]
        started, paused, stopped, deleted = (Connector(worker, kafka, name) for name in names)
        configs = {connector.name: sink_config(redis, connector.name) for connector in (started, paused, stopped, deleted)}
        for connector in (started, paused, stopped, deleted):
            connector.put(configs[connector.name])
        assert worker.rest("PUT", f"{paused.path}/pause").status_code == 202
        assert worker.rest("PUT", f"{stopped.path}/stop").status_code == 204
        assert worker.rest("DELETE", deleted.path).status_code == 204
        worker.kill9()
        worker.start()
        assert sorted(worker.rest("GET", "/connectors").json()) == sorted([started.name, paused.name, stopped.name])
        started.wait_for("RUNNING", "RUNNING")
        paused.wait_for("PAUSED", "PAUSED")
        stopped.wait_for("STOPPED")
        for connector in (started, paused, stopped):
            config = worker.rest("GET", f"{connector.path}/config").json()
            assert config == configs[connector.name] | {"name": connector.name}


def test_a_connector_of_the_command_line_wins_over_the_stored_one(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("wins"))
    stored = {"config.storage.file": str(tmp_path / "connectors.json")}
    config = sink_config(redis, topic)
    with parts.heartbeat_worker(tmp_path, kafka, stored, [{"name": topic, "config": config}]) as worker:
        connector = Connector(worker, kafka, topic)
        connector.put(config | {"redis.ttl": "7"})
        worker.kill9()
        worker.start()
        assert worker.rest("GET", f"{connector.path}/config").json()["redis.ttl"] == "60"


def test_without_a_file_to_store_them_in_connectors_end_with_their_worker(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("memory"))
    with parts.heartbeat_worker(tmp_path, kafka) as worker:
        Connector(worker, kafka, topic).put(sink_config(redis, topic))
        worker.kill9()
        worker.start()
        assert worker.rest("GET", "/connectors").json() == []


def test_a_store_that_cannot_be_read_ends_with_3_and_is_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "connectors.json"
    store.write_text("{broken")
    done = _run(tmp_path, "connect-standalone", _worker_file(tmp_path, config_storage_file=str(store)))
    assert done.returncode == 3
    assert "connectors.json" in _said(done)
    assert store.read_text() == "{broken"
