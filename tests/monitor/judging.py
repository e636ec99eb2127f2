"""A connector's index as a sink would leave it, and detectors that look at it by a clock that the test sets."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.keyspace import Info, time_ms
from heartbeat.errors import RetriableError
from heartbeat.monitor.detect import Detector
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Settings

TTL = 60_000
GRACE = 5_000


class Clock:
    """A clock that goes as fast as any, but can be set: ``ahead_ms`` of the machine's, which is Redis's too."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@dataclass(slots=True)
class Settled:
    """Settings that stay until the test replaces them."""

    live: Settings = field(default_factory=Settings)

    @property
    def rules(self) -> Rules:
        return Rules(self.live)


@dataclass(slots=True)
class Kafka:
    """What a monitor knows beside Redis. ``memory`` is what a topic of flips still holds open, None where there is no topic."""

    memory: Mapping[str, Sequence[Flip]] | None = None
    canaries: bool = False
    away: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    @property
    def remembers(self) -> bool:
        return self.memory is not None

    def canaries_required(self, connector: str) -> bool:
        return self.canaries

    def broker_ms(self) -> int | None:
        return None

    def remember(self, connector: str, after: str) -> Sequence[Flip] | None:
        if self.away:
            raise RetriableError("the broker is away")
        self.asked.append((connector, after))
        return None if self.memory is None else self.memory.get(connector, ())

    def forget(self, connector: str) -> None:
        self.forgotten.append(connector)


class Index:
    """A connector's index. All times are ms from now, by the clock of Redis."""

    def __init__(self, connection: Connection, connector: str = "pumps") -> None:
        self.connection = connection
        self.connector = connector
        self.keys = Keys(connector)

    def now(self) -> int:
        return time_ms(self.connection.call("TIME"))

    def claim(self) -> None:
        """Do what a claim does first: the connector is there, and nothing is proven."""
        self.connection.call("SADD", CONNECTORS, self.connector)
        self.connection.call("HSET", self.keys.proof, "ttl", TTL)

    def prove(self, until: int = 0, *, since: int = -600_000, partitions: int = 2, **more: Argument) -> None:
        """Prove everything up to so many ms from now."""
        now = self.now()
        self.claim()
        fields: dict[str, Argument] = {"partitions": json.dumps({"t": partitions}), "partitions_at": now, **more}
        for n in range(partitions):
            fields |= {f"t/{n}/since": now + since, f"t/{n}/until": now + until}
        self.connection.call("HSET", self.keys.proof, *(word for item in fields.items() for word in item))

    def beat(self, *sources: str, at: int = 0, ttl: int = TTL) -> int:
        """Have sources beat so many ms from now; return when that was."""
        beat_ms = self.now() + at
        for first in range(0, len(sources), 5_000):
            some = sources[first : first + 5_000]
            self.connection.call("ZADD", self.keys.deadlines, "GT", *(word for source in some for word in (beat_ms + ttl, source)))
            infos = (word for source in some for word in (source, Info(beat_ms - 3_600_000, ttl).packed()))
            self.connection.call("HSET", self.keys.info, *infos)
        return beat_ms

    def fail(self, source: str, message: str, at: int = 0) -> int:
        """Have a source say that it failed."""
        beat_ms = self.beat(source, at=at)
        said = {"at_ms": beat_ms, "partition": "t/0", "offset": 1, "status": "fail", "run": "", "message": message}
        self.connection.call("HSET", self.keys.status, source, msgspec.json.encode(said))
        self.connection.call("ZADD", self.keys.fails, beat_ms, source)
        return beat_ms

    def bye(self, source: str) -> int:
        """Have a source say goodbye."""
        now = self.now()
        self.connection.calls(("ZADD", self.keys.gone, now, source), ("ZREM", self.keys.deadlines, source))
        self.connection.call("HSET", self.keys.status, source, msgspec.json.encode({"at_ms": now, "status": "bye"}))
        return now

    def down(self) -> dict[str, int]:
        """Return who is down: source -> deadline, or fail, judged."""
        words = self.connection.call("ZRANGE", self.keys.down, 0, -1, "WITHSCORES")
        return {name.decode("utf-8", "surrogateescape"): int(float(score)) for name, score in zip(words[::2], words[1::2], strict=True)}

    def flips(self) -> list[Flip]:
        """Return what was stored, in its order, with what the scripts have filled in."""
        found = []
        for _, words in self.connection.call("XRANGE", self.keys.flips, "-", "+"):
            entry: dict[bytes, Any] = dict(zip(words[::2], words[1::2], strict=True))
            flip = msgspec.json.decode(entry[b"flip"], type=Flip)
            filled = {name: int(entry[name.encode()]) if entry[name.encode()] else None for name in ("proven_until_ms", "detected_ms")}
            found.append(msgspec.structs.replace(flip, **filled))
        return found

    def told(self) -> list[tuple[str, str, str]]:
        """Return of each flip its source, what it became, and why."""
        return [(flip.source, flip.to, flip.reason) for flip in self.flips()]


@dataclass(slots=True)
class Monitor:
    """A monitor's detector, with what it is made of."""

    connection: Connection
    name: str = "m"
    settings: Settled = field(default_factory=Settled)
    kafka: Kafka = field(default_factory=Kafka)
    clock: Clock = field(default_factory=Clock)
    detector: Detector = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew: nothing is known but what Redis holds."""
        self.detector = Detector(self.connection, self.name, self.settings, self.kafka, self.clock)

    def tick(self, times: int = 1) -> list[Flip]:
        """Look so many times; return what could only be told."""
        return [flip for _ in range(times) for flip in self.detector.tick()]
