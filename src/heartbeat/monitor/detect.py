"""Detection: each tick looks at every connector's index, and asks for a verdict where something is due or has come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import msgspec

from heartbeat import logs
from heartbeat.beats import verdicts
from heartbeat.beats.connection import Connection
from heartbeat.beats.verdicts import Known, Verdicts
from heartbeat.errors import ConnectError, RetriableError
from heartbeat.monitor.flips import Flip, incident_of, pipeline_of
from heartbeat.monitor.losses import Beyond
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Settings
from heartbeat.monitor.vision import REDIS, Blindness
from heartbeat.monitor.watch import Look, Watch

log = logging.getLogger(__name__)

_ERROR_LOG_S: Final = 10.0
_TICK_FRESH_MS: Final = 10_000


class Live(Protocol):
    """The settings as they are now."""

    @property
    def live(self) -> Settings: ...
    @property
    def rules(self) -> Rules: ...


@dataclass(frozen=True, slots=True)
class Observation:
    """What the last tick saw. ``tick_ms`` is when it began, 0 before the first; ``error`` why Redis could not be looked at."""

    tick_ms: int = 0
    took_ms: float = 0.0
    connectors: Mapping[str, Look] = field(default_factory=dict)
    error: str = ""
    redis_ok_ms: int = 0

    def stands_still(self, now_ms: int) -> str:
        """Return why nothing that is seen here can be believed: nobody looks any more. Empty while somebody does."""
        if not self.tick_ms:
            return "nothing has been looked at yet"
        age_ms = abs(now_ms - self.tick_ms)  # one in the future is no younger: the clock was set back since
        return "" if age_ms < _TICK_FRESH_MS else f"nothing has been looked at for {age_ms / 1000:.0f} s"


class Detector:
    """Watches all connectors that have an index. One thread's alone; ``state`` is replaced, never changed, so that others may read it.

    Any number of them may run: every verdict is one script in Redis, and has one winner.
    """

    def __init__(self, connection: Connection, name: str, live: Live, beyond: Beyond, clock: Callable[[], int]) -> None:
        self.state = Observation()
        self._connection = connection
        self._name = name
        self._live = live
        self._beyond = beyond
        self._clock = clock
        self._watches: dict[str, Watch] = {}
        self._ticks = 0
        self._acknowledged = 0
        self._born_ms = 0
        self._closing: list[Flip] = []
        self._lost = False
        self._error_log = logs.Every(_ERROR_LOG_S)

    def tick(self) -> list[Flip]:
        """Look once. Returns flips that are to be told and stand in no stream: Redis is away, or what they are of was deleted."""
        begun_ms = self._clock()
        try:
            looks = self._look_again(begun_ms)
        except ConnectError as error:
            self._connection.close()
            self._warn(begun_ms, str(error))
            flips = self._without_redis(begun_ms, str(error))
            known = {name: watch.look for name, watch in self._watches.items()}
            # A clock that was set back must not make an outage last until it is again where it was.
            ok_ms = min(self.state.redis_ok_ms, begun_ms)
            self.state = Observation(begun_ms, self._clock() - begun_ms, known, str(error), ok_ms)
            return flips
        self.state = Observation(begun_ms, self._clock() - begun_ms, looks, "", begun_ms)
        closing, self._closing = self._closing, []
        return closing

    def _look_again(self, now_ms: int) -> dict[str, Look]:
        """Look, and where that would be told as an outage, look twice: a connection that was cut may hide a Redis that is back."""
        try:
            return self._look(now_ms)
        except ConnectError:
            if not self._told_by(now_ms):
                raise
            self._connection.close()
            return self._look(now_ms)

    def _told_by(self, now_ms: int) -> bool:
        """Tell whether Redis has been away for so long that people are told."""
        since_ms = self.state.redis_ok_ms
        return bool(since_ms) and now_ms - since_ms > self._live.live.monitor.blind_after_s * 1000

    def _look(self, now_ms: int) -> dict[str, Look]:
        known = self._known(now_ms)
        if self._lost and self._watches:  # what has lost its data has lost their names too
            verdicts.watch_on(self._connection, self._watches)
        names = known.connectors | (self._watches.keys() if self._lost else set())
        for name in self._watches.keys() - names:
            log.info("Connector %s was deleted: its sources are forgotten", name)
            self._beyond.forget(name)
            closing = self._watches.pop(name).closing(now_ms)
            self._closing += [] if closing is None else [closing]
        looks = {}
        for name in sorted(names):
            watch = self._watches.get(name)
            if watch is None:
                watch = self._watches[name] = Watch(Verdicts(self._connection, name), name, self._beyond, self._clock)
                log.info("Watching connector %s", name)
            looks[name] = self._turn(watch, replace(known, connectors=names), lost=self._lost)
        self._lost = False  # not before every watch has heard of it
        return looks

    def _known(self, now_ms: int) -> Known:
        """Say that we are here, and see whether Redis remembers what it has acknowledged of us: if not, it has lost data."""
        self._ticks += 1
        said = msgspec.json.encode({"tick_ms": now_ms, "tick": self._ticks})
        known = verdicts.known(self._connection, self._name, said, now_ms)
        # It may have taken our word and lost the reply: it may have heard more than it has acknowledged. And then it may know us,
        # but not since when there are monitors.
        remembers = _tick_of(known.heard) >= self._acknowledged and known.born_ms == self._born_ms
        self._lost = self._lost or (self._acknowledged > 0 and not remembers)
        self._acknowledged, self._born_ms = self._ticks, known.born_ms
        return known

    def _turn(self, watch: Watch, known: Known, *, lost: bool) -> Look:
        try:
            return watch.turn(self._live.live.monitor, self._live.rules, known, lost=lost)
        except RetriableError:
            raise
        except (ConnectError, ValueError, OverflowError) as error:  # an index that somebody has broken: the others are watched on
            self._warn(self._clock(), str(error))
            return replace(watch.look, error=str(error))

    def _without_redis(self, now_ms: int, error: str) -> list[Flip]:
        if not self._told_by(now_ms):
            return []
        since_ms, found = self.state.redis_ok_ms, []
        for name, watch in self._watches.items():
            # Every monitor comes to the same incident by itself: the newest flip is the last thing that all of them have seen.
            incident = incident_of(name, pipeline_of(name), watch.newest_flip_ms)
            flip = watch.unwritten(Blindness(REDIS, f"Redis cannot be read: {error}", since_ms, incident=incident))
            if flip is not None:
                found.append(flip)
        return found

    def _warn(self, now_ms: int, error: str) -> None:
        if self._error_log.due(now_ms / 1000):
            log.warning("Nothing can be looked at: %s", error)


def _tick_of(said: bytes | None) -> int:
    try:
        return msgspec.json.decode(said or b"{}", type=dict[str, int]).get("tick", 0)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0
