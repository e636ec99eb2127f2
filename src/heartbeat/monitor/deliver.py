"""Deliverers: one thread per channel that brings it every flip it is to be told, at least once, in order, as incidents are by then.

A turn, in the order that makes it safe:

1. take or renew the lease; without it, nothing;
2. read what is behind the cursor, anew at each attempt, so that what waits is collapsed further;
3. when the oldest is ``group_wait_s`` old: collapse, leave out what others are told, make messages;
4. renew the lease, send, note the attempt;
5. move the cursor, by fence and by where it was. A crash before this sends again, under the same keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from heartbeat.beats.outbox import Entry, Outbox
from heartbeat.display import utf8, visible
from heartbeat.errors import ConnectError
from heartbeat.logs import Every
from heartbeat.monitor.alert import DELIVERED, FAILED, LOST, Delivery, attempt
from heartbeat.monitor.channels import Channel
from heartbeat.monitor.entries import flip_of
from heartbeat.monitor.flips import DOWN, FAIL, SILENCE, UP, Flip, incident_of, key_of
from heartbeat.monitor.messages import MOST_FLIPS, Message, compose, text_of_loss
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.told import Told

MOST_READ: Final = 10_000
_MOST_DIRECT: Final = 1_000
_PAUSE_S: Final = 0.5
_STOP_S: Final = 5.0
_LEAST_BACKOFF_S: Final = 1.0
_MOST_BACKOFF_S: Final = 60.0
_MOST_RETRY_AFTER_S: Final = 300.0
_AWAY_LINE_EVERY_S: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """When things are done; clocks and chance are arguments. ``recorder`` is the channel by which the topic of flips is written: without
    one what was told is never held against Redis."""

    group_wait_s: float = 2.0
    monotonic_s: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    recorder: str = ""
    settle_every_s: float = 2.0


@dataclass(frozen=True, slots=True)
class DelivererState:
    """A deliverer as it is. ``pending`` counts flips that wait, up to ``MOST_READ``; ``failures`` attempts since the last success.

    ``lost`` counts flips that this channel will not get: refused for good, or cut before it could be reached.
    """

    channel: str
    leader: bool = False
    pending: int = 0
    oldest_pending_ms: int | None = None
    last_success_ms: int | None = None
    failures: int = 0
    last_error: str = ""
    lost: int = 0


class Deliverer:
    """Delivers to one channel. ``turn`` and ``run`` belong to one thread; ``tell``, ``state`` and ``stop`` to anybody."""

    def __init__(self, name: str, channel: Channel, outbox: Outbox, rules: Callable[[], Rules], pace: Pace | None = None) -> None:
        self._name = name
        self._channel = channel
        self._outbox = outbox
        self._rules = rules
        self._pace = pace or Pace()
        self.state = DelivererState(name)
        self._told = Told()
        self._settling = Every(self._pace.settle_every_s)
        self._direct: tuple[Flip, ...] = ()
        self._telling = threading.Lock()
        self._away = Every(_AWAY_LINE_EVERY_S)
        self._retry_at_s = float("-inf")
        self._most = MOST_FLIPS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name=f"channel {name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end_soon(self) -> None:
        """Ask the thread to end. Of several all are asked before the first is waited for."""
        self._stopping.set()

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """End the thread, and wait for it so long at most: one that hangs in a sending goes with the process."""
        self.end_soon()
        if self._thread.is_alive():
            self._thread.join(max(0.0, timeout_s))

    def tell(self, flips: Sequence[Flip]) -> None:
        """Send these without the outbox, because Redis is away. Only the monitor that had the lease does; the others ignore it."""
        if self.state.leader:
            with self._telling:
                self._direct = (*self._direct, *self._ours(flips))[:_MOST_DIRECT]

    def run(self) -> None:
        """Take turns until stopped; then give the lease back."""
        while not self._stopping.is_set():
            try:
                pause_s = self.turn()
            except Exception:  # the turn of a loop: a fault of ours must not end what tells people of faults
                log.exception("The turn of channel %s failed", visible(self._name))
                pause_s = _MOST_BACKOFF_S / 10
            self._stopping.wait(pause_s)
        with contextlib.suppress(ConnectError):
            self._outbox.release()
        self._outbox.close()
        self._channel.close()

    def turn(self) -> float:
        """Do what there is to do, and return in how many seconds to look again."""
        now_s = self._pace.monotonic_s()
        reachable = self._lease()
        if reachable:
            self._settle(now_s)
        if not self.state.leader:
            self._forget_direct(_MOST_DIRECT)  # whoever has the lease finds them in the outbox
            return _PAUSE_S
        if now_s < self._retry_at_s:
            return min(_PAUSE_S, self._retry_at_s - now_s)
        try:
            entries = self._outbox.read(MOST_READ) if reachable else []
            read = (flip for entry in entries if (flip := flip_of(entry)) is not None)
            direct, flips = self._direct, self._ours(read)
            messages = compose(self._name, [*direct, *flips], self._told.keys, self._most)
            self._pend(messages, entries)
            wait_s = 0.0 if direct else self._wait_s(entries, messages)
            if wait_s:
                return wait_s
            if not (reachable and self._losses_fail()) and all(map(self._send, messages)):
                self._forget_direct(len(direct))
                if entries and not self._outbox.advance(entries):
                    log.warning("Channel %s was taken over, or put elsewhere: it goes on from where it is now", visible(self._name))
                self._pend((), ())
                return 0.0 if len(entries) == MOST_READ else _PAUSE_S
        except ConnectError as error:
            self._redis_away(error, now_s)
        return _PAUSE_S

    def _settle(self, now_s: float) -> None:
        """Bring back what Redis has lost, as far as the topic of flips has not got it."""
        if not self._pace.recorder or not self._settling.due(now_s):
            return
        try:
            self._told.recorded(self._outbox, self._pace.recorder)
            self._told.settle(self._outbox, int(1000 * self._pace.wall_s()))
        except ConnectError as error:
            self._redis_away(error, now_s)

    def _lease(self) -> bool:
        """Take or renew the lease, and see what stands in the streams; False if Redis is away, and all stays as it was."""
        try:
            fence = self._outbox.lease().fence
            if self._pace.recorder:
                self._told.follow(self._outbox)  # also before each sending: what is told is known to have stood there
        except ConnectError as error:
            self._redis_away(error, self._pace.monotonic_s())
            return False
        leader = fence > 0
        if leader != self.state.leader:
            log.info("Channel %s is %s", visible(self._name), "ours to deliver to" if leader else "another monitor's")
            self.state = replace(self.state, leader=leader, failures=0, last_error="")  # another's troubles are told by the other
            self._pend((), ())
        return True

    def _redis_away(self, error: ConnectError, now_s: float) -> None:
        if self._away.due(now_s):
            log.warning("Channel %s waits: %s", visible(self._name), error)

    def _forget_direct(self, count: int) -> None:
        with self._telling:
            self._direct = self._direct[count:]

    def _ours(self, flips: Iterable[Flip]) -> list[Flip]:
        """Return what this channel is to be told: what the rules say, and how that ended of which it was told before they changed."""
        rules, told = self._rules(), self._told.keys
        pipeline = self._name in rules.pipeline_channels()
        return [
            flip
            for flip in flips
            if (pipeline if flip.about_pipeline else self._name in rules.of(flip.connector, flip.source).channels)
            or (not flip.opens and flip.incident in told)
        ]

    def _pend(self, messages: Sequence[Message], entries: Sequence[Entry]) -> None:
        pending = sum(len(message.flips) for message in messages)
        oldest_ms = min((entry.written_ms for entry in entries), default=None) if pending else None
        self.state = replace(self.state, pending=pending, oldest_pending_ms=oldest_ms)

    def _wait_s(self, entries: Sequence[Entry], messages: Sequence[Message]) -> float:
        """Return how long to wait for more of the same. An entry from the future waits for nobody: its clock was set back."""
        if not entries or not messages:
            return 0.0
        age_s = (self._outbox.held.now_ms - min(entry.written_ms for entry in entries)) / 1000
        return self._pace.group_wait_s - age_s if 0 <= age_s < self._pace.group_wait_s else 0.0

    def _send(self, message: Message) -> bool:
        """Send a message. True if that is done with: taken, or refused for good."""
        if self._stopping.is_set() or (self._lease() and not self.state.leader):
            return False
        at_ms = int(1000 * self._pace.wall_s())
        tried = attempt(self._channel, message, self.state.failures + 1, at_ms, self._pace.monotonic_s)
        self._note(tried.delivery)
        if tried.too_large:
            self._most = len(message.flips) // 2  # from now on: web servers take a megabyte by default, and say so only then
            return False
        if tried.delivery.status == FAILED:
            wish_s = tried.retry_after_s
            pause_s = backoff_s(self.state.failures, self._pace.chance()) if wish_s is None else min(wish_s, _MOST_RETRY_AFTER_S)
            self._retry_at_s = self._pace.monotonic_s() + max(pause_s, _LEAST_BACKOFF_S)
            return False
        self._told.note(message.flips)
        return True

    def _note(self, delivery: Delivery) -> None:
        """Note an attempt: in our state, in the log, and in Redis if it is there."""
        if delivery.status == FAILED:
            self.state = replace(self.state, failures=self.state.failures + 1, last_error=delivery.error)
        elif delivery.status == LOST:
            self.state = replace(self.state, failures=0, last_error=delivery.error, lost=self.state.lost + max(1, delivery.flips))
        else:
            self.state = replace(self.state, failures=0, last_error="", last_success_ms=delivery.at_ms)
        level = {DELIVERED: logging.INFO, FAILED: logging.WARNING}.get(delivery.status, logging.ERROR)
        log.log(level, "Channel %s, %d changes, %s (%s)", visible(self._name), delivery.flips, delivery.line(), visible(delivery.key))
        try:
            self._outbox.log(msgspec.json.encode(delivery))
        except ConnectError as error:
            self._redis_away(error, self._pace.monotonic_s())

    def _losses_fail(self) -> bool:
        """Tell of what was cut before this channel got it; True if that could not be told."""
        for connector, count in self._outbox.cut.items():
            if not self._send(self._loss(connector, count)):
                return True
            self.state = replace(self.state, lost=self.state.lost + count)
            self._outbox.loss_told(connector)
        return False

    def _loss(self, connector: str, count: int) -> Message:
        """Return the message that brings the channel up to date: what it has missed cannot be said, who is down now can."""
        down, judged = self._outbox.down(connector, self._most)
        flips = tuple(self._ours(self._as_down(connector, source, at_ms) for source, at_ms in judged))
        key = hashlib.blake2b(f"{connector}\0{count}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        shown = down if down > len(judged) else len(flips)
        return Message(key, self._name, text_of_loss(connector, count, shown, [flip.source for flip in flips]), flips)

    def _as_down(self, connector: str, source: str, judged_ms: float) -> Flip:
        """Return the flip that put a source down, as far as it is still known. Its key is the one that it had."""
        deadline_ms, failed = int(judged_ms), judged_ms % 1 > 0
        policy, incident = self._rules().of(connector, source), incident_of(connector, source, deadline_ms)
        key, reason = key_of(incident, DOWN), FAIL if failed else SILENCE
        at_ms = deadline_ms + (0 if failed else policy.grace_ms)
        told = Flip(key, incident, utf8(source), connector, UP, DOWN, reason, at_ms, deadline_ms=deadline_ms)
        return msgspec.structs.replace(told, severity=policy.severity, tags=policy.tags)


def backoff_s(failures: int, chance: float) -> float:
    """Return how long to wait after so many failures: exponential, with full jitter between the least and what it has come to."""
    most_s = min(_MOST_BACKOFF_S, _LEAST_BACKOFF_S * 2.0 ** min(failures, 30))
    return _LEAST_BACKOFF_S + chance * (most_s - _LEAST_BACKOFF_S)
