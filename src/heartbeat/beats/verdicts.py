"""The judge's side of the index: what a monitor looks at, and the verdicts it asks for. Of several monitors one wins each.

Every verdict is one script that looks again at all it rests on (``verdict_scripts``): what was read before may be old by then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from heartbeat.beats import verdict_scripts as scripts
from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keys import CONNECTORS, MONITORS, Keys
from heartbeat.beats.keyspace import Info, time_ms

DOWN: Final = "down"
UNPROVEN: Final = "unproven"
RECOVERED: Final = "recovered"
BYE: Final = "bye"
"""Outcomes a caller cares about; any other says that things are not as they were seen, and is seen anew with the next look."""

_MOST_FAILS: Final = 1_000
_SAID_AT_ONCE: Final = 1_000
_BORN: Final = "born_ms"
_MONITOR_KEPT_MS: Final = 86_400_000
FAILED: Final = 0.5
"""Added in ``down`` to the time of a fail: who failed is judged on that, all others on a deadline, which is a whole number of ms."""
NEVER_MS: Final = 2**53 - 1
"""Since when somebody is expected that has said goodbye."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a verdict is bound to: our clock (it counts where Redis's is ahead), and how much must be proven. In ms.

    ``canaries`` asks for a canary of every partition beside its sight.
    """

    own_ms: int
    slack_ms: int
    settle_ms: int
    canaries: bool = False

    def words(self) -> tuple[Argument, ...]:
        """Return it as the scripts take it."""
        return self.own_ms, self.slack_ms, self.settle_ms, int(self.canaries)


class Case(NamedTuple):
    """A source to judge. ``kind`` is ``silence``, ``fail`` or ``never_seen``; ``seen_ms`` the deadline, the time of the fail, or since
    when it is expected, as it was read; ``judged_ms`` what it is judged on: the deadline, or the time of the fail. ``grace_ms`` is for how
    long a fail counts although beats followed it. ``flip`` is stored if it is DOWN."""

    kind: str
    source: str
    seen_ms: int
    judged_ms: int
    grace_ms: int
    flip: bytes


class Returned(NamedTuple):
    """A source that is down and was heard of again: by a beat, or by a goodbye. ``failed`` tells that it was judged on a fail."""

    source: str
    judged_ms: int
    failed: bool
    deadline_ms: int | None
    gone_ms: int | None


class Closing(NamedTuple):
    """A source that may be up again, with what is stored if it is, or if it said goodbye."""

    returned: Returned
    recovered: bytes
    bye: bytes


class Ended(NamedTuple):
    """An incident that has ended: its source, the deadline, or fail, on which that was judged, and when it ended."""

    source: str
    judged_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a connector's index. ``blind`` is the open incident of its pipeline as it is kept; ``newest_flip`` a stream's id.

    ``remembered`` tells that this Redis was given what is remembered beyond it since it was empty.
    """

    redis_ms: int
    proof: Mapping[str, str]
    sources: int
    down: int
    due: int
    overdue: int
    blind: bytes | None
    newest_flip: str
    fails: Mapping[str, int]
    remembered: bool

    @property
    def ttl_ms(self) -> int:
        """Return everybody's ttl."""
        return int(self.proof.get("ttl", "0"))

    @property
    def made_ms(self) -> int:
        """Return when this index was made, 0 if that is unknown: all monitors read the same, and a connector made anew has another."""
        return int(self.proof.get("made_ms", "0"))


class Verdicts:
    """One connector's index, for whoever judges. Every method raises what ``Connection.call`` raises."""

    def __init__(self, connection: Connection, connector: str) -> None:
        self._connection = connection
        self.keys = Keys(connector)
        keys = self.keys
        self._judged = (keys.proof, keys.deadlines, keys.down, keys.gone, keys.info, keys.status, keys.fails, keys.expected, keys.flips)

    def look(self, now_ms: int, overdue_ms: int) -> Reading:
        """Read what a tick needs. ``overdue`` counts the sources whose deadline lies ``overdue_ms`` or more back."""
        keys = self.keys
        time, proof, sources, down, due, overdue, blind, newest, fails, remembered = self._connection.calls(
            ("TIME",),
            ("HGETALL", keys.proof),
            ("ZCARD", keys.deadlines),
            ("ZCARD", keys.down),
            ("ZCOUNT", keys.deadlines, "-inf", now_ms),
            ("ZCOUNT", keys.deadlines, "-inf", now_ms - overdue_ms),
            ("GET", keys.blind),
            ("XREVRANGE", keys.flips, "+", "-", "COUNT", 1),
            ("ZRANGE", keys.fails, 0, _MOST_FAILS - 1, "WITHSCORES"),
            ("EXISTS", keys.remembered),
        )
        fields = {_text(name): _text(value) for name, value in zip(proof[::2], proof[1::2], strict=True)}
        newest_flip = newest[0][0].decode() if newest else ""
        return Reading(time_ms(time), fields, sources, down, due, overdue, blind, newest_flip, _scores(fails), bool(remembered))

    def newest_flip(self) -> str:
        """Return the id of the newest flip, empty if there is none."""
        newest = self._connection.call("XREVRANGE", self.keys.flips, "+", "-", "COUNT", 1)
        return newest[0][0].decode() if newest else ""

    def due(self, until_ms: int, first: int, most: int) -> dict[str, int]:
        """Return sources whose deadline is not after ``until_ms``, the oldest first, from the ``first`` on: source -> deadline."""
        words = ("ZRANGEBYSCORE", self.keys.deadlines, "-inf", until_ms, "WITHSCORES", "LIMIT", first, most)
        return _scores(self._connection.call(*words))

    def judged(self, sources: Sequence[str]) -> dict[str, int]:
        """Return on which deadlines, or fails, those of these sources that are down were judged."""
        return self._found("ZMSCORE", self.keys.down, sources, lambda score: int(float(score)))

    def blind_kept(self) -> bytes | None:
        """Return the pipeline's open incident as it is kept."""
        kept: bytes | None = self._connection.call("GET", self.keys.blind)
        return kept

    def infos(self, sources: Sequence[str]) -> dict[str, Info]:
        """Return what is kept of these sources; what cannot be read is nothing."""
        found = self._found("HMGET", self.keys.info, sources, Info.parse)
        return {source: info for source, info in found.items() if info is not None}

    def statuses(self, sources: Sequence[str]) -> dict[str, bytes]:
        """Return the newest signals of these sources, as JSON."""
        return self._found("HMGET", self.keys.status, sources, bytes)

    def judge(self, terms: Terms, cases: Sequence[Case]) -> list[str]:
        """Judge sources, at most some hundred at once: a script holds everybody up while it runs. Return each one's outcome."""
        words = [word for case in cases for word in case]
        return [reply.decode() for reply in self._script(scripts.JUDGE, self._judged, *terms.words(), *words)]

    def returned(self, first: int, last: int) -> list[Returned]:
        """Return who of those that are down, from one rank to another, was heard of again."""
        keys = (self.keys.down, self.keys.deadlines, self.keys.gone)
        words = self._script(scripts.RETURNED, keys, first, last)
        rows = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
        found = ((_text(source), float(judged), _score(deadline), _score(gone)) for source, judged, deadline, gone in rows)
        return [Returned(source, int(judged), judged % 1 > 0, deadline, gone) for source, judged, deadline, gone in found]

    def recover(self, terms: Terms, closings: Sequence[Closing]) -> list[str]:
        """End the incidents of sources that are up again, or said goodbye. Return each one's outcome."""
        words: list[Argument] = []
        for (source, judged_ms, failed, deadline_ms, _), recovered, bye in closings:
            judged = judged_ms + FAILED if failed else judged_ms
            words += (source, judged, -1 if deadline_ms is None else deadline_ms, recovered, bye)
        return [reply.decode() for reply in self._script(scripts.RECOVER, self._judged, *terms.words(), *words)]

    def blind(self, terms: Terms, blind_after_ms: int, kept: bytes, flip: bytes, *, believed: bool = False) -> bool:
        """Open the pipeline's incident, unless one is open or the proof is fresh again. Return whether this opened it.

        ``believed`` opens it without looking: for a blindness of which nothing could be written while it lasted.
        """
        keys = (self.keys.proof, self.keys.blind, self.keys.flips)
        return bool(self._script(scripts.BLIND, keys, *terms.words(), blind_after_ms, kept, flip, int(believed)))

    def sighted(self, terms: Terms, blind_after_ms: int, kept: bytes, flip: bytes) -> bool:
        """End the pipeline's incident that is kept so, if everything is proven freshly. Return whether this ended it."""
        keys = (self.keys.proof, self.keys.blind, self.keys.flips)
        return bool(self._script(scripts.SIGHTED, keys, *terms.words(), blind_after_ms, kept, flip))

    def restore(self, down: Mapping[str, float], blind: bytes | None) -> None:
        """Bring incidents back that this Redis has lost: source -> deadline judged, or fail and ``FAILED``. What it knows itself stays."""
        words = [word for source, judged_ms in down.items() for word in (judged_ms, source)]
        for first in range(0, len(words), 2_000):
            self._connection.call("ZADD", self.keys.down, "NX", *words[first : first + 2_000])
        if blind is not None:
            self._connection.call("SET", self.keys.blind, blind, "NX")

    def let_go(self, ended: Iterable[Ended]) -> None:
        """Take out of ``down`` who is there on just these deadlines, or fails: how those incidents ended is known, and was lost here."""
        all_of_them = list(ended)
        for first in range(0, len(all_of_them), _SAID_AT_ONCE):
            words = [word for one in all_of_them[first : first + _SAID_AT_ONCE] for word in one]
            self._script(scripts.LET_GO, self._judged, *words)

    def remembered(self, now_ms: int) -> None:
        """Note that this Redis has been given what is remembered beyond it."""
        self._connection.call("SET", self.keys.remembered, now_ms)

    def flip_keys(self) -> set[str]:
        """Return the keys of all flips that stand in the stream."""
        found, begin = set(), "-"
        while True:
            page = self._connection.call("XRANGE", self.keys.flips, begin, "+", "COUNT", _SAID_AT_ONCE)
            for id_, words in page:
                found.add(_key(dict(zip(words[::2], words[1::2], strict=True)).get(b"flip", b"")))
                begin = f"({_text(id_)}"
            if len(page) < _SAID_AT_ONCE:
                return found - {""}

    def say(self, flips: Sequence[tuple[bytes, int]]) -> None:
        """Store flips that are no verdicts of now, each with when it was detected; they keep what they say of their proof."""
        rows = [("XADD", self.keys.flips, "*", "flip", flip, "proven_until_ms", "", "detected_ms", at_ms) for flip, at_ms in flips]
        for first in range(0, len(rows), _SAID_AT_ONCE):
            self._connection.calls(*rows[first : first + _SAID_AT_ONCE])

    def expect(self, sources: Collection[str], now_ms: int) -> dict[str, int]:
        """Make exactly these sources the declared ones; return since when each is expected."""
        keys = (self.keys.expected, self.keys.deadlines, self.keys.down, self.keys.gone, self.keys.info, self.keys.status)
        names = sorted(sources)
        return dict(zip(names, map(int, self._script(scripts.EXPECT, keys, now_ms, NEVER_MS, *names)), strict=True))

    def unseen(self, sources: Sequence[str]) -> list[str]:
        """Return those of these sources of which the index knows nothing: no beat, no verdict, no goodbye."""
        if not sources:
            return []
        keys = (self.keys.deadlines, self.keys.down, self.keys.gone)
        rows = self._connection.calls(*(("ZMSCORE", key, *sources) for key in keys))
        return [source for source, *scores in zip(sources, *rows, strict=True) if scores == [None, None, None]]

    def _found(self, command: str, key: str, sources: Sequence[str], read: Any) -> dict[str, Any]:
        if not sources:
            return {}
        values = self._connection.call(command, key, *sources)
        return {source: read(value) for source, value in zip(sources, values, strict=True) if value is not None}

    def _script(self, text: str, keys: Sequence[str], *words: Argument) -> Any:
        return self._connection.call("EVAL", text, len(keys), *keys, *words)


@dataclass(frozen=True, slots=True)
class Known:
    """What a Redis knows at large: the connectors that have an index, and what it had heard of this monitor before, None if nothing.

    ``born_ms`` is when the first monitor came to it: one value for all of them, and another one after a loss.
    """

    connectors: frozenset[str]
    heard: bytes | None
    born_ms: int


def known(connection: Connection, monitor: str, said: bytes, now_ms: int) -> Known:
    """Say of a monitor what is to be kept of it, and return what is known."""
    names, heard, _, _, born = connection.calls(
        ("SMEMBERS", CONNECTORS),
        ("HGET", MONITORS, monitor),
        ("HSET", MONITORS, monitor, said),
        ("HSETNX", MONITORS, _BORN, now_ms),
        ("HGET", MONITORS, _BORN),
    )
    if heard is None:
        _forget_monitors(connection, monitor)
    return Known(frozenset(_text(name) for name in names), heard, int(born))


def watch_on(connection: Connection, connectors: Iterable[str]) -> None:
    """Put back the names of connectors that were lost with the data: whoever delivers, lists or trims finds them by name."""
    connection.call("SADD", CONNECTORS, *connectors)


def _forget_monitors(connection: Connection, monitor: str) -> None:
    """Take out monitors that have said nothing for a day: each start makes a new one."""
    time, words = connection.calls(("TIME",), ("HGETALL", MONITORS))
    long_ago_ms = time_ms(time) - _MONITOR_KEPT_MS
    rest = iter(words)
    old = [name for name, said in zip(rest, rest, strict=True) if _text(name) not in (monitor, _BORN) and _tick_ms(said) < long_ago_ms]
    if old:
        connection.call("HDEL", MONITORS, *old)


class _Keyed(msgspec.Struct):
    key: str = ""


def _key(flip: bytes) -> str:
    try:
        return msgspec.json.decode(flip, type=_Keyed).key
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _tick_ms(said: bytes) -> int:
    try:
        return int(msgspec.json.decode(said, type=dict[str, int]).get("tick_ms", 0))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _score(value: bytes) -> int | None:
    return int(float(value)) if value else None


def _scores(words: Iterable[bytes]) -> dict[str, int]:
    rest = iter(words)
    return {_text(name): int(float(score)) for name, score in zip(rest, rest, strict=True)}
