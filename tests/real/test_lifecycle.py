"""Connect's verbs on a real group: cold start of two tasks, pause, resume, stop, and the offsets of a stopped connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, end_offsets, kcat_send, newest_stamp, sink_config, unique, wait_for_value

STALL_S = 35.0
"""A cold start takes about a second; one that stalls waits for a session or a poll interval to lapse, 45 s or more."""


@pytest.fixture
def connector(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> Iterator[Connector]:
    """A running connector that has applied and committed one beat; its topic bears its name."""
    topic = kafka.create_topic(unique("lifecycle"))
    connector = Connector(worker, kafka, topic)
    connector.put(sink_config(redis, topic))
    kcat_send(kafka, topic, "first")
    wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))
    connector.wait_until_caught_up(topic)
    yield connector
    worker.rest("DELETE", connector.path)


def test_ten_connectors_with_two_tasks_in_a_row_start_without_a_stall(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    for _ in range(10):
        topic = kafka.create_topic(unique("cold"), 2)
        connector = Connector(worker, kafka, topic)
        connector.put(sink_config(redis, topic, {"tasks.max": "2", "redis.key": "${key}"}))
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        for partition in (0, 1):
            producer.produce(topic, "beat", f"{topic}-{partition}", partition)
        assert producer.flush(30) == 0
        for partition in (0, 1):
            name = f"{topic}-{partition}"
            eventually(lambda name=name: redis.cli("GET", name), f"the first beat {name}", timeout_s=STALL_S)  # type: ignore[misc]
        assert connector.states() == ["RUNNING", "RUNNING", "RUNNING"]
        assert worker.rest("DELETE", connector.path).status_code == 204


def test_two_tasks_share_the_partitions_and_keep_to_their_client_ids(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("share"), 2)
    connector = Connector(worker, kafka, topic)
    connector.put(sink_config(redis, topic, {"tasks.max": "2"}))
    connector.wait_for_members(2)

    def shares() -> dict[str, int]:
        description = kafka.admin().describe_consumer_groups([connector.group])[connector.group].result(30)
        return {member.client_id: len(member.assignment.topic_partitions) for member in description.members}

    wanted = {f"connector-consumer-{topic}-{task}": 1 for task in (0, 1)}
    eventually(lambda: shares() == wanted, f"each task has a partition, have {shares()}")
    worker.rest("DELETE", connector.path)


def test_a_paused_connector_applies_nothing_but_keeps_its_place_in_the_group(connector: Connector, redis: Redis) -> None:
    topic = connector.name
    members = connector.wait_for_members(1)
    assert connector.worker.rest("PUT", f"{connector.path}/pause").status_code == 202
    connector.wait_for("PAUSED", "PAUSED")
    before = redis.cli("GET", f"{topic}-key"), connector.committed(topic)
    kcat_send(connector.kafka, topic, "while paused")
    # Another connector on the same worker reads the same record: by then a leak would have shown.
    _wait_until_a_twin_has_read(connector, redis)
    assert (redis.cli("GET", f"{topic}-key"), connector.committed(topic)) == before
    assert connector.members() == members
    assert connector.worker.rest("PUT", f"{connector.path}/resume").status_code == 202
    connector.wait_for("RUNNING", "RUNNING")
    wait_for_value(redis, f"{topic}-key", newest_stamp(connector.kafka, topic))
    connector.wait_until_caught_up(topic)
    assert connector.members() == members


def _wait_until_a_twin_has_read(connector: Connector, redis: Redis) -> None:
    twin = Connector(connector.worker, connector.kafka, f"{connector.name}-twin")
    twin.put(sink_config(redis, connector.name, {"redis.key": twin.name}))
    wait_for_value(redis, twin.name, newest_stamp(connector.kafka, connector.name))
    twin.wait_until_caught_up(connector.name)
    twin.worker.rest("DELETE", twin.path)


def test_a_stopped_connector_leaves_the_group_and_comes_back_where_it_was(connector: Connector, redis: Redis) -> None:
    topic = connector.name
    assert connector.worker.rest("PUT", f"{connector.path}/stop").status_code == 204
    connector.wait_for("STOPPED")
    connector.wait_for_members(0)
    assert connector.worker.rest("GET", f"{connector.path}/tasks").json() == []
    kcat_send(connector.kafka, topic, "while stopped")
    assert connector.worker.rest("PUT", f"{connector.path}/resume").status_code == 202
    connector.wait_for("RUNNING", "RUNNING")
    wait_for_value(redis, f"{topic}-key", newest_stamp(connector.kafka, topic))


def test_a_connector_created_paused_or_stopped_applies_nothing_until_it_is_resumed(
    worker: HeartbeatWorker, kafka: Kafka, redis: Redis
) -> None:
    for initial in ("PAUSED", "STOPPED"):
        topic = kafka.create_topic(unique(initial.lower()))
        connector = Connector(worker, kafka, topic)
        kcat_send(kafka, topic, "waits")
        body = {"name": topic, "config": sink_config(redis, topic), "initial_state": initial}
        assert worker.rest("POST", "/connectors", body).status_code == 201
        eventually(lambda c=connector, i=initial: c.status()["connector"]["state"] == i, f"it is {initial}")  # type: ignore[misc]
        _wait_until_a_twin_has_read(connector, redis)
        assert redis.cli("EXISTS", f"{topic}-key") == "0"
        worker.rest("PUT", f"{connector.path}/resume")
        wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))
        worker.rest("DELETE", connector.path)


def test_the_offsets_of_a_stopped_connector_can_be_read_changed_and_reset(connector: Connector) -> None:
    topic = connector.name
    assert _offsets(connector) == {0: 1}
    connector.worker.rest("PUT", f"{connector.path}/stop")
    connector.wait_for("STOPPED")
    connector.wait_for_members(0)
    wanted = {"offsets": [{"partition": {"kafka_topic": topic, "kafka_partition": 0}, "offset": {"kafka_offset": 0}}]}
    altered = connector.worker.rest("PATCH", f"{connector.path}/offsets", wanted)
    assert altered.status_code == 200, altered.text
    assert "altered successfully" in altered.json()["message"]
    assert _offsets(connector) == connector.committed(topic) == {0: 0}
    reset = connector.worker.rest("DELETE", f"{connector.path}/offsets")
    assert reset.status_code == 200, reset.text
    assert "reset successfully" in reset.json()["message"]
    assert _offsets(connector) == {}


def test_the_offsets_of_a_running_connector_cannot_be_changed(connector: Connector) -> None:
    refused = connector.worker.rest("DELETE", f"{connector.path}/offsets")
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("Connectors must be in the STOPPED state before their offsets can be modified.")
    assert connector.committed(connector.name) == end_offsets(connector.kafka, connector.name)


def _offsets(connector: Connector) -> dict[int, int]:
    reply = connector.worker.rest("GET", f"{connector.path}/offsets")
    assert reply.status_code == 200, reply.text
    return {entry["partition"]["kafka_partition"]: entry["offset"]["kafka_offset"] for entry in reply.json()["offsets"]}


def test_active_topics_are_those_that_were_read(connector: Connector) -> None:
    reply = connector.worker.rest("GET", f"{connector.path}/topics")
    assert reply.json() == {connector.name: {"topics": [connector.name]}}


def test_a_connector_file_is_a_flat_map_or_a_body_as_posted(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("as-file"))
    config = sink_config(redis, topic)
    with parts.heartbeat_worker(tmp_path, kafka, connectors=[config | {"name": topic}, {"name": f"{topic}-2", "config": config}]) as worker:
        for name in (topic, f"{topic}-2"):
            Connector(worker, kafka, name).wait_for("RUNNING", "RUNNING")
