"""Why a task proves nothing at present, said in Redis for as long as that lasts: nobody but the task itself can tell.

The monitor, and who looks at the proof, would else see only that sight has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from heartbeat import logs
from heartbeat.beats.catch_up import lag
from heartbeat.beats.clock import Clock
from heartbeat.beats.partitions import Partitions
from heartbeat.beats.proof import LONGEST_GAP_MS, Sight
from heartbeat.connect.api import TopicPartition

BROKER: Final = "broker"
"""Kafka does not answer where its logs end."""
LAG: Final = "lag"
"""What it has committed is not applied yet."""
CLOCKS: Final = "clocks"
"""Redis and the worker disagree on the time."""
PAUSED: Final = "paused"
"""There is more to apply, and an operator has paused the connector."""

_LOOK_EVERY_S: Final = 0.5
_SAY_EVERY_S: Final = 2.0


class Watched(Protocol):
    """A held partition, as far as doubts need it. ``opened_ms`` is since when it has been held."""

    @property
    def sight(self) -> Sight: ...
    @property
    def opened_ms(self) -> int: ...


class Doubt(NamedTuple):
    """Why nothing is proven, and how many records are not applied."""

    why: str
    behind: int


def doubt(
    held: Mapping[TopicPartition, Watched], now_ms: int, *, agree: bool, paused: bool, answered_ms: int | None = None
) -> Doubt | None:
    """Return why nothing has been proven for two seconds, judged by the partition whose sight is oldest; None if that is not so.

    ``answered_ms`` is when the question was asked that Kafka answered last. Who holds nothing proves nothing, and can say only that.
    """
    if not held:
        return Doubt(BROKER, 0) if answered_ms is not None and now_ms - answered_ms > LONGEST_GAP_MS else None
    if not agree:
        return Doubt(CLOCKS, lag(held))
    oldest = min(held.values(), key=lambda known: max(known.opened_ms, known.sight.until_ms or 0))
    proven_ms, taken_ms = (max(oldest.opened_ms, at_ms or 0) for at_ms in (oldest.sight.until_ms, oldest.sight.taken_ms))
    if now_ms - proven_ms <= LONGEST_GAP_MS:
        return None
    if now_ms - taken_ms > LONGEST_GAP_MS:
        return Doubt(BROKER, lag(held))
    return Doubt(PAUSED if paused else LAG, lag(held))


class Doubts:
    """What a task says of itself. Its thread's alone."""

    def __init__(self, partitions: Partitions, task: int, clock: Clock) -> None:
        self.paused = False
        self._partitions = partitions
        self._task = task
        self._clock = clock
        self._said = True  # perhaps: by whoever ran this task before
        self._look = logs.Every(_LOOK_EVERY_S)
        self._say = logs.Every(_SAY_EVERY_S)

    def turn(self, held: Mapping[TopicPartition, Watched], answered_ms: int | None, now_s: float) -> None:
        """Say why nothing is proven, every two seconds; take it back when that is over.

        Raises:
            RetriableError, ConnectError: as ``Partitions`` does.
        """
        if not self._look.due(now_s):
            return
        found = doubt(held, self._clock.earlier_ms(), agree=self._clock.agree, paused=self.paused, answered_ms=answered_ms)
        if found is None:
            if self._said:
                self._partitions.unsay(self._task)
                self._said = False
        elif self._say.due(now_s):
            self._said = True
            self._partitions.say(self._task, self._clock.redis_ms(), found.why, found.behind)
