"""The monitor as a process of its own, started as a user starts it, with settings of a test, and looked at through its API."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from ..parts import clean_environment, heartbeat_argv
from ..programs import Program, free_port
from .oracle import Budgets
from .receiver import SECRET

SETTLE_S = 6.0
BUDGETS = Budgets(grace_ms=1_000, slack_ms=1_000, settle_ms=int(SETTLE_S * 1000), tell_ms=10_000)
SOON: Mapping[str, float] = {"slack_s": 1.0, "settle_s": SETTLE_S, "blind_after_s": 3.0, "group_wait_s": 0.2}
"""What ``[monitor]`` says, so that a test does not wait for what an operator would."""


def settings(
    redis_port: int,
    receiver_port: int,
    *,
    kafka: str = "",
    flips_topic: str = "heartbeat-flips",
    rules: Sequence[Mapping[str, object]] = (),
) -> dict[str, Any]:
    """Return the tables of ``monitor.toml``: one webhook, called ``ops``; ``kafka`` are the bootstrap servers, if any."""
    channel = {
        "name": "ops",
        "type": "webhook",
        "url": f"http://127.0.0.1:{receiver_port}/hook",
        "secret": "${env:HOOK_SECRET}",
        "timeout_s": 1.0,
    }
    tables: dict[str, Any] = {
        "monitor": dict(SOON),
        "redis": {"url": f"redis://127.0.0.1:{redis_port}/0"},
        "defaults": {"grace_s": BUDGETS.grace_ms / 1000, "channels": ["ops"]},
        "rule": list(rules),
        "channel": [channel],
    }
    return tables | ({"kafka": {"bootstrap_servers": kafka, "flips_topic": flips_topic}} if kafka else {})


def as_toml(tables: Mapping[str, Any]) -> str:
    """Return tables, and lists of tables, of plain values as TOML."""
    lines: list[str] = []
    for name, found in tables.items():
        many = isinstance(found, list)
        for table in found if many else [found]:
            lines.append(f"[[{name}]]" if many else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


class Monitor:
    """One ``heartbeat monitor``, startable again after its end."""

    def __init__(self, directory: Path, tables: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / "monitor.toml"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._listen = {"listen": f"127.0.0.1:{port}"}
        self.write(tables)
        self._program = Program("monitor", heartbeat_argv("monitor", str(self.file)), directory, clean_environment(HOOK_SECRET=SECRET))

    def write(self, tables: Mapping[str, Any]) -> None:
        """Write its settings."""
        self.file.write_text(as_toml({**tables, "monitor": {**tables["monitor"], **self._listen}}))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._program.pid

    @property
    def alive(self) -> bool:
        """Whether it is running now."""
        return self._program.alive

    def start(self) -> None:
        """Start it and wait until it answers, whatever it says."""
        self._program.start()
        self._program.wait_until(self._answers, timeout_s=30)

    def _answers(self) -> bool:
        try:
            return self.get("/healthz").status_code in {200, 503}
        except httpx2.TransportError:
            return False

    def get(self, path: str) -> httpx2.Response:
        """Return the reply to a GET."""
        return httpx2.get(self.url + path, timeout=10, trust_env=False)

    def sources(self, query: str = "") -> dict[str, dict[str, Any]]:
        """Return what ``/api/v1/sources`` lists, over all its pages, by name."""
        found: dict[str, dict[str, Any]] = {}
        cursor: str | None = ""
        while cursor is not None:
            reply = self.get(f"/api/v1/sources?limit=1000{query}" + (f"&cursor={cursor}" if cursor else ""))
            assert reply.status_code == 200, reply.text
            page = reply.json()
            found |= {source["name"]: source for source in page["sources"]}
            cursor = page["next"]
        return found

    def state(self, source: str) -> str | None:
        """Return a source's state, None if it is not listed."""
        found = self.sources().get(source)
        return None if found is None else str(found["state"])

    def log(self) -> str:
        """Return everything it has logged, over all its starts."""
        return self._program.log()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill9(self) -> None:
        """Kill it as an out-of-memory killer would."""
        self._program.kill9()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        return self._program.terminate(15)

    def end(self) -> None:
        """Make sure that it is gone."""
        self._program.end()


@contextmanager
def monitoring(directory: Path, tables: Mapping[str, Any]) -> Iterator[Monitor]:
    """Run a monitor while the block lasts."""
    monitor = Monitor(directory, tables)
    try:
        monitor.start()
        yield monitor
    finally:
        monitor.end()
