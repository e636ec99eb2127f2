"""The streams of flips as an outbox: one deliverer per channel by a fenced lease, a stored cursor per connector, and what may be cut.

At least once: an entry may be read twice, by the same deliverer or by its successor, and none is passed over without being counted
as lost. What stands in an entry is the reader's affair.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from heartbeat.beats import keys
from heartbeat.beats import outbox_scripts as scripts
from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.stream_ids import order
from heartbeat.beats.verdicts import Verdicts

LEASE_MS: Final = 10_000
"""How long a deliverer that falls silent keeps its channel. Renewed before each sending, which must take less than this."""
HISTORY: Final = 10_000
"""So many of the newest entries stay, also when every channel has got them."""
MOST_ENTRIES: Final = 200_000
"""So many stay at most, also when a channel has not got them."""
_LOG_LENGTH: Final = 1_000
_CUT_AT_ONCE: Final = 1_000
_MOST_CUTS: Final = 100
_MOST_BIRTHS: Final = 3
_START: Final = "0-0"
_AT: Final = "at:"
_LOST: Final = "lost:"
_CUT: Final = "cut:"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a connector's stream of flips, as it stands there."""

    connector: str
    id: str
    flip: bytes
    proven_until_ms: int | None
    detected_ms: int | None

    @property
    def written_ms(self) -> int:
        """When it was written, by the clock of Redis."""
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Held:
    """What asking for a lease came to: the fence, 0 if somebody else holds it; the time of Redis; the fields of the channel."""

    fence: int
    now_ms: int
    fields: Mapping[str, str]


class Lease:
    """The right to act for a channel, for ``LEASE_MS`` at a time. ``owner`` is drawn anew: a process that comes back is somebody else."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self._connection = connection
        self._key: Final = keys.channel(channel)
        self.owner: Final = uuid.uuid4().hex

    def take(self) -> Held:
        """Take the lease if nobody holds it, or renew it. Raises as ``Connection.call`` does."""
        fence, now_ms, fields = self._connection.call("EVAL", scripts.LEASE, 1, self._key, self.owner, LEASE_MS)
        words = [_text(word) for word in fields]
        return Held(fence, int(now_ms), dict(zip(words[::2], words[1::2], strict=True)))

    def release(self) -> None:
        """Give the lease back, if it is still ours, so that the next one need not wait for its end."""
        self._connection.call("EVAL", scripts.RELEASE, 1, self._key, self.owner)


class Outbox:
    """A channel's view of every stream of flips. Everything raises as ``Connection.call`` does.

    That the channel has begun once is remembered beyond Redis: after a flush everything is read from its beginning, also if another
    monitor has begun the channel anew meanwhile, as one that never was there: at the end of what there is, or with ``from_start`` at
    its beginning.
    """

    def __init__(self, connection: Connection, channel: str, *, from_start: bool = False) -> None:
        self._connection = connection
        self._from_start = from_start
        self._channel: Final = channel
        self._key: Final = keys.channel(channel)
        self._lease = Lease(connection, channel)
        self._held = Held(0, 0, {})
        self._born = ""
        self._turns = 0

    @property
    def held(self) -> Held:
        """What the lease came to when Redis was last there."""
        return self._held

    @property
    def born(self) -> str:
        """What the channel's birth is known by; another one after Redis has lost its data. Empty before the first lease."""
        return self._born

    @property
    def cut(self) -> Mapping[str, int]:
        """How many entries of which connector were cut before this channel got them, and nobody has been told."""
        return {field.removeprefix(_LOST): int(count) for field, count in self._held.fields.items() if field.startswith(_LOST)}

    def lease(self) -> Held:
        """Take or renew the lease, and see where the channel is."""
        for _ in range(_MOST_BIRTHS):
            held = self._lease.take()
            born = held.fields.get("born", "")
            if born and born == self._born:
                self._held = held
                return held
            self._born = self._begin(born)
        return Held(0, held.now_ms, self._held.fields)  # it is lost again and again: nothing is concluded from that, nor forgotten

    def read(self, most: int) -> list[Entry]:
        """Return what the channel has not got yet, oldest first per connector, at most ``most`` entries.

        A cursor beyond the end of its stream is put before its beginning: this is another stream, or an older one.
        """
        connectors = sorted(self.connectors())
        self._turns += 1  # each connector is the first one in its turn, or one with a flood would keep the others waiting
        turned = self._turns % (len(connectors) or 1)
        found: list[Entry] = []
        for connector, newest, after in self._ends([*connectors[turned:], *connectors[:turned]]):
            cursor = self._held.fields.get(_AT + connector, _START)
            if newest is not None and order(newest) < order(cursor):
                if not self._move({_AT + connector: _START}):
                    return []
            elif not after or len(found) >= most:
                continue
            place = f"({self._held.fields.get(_AT + connector, _START)}"
            reply = self._connection.call("XRANGE", Keys(connector).flips, place, "+", "COUNT", most - len(found))
            found += [_entry(connector, id_, fields) for id_, fields in reply or []]
        return found

    def since(self, connector: str, stream_id: str, most: int) -> list[Entry]:
        """Return the entries from this one on, if it is still there; all from the oldest one on without one."""
        reply = self._connection.call("XRANGE", Keys(connector).flips, stream_id or "-", "+", "COUNT", most)
        return [_entry(connector, id_, fields) for id_, fields in reply or []]

    def was_cut(self, connector: str, stream_id: str) -> bool:
        """Tell whether this entry may have been trimmed. A stream that was trimmed is long, and has nothing so old any more."""
        key = Keys(connector).flips
        length, oldest = self._connection.calls(("XLEN", key), ("XRANGE", key, "-", "+", "COUNT", 1))
        return length >= HISTORY and order(_text(oldest[0][0])) > order(stream_id)

    def positions(self, channel: str) -> dict[str, str]:
        """Return how far another channel has got: connector -> id of an entry."""
        words = [_text(word) for word in self._connection.call("HGETALL", keys.channel(channel))]
        fields = zip(words[::2], words[1::2], strict=True)
        return {field.removeprefix(_AT): id_ for field, id_ in fields if field.startswith(_AT)}

    def advance(self, entries: Sequence[Entry]) -> bool:
        """Note that the channel has these, and all before them; False if the lease is lost or the cursors are not where they were."""
        return self._move({_AT + entry.connector: entry.id for entry in entries})

    def loss_told(self, connector: str) -> bool:
        """Note that the channel knows of a connector's loss; False if the lease is lost, or more was lost since."""
        return self._move({_LOST + connector: ""})

    def down(self, connector: str, most: int) -> tuple[int, list[tuple[str, float]]]:
        """Return how many sources are down, and what the first ``most`` were judged on: a deadline, or a fail and ``FAILED``."""
        key = Keys(connector).down
        count, reply = self._connection.calls(("ZCARD", key), ("ZRANGE", key, 0, most - 1, "WITHSCORES"))
        return count, [(_text(source), float(score)) for source, score in zip(reply[::2], reply[1::2], strict=True)]

    def connectors(self) -> set[str]:
        """Return the connectors that have an index."""
        return {_text(name) for name in self._connection.call("SMEMBERS", CONNECTORS)}

    def index(self, connector: str) -> Verdicts:
        """Return a connector's verdicts, over the same connection."""
        return Verdicts(self._connection, connector)

    def log(self, line: bytes) -> None:
        """Note an attempt at the head of the channel's delivery log."""
        key = keys.deliveries(self._channel)
        self._connection.calls(("LPUSH", key, line), ("LTRIM", key, 0, _LOG_LENGTH - 1))

    def release(self) -> None:
        """Give the lease back."""
        self._lease.release()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _begin(self, born: str) -> str:
        """Give a new channel its cursors, or take them from one that was lost. Returns the birth with which that is settled, if it is."""
        if born:
            return born if not self._born or self._eval(scripts.GO_BACK, born) else self._born
        cursors: list[str] = []
        if not self._born and not self._from_start:
            connectors = sorted(self.connectors())
            cursors = [word for connector, newest, _ in self._ends(connectors) for word in (_AT + connector, newest or _START)]
        birth = uuid.uuid4().hex
        return birth if self._eval(scripts.BEGIN, birth, *cursors) else self._born

    def _ends(self, connectors: Sequence[str]) -> list[tuple[str, str | None, bool]]:
        """Return per connector the newest id of its stream (None: there is none), and whether anything is behind the cursor."""
        commands: list[tuple[Argument, ...]] = []
        for connector in connectors:
            commands.append(("XREVRANGE", Keys(connector).flips, "+", "-", "COUNT", 1))
        newest = [_text(reply[0][0]) if reply else None for reply in (self._connection.calls(*commands) if commands else [])]
        cursors = [order(self._held.fields.get(_AT + connector, _START)) for connector in connectors]
        behind = [id_ is not None and order(id_) > cursor for id_, cursor in zip(newest, cursors, strict=True)]
        return list(zip(connectors, newest, behind, strict=True))

    def _move(self, fields: Mapping[str, str]) -> bool:
        expected = self._held.fields
        words = [word for field, becomes in fields.items() for word in (field, expected.get(field, ""), becomes)]
        if not self._eval(scripts.MOVE, self._lease.owner, self._held.fence, *words):
            return False
        moved = {field: text for field, text in {**expected, **fields}.items() if text}
        self._held = Held(self._held.fence, self._held.now_ms, moved)
        return True

    def _eval(self, script: str, *words: Argument) -> bool:
        return bool(self._connection.call("EVAL", script, 1, self._key, *words))


def trim(connection: Connection, channels: Collection[str]) -> dict[str, int]:
    """Cut every stream behind the slowest of the channels; return per channel how many entries it has lost by that (none, usually).

    A channel that has not begun yet holds nothing back: it begins at the end. Raises as ``Connection.call`` does.
    """
    lost = dict.fromkeys(channels, 0)
    for connector in sorted(_text(name) for name in connection.call("SMEMBERS", CONNECTORS)):
        asked = [("HMGET", keys.channel(name), "born", _AT + connector) for name in channels]
        cursors = [_text(at) if at else _START for born, at in (connection.calls(*asked) if asked else []) if born]
        slowest = min(cursors, key=order, default="")
        left = connection.call("EVAL", scripts.TRIM, 1, Keys(connector).flips, slowest, HISTORY)
        for _ in range(_MOST_CUTS):
            if left <= MOST_ENTRIES:
                break
            left -= _cut(connection, connector, min(left - MOST_ENTRIES, _CUT_AT_ONCE), lost)
    return {name: count for name, count in lost.items() if count}


def _cut(connection: Connection, connector: str, count: int, lost: dict[str, int]) -> int:
    """Cut the oldest entries although a channel may lack them. First it is written down, then done: the other way round none would know."""
    key = Keys(connector).flips
    ids = [_text(entry[0]) for entry in connection.call("XRANGE", key, "-", "+", "COUNT", count)]
    if not ids:
        return count  # another monitor was faster
    for name in lost:
        fields = (_AT + connector, _LOST + connector, _CUT + connector)
        lost[name] += connection.call("EVAL", scripts.LOSE, 1, keys.channel(name), *fields, *ids)
    ms, sequence = order(ids[-1])
    connection.call("XTRIM", key, "MINID", f"{ms}-{sequence + 1}")
    return len(ids)


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _entry(connector: str, id_: bytes, fields: Sequence[Any]) -> Entry:
    found: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    proven, detected = (_number(found.get(name, b"")) for name in (b"proven_until_ms", b"detected_ms"))
    return Entry(connector, _text(id_), found.get(b"flip", b""), proven, detected)


def _number(word: bytes) -> int | None:
    return int(word) if word.isdigit() else None
