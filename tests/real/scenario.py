"""What most scenarios share: a connector looked at from outside, over REST and in its consumer group, and an oracle for its keys."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition

from .broker import ROOT, Kafka
from .parts import ConnectWorker, Redis
from .programs import eventually, require

SUCCESS_LOGGER = "com.example.RedisHeartbeatSinkTask"


def unique(prefix: str) -> str:
    """Return a name that no other test on a shared broker uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def now_ms() -> int:
    """Return this machine's clock in epoch ms."""
    return time.time_ns() // 1_000_000


def original_config(redis: Redis) -> dict[str, Any]:
    """Return the original project's connector JSON, with only its Redis address changed to the test's."""
    body: dict[str, Any] = json.loads((ROOT / "config" / "redis-heartbeat-sink.json").read_text())
    body["config"] |= {"redis.host": "127.0.0.1", "redis.port": str(redis.port)}
    return body


def sink_config(redis: Redis, topic: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a connector config that reads ``topic`` and writes to ``redis``, under a key of its own."""
    config: dict[str, str] = original_config(redis)["config"]
    return config | {"topics": topic, "redis.key": f"{topic}-key"} | dict(more or {})


@dataclass(frozen=True, slots=True)
class Connector:
    """A connector under test."""

    worker: ConnectWorker
    kafka: Kafka
    name: str

    @property
    def group(self) -> str:
        """Its consumer group, by Connect's rule."""
        return f"connect-{self.name}"

    @property
    def path(self) -> str:
        """Its place in the REST API."""
        return f"/connectors/{self.name}"

    def put(self, config: Mapping[str, str]) -> None:
        """Create it, or change its configuration."""
        reply = self.worker.rest("PUT", f"{self.path}/config", dict(config))
        assert reply.status_code in {200, 201}, reply.text

    def status(self) -> dict[str, Any]:
        """Return the reply of ``/status``."""
        reply = self.worker.rest("GET", f"{self.path}/status")
        assert reply.status_code == 200, reply.text
        status: dict[str, Any] = reply.json()
        return status

    def states(self) -> list[str]:
        """Return the connector's state, then its tasks'."""
        status = self.status()
        return [status["connector"]["state"], *(task["state"] for task in status["tasks"])]

    def wait_for(self, *states: str) -> None:
        """Wait until the connector and its tasks are in these states."""
        eventually(lambda: self.states() == list(states), f"{self.name} is {states}, is {self.states()}")

    def wait_for_failure(self) -> str:
        """Wait until task 0 is FAILED, and return its trace."""

        def failed() -> str | None:
            task = self.status()["tasks"][0]
            return str(task["trace"]) if task["state"] == "FAILED" else None

        return eventually(failed, f"task {self.name}-0 is FAILED") or ""

    def committed(self, topic: str) -> dict[int, int]:
        """Return the committed offset per partition, -1001 where there is none, as the broker tells."""
        request = ConsumerGroupTopicPartitions(self.group, [TopicPartition(topic, p) for p in end_offsets(self.kafka, topic)])
        answer = self.kafka.admin().list_consumer_group_offsets([request])[self.group].result(30)
        return {p.partition: p.offset for p in answer.topic_partitions}

    def wait_until_caught_up(self, topic: str, *, timeout_s: float = 60.0) -> None:
        """Wait until everything in ``topic`` is committed."""
        ends = end_offsets(self.kafka, topic)

        def caught_up() -> bool:
            seen = self.committed(topic)
            assert all(seen[p] >= end or end == 0 for p, end in ends.items()), f"committed {seen}, ends {ends}"
            return True

        eventually(caught_up, f"{self.name} has committed all of {topic}", timeout_s=timeout_s, every_s=0.25)

    def members(self) -> list[str]:
        """Return the member ids of its group, sorted."""
        description = self.kafka.admin().describe_consumer_groups([self.group])[self.group].result(30)
        return sorted(member.member_id for member in description.members)

    def wait_for_members(self, count: int) -> list[str]:
        """Wait until its group is settled with ``count`` members, and return their ids."""
        wanted = {ConsumerGroupState.STABLE} if count else {ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}

        def settled() -> bool:
            description = self.kafka.admin().describe_consumer_groups([self.group])[self.group].result(30)
            assert len(description.members) == count, f"{len(description.members)} members"
            return description.state in wanted

        eventually(settled, f"group {self.group} has {count} members")
        return self.members()


def end_offsets(kafka: Kafka, topic: str) -> dict[int, int]:
    """Return the end offset of each partition."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": unique("ends")})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in partitions}
    finally:
        consumer.close()


def newest_stamps(kafka: Kafka, topic: str) -> dict[str, int]:
    """Return the newest record timestamp of every key in ``topic``, read by kcat: the oracle for a sink keyed by ``${key}``."""
    argv = [require("kcat", "kcat"), "-b", kafka.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k %T\n"]
    printed = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout
    newest: dict[str, int] = {}
    for line in printed.splitlines():
        key, stamp = line.rsplit(" ", 1)
        newest[key] = max(newest.get(key, 0), int(stamp))
    return newest


def newest_stamp(kafka: Kafka, topic: str) -> int:
    """Return the newest record timestamp in ``topic``, in epoch ms."""
    return max(newest_stamps(kafka, topic).values())


def kcat_send(kafka: Kafka, topic: str, line: str, *arguments: str) -> None:
    """Send one record by kcat."""
    argv = [require("kcat", "kcat"), "-b", kafka.bootstrap, "-P", "-t", topic, *arguments]
    subprocess.run(argv, input=f"{line}\n", capture_output=True, text=True, timeout=60, check=True)


def is_beat(value: str, stamp_ms: int) -> bool:
    """Tell whether a key's value is the beat of a record with this timestamp.

    What is appended after the log's end was sampled counts as no older than the sample, by two seconds at most.
    """
    return value.isdigit() and 0 <= int(value) - stamp_ms <= 2_000


def wait_for_value(redis: Redis, key: str, value: int | str) -> None:
    """Wait until ``key`` holds ``value``, or the beat of a record stamped so."""
    eventually(
        lambda: is_beat(redis.cli("GET", key), value) if isinstance(value, int) else redis.cli("GET", key) == value,
        f"{key} is {value}, is {redis.cli('GET', key)!r}",
        timeout_s=60,
    )
