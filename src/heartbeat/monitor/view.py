"""What the web shows of a running monitor: its state, read up, and never written.

Protocols, because the web needs of detection, delivery and settings only what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from heartbeat.beats.connection import Server
from heartbeat.monitor.vision import Blindness, Part


class Look(Protocol):
    """A connector as the last tick saw it. ``sources`` counts all that are not down, ``unknown`` those due but unproven.

    ``paused`` says what an operator did, ``error`` why the connector's index could not be looked at.
    """

    @property
    def sources(self) -> int: ...
    @property
    def late(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def down(self) -> int: ...
    @property
    def partitions(self) -> Sequence[Part]: ...
    @property
    def proven_until_ms(self) -> int | None: ...
    @property
    def blind(self) -> Blindness | None: ...
    @property
    def paused(self) -> str: ...
    @property
    def error(self) -> str: ...


class Observation(Protocol):
    """The last tick. ``tick_ms`` is when it began, 0 before the first; ``error`` why Redis could not be looked at."""

    @property
    def tick_ms(self) -> int: ...
    @property
    def took_ms(self) -> float: ...
    @property
    def connectors(self) -> Mapping[str, Look]: ...
    @property
    def error(self) -> str: ...
    @property
    def redis_ok_ms(self) -> int: ...


class Channel(Protocol):
    """How far the delivery to a channel has come; times are epoch ms. ``failures`` counts attempts since the last success."""

    @property
    def channel(self) -> str: ...
    @property
    def leader(self) -> bool: ...
    @property
    def pending(self) -> int: ...
    @property
    def oldest_pending_ms(self) -> int | None: ...
    @property
    def last_success_ms(self) -> int | None: ...
    @property
    def failures(self) -> int: ...
    @property
    def last_error(self) -> str: ...
    @property
    def lost(self) -> int: ...


class Policy(Protocol):
    """What the settings say of a source."""

    @property
    def grace_ms(self) -> int: ...
    @property
    def warn_ms(self) -> int: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


class Rules(Protocol):
    """Which policy is whose."""

    def of(self, connector: str, source: str) -> Policy:
        """Return the policy of a source."""
        ...

    @property
    def longest_grace_ms(self) -> int: ...
    @property
    def shortest_grace_ms(self) -> int: ...
    @property
    def longest_warn_ms(self) -> int: ...


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

    def channels(self) -> Sequence[Channel]:
        """Return how far each channel is, in the order of the settings."""
        ...

    def settings(self) -> InForce:
        """Return the settings in force."""
        ...
