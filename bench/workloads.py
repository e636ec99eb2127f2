"""The backlogs that figures are measured on, how a topic is filled with one, and what Redis must hold when it is applied.

Record i has the key ``dev-%08d`` of i modulo the number of keys (12 bytes; the one key ``heartbeat`` if there is one), as its value its
event time in ms (16 bytes), and that time as its timestamp: one ms later each, so that the newest is of the moment of loading. A last
record per partition, ``~end-<partition>``, shows in Redis that everything before it has been applied.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

from confluent_kafka import Producer
from tests.real.broker import Kafka

from bench.setting import unique

FIXED_KEY = "heartbeat"
TTL_S = 86_400
"""Long enough that no record of a backlog is past its deadline."""
_FLUSH_S = 120


@dataclass(frozen=True, slots=True)
class Workload:
    """A backlog: ``records`` without the end marks, a multiple of ``keys``; records go round the partitions."""

    name: str
    records: int
    keys: int
    partitions: int = 4

    @property
    def total(self) -> int:
        """Records with the end marks."""
        return self.records + self.partitions


W1 = Workload("10,000 keys", 2_000_000, 10_000)
W2 = Workload("one key", 2_000_000, 1)
W2_SMALL = Workload("one key, fewer records", 400_000, 1)
W3 = Workload("1,000,000 keys", 999_996, 999_996)
"""With its end marks exactly as many sources as ``heartbeat.sources.max`` allows."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A workload that lies in a topic; ``first_ms`` is the event time of its first record."""

    workload: Workload
    topic: str
    first_ms: int

    @property
    def ends(self) -> list[str]:
        """The keys of the end marks."""
        return [f"~end-{partition}" for partition in range(self.workload.partitions)]

    def next_offsets(self) -> list[int]:
        """Return the offset after the last record, per partition."""
        records, partitions = self.workload.records, self.workload.partitions
        return [len(range(partition, records, partitions)) + 1 for partition in range(partitions)]

    def newest(self, key: str) -> dict[bytes, int]:
        """Return the last beat in ms of each source, for the template ``key``: ``${key}``, or the name of one source."""
        last_ms = self.first_ms + self.workload.records
        if key != "${key}":
            return {key.encode(): last_ms}
        beats = {name: last_ms - self.workload.keys + number for number, name in enumerate(_names(self.workload.keys))}
        return beats | {end.encode(): last_ms for end in self.ends}


@cache
def loaded(kafka: Kafka, workload: Workload) -> Backlog:
    """Return a topic of this broker with the workload in it; figures of one session share it, and write nothing into it. As ``load``."""
    return load(kafka, workload)


def load(kafka: Kafka, workload: Workload) -> Backlog:
    """Return a new topic of this broker with the workload in it.

    Raises:
        RuntimeError: the broker did not take all of it.
    """
    topic = kafka.create_topic(unique("backlog"), workload.partitions)
    backlog = Backlog(workload, topic, time.time_ns() // 1_000_000 - workload.records)
    refused: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "linger.ms": 20,
            "acks": 1,
            "queue.buffering.max.messages": 1_000_000,
            "on_delivery": lambda error, _: refused.append(error) if error else None,
        }
    )
    names = _names(workload.keys)
    for number in range(workload.records):
        stamp = backlog.first_ms + number
        _produce(producer, topic, names[number % workload.keys], number % workload.partitions, stamp)
    for partition, end in enumerate(backlog.ends):
        _produce(producer, topic, end.encode(), partition, backlog.first_ms + workload.records)
    left = producer.flush(_FLUSH_S)
    if left or refused:
        raise RuntimeError(f"{left} records were not delivered and {len(refused)} refused: {refused[:1]}")
    return backlog


def _names(keys: int) -> list[bytes]:
    return [FIXED_KEY.encode()] if keys == 1 else [b"dev-%08d" % number for number in range(keys)]


def _produce(producer: Producer, topic: str, key: bytes, partition: int, stamp_ms: int) -> None:
    while True:
        try:
            producer.produce(topic, b"%016d" % stamp_ms, key, partition, timestamp=stamp_ms)
            return
        except BufferError:
            producer.poll(0.05)
