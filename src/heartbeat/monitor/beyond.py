"""What a monitor knows beside Redis: Kafka's own word. Without ``[kafka]`` in the settings it knows nothing, and asks for nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from heartbeat.errors import ConnectError
from heartbeat.monitor.canary import Canaries, Partition
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic
from heartbeat.monitor.settings import Kafka
from heartbeat.monitor.stream_ids import order

log = logging.getLogger(__name__)

_REMEMBER_S: Final = 5.0


class Nothing:
    """Where the settings name no broker."""

    def canaries_required(self, _connector: str) -> bool:
        """Return False: nobody sends any."""
        return False

    def broker_ms(self) -> int | None:
        """Return None: nobody asks."""
        return None

    def remember(self, _connector: str, _after: str) -> Sequence[Flip] | None:
        """Return None: no topic keeps anything."""
        return None

    def forget(self, _connector: str) -> None:
        """Do nothing."""


class KafkaSide:
    """Canaries, the topic of flips, and whether a broker answers. ``topic`` is the detection's own: a client serves one thread."""

    def __init__(self, settings: Kafka, clock: Callable[[], int]) -> None:
        self.canaries = Canaries(settings)
        self.cluster = Cluster(settings)
        self._clock = clock
        self._topic = FlipsTopic(settings, self.cluster) if settings.flips_topic else None

    def canaries_required(self, connector: str) -> bool:
        """Tell whether a canary of every partition can be asked for."""
        return self.canaries.required(connector)

    def broker_ms(self) -> int | None:
        """Return when the broker last answered us."""
        return self.cluster.reachable(self._clock())

    def remember(self, connector: str, after: str) -> Sequence[Flip] | None:
        """Return the flips of incidents still open that were stored after this stream id; None if no topic keeps them.

        Raises:
            ConnectError: the topic could not be read.
        """
        if self._topic is None:
            return None
        found = self._topic.remember(_REMEMBER_S).get(connector, {})
        return [recorded.flip for recorded in found.values() if order(recorded.id) > order(after)]

    def forget(self, connector: str) -> None:
        """Take a deleted connector out of the topic's memory, if Kafka answers."""
        if self._topic is None:
            return
        try:
            self._topic.forget(connector, _REMEMBER_S)
        except ConnectError as error:
            log.warning("The topic of flips still remembers connector %s, which was deleted: %s", connector, error)

    def fly(self, partitions: Mapping[str, Collection[Partition]], now_ms: int) -> None:
        """Send the canaries that are due."""
        self.canaries.turn(partitions, now_ms)
