"""Canaries: records that prove, by arriving, that what Kafka had acknowledged before them has arrived too.

A broker may still hold back what it appended and the other replicas have not; a record with ``acks=all`` in each partition comes
behind that. Where Kafka refuses such a record (no permission, or a topic that is compacted and wants keys) nothing can be asked of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from heartbeat.beats.canaries import HEADER
from heartbeat.monitor.kafka import Fault, Record, Sender
from heartbeat.monitor.settings import Kafka

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_WAIT_S: Final = 0.1
_OWN: Final = {
    "message.timeout.ms": str(int(_TIMEOUT_S * 1000)),
    "enable.idempotence": "false",  # one that is sent twice says the same twice, and this asks for no permission on the cluster
}
_RETRY_REFUSED_S: Final = 600.0

Partition = tuple[str, int]
"""Topic and number."""


@dataclass(frozen=True, slots=True)
class Flown:
    """How canaries fare. ``acknowledged_ms``: the time in the newest one that is committed; ``errors``: why the last one is not.

    ``excused``: the connectors of which canaries cannot be demanded. ``refused``: why topics take none.
    ``dropped``: how many found no room to wait.
    """

    acknowledged_ms: Mapping[Partition, int] = field(default_factory=dict)
    errors: Mapping[Partition, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    excused: frozenset[str] = frozenset()
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Refusal:
    text: str
    retry_s: float


def excused_of(partitions: Mapping[str, Collection[Partition]], without: Collection[str]) -> frozenset[str]:
    """Return the connectors of which canaries cannot be demanded: a topic of theirs gets none."""
    return frozenset(connector for connector, known in partitions.items() if any(topic in without for topic, _ in known))


class Canaries:
    """Sends canaries, one at a time to each partition. ``clock`` counts seconds and never goes back.

    One thread calls ``turn``; ``state`` and ``required`` may be read by any.

    Raises:
        ConnectError: the Kafka client does not take the settings.
    """

    def __init__(self, settings: Kafka, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = Flown()
        self._clock = clock
        self._every_s = settings.canary_every_s
        self._sender = Sender(settings, _OWN) if settings.canary else None
        self._next_s: dict[Partition, float] = {}
        self._waiting: set[Partition] = set()
        self._acknowledged_ms: dict[Partition, int] = {}
        self._errors: dict[Partition, str] = {}
        self._refused: dict[str, _Refusal] = {}
        self._dropped = 0

    def required(self, connector: str) -> bool:
        """Tell whether canaries can be demanded of all of a connector's partitions: yes, until one is known to get none."""
        return self._sender is not None and connector not in self.state.excused

    def turn(self, partitions: Mapping[str, Collection[Partition]], now_ms: int, spared: Collection[str] = ()) -> None:
        """Send what is due to these partitions, by connector, and take note of what became of others; in 0.2 s at most.

        ``now_ms`` goes into the canary, and is not later than any clock says that its arrival is compared with. ``spared`` topics get
        none: somebody else who reads them would take canaries for beats.
        """
        if self._sender is None:
            return
        wanted = {partition for known in partitions.values() for partition in known if partition[0] not in spared}
        self._forget_all_but(wanted)
        now_s = self._clock()
        for partition in sorted(wanted - self._waiting):
            if self._due(partition, now_s):
                self._send(self._sender, partition, now_ms, now_s)
        self._sender.poll(_WAIT_S)
        self.state = Flown(
            dict(self._acknowledged_ms),
            dict(self._errors),
            {topic: refusal.text for topic, refusal in self._refused.items()},
            excused_of(partitions, {*self._refused, *spared}),
            self._dropped,
        )

    def _due(self, partition: Partition, now_s: float) -> bool:
        refusal = self._refused.get(partition[0])
        return now_s >= self._next_s.get(partition, now_s) and (refusal is None or now_s >= refusal.retry_s)

    def _send(self, sender: Sender, partition: Partition, now_ms: int, now_s: float) -> None:
        topic, number = partition
        self._next_s[partition] = now_s + self._every_s
        self._waiting.add(partition)
        record = Record(topic, None, None, ((HEADER, b"%d" % now_ms),), number)
        if not sender.send(record, lambda fault: self._settle(partition, now_ms, now_s, fault)):
            self._waiting.discard(partition)
            self._dropped += 1

    def _settle(self, partition: Partition, sent_ms: int, sent_s: float, fault: Fault | None) -> None:
        self._waiting.discard(partition)
        if partition not in self._next_s:
            return  # nobody asks for it any more
        topic = partition[0]
        if fault is None:
            self._acknowledged_ms[partition] = sent_ms
            self._errors.pop(partition, None)
            # One that was under way when another partition refused says nothing against that.
            if topic in self._refused and sent_s >= self._refused[topic].retry_s:
                del self._refused[topic]
                log.info("Topic %s takes canaries now", topic)
            return
        self._errors[partition] = fault.text
        if fault.permanent:
            if topic not in self._refused:
                log.warning(
                    "Topic %s takes no canaries: %s. Silence in it is proven without them, and they are tried again every %.0f minutes",
                    topic,
                    fault.text,
                    _RETRY_REFUSED_S / 60,
                )
            self._refused[topic] = _Refusal(fault.text, self._clock() + _RETRY_REFUSED_S)

    def _forget_all_but(self, wanted: Collection[Partition]) -> None:
        known: tuple[dict[Partition, float], dict[Partition, int], dict[Partition, str]]
        known = (self._next_s, self._acknowledged_ms, self._errors)
        for partition in self._next_s.keys() - wanted:
            for kept in known:
                kept.pop(partition, None)
        topics = {topic for topic, _ in wanted}
        for topic in self._refused.keys() - topics:
            del self._refused[topic]
