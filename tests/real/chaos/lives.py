"""Sources that beat, stop, return, lie about time, fail and say goodbye: what each does is drawn, and everything sent is remembered."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from confluent_kafka import KafkaException, Message, Producer

from ..scenario import now_ms
from .history import Record, Says, Source

_TURN_S: Final = 0.02
_MOST_S: Final = 0.5
"""The longest that a source which beats stays quiet, as a part of its ttl: what is lost of a ttl by lateness has room."""


class Temper(Enum):
    """How a source behaves."""

    STEADY = "beats, and never stops"
    FICKLE = "stops, and returns"
    SKEWED = "stops and returns, with a clock that is off by less than the allowed skew"
    BEHIND = "beats, stamped so long ago that it always looks dead"
    AHEAD = "stops and returns, with a clock far in the future"
    FAILING = "says fail before it stops"
    LEAVING = "says goodbye before it stops"


_DEALT: Final = {
    Temper.STEADY: 35,
    Temper.FICKLE: 30,
    Temper.SKEWED: 12,
    Temper.BEHIND: 5,
    Temper.AHEAD: 5,
    Temper.FAILING: 7,
    Temper.LEAVING: 6,
}


@dataclass(frozen=True, slots=True)
class Role:
    """A source and what it does. ``said_ttl`` is its ``hb-ttl``, empty where it has its connector's, ``off_ms`` how wrong its clock is."""

    source: Source
    topic: str
    temper: Temper
    said_ttl: str
    off_ms: int

    def course(self, drawn: random.Random) -> Iterator[tuple[float, Says]]:
        """Yield without end how many seconds to wait, and what to say then."""
        ttl_s = self.source.ttl_ms / 1000
        yield drawn.uniform(0, ttl_s), Says.BEAT
        while True:
            busy_s = drawn.uniform(1, 20)
            while busy_s > 0 or self.temper in (Temper.STEADY, Temper.BEHIND):
                wait_s = ttl_s * drawn.uniform(0.2, _MOST_S)
                busy_s -= wait_s
                yield wait_s, Says.BEAT
            away_s = ttl_s + drawn.uniform(0.5, 30)
            if self.temper in (Temper.FAILING, Temper.LEAVING):
                yield 0.5, Says.FAIL if self.temper is Temper.FAILING else Says.BYE
            yield away_s, Says.BEAT


def cast(drawn: random.Random, stages: Sequence[tuple[str, str, int]]) -> list[Role]:
    """Return the roles. ``stages`` are connector, topic and the connector's ttl in seconds."""
    roles: list[Role] = []
    for temper, many in _DEALT.items():
        for number in range(many):
            connector, topic, ttl_s = stages[number % len(stages)]
            said = drawn.choice(["", "3", "5", "8"])
            name = f"{temper.name.lower()}-{number}"
            off_ms = {
                Temper.SKEWED: drawn.choice([-1_500, -700, 700, 1_500]),
                Temper.BEHIND: -drawn.randrange(20_000, 600_000),
                Temper.AHEAD: drawn.randrange(60_000, 3_600_000),
            }.get(temper, 0)
            roles.append(Role(Source(name, connector, int(said or ttl_s) * 1000), topic, temper, said, off_ms))
    return roles


class Play:
    """Sends what the roles say, in a thread of its own; ``records`` is what was sent, with what Kafka has acknowledged so far."""

    def __init__(self, bootstrap: str, roles: Sequence[Role], seed: int) -> None:
        self._roles = roles
        self._courses = [role.course(random.Random(f"{seed}/{role.source.name}")) for role in roles]
        self._sent: list[Record] = []
        self._acked_ms: dict[int, int] = {}
        self._ended = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        # Back soon when the broker is; what has waited for long is of no use as a beat.
        soon = {"reconnect.backoff.max.ms": 300, "topic.metadata.refresh.interval.ms": 1_000, "message.timeout.ms": 10_000}
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2, "acks": "all", "log_level": 0, **soon})

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for what is still under way."""
        self._ended.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert not self._failures, self._failures
        self._producer.flush(15)

    def records(self) -> list[Record]:
        """Return everything that was sent."""
        return [replace(record, acked_ms=self._acked_ms.get(number)) for number, record in enumerate(self._sent)]

    def _run(self) -> None:
        try:
            agenda = [(time.monotonic() + wait_s, n, says) for n, (wait_s, says) in enumerate(map(next, self._courses))]
            heapq.heapify(agenda)
            while not self._ended.wait(_TURN_S):
                while agenda[0][0] <= time.monotonic():
                    _, number, says = agenda[0]
                    self._say(self._roles[number], says)
                    wait_s, says = next(self._courses[number])
                    heapq.heapreplace(agenda, (time.monotonic() + wait_s, number, says))
                self._producer.poll(0)
        except BaseException as error:  # noqa: BLE001  told by the thread that waits for this one
            self._failures.append(error)

    def _say(self, role: Role, says: Says) -> None:
        number, sent_ms = len(self._sent), now_ms()
        headers: dict[str, str | bytes | None] = {"hb-ttl": role.said_ttl} if role.said_ttl else {}
        if says is not Says.BEAT:
            headers["hb-status"] = says.value
        record = Record(role.source.name, sent_ms + role.off_ms, sent_ms, None, says)

        def delivered(error: object, message: Message) -> None:
            if error is None:
                self._acked_ms[number] = now_ms()

        try:
            self._producer.produce(role.topic, "beat", record.source, timestamp=record.stamp_ms, headers=headers, on_delivery=delivered)
        except (BufferError, KafkaException):
            return  # nothing was sent: the source was silent
        self._sent.append(record)


@contextmanager
def playing(bootstrap: str, roles: Sequence[Role], seed: int) -> Iterator[Play]:
    """Let the sources live while the block lasts."""
    play = Play(bootstrap, roles, seed)
    play.start()
    try:
        yield play
    finally:
        play.stop()
