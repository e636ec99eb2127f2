"""A monitor as the web sees it, as plain values: what detection, delivery and settings say at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heartbeat.beats.connection import Server
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.detect import Observation
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Rule, Settings
from heartbeat.monitor.view import InForce

NOW: Final = 1_795_366_700_000
SEEN: Final = Observation(NOW - 500, 12.0, redis_ok_ms=NOW - 500)
RULES: Final = Rules(Settings(rules=(Rule("pump*", grace_s=60, warn_s=20, tags=("plant-1",)),)))
"""Pumps have a grace and a warning of their own."""
IN_FORCE: Final = InForce(RULES, Server(LOOPBACK, 1))


@dataclass(frozen=True)
class Seen:
    """A monitor, as it is at one moment."""

    seen: Observation = SEEN
    told: tuple[DelivererState, ...] = ()
    in_force: InForce = IN_FORCE

    def observation(self) -> Observation:
        return self.seen

    def channels(self) -> tuple[DelivererState, ...]:
        return self.told

    def settings(self) -> InForce:
        return self.in_force
