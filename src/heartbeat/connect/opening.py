"""New partitions of a task whose plugin decides where they start: asked about until it says, and started there."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from heartbeat import logs
from heartbeat.connect.api import Committed, SinkTask, TopicPartition
from heartbeat.errors import ConnectError, Reclaim, RetriableError

log = logging.getLogger(__name__)

_BACKOFF_BASE_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0
_CALM_S: Final = 5.0
_RETRY_LOG_S: Final = 10.0


class Consumer(Protocol):
    """What opening needs of ``kafka.SinkConsumer``."""

    assigned: Mapping[TopicPartition, int]
    unopened: frozenset[TopicPartition]

    def committed(self) -> Mapping[TopicPartition, Committed | None]: ...
    def start_at(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    def reopen(self, partitions: Collection[TopicPartition]) -> None: ...


def backoff_s(failures: int, spread: float) -> float:
    """Return how long to wait after this many failures in a row; ``spread`` in [0, 1) draws from the upper half of the delay."""
    delay = min(_BACKOFF_MAX_S, _BACKOFF_BASE_S * 2 ** min(failures, 10))
    return float(delay * (0.5 + spread / 2))


class Opening:
    """Opens what waits to be opened, one attempt a turn, with a pause after each that failed or came to nothing."""

    def __init__(self, task: str, consumer: Consumer, plugin: SinkTask, clock: Callable[[], float]) -> None:
        self._task = task
        self._consumer = consumer
        self._plugin = plugin
        self._clock = clock
        # What the plugin believes to have. Not what is consumed: it may have opened a partition that then could not be started.
        self._given: frozenset[TopicPartition] = frozenset()
        self._failures = 0
        self._failed_at_s = float("-inf")
        self._retry_at_s = 0.0
        self._log = logs.Every(_RETRY_LOG_S)

    def due(self) -> bool:
        """Tell whether the next turn has something to close, or to open."""
        return bool(self._gone()) or self._may_open()

    def turn(self) -> None:
        """Close what is gone; open what waits, if something does and it is time.

        Raises:
            ConnectError: the plugin cannot open them; the task has failed.
        """
        gone = self._gone()
        self._given = frozenset(self._consumer.assigned)
        if gone:
            self._plugin.close(gone)
        if self._may_open():
            self._open()

    def give_back(self, error: Reclaim) -> None:
        """Open these partitions again, because the plugin cannot go on in them."""
        partitions = [TopicPartition(*partition) for partition in error.partitions]
        self._consumer.reopen(partitions)
        self._again(f"takes over {_names(partitions)} again: {error}")

    def _gone(self) -> frozenset[TopicPartition]:
        return self._given - self._consumer.assigned.keys()

    def _may_open(self) -> bool:
        return bool(self._consumer.unopened) and self._clock() >= self._retry_at_s

    def _open(self) -> None:
        try:
            starts = self._plugin.open(self._consumer.committed())
            self._given |= starts.keys()
            self._consumer.start_at(starts)
        except Reclaim as error:
            self.give_back(error)
        except RetriableError as error:
            self._again(f"cannot take over {_names(self._consumer.unopened)} yet: {error}", error.retry_after_s)
        except ConnectError:
            raise
        except Exception as error:
            raise ConnectError("Exiting WorkerSinkTask due to unrecoverable exception.") from error
        else:
            if self._consumer.unopened:
                self._again(f"was not told where {_names(self._consumer.unopened)} starts")

    def _again(self, what: str, wish_s: float | None = None) -> None:
        now = self._clock()
        # Time tells the next trouble from the last one going on: a put that went well may have had nothing of these partitions.
        if now - self._failed_at_s > _CALM_S:
            self._failures = 0
        # The first attempt after a calm time is made at once: what a claim heals should heal without delay.
        wait_s = wish_s or (backoff_s(self._failures, random.random()) if self._failures else 0.0)
        self._failures += 1
        self._failed_at_s, self._retry_at_s = now, now + wait_s
        if self._log.due(now):
            log.warning("Task %s %s", self._task, what)


def _names(partitions: Collection[TopicPartition]) -> str:
    shown = [f"{partition.topic}-{partition.partition}" for partition in sorted(partitions)[:5]]
    return ", ".join(shown) + (f" and {len(partitions) - 5} more" if len(partitions) > 5 else "")
