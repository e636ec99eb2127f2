"""The recorder: follows the flips in Redis as a channel does, and writes them to their topic."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from heartbeat.beats.outbox import Outbox
from heartbeat.errors import ConnectError
from heartbeat.monitor.deliver import DelivererState, backoff_s
from heartbeat.monitor.entries import flip_of
from heartbeat.monitor.flips_topic import FlipsTopic, Recorded

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2_000


class Recorder:
    """Writes flips in the order of their streams, each at least once. One thread's alone; ``state`` may be read by any.

    ``clock`` counts seconds and never goes back; ``jitter`` draws from 0 to 1.
    """

    def __init__(
        self,
        outbox: Outbox,
        topic: FlipsTopic,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.state = DelivererState(f"kafka:{topic.name}")
        self._outbox = outbox
        self._topic = topic
        self._clock = clock
        self._jitter = jitter
        self._not_before_s = clock()

    def turn(self) -> bool:
        """Write some of what is not in the topic yet. Return whether there may be more at once. Errors are kept in ``state``.

        1. Take the lease: of several monitors one writes. With the first one ever the channel begins, whether Kafka answers or not.
        2. See that the topic is there. If that had to be asked the lease is renewed: it may have taken long.
        3. Write, and wait until Kafka has committed all of it.
        4. Move the cursor. Whoever ends before writes the same flips again, which changes nothing.
        """
        if self._clock() < self._not_before_s:
            return False
        try:
            held = self._outbox.lease()
            if held.fence and self._topic.ensure():
                held = self._outbox.lease()
            if not held.fence:
                self.state = replace(self.state, leader=False, pending=0, oldest_pending_ms=None, failures=0, last_error="")
                return False
            entries = self._outbox.read(_AT_ONCE)
            oldest_ms = min((entry.written_ms for entry in entries), default=None)
            self.state = replace(self.state, leader=True, pending=len(entries), oldest_pending_ms=oldest_ms)
            self._tell_losses()
            self._topic.write([Recorded(flip, entry.id) for entry in entries if (flip := flip_of(entry)) is not None])
            if entries and not self._outbox.advance(entries):
                return False
        except ConnectError as error:
            self._fail(error)
            return False
        if self.state.failures:
            log.info("Topic %s is written again", self._topic.name)
        self.state = replace(self.state, pending=0, oldest_pending_ms=None, last_success_ms=held.now_ms, failures=0, last_error="")
        return len(entries) == _AT_ONCE

    def close(self) -> None:
        """Give the lease back, so that the next one need not wait for its end, and let go of Redis."""
        with contextlib.suppress(ConnectError):
            self._outbox.release()
        self._outbox.close()

    def _fail(self, error: ConnectError) -> None:
        failures = self.state.failures + 1
        if str(error) != self.state.last_error:
            log.warning("Flips wait to be written to topic %s: %s", self._topic.name, error)
        self._not_before_s = self._clock() + backoff_s(failures, self._jitter())
        self.state = replace(self.state, failures=failures, last_error=str(error))

    def _tell_losses(self) -> None:
        for connector, count in dict(self._outbox.cut).items():
            if self._outbox.loss_told(connector):
                log.warning(
                    "%d flips of %s were cut before they were written to topic %s: it may say DOWN of sources that are not, and the "
                    "other way round, until they change again",
                    count,
                    connector,
                    self._topic.name,
                )
                self.state = replace(self.state, lost=self.state.lost + count)
