"""One connector that is watched, and the receiver that is told: what a test of one promise needs, and how it waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from ..broker import Kafka
from ..forwarder import Forwarder, forwarding
from ..index import LIFT_MS, Beats, Index, indexed_config, watching
from ..parts import HeartbeatWorker, Redis
from ..programs import eventually
from ..scenario import Connector, now_ms, unique
from .history import Verdict
from .monitor import BUDGETS, Monitor, settings
from .receiver import Receiver, receiving

TTL_S = 2
TOLD_WITHIN_S = 40.0
"""Wide: a figure of a noisy machine says nothing; the bench measures."""


@dataclass(frozen=True, slots=True)
class Scene:
    """``link`` is the way to Redis of worker and monitors alike; ``tables`` are the monitor's settings."""

    connector: Connector
    kafka: Kafka
    beats: Beats
    index: Index
    link: Forwarder
    receiver: Receiver
    tables: dict[str, Any]

    @property
    def pipeline(self) -> str:
        """Under which source the connector's sight is spoken of."""
        return f"pipeline:{self.connector.name}"

    def beat(self, *sources: str, ttl_s: int | None = None, status: str = "", message: str = "") -> int:
        """Send a beat of each source; return the moment after Kafka has them."""
        words = {"hb-ttl": str(ttl_s or ""), "hb-status": status, "hb-message": message}
        return self.beats.send(sources, headers={name: text for name, text in words.items() if text})

    def told(self, source: str, *to: str) -> list[Verdict]:
        """Wait until exactly these flips of a source have been told, in this order, and return them."""

        def all_of_them() -> list[Verdict] | None:
            seen = self.receiver.of(source)
            assert [verdict.to for verdict in seen] == list(to), seen
            return seen

        return eventually(all_of_them, f"{source} is told to be {to}", timeout_s=TOLD_WITHIN_S) or []

    def blind(self, *words: str) -> Verdict:
        """Wait until the one pipeline incident is told, with these words in its text, and return it."""
        (verdict,) = self.told(self.pipeline, "BLIND")
        text = self.receiver.text(verdict.key).lower()
        assert all(word in text for word in words), text
        return verdict

    def sighted(self, blind: Verdict) -> None:
        """Wait until that incident has ended; there must have been no other."""
        assert [verdict.incident for verdict in self.told(self.pipeline, "BLIND", "SIGHTED")] == [blind.incident] * 2

    def kept(self) -> list[Verdict]:
        """Return the flips that are kept in Redis."""
        entries = self.index.client.xrange(self.index.key("flips"))
        return [msgspec.json.decode(fields["flip"], type=Verdict) for _, fields in entries]

    def wait_until_proven(self) -> None:
        """Wait until everything that is committed by now is proven to be applied."""
        self.index.wait_until_proven(self.beats.topic, now_ms())


@contextmanager
def scene(worker: HeartbeatWorker, broker: Kafka, redis: Redis, **more: Any) -> Iterator[Scene]:
    """Set a connector up, with nobody in it and no monitor yet. ``more`` goes into the monitor's settings."""
    name = unique("watched")
    connector = Connector(worker, broker, name)
    with receiving() as receiver, forwarding(redis.port) as link, watching(redis, name) as index:
        topic = broker.create_topic(name)
        connector.put(indexed_config(link.port, topic, {"redis.ttl": str(TTL_S), "heartbeat.ttl.max": "600"}))
        tables = settings(link.port, receiver.port, **more)
        try:
            yield Scene(connector, broker, Beats(broker, topic), index, link, receiver, tables)
        finally:
            link.release()
            worker.rest("DELETE", connector.path)


def check_silence(verdict: Verdict, beat_ms: int, ttl_s: int = TTL_S) -> None:
    """Assert that a DOWN tells the silence after a beat with this stamp: the deadline, the moment, the proof."""
    assert (verdict.reason, verdict.from_) in {("silence", "LATE"), ("silence", "UNKNOWN"), ("silence", "UP")}
    assert verdict.deadline_ms is not None
    assert verdict.proven_until_ms is not None
    assert 0 <= verdict.deadline_ms - ttl_s * 1000 - beat_ms <= LIFT_MS
    assert verdict.at_ms == verdict.deadline_ms + BUDGETS.grace_ms
    assert verdict.proven_until_ms >= verdict.deadline_ms + BUDGETS.slack_ms


def wait_for_state(monitor: Monitor, source: str, state: str) -> dict[str, Any]:
    """Wait until the API lists a source in a state, and return what it says of it."""

    def listed() -> dict[str, Any]:
        found = monitor.sources().get(source, {})
        assert found.get("state") == state, found
        return found

    return eventually(listed, f"{source} is {state}", timeout_s=TOLD_WITHIN_S, every_s=0.25)
