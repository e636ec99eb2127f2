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
        self._seen: Mapping[TopicPartition, int] = {}
        self._failures = 0
        self._retry_at_s = 0.0
        self._log = logs.Every(_RETRY_LOG_S)

    def due(self) -> bool:
        """Tell whether the next turn has something to close, or to open."""
        return self._consumer.assigned is not self._seen or (bool(self._consumer.unopened) and self._clock() >= self._retry_at_s)

    def turn(self) -> None:
        """Close what is gone; open what waits, if something does and it is time.

        Raises:
            ConnectError: the plugin cannot open them; the task has failed.
        """
        if self._consumer.assigned is not self._seen:
            gone = self._seen.keys() - self._consumer.assigned.keys()
            self._seen = self._consumer.assigned
            if gone:
                self._plugin.close(gone)
        if not (self._consumer.unopened and self.due()):
            return
        try:
            committed = self._consumer.committed()
            self._consumer.start_at(self._plugin.open(committed))
        except (RetriableError, Reclaim) as error:
            self._again(f"cannot take over {_names(self._consumer.unopened)} yet", error)
        except ConnectError:
            raise
        except Exception as error:
            raise ConnectError("Exiting WorkerSinkTask due to unrecoverable exception.") from error

    def give_back(self, error: Reclaim) -> None:
        """Open these partitions again, because the plugin cannot go on in them."""
        partitions = [TopicPartition(*partition) for partition in error.partitions]
        self._consumer.reopen(partitions)
        self._again(f"takes over {_names(partitions)} again", error)

    def went_well(self) -> None:
        """Note that a batch was applied: the next trouble is not the last one going on."""
        self._failures = 0

    def _again(self, what: str, error: Exception) -> None:
        # The first attempt after a success is made at once: what a claim heals should heal without delay.
        wait_s = backoff_s(self._failures, random.random()) if self._failures else 0.0
        self._failures += 1
        self._retry_at_s = self._clock() + wait_s
        if self._log.due(self._clock()):
            log.warning("Task %s %s: %s", self._task, what, error)


def _names(partitions: Collection[TopicPartition]) -> str:
    shown = [f"{partition.topic}-{partition.partition}" for partition in sorted(partitions)[:5]]
    return ", ".join(shown) + (f" and {len(partitions) - 5} more" if len(partitions) > 5 else "")
