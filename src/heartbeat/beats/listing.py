"""The sources of an index, page by page, as people look through them: the worst first, and never all of them at once.

A million sources must neither be loaded nor hold Redis up: a page looks at 20,000 entries at most, and may end before it is full.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.keyspace import Info, time_ms
from heartbeat.beats.verdicts import NEVER_MS
from heartbeat.errors import BadRequest

MOST_LOOKED_AT: Final = 20_000
"""Entries that one page looks at: with a name that matches nothing it ends there, and the next page goes on."""
_LEAST_COST: Final = 100
"""What a look counts for if it finds nothing: a page makes some hundred of them at most."""
_FEWEST_AT_ONCE: Final = 100
_MOST_AT_ONCE: Final = 2_000

_PAGE: Final = """
-- KEYS: a sorted set. ARGV: lowest and highest score, how many, then score and member behind which to begin, if there is one.
-- That member may have moved since, and thousands may share its score: its place among them is looked for by halves.
local function before(a, b) -- as Redis orders members: by bytes, whatever the server's locale makes of Lua's own comparison
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end
local first = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1])
if ARGV[4] then
  local low, high = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[4]), redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[4])
  while low < high do
    local middle = math.floor((low + high) / 2)
    if before(ARGV[5], redis.call('ZRANGE', KEYS[1], middle, middle)[1]) then high = middle else low = middle + 1 end
  end
  first = math.max(first, low)
end
local last = math.min(first + tonumber(ARGV[3]), redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[2])) - 1
if last < first then return {} end
return redis.call('ZRANGE', KEYS[1], first, last, 'WITHSCORES')
"""

T = TypeVar("T")


class Room(StrEnum):
    """Where a source is found."""

    DOWN = "down"
    DEADLINES = "deadlines"
    EXPECTED = "expected"


class Span(NamedTuple):
    """A part of a room: from one score to another, both included; None where there is no bound."""

    room: Room
    low_ms: int | None = None
    high_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A source. ``at_ms`` is its deadline, for one that is down what it was judged on; of one never seen, since when it is expected:
    ``NEVER_MS`` if it has said goodbye.

    ``failed`` tells that it is down for having said that it failed, which was at ``at_ms``.
    """

    connector: str
    source: str
    room: Room
    at_ms: int
    ttl_ms: int
    last_beat_ms: int | None
    failed: bool = False


class Entry(NamedTuple):
    """A member of a room, as Redis orders them."""

    score: float
    member: bytes


class Cursor(NamedTuple):
    """Where a page ended: behind the entry of this score and name; None for the beginning of a room."""

    connector: bytes
    room: Room
    position: Entry | None

    def text(self) -> str:
        """Return it as a word that can stand in a URL."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what ``text`` wrote.

        Raises:
            BadRequest: it is none.
        """
        try:
            packed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            cursor = msgspec.msgpack.decode(packed, type=cls)
            if cursor.position is not None and not math.isfinite(cursor.position.score):
                raise ValueError("no place")
        except (msgspec.MsgspecError, ValueError) as error:
            raise BadRequest("cursor: not one that an earlier page gave as next") from error
        return cursor


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """Which sources: of these connectors these spans, a name that ``named`` accepts, and what ``keep`` makes a row of."""

    spans: Mapping[str, Sequence[Span]]
    limit: int
    named: Callable[[str], bool]
    keep: Callable[[Found], T | None]
    begin: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, at most the limit, and where to go on; ``next`` is None at the end."""

    rows: list[T]
    next: Cursor | None


def overview(connection: Connection) -> tuple[int, tuple[str, ...]]:
    """Return Redis's time and the connectors that have an index. Raises what ``Connection.call`` raises."""
    told, names = connection.calls(("TIME",), ("SMEMBERS", CONNECTORS))
    return time_ms(told), tuple(sorted(map(_text, names)))


def page(connection: Connection, query: Query[T]) -> Page[T]:
    """Return a page: per connector those that are down, then by deadline the due and the living, then the declared but never seen.

    A page begins behind the place in that order at which the last one ended, so sources that beat meanwhile shift nothing. They move
    towards the end: one that beat may come twice, and a reader slower than the beats reaches the end only when it catches up. One that
    moves towards the beginning in between, because it was judged down or was seen for the first time, may be missed by this pass and
    comes with the next one. A page may be empty and have a next one all the same. Raises what ``Connection.call`` raises.
    """
    rows: list[T] = []
    left = MOST_LOOKED_AT
    for connector, span, position in _legs(query):
        index, count, more = _Index(connection, connector), max(_FEWEST_AT_ONCE, query.limit), True
        while more:
            if left <= 0:
                return Page(rows, Cursor(_bytes(connector), span.room, position))
            asked = min(count, left, _MOST_AT_ONCE)
            entries = index.entries(span, position, asked)
            for entry, found in index.found(span.room, [entry for entry in entries if query.named(_text(entry.member))]):
                row = query.keep(found)
                if row is not None:
                    rows.append(row)
                if len(rows) == query.limit:
                    return Page(rows, Cursor(_bytes(connector), span.room, entry))
            position = entries[-1] if entries else position
            left -= max(len(entries), _LEAST_COST)
            more, count = len(entries) == asked, 2 * count
    return Page(rows, None)


def _legs(query: Query[T]) -> list[tuple[str, Span, Entry | None]]:
    """Return what lies before a page, in order, and where in it to begin."""
    begin, order = query.begin, list(Room)
    first = (b"", 0) if begin is None else (begin.connector, order.index(begin.room))
    spans = [((_bytes(connector), order.index(span.room)), connector, span) for connector in query.spans for span in query.spans[connector]]
    return [
        (connector, span, begin.position if begin is not None and place == first else None)
        for place, connector, span in sorted(spans)
        if place >= first
    ]


class _Index:
    """One connector's index, read a look at a time."""

    def __init__(self, connection: Connection, connector: str) -> None:
        self._connection = connection
        self._connector = connector
        self._keys = Keys(connector)

    def entries(self, span: Span, position: Entry | None, most: int) -> list[Entry]:
        """Return the entries of a span behind a position."""
        low = "-inf" if span.low_ms is None else span.low_ms
        high = "+inf" if span.high_ms is None else span.high_ms
        behind: tuple[Argument, ...] = () if position is None else (repr(position.score), position.member)
        words = self._connection.call("EVAL", _PAGE, 1, getattr(self._keys, span.room), low, high, most, *behind)
        return [Entry(float(score), member) for member, score in zip(words[::2], words[1::2], strict=True)]

    def found(self, room: Room, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Found]]:
        """Yield what is known of these; those that belong to a room before this one are left out."""
        if not entries:
            return
        keys, members = self._keys, [entry.member for entry in entries]
        asked = {Room.DOWN: (keys.expected,), Room.DEADLINES: (keys.down,), Room.EXPECTED: (keys.gone, keys.down, keys.deadlines)}[room]
        told: list[tuple[Argument, ...]] = [("ZMSCORE", key, *members) for key in asked]
        (ttl,), infos, *others = self._connection.calls(("HMGET", keys.proof, "ttl"), ("HMGET", keys.info, *members), *told)
        for entry, info, *other in zip(entries, infos, *others, strict=True):
            if room is Room.DOWN:
                yield entry, self._down(entry, info, int(ttl or 0), *other)
                continue
            gone = other.pop(0) if room is Room.EXPECTED else None
            if other.count(None) == len(other):
                kept = Info.parse(info)
                kept_ms = kept.ttl_ms if kept else int(ttl or 0)
                at_ms = int(entry.score) if gone is None else NEVER_MS
                last_beat_ms = at_ms - kept_ms if room is Room.DEADLINES else None
                yield entry, Found(self._connector, _text(entry.member), room, at_ms, kept_ms, last_beat_ms)

    def _down(self, entry: Entry, info: bytes | None, ttl_ms: int, expected: bytes | None) -> Found:
        judged_ms, failed = int(entry.score), entry.score % 1 > 0
        kept = Info.parse(info)
        ttl_ms = kept.ttl_ms if kept else ttl_ms
        # Of a declared source that has beaten something is kept long before it is down.
        unseen = info is None and expected is not None and not failed
        last_beat_ms = None if unseen else judged_ms if failed else judged_ms - ttl_ms
        return Found(self._connector, _text(entry.member), Room.DOWN, judged_ms, ttl_ms, last_beat_ms, failed)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
