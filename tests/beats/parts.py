"""What the tests of this folder have in common: records, logs that say what a test wants, and a look into Redis."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Beats, Keyspace, Written
from heartbeat.connect.api import NO_TIMESTAMP, Batch, LogEnd, Survey, Topic, TopicPartition

TTL = 60_000
P0, P1, P2 = (TopicPartition("t", number) for number in range(3))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """A consumed record of the topic ``t``."""

    stamp: int
    name: str | bytes | None = None
    number: int = 0
    at: int = 0
    marks: tuple[tuple[str, bytes | None], ...] = ()
    data: bytes | None = b"beat"

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (0 if self.stamp == NO_TIMESTAMP else 1), self.stamp

    def key(self) -> bytes | None:
        return self.name.encode() if isinstance(self.name, str) else self.name

    def value(self) -> bytes | None:
        return self.data

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self.marks) or None


def batch_of(messages: Sequence[Message], next_offsets: Mapping[TopicPartition, int] | None = None) -> Batch:
    """A batch with the records' own names as keys and their data as values. A record that is given up raises."""

    def reject(message: object, error: Exception) -> None:
        raise error

    ends = {} if next_offsets is None else next_offsets
    return Batch(messages, (lambda: [message.name for message in messages], lambda: [message.data for message in messages]), ends, reject)


@dataclass(slots=True)
class FakeLogs:
    """Kafka's side of the partitions: where they begin and end, and answers that come when a test says so.

    ``times`` are the times of a partition's records, from the offset ``first`` on.
    """

    topics: Collection[str] = ("t",)
    first: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    times: dict[TopicPartition, Sequence[int]] = field(default_factory=dict)
    counts: dict[str, int | None] = field(default_factory=lambda: {"t": 3})
    ids: dict[str, str] = field(default_factory=lambda: {"t": "id of t"})
    epoch: int = 7
    silent: bool = False
    asked_for: list[frozenset[str]] = field(default_factory=list)
    looked_up: list[Mapping[TopicPartition, int]] = field(default_factory=list)
    _survey: Survey | None = None

    def ask(self, asked: Any, partitions: Collection[TopicPartition], topics: Collection[str]) -> None:
        self.asked_for.append(frozenset(topics))
        ends = {p: LogEnd(self.ends.get(p, 0), self.epoch) for p in partitions}
        counts = {topic: self.counts[topic] for topic in topics if topic in self.counts}
        known = {topic: None if count is None else Topic(count, self.ids.get(topic, "")) for topic, count in counts.items()}
        self._survey = Survey(asked, ends, known)

    def answer(self) -> Survey | None:
        if self.silent:
            return None
        survey, self._survey = self._survey, None
        return survey

    @property
    def asking(self) -> bool:
        return self._survey is not None

    def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return {p: (self.first.get(p, 0), self.ends.get(p, 0)) for p in partitions}

    def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return {topic: self.ids[topic] for topic in topics if topic in self.ids}

    def offsets_at(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        self.looked_up.append(dict(times_ms))
        found: dict[TopicPartition, int | None] = {}
        for p, time_ms in times_ms.items():
            later = (offset for offset, stamp in enumerate(self.times.get(p, ()), self.first.get(p, 0)) if stamp >= time_ms)
            found[p] = next(later, None)
        return found

    def close(self) -> None: ...


def write(keyspace: Keyspace, beats: Beats) -> Written:
    """Write beats and wait for the acknowledgement."""
    return keyspace.receive(keyspace.send(keyspace.pack(beats)))


def value_of(connection: Connection, source: str) -> int | None:
    """What the public key says."""
    value = connection.execute("GET", source)
    return None if value is None else int(value)


def expiry_of(connection: Connection, source: str) -> int:
    return int(connection.execute("PEXPIRETIME", source))


def public(connection: Connection) -> set[str]:
    """Every key that is no index's."""
    keys = {key.decode("utf-8", "surrogateescape") for key in connection.execute("KEYS", "*")}
    return {key for key in keys if not key.startswith("hb:")}


def everything(connection: Connection, keyspace: Keyspace) -> dict[str, Any]:
    """What the connector's index and the public keys hold, apart from the proof and from what counts arrivals."""
    scores = {
        name: sorted(zip(reply[::2], map(float, reply[1::2]), strict=True))
        for name in ("deadlines", "gone")
        for reply in [connection.execute("ZRANGE", getattr(keyspace.keys, name), "0", "-1", "WITHSCORES")]
    }
    hashes = {
        name: dict(zip(reply[::2], reply[1::2], strict=True))
        for name in ("status", "runs")
        for reply in [connection.execute("HGETALL", getattr(keyspace.keys, name))]
    }
    keys = {key: (value_of(connection, key), expiry_of(connection, key)) for key in sorted(public(connection))}
    return {**scores, **hashes, "keys": keys}
