"""A monitor as the web sees it, as plain values: what detection, delivery and settings say at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heartbeat.beats.connection import Server
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.monitor.view import InForce
from heartbeat.monitor.vision import Blindness, Part

NOW = 1_795_366_700_000


@dataclass(frozen=True)
class Policy:
    grace_ms: int = 5_000
    warn_ms: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Pumps have a grace and a warning of their own."""

    longest_grace_ms: int = 60_000
    shortest_grace_ms: int = 5_000
    longest_warn_ms: int = 20_000

    def of(self, connector: str, source: str) -> Policy:
        return Policy(60_000, 20_000, ("plant-1",)) if source.startswith("pump") else Policy()


@dataclass(frozen=True)
class Look:
    sources: int = 0
    late: int = 0
    unknown: int = 0
    down: int = 0
    partitions: tuple[Part, ...] = ()
    proven_until_ms: int | None = None
    blind: Blindness | None = None
    paused: str = ""
    error: str = ""


@dataclass(frozen=True)
class Observation:
    tick_ms: int = NOW - 500
    took_ms: float = 12.0
    connectors: Mapping[str, Look] = field(default_factory=dict)
    error: str = ""
    redis_ok_ms: int = NOW - 500


@dataclass(frozen=True)
class Channel:
    channel: str = "ops"
    leader: bool = True
    pending: int = 0
    oldest_pending_ms: int | None = None
    last_success_ms: int | None = None
    failures: int = 0
    last_error: str = ""
    lost: int = 0


@dataclass(frozen=True)
class Seen:
    """A monitor, as it is at one moment."""

    seen: Observation = field(default_factory=Observation)
    told: tuple[Channel, ...] = ()
    in_force: InForce = field(default_factory=lambda: InForce(Rules(), Server(LOOPBACK, 1)))

    def observation(self) -> Observation:
        return self.seen

    def channels(self) -> tuple[Channel, ...]:
        return self.told

    def settings(self) -> InForce:
        return self.in_force
