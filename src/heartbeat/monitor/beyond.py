"""What a monitor knows beside Redis: Kafka's own word. Without ``[kafka]`` in the settings it knows nothing, and asks for nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from heartbeat.beats.stream_ids import order
from heartbeat.errors import ConnectError, RetriableError
from heartbeat.monitor.canary import Canaries, Partition
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic, Recorded
from heartbeat.monitor.losses import LATELY_MS
from heartbeat.monitor.settings import Kafka

log = logging.getLogger(__name__)

_REMEMBER_S: Final = 5.0

Memory = Mapping[str, Mapping[str, Recorded]]


class Nothing:
    """Where the settings name no broker."""

    remembers: Final = False

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
    """Canaries, the topic of flips, and whether a broker answers. Nothing here waits: the topic is read in a thread of its own."""

    def __init__(self, settings: Kafka, clock: Callable[[], int]) -> None:
        self.canaries = Canaries(settings)
        self.cluster = Cluster(settings)
        self._clock = clock
        self._topic = FlipsTopic(settings, self.cluster) if settings.flips_topic else None
        self._reader = ThreadPoolExecutor(1, "memory")
        self._reading: tuple[dict[str, str], Future[Memory]] | None = None
        self._wanted: dict[str, str] = {}

    @property
    def remembers(self) -> bool:
        """Whether a topic keeps flips."""
        return self._topic is not None

    def canaries_required(self, connector: str) -> bool:
        """Tell whether a canary of every partition can be asked for."""
        return self.canaries.required(connector)

    def broker_ms(self) -> int | None:
        """Return when the broker last answered us."""
        return self.cluster.reachable(self._clock())

    def remember(self, connector: str, after: str) -> Sequence[Flip] | None:
        """Return each source's newest flip, the oldest first, where it was stored after this stream id: of incidents that are open, and of
        those that ended lately; None if no topic keeps them.

        Raises:
            RetriableError: the topic is being read; ask again.
            ConnectError: it could not be read.
        """
        if self._topic is None:
            return None
        self._wanted[connector] = after
        if self._reading is None:
            asked = dict(self._wanted)
            self._reading = asked, self._reader.submit(self._topic.remember, _REMEMBER_S, self._clock() - LATELY_MS, asked)
        asked, reading = self._reading
        if not reading.done():
            raise RetriableError("the topic of flips is being read")
        if asked.get(connector) != after or reading.exception() is not None:
            self._reading = None  # it was asked about others, or of another loss, or did not answer: once more
            raise RetriableError(str(reading.exception() or "the topic of flips is read once more"))
        found = reading.result().get(connector, {})
        del self._wanted[connector], asked[connector]  # whoever asks again asks about another loss, and is not answered from this reading
        self._reading = self._reading if self._wanted else None
        return [recorded.flip for recorded in sorted(found.values(), key=lambda recorded: order(recorded.id))]

    def forget(self, connector: str) -> None:
        """Take a deleted connector out of the topic's memory, when Kafka answers."""
        if self._topic is not None:
            self._reader.submit(self._forget, self._topic, connector)

    def _forget(self, topic: FlipsTopic, connector: str) -> None:
        try:
            topic.forget(connector, _REMEMBER_S)
        except ConnectError as error:
            log.warning("The topic of flips still remembers connector %s, which was deleted: %s", connector, error)

    def fly(self, partitions: Mapping[str, Collection[Partition]], now_ms: int, spared: Collection[str]) -> None:
        """Send the canaries that are due, none to ``spared`` topics."""
        self.canaries.turn(partitions, now_ms, spared)
