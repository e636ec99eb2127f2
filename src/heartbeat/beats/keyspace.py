"""The sources of a connector in Redis, for those who write them and those who read them. See docs/keyspace.md.

A source is one public key: ``SET <source> <ms of the last beat> PXAT <last beat + ttl>``. Anything that can read Redis can
tell who is alive by ``GET`` and ``TTL``. All else lies under ``hb:{CONNECTOR}:``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from heartbeat.beats import packing, scripts
from heartbeat.beats.connection import Argument, Connection, is_wrong_type, pack, raised
from heartbeat.beats.keys import Keys

_CHUNK: Final = 2_000
"""Sources sent at once: Redis works on them while the next are being packed."""
_ROOM_AT_ONCE: Final = 1_000
_SCRIPTS_AT_ONCE: Final = 500


class Info(NamedTuple):
    """What is kept of a source beside its deadline. ``raw_ms`` is the newest timestamp that was too far ahead to be believed."""

    first_seen_ms: int
    ttl_ms: int
    raw_ms: int | None = None

    def packed(self) -> str:
        """Return it as it stands in Redis."""
        return f"{self[0]} {self[1]}" if self[2] is None else f"{self[0]} {self[1]} {self[2]}"

    @classmethod
    def parse(cls, text: bytes | None) -> Info | None:
        """Read what ``packed`` wrote; what anybody else wrote there is as if nothing was kept."""
        try:
            return None if text is None else cls(*map(int, text.split()))
        except (TypeError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats to write: source -> ms. ``ttl_ms`` is everybody's whom ``ttls_ms`` does not name.

    ``alive`` are known to have a public key of ours, ``new`` are seen for the first time by this task, ``expired`` are past
    their deadline: they enter the index and touch no public key.
    """

    ttl_ms: int
    alive: Mapping[str, int] = field(default_factory=dict)
    new: Mapping[str, int] = field(default_factory=dict)
    expired: Mapping[str, int] = field(default_factory=dict)
    ttls_ms: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of beats: how many deadlines moved, and whose public key somebody else uses for another type of value."""

    moved: int
    occupied: frozenset[str]


Packed = Sequence[tuple[bytes, packing.Pairs, int]]
Sent = Sequence[tuple[packing.Pairs, int]]
"""What was sent, by chunks, with the number of public keys in each; before that its bytes too."""


class Keyspace:
    """One connector's sources, over one connection. Every method raises what ``Connection.call`` raises."""

    def __init__(self, connection: Connection, connector: str) -> None:
        self._connection = connection
        self.keys = Keys(connector)

    def pack(self, beats: Beats) -> Packed:
        """Return beats as they are sent. Asks Redis nothing, so that it may be done while others are under way."""
        packed: list[tuple[bytes, packing.Pairs, int]] = []
        for group, refusing in ((beats.alive, False), (beats.new, True), (beats.expired, None)):
            for pairs in _chunks(group.items()):
                commands = packing.beats(self.keys.deadlines, pairs, beats.ttl_ms, beats.ttls_ms, refusing=refusing)
                packed.append((commands, pairs, 0 if refusing is None else len(pairs)))
        return packed

    def send(self, packed: Packed) -> Sent:
        """Send public keys and deadlines; nothing else may be asked of this keyspace until ``receive``."""
        with self._connection.faults():
            for commands, _, _ in packed:
                self._connection.send(commands)
        return [(pairs, sets) for _, pairs, sets in packed]

    def receive(self, sent: Sent) -> Written:
        """Return when the server has acknowledged everything sent.

        Raises:
            RetriableError: some may not have been written; sending all of it again is safe.
            ConnectError: the server refuses for good.
        """
        with self._connection.replying():
            outcomes = [(pairs, self._connection.replies(1 + sets)) for pairs, sets in sent]
            moved = sum(raised(replies[0]) for _, replies in outcomes)
            occupied = {source for pairs, replies in outcomes for source in _occupied(pairs, replies)}
        return Written(moved, frozenset(occupied))

    def restore(self, sources: Sequence[str], ttls_ms: Mapping[str, int], ttl_ms: int, now_ms: int) -> dict[str, int]:
        """Make public keys say what the index says, where the index knows better than a batch did. Return the beats that stand."""
        stands: dict[str, int] = {}
        left = list(sources)
        while left:
            deadlines = self.read_deadlines(left)
            stands |= {source: deadline - ttls_ms.get(source, ttl_ms) for source, deadline in deadlines.items()}
            alive = [source for source, deadline in deadlines.items() if deadline > now_ms]
            self._public([pack("SET", source, stands[source], "PXAT", deadlines[source], "GET") for source in alive])
            again = self.read_deadlines(deadlines)
            left = [source for source, deadline in again.items() if deadlines[source] != deadline]  # moved under our hands
        return stands

    def end(self, sources: Iterable[str]) -> None:
        """Take public keys away."""
        self._public([pack("GETDEL", source) for source in sources])  # not DEL: an application's of another type is not ours to delete

    def _public(self, commands: Sequence[bytes]) -> None:
        if commands:
            with self._connection.faults():
                self._connection.send(b"".join(commands))
                for reply in self._connection.replies(len(commands)):
                    if not is_wrong_type(reply):
                        raised(reply)

    def read_deadlines(self, sources: Iterable[str]) -> dict[str, int]:
        """Return the deadlines that the index holds."""
        return self._scores(self.keys.deadlines, sources)

    def read_gone(self, sources: Iterable[str]) -> dict[str, int]:
        """Return when those of these sources that have said goodbye did."""
        return self._scores(self.keys.gone, sources)

    def read_infos(self, sources: Iterable[str]) -> dict[str, Info]:
        """Return what is kept of these sources."""
        found: dict[str, Info] = {}
        for chunk in _chunks(sources):
            reply = self._connection.call("HMGET", self.keys.info, *chunk)
            infos = zip(chunk, map(Info.parse, reply), strict=True)
            found |= {source: info for source, info in infos if info is not None}
        return found

    def write_infos(self, infos: Mapping[str, Info]) -> None:
        """Keep these."""
        for chunk in _chunks(infos):
            with self._connection.faults():
                self._connection.send(packing.command("HSET", self.keys.info, ((source, infos[source].packed()) for source in chunk)))
                raised(self._connection.replies(1)[0])

    def add_infos(self, infos: Mapping[str, Info]) -> list[str]:
        """Keep these where nothing is kept yet; return where something is: another task was first, or one that died before it went on."""
        kept: list[str] = []
        for chunk in _chunks(infos):
            replies = self._connection.calls(*(("HSETNX", self.keys.info, source, infos[source].packed()) for source in chunk))
            kept += [source for source, new in zip(chunk, replies, strict=True) if not new]
        return kept

    def retime(self, beats: Mapping[str, int], ttls_ms: Mapping[str, int], unknown: Info) -> dict[str, tuple[int, int]]:
        """Move deadlines of sources whose ttl is another now. Return (deadline, ttl) as they stand then, by source."""
        found: dict[str, tuple[int, int]] = {}
        for chunk in _chunks(beats):
            words = [word for source in chunk for word in (source, beats[source], ttls_ms[source], unknown.packed())]
            reply = self._connection.call(*scripts.command(scripts.RETIME, (self.keys.deadlines, self.keys.info), *words))
            found |= {source: (int(reply[2 * i]), int(reply[2 * i + 1])) for i, source in enumerate(chunk)}
        return found

    def come_back(self, sources: Iterable[str]) -> None:
        """Forget the goodbye of sources that beat again."""
        for chunk in _chunks(sources):
            self._connection.call("ZREM", self.keys.gone, *chunk)

    def make_room(self, wanted: int, now_ms: int) -> int:
        """Forget up to this many dead sources, the longest dead first; return how many went."""
        keys, went = (self.keys.deadlines, self.keys.down, self.keys.info, self.keys.status, self.keys.gone), 0
        while went < wanted:
            part = min(_ROOM_AT_ONCE, wanted - went)
            found = int(self._connection.call(*scripts.command(scripts.MAKE_ROOM, keys, part, now_ms)))
            went += found
            if found < part:
                break
        return went

    def signal(self, rows: Sequence[tuple[str, tuple[int, str, int], str, str, bytes]], most_runs: int) -> list[int]:
        """Keep signals that are the newest of their sources. Return for each 1 if it was, 2 if its run found no room.

        A row is source, (time, topic/partition, offset), status, run, and the whole as it is kept.
        """
        keys = (self.keys.status, self.keys.runs, self.keys.fails)
        words = [
            (source, *order, status, f"{source}\0{run}" if run else "", most_runs, value) for source, order, status, run, value in rows
        ]
        return [int(reply) for reply in self._scripts(scripts.SIGNAL, keys, words)]

    def bye(self, rows: Sequence[tuple[str, int, int]], oldest_ms: int) -> set[str]:
        """Take sources out of the index because they said goodbye, unless they have beaten since. Return those that are gone.

        A row is source, time, and the ttl its deadline was made with if nothing is kept of it.
        """
        keys = (self.keys.gone, self.keys.deadlines, self.keys.info, self.keys.down, self.keys.status)
        words = [(source, at_ms, ttl_ms, oldest_ms) for source, at_ms, ttl_ms in rows]
        replies = self._scripts(scripts.BYE, keys, words)
        gone = {source for (source, _, _), reply in zip(rows, replies, strict=True) if reply}
        self.end(gone)
        return gone

    def _scripts(self, text: str, keys: Sequence[str], rows: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Run a script for each row, some hundred at a time: one round trip each would take minutes over a network."""
        replies: list[Any] = []
        for start in range(0, len(rows), _SCRIPTS_AT_ONCE):
            replies += self._connection.calls(*(scripts.command(text, keys, *row) for row in rows[start : start + _SCRIPTS_AT_ONCE]))
        return replies

    def _scores(self, key: str, sources: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for chunk in _chunks(sources):
            reply = self._connection.call("ZMSCORE", key, *chunk)
            found |= {source: int(float(score)) for source, score in zip(chunk, reply, strict=True) if score is not None}
        return found


def _occupied(pairs: packing.Pairs, replies: Sequence[Any]) -> list[str]:
    """Return the sources whose public key holds another type of value; ``replies`` begin with another command's.

    Raises:
        redis.ResponseError: the server refused for another reason.
    """
    if replies.count(b"OK") + replies.count(None) == len(replies) - 1:
        return []
    occupied = [source for (source, _), reply in zip(pairs, replies[1:], strict=False) if is_wrong_type(reply)]
    for reply in replies[1:]:
        if not is_wrong_type(reply):
            raised(reply)
    return occupied


T = TypeVar("T")


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def time_ms(time: Sequence[Any]) -> int:
    """Return the reply of TIME (seconds, microseconds) in ms."""
    return int(time[0]) * 1000 + int(time[1]) // 1000
