"""Where a running demo's parts are, so that ``heartbeat send`` and ``heartbeat redis`` find them without being told."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec


class DemoState(msgspec.Struct, frozen=True):
    """Addresses of a demo and the process that holds it."""

    pid: int
    kafka: str
    redis_host: str
    redis_port: int
    rest: str


def state_file() -> Path:
    """Return this user's state file."""
    return Path(tempfile.gettempdir()) / f"redis-heartbeat-sink-demo-{os.getuid()}.json"


def write(state: DemoState) -> None:
    """Publish where things are, atomically."""
    fresh = state_file().with_suffix(f".{state.pid}")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.replace(state_file())


def read() -> DemoState | None:
    """Return the state of the demo that is running, or None; what a dead process or another user left is ignored."""
    try:
        if state_file().stat().st_uid != os.getuid():
            return None
        state = msgspec.json.decode(state_file().read_bytes(), type=DemoState)
        os.kill(state.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return state
