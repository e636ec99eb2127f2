"""How tests reach a Redis: with the patience for a machine that stands still for seconds, as one with other work does now and then.

The product's own time-outs are shorter, and what it does when they are over is tested where a server is stopped on purpose.
"""

from __future__ import annotations

from typing import Any, Final

from heartbeat.beats.connection import Server

PATIENCE_S: Final = 30.0
PATIENT_SINK: Final[dict[str, str | None]] = {"redis.timeout.ms": "30000"}
"""The same, of a connector."""


def patient(host: str, port: int, **more: Any) -> Server:
    """Return the place of a server that answers, however long it takes."""
    return Server(host, port, **{"timeout_s": PATIENCE_S, **more})
