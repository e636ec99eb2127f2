"""What the tests of the monitor's Kafka side share: a clock that is set, flips, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable

from heartbeat.monitor.flips import DOWN, RECOVERED, SILENCE, UP, Flip, incident_of, key_of

DEADLINE_S = 20.0


class SetClock:
    """Seconds that pass when the test says so; with ``step_s`` also a little with each look."""

    def __init__(self, now_s: float = 1000.0, step_s: float = 0.0) -> None:
        self.now_s = now_s
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def eventually(check: Callable[[], bool], what: str) -> None:
    """Call ``check`` until it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def down(source: str, deadline_ms: int = 1000, connector: str = "pumps") -> Flip:
    """Return the flip of a source that fell silent."""
    incident = incident_of(connector, source, deadline_ms)
    return Flip(key_of(incident, DOWN), incident, source, connector, UP, DOWN, SILENCE, deadline_ms + 5000, 1, deadline_ms)


def up(source: str, deadline_ms: int = 1000, connector: str = "pumps") -> Flip:
    """Return the flip that ends what ``down`` began."""
    incident = incident_of(connector, source, deadline_ms)
    return Flip(key_of(incident, UP), incident, source, connector, DOWN, UP, RECOVERED, deadline_ms + 9000, 2, deadline_ms)
