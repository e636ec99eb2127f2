"""What a connector leaves in Redis, looked at from outside, beside the oracle: what was produced, and so must be there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from confluent_kafka import Producer
from redis.backoff import NoBackoff
from redis.retry import Retry

from .broker import Kafka
from .parts import STRING, Redis
from .programs import eventually
from .scenario import now_ms

LIFT_MS = 2_000
"""A beat may count as later than its stamp by this much: as late as it is known to have been appended at least."""
TTL_S = 3_600
"""Long, where nothing is to expire: a key that expires within a test would hide that it was never written."""
SHORT_SESSION = {"consumer.override.session.timeout.ms": "1500", "consumer.override.heartbeat.interval.ms": "300"}
"""A dead or hanging member's partitions stay its own for as long as its session."""
LONGEST_LOAD_S = 60.0
MOST_PARTITIONS = 8


class Beats:
    """Sends beats with stamps of their own and remembers the newest of each source."""

    def __init__(self, kafka: Kafka, topic: str, **settings: Any) -> None:
        self.topic = topic
        self.newest: dict[str, int] = {}
        self._failures: list[object] = []
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 2, **settings})

    @property
    def producer(self) -> Producer:
        """The producer itself, for transactions."""
        return self._producer

    def send(
        self, sources: Iterable[str], *, at_ms: int | None = None, partition: int = -1, headers: Mapping[str, str] | None = None
    ) -> int:
        """Send one beat of each source and wait until the broker has them all; return the moment after that."""
        more: dict[str, str | bytes | None] = dict(headers or {})
        for source in sources:
            stamp = now_ms() if at_ms is None else at_ms
            self._producer.produce(self.topic, "beat", source, partition, on_delivery=self._delivered, timestamp=stamp, headers=more)
            self._producer.poll(0)
            self.newest[source] = max(stamp, self.newest.get(source, 0))
        self.flush()
        return now_ms()

    def flush(self) -> None:
        """Wait until the broker has everything."""
        assert self._producer.flush(60) == 0
        assert not self._failures

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self._failures.append(error)


@contextmanager
def load(beats: Beats, sources: Collection[str], *, every_s: float = 0.05) -> Iterator[None]:
    """Let the sources beat, all at once and again and again, while the block lasts (a minute at most)."""
    ended, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        until_s = time.monotonic() + LONGEST_LOAD_S
        try:
            while time.monotonic() < until_s and not ended.wait(every_s):
                beats.send(sources)
        except BaseException as error:  # noqa: BLE001  told by the thread that waits for this one
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(90)
    assert not thread.is_alive()
    assert not failures, failures


def indexed_config(server: Redis | int, topic: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the config of a connector that keeps one source for each record key."""
    port = server if isinstance(server, int) else server.port
    config: dict[str, str] = {"connector.class": "RedisHeartbeatSink", "redis.host": "127.0.0.1", "redis.port": str(port), "topics": topic}
    strings = {"key.converter": STRING, "value.converter": STRING}
    return config | strings | {"redis.key": "${key}", "redis.ttl": str(TTL_S)} | dict(more or {})


class Index:
    """The index of one connector. ``port`` is where it is looked at."""

    def __init__(self, server: Redis | int, connector: str) -> None:
        self.connector = connector
        self.client: Any = redis.Redis(
            port=server if isinstance(server, int) else server.port,
            socket_timeout=20,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
            encoding="utf-8",
            encoding_errors="surrogateescape",
            decode_responses=True,
        )

    def key(self, name: str) -> str:
        """Return the whole name of a key of the index."""
        return f"hb:{{{self.connector}}}:{name}"

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def proof(self) -> dict[str, str]:
        """Return the proof, also where Redis does not answer just now: then it proves nothing."""
        try:
            found: dict[str, str] = self.client.hgetall(self.key("proof"))
        except (redis.ConnectionError, redis.TimeoutError):
            return {}
        return found

    def of_partitions(self, topic: str, field: str) -> dict[int, int]:
        """Return a field of every partition that has it."""
        names = {number: f"{topic}/{number}/{field}" for number in range(MOST_PARTITIONS)}
        proof = self.proof()
        return {number: int(proof[name]) for number, name in names.items() if name in proof}

    def partitions(self) -> dict[str, int]:
        """Return the present partition set."""
        found: dict[str, int] = json.loads(self.proof().get("partitions", "{}"))
        return found

    def deadlines(self) -> dict[str, int]:
        """Return the deadline of every source."""
        return {source: int(score) for source, score in self.client.zrange(self.key("deadlines"), 0, -1, withscores=True)}

    def wait_until_proven(self, topic: str, after_ms: int, partitions: Collection[int] = (0,), *, timeout_s: float = 60.0) -> None:
        """Wait until everything committed by ``after_ms`` is said to be here; nothing may ever be proven of the future."""

        def proven() -> bool:
            seen = self.of_partitions(topic, "until")
            assert all(until <= now_ms() for until in seen.values()), f"proven of the future: {seen}"
            assert all(seen.get(partition, 0) >= after_ms for partition in partitions), f"until {seen}, wanted {after_ms} of {partitions}"
            return True

        eventually(proven, f"{topic} is proven until {after_ms}", timeout_s=timeout_s)

    def check(self, newest: Mapping[str, int], ttl_s: int = TTL_S) -> None:
        """Assert that the index holds exactly these sources with these beats, and that the public keys of the living say the same."""
        deadlines = self.deadlines()
        assert deadlines.keys() == newest.keys(), f"missing {_some(newest.keys() - deadlines)}, too many {_some(deadlines.keys() - newest)}"
        beats = {source: deadline - ttl_s * 1000 for source, deadline in deadlines.items()}
        wrong = {source: beats[source] - stamp for source, stamp in newest.items() if not 0 <= beats[source] - stamp <= LIFT_MS}
        assert not wrong, f"{len(wrong)} of {len(newest)} deadlines are off, by ms: {_some(wrong.items())}"
        now, public = now_ms(), self.public(newest)
        wanted = {source: (str(beats[source]), deadlines[source]) if deadlines[source] > now else (None, -2) for source in newest}
        other = {source: public[source] for source in newest if public[source] != wanted[source]}
        assert not other, f"{len(other)} of {len(newest)} public keys say something else, e.g. {_some(other.items())}"

    def public(self, sources: Iterable[str]) -> dict[str, tuple[str | None, int]]:
        """Return value and time of expiry (epoch ms, -2 without the key) of public keys."""
        names = list(sources)
        pipeline = self.client.pipeline(transaction=False)
        for name in (name.encode("utf-8", "surrogateescape") for name in names):
            pipeline.get(name)
            pipeline.pexpiretime(name)
        found = pipeline.execute()
        return dict(zip(names, zip(found[::2], found[1::2], strict=True), strict=True))

    def wait_until_healed(self, beats: Beats, partitions: Collection[int] = (0,), *, timeout_s: float = 60.0) -> None:
        """Wait until everything sent is proven to be here; what is proven must then be true at once."""
        self.wait_until_proven(beats.topic, now_ms(), partitions, timeout_s=timeout_s)
        self.check(beats.newest)


@contextmanager
def watching(server: Redis | int, connector: str) -> Iterator[Index]:
    """Look at the index of a connector while the block lasts."""
    index = Index(server, connector)
    try:
        yield index
    finally:
        index.close()


def _some(found: Iterable[object]) -> list[object]:
    return sorted(found, key=repr)[:5]
