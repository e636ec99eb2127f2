"""What the proof tells a monitor beside sight: canaries that came through, what an operator wants, why a task proves nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from .broker import Kafka
from .index import Index, indexed_config, watching
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, now_ms, unique


@pytest.fixture
def connector(worker: HeartbeatWorker, kafka: Kafka) -> Iterator[Connector]:
    """A connector's name, which is its topic's too; deleted afterwards."""
    connector = Connector(worker, kafka, unique("told"))
    yield connector
    worker.rest("DELETE", connector.path)


def wanted(index: Index) -> str | None:
    text = index.proof().get("target")
    return None if text is None else str(json.loads(text)["state"])


def said(index: Index) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(index.proof().get("tasks/0", "{}"))
    return found


@pytest.mark.parametrize("converter", ["storage.StringConverter", "json.JsonConverter"])
def test_canaries_come_through_every_partition_and_are_nobodys_beats(
    connector: Connector, kafka: Kafka, redis: Redis, converter: str
) -> None:
    topic = kafka.create_topic(connector.name, 2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all"})
    more = {"value.converter": f"org.apache.kafka.connect.{converter}", "key.converter": f"org.apache.kafka.connect.{converter}"}
    with watching(redis, connector.name) as index:
        connector.put(indexed_config(redis, topic, {"redis.key": "s:${key}", "heartbeat.tombstone": "bye", **more}))
        index.wait_until_proven(topic, now_ms(), range(2))
        assert index.proof()["canaries"] == "1"
        sent = now_ms()
        for partition in range(2):
            producer.produce(topic, None, None, partition, headers={"hb-canary": str(sent + partition).encode()})
            producer.produce(topic, None, None, partition, headers={"hb-canary": b"rubbish"})
        assert producer.flush(30) == 0
        eventually(lambda: index.of_partitions(topic, "canary") == {0: sent, 1: sent + 1}, "both canaries")
        index.wait_until_proven(topic, now_ms(), range(2))
        assert index.deadlines() == {}
        assert set(connector.states()) == {"RUNNING"}
        assert {key for key in index.proof() if key.startswith("tasks/")} == set()


def test_a_pause_is_told_sight_goes_on_while_all_is_silent_and_ends_with_the_next_record(
    connector: Connector, worker: HeartbeatWorker, kafka: Kafka, redis: Redis
) -> None:
    topic = kafka.create_topic(connector.name)
    with watching(redis, connector.name) as index:
        config = indexed_config(redis, topic, {"redis.key": "s:${key}"})
        connector.put(config)
        index.wait_until_proven(topic, now_ms())
        eventually(lambda: wanted(index) == "STARTED", "what the creation wants")
        worker.rest("PUT", f"{connector.path}/pause")
        connector.wait_for("PAUSED", "PAUSED")
        eventually(lambda: wanted(index) == "PAUSED", "the operator's wish")
        index.wait_until_proven(topic, now_ms() + 2_000)
        assert said(index) == {}
        kafka.produce(topic, [("k", "beat")])
        appended = now_ms()
        eventually(lambda: said(index).get("why") == "paused", "why nothing is proven")
        assert said(index)["behind"] == 1
        (until,) = index.of_partitions(topic, "until").values()
        assert until <= appended, "a record that waits is not vouched for"
        connector.put({**config, "redis.key": "other:${key}"})
        eventually(lambda: wanted(index) == "PAUSED", "the wish, with another template")
        worker.rest("PUT", f"{connector.path}/resume")
        index.wait_until_proven(topic, now_ms())
        eventually(lambda: (wanted(index), said(index)) == ("STARTED", {}), "sight again")
        worker.rest("PUT", f"{connector.path}/stop")
        eventually(lambda: wanted(index) == "STOPPED", "the stop")
