"""What there is to see of a running monitor: the web, the metrics and the demo read this and nothing else, and it holds no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from heartbeat.beats.connection import Server
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.detect import Observation
from heartbeat.monitor.rules import Rules


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings by which the monitor works, and ``errors``: why the file as it is now, or a channel of it, is not among them."""

    rules: Rules
    redis: Server
    errors: tuple[str, ...] = ()


class View(Protocol):
    """A running monitor."""

    def observation(self) -> Observation:
        """Return what the last tick saw."""
        ...

    def channels(self) -> Sequence[DelivererState]:
        """Return how far each channel is, in the order of the settings."""
        ...

    def settings(self) -> InForce:
        """Return the settings in force."""
        ...
