"""The recorder: follows the flips in Redis as a channel does, and writes them to their topic."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from heartbeat.beats.outbox import Entry, Outbox
from heartbeat.errors import ConnectError
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic, Recorded

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2_000
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Recording:
    """How the topic stands. ``leader``: this monitor writes it; ``pending``: so many flips at least are not in it.

    ``failures`` counts attempts that failed since the last one that did not; ``lost`` are flips that were cut before they were written.
    """

    channel: str
    leader: bool = False
    pending: int = 0
    oldest_pending_ms: int | None = None
    last_success_ms: int | None = None
    failures: int = 0
    last_error: str = ""
    lost: int = 0


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
        self.state = Recording(f"kafka:{topic.name}")
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
                self.state = replace(self.state, leader=False, pending=0, oldest_pending_ms=None)
                return False
            entries = self._outbox.read(_AT_ONCE)
            oldest_ms = min((entry.written_ms for entry in entries), default=None)
            self.state = replace(self.state, leader=True, pending=len(entries), oldest_pending_ms=oldest_ms)
            self._tell_losses()
            self._topic.write([Recorded(flip, entry.id) for entry in entries if (flip := _flip_of(entry)) is not None])
            if entries and not self._outbox.advance(entries):
                return False
        except ConnectError as error:
            self._fail(error)
            return False
        if self.state.failures:
            log.info("Topic %s is written again", self._topic.name)
        self.state = replace(self.state, pending=0, oldest_pending_ms=None, last_success_ms=held.now_ms, failures=0, last_error="")
        return len(entries) == _AT_ONCE

    def _fail(self, error: ConnectError) -> None:
        failures = self.state.failures + 1
        if str(error) != self.state.last_error:
            log.warning("Flips wait to be written to topic %s: %s", self._topic.name, error)
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(failures - 1, 10))
        self._not_before_s = self._clock() + wait_s * (1 + self._jitter()) / 2
        self.state = replace(self.state, failures=failures, last_error=str(error))

    def _tell_losses(self) -> None:
        for connector, count in dict(self._outbox.losses).items():
            if self._outbox.loss_told(connector):
                log.warning(
                    "%d flips of %s were cut before they were written to topic %s: it may say DOWN of sources that are not, and the "
                    "other way round, until they change again",
                    count,
                    connector,
                    self._topic.name,
                )
                self.state = replace(self.state, lost=self.state.lost + count)


def _flip_of(entry: Entry) -> Flip | None:
    """Return what an entry says, with what the script that judged has filled in; None if it cannot be read."""
    try:
        flip = msgspec.json.decode(entry.flip, type=Flip)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        log.warning("Entry %s of the flips of %s cannot be read: it is passed over", entry.id, entry.connector)
        return None
    filled = {"proven_until_ms": entry.proven_until_ms, "detected_ms": entry.detected_ms}
    return msgspec.structs.replace(flip, **{name: ms for name, ms in filled.items() if ms is not None})
