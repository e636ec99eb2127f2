"""The proof in Redis: how far each partition of a connector has been applied, by whom, and what of it is proven. See docs/keyspace.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import msgspec

from heartbeat.beats import scripts
from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.keyspace import time_ms
from heartbeat.connect.api import TopicPartition

_PROVEN: Final = ("since", "until", "epoch", "log", "canary")
"""What is kept of a partition beside its token and offset."""
TARGET: Final = "target"
TASKS: Final = "tasks/"

T = TypeVar("T")


class Target(msgspec.Struct, frozen=True):
    """What an operator wants of a connector (STARTED, PAUSED or STOPPED), and since when."""

    state: str = ""
    at_ms: int = 0

    @classmethod
    def parse(cls, text: bytes | None) -> Target:
        """Read it as it stands in Redis; what cannot be read says nothing."""
        return _parsed(text, cls) or cls()


class Said(msgspec.Struct, frozen=True):
    """What a task said when it proved nothing: when, why, and how many records it knew that were not applied."""

    at_ms: int
    why: str
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What the proof says of a partition. ``offset`` is None where nothing was ever applied, or nothing survived.

    ``log`` is the id of the topic in which this was proven: one made anew under the same name has another. ``canary_ms`` is when the
    newest canary was sent that has come through.
    """

    offset: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    epoch: int | None = None
    log: str = ""
    canary_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim found. ``dropped`` tells that the index was another configuration's and is gone.

    ``previous_ttl_ms`` is what the last claim gave as everybody's ttl. ``run_id`` is the server process's own.
    """

    dropped: bool
    previous_ttl_ms: int
    redis_ms: int
    run_id: str
    topics: Mapping[str, int]
    partitions: Mapping[TopicPartition, Stored]


class Row(NamedTuple):
    """One partition's part of an advance. Where ``since_ms`` is None, nothing new is proven."""

    partition: TopicPartition
    token: str
    expected: int
    offset: int
    since_ms: int | None
    until_ms: int | None
    epoch: int | None
    log: str
    canary_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Advanced:
    """The reply to an advance; with a partition refused, nothing of it was written."""

    refused: frozenset[TopicPartition]
    redis_ms: int
    sources: int
    gone: int


class Partitions:
    """The partitions of one connector, over one connection. Every method raises what ``Connection.call`` raises."""

    def __init__(self, connection: Connection, connector: str) -> None:
        self._connection = connection
        self._connector = connector
        self.keys = Keys(connector)

    def claim(self, config: str, ttl_ms: int, token: str, partitions: Sequence[TopicPartition]) -> Claimed:
        """Take partitions over: whoever had them before is refused from now on. ``config`` names what the index is of."""
        names = [_name(partition) for partition in partitions]
        # The name goes last: a flush in between takes the claim, and so leads to another, but never the name alone.
        reply, _ = self._connection.calls(
            scripts.command(scripts.CLAIM, self.keys.index, config, ttl_ms, token, *names), ("SADD", CONNECTORS, self._connector)
        )
        dropped, previous_ttl_ms, time, run_id, counts, found = reply
        stored = {partition: _stored(values) for partition, values in zip(partitions, found, strict=True)}
        known = msgspec.json.decode(counts, type=dict[str, int]) if counts else {}
        return Claimed(bool(dropped), int(previous_ttl_ms), time_ms(time), run_id.decode(), known, stored)

    def begin(self, token: str, starts: Mapping[TopicPartition, int], still_proven: Iterable[TopicPartition]) -> bool:
        """Store where claimed partitions start. Return whether the claim still holds."""
        kept = set(still_proven)
        rows = [word for p, offset in starts.items() for word in (_name(p), offset, int(p in kept))]
        return bool(self._connection.call(*scripts.command(scripts.BEGIN, (self.keys.proof,), token, *rows)))

    def advance(self, run_id: str, rows: Iterable[Row], topics: Mapping[str, int] | None, topics_at_ms: int) -> Advanced:
        """Store how far partitions have come, and what is proven of them: behind the data this speaks of, never before.

        ``run_id`` is the server's that took the data: behind a proxy that hides a failover this one may lack it.
        """
        words: list[Argument] = [run_id, "" if topics is None else msgspec.json.encode(topics), topics_at_ms]
        for row in rows:
            proven = (row.since_ms, row.until_ms, row.epoch, row.log, row.canary_ms)
            words += (_name(row.partition), row.token, row.expected, row.offset, *("" if word is None else word for word in proven))
        keys = (self.keys.proof, self.keys.deadlines, self.keys.down, self.keys.gone)
        refused, time, sources, gone = self._connection.call(*scripts.command(scripts.ADVANCE, keys, *words))
        return Advanced(frozenset(map(_partition, refused)), time_ms(time), sources, gone)

    def alter(self, offsets: Mapping[TopicPartition, int | None] | None) -> None:
        """Change stored offsets as an operator wants it; None forgets one, or all. Nothing proven of them stays so."""
        if offsets is None:
            # What is no partition's stays: it tells a later claim what the index is of, and by which ttl.
            fields = [field for field in self._connection.call("HKEYS", self.keys.proof) if b"/" in field]
            if fields:
                self._connection.call("HDEL", self.keys.proof, *fields)
            return
        for partition, offset in offsets.items():
            name = _name(partition)
            fields = [f"{name}/{field}" for field in ("token", *_PROVEN, *(("offset",) if offset is None else ()))]
            self._connection.call("HDEL", self.keys.proof, *fields)
            if offset is not None:
                self._connection.call("HSET", self.keys.proof, f"{name}/offset", offset)

    def say(self, task: int, at_ms: int, why: str, behind: int) -> None:
        """Say why a task proves nothing at present."""
        text = msgspec.json.encode(Said(at_ms, why, behind))
        self._connection.call(*scripts.command(scripts.SAY, (self.keys.proof,), f"{TASKS}{task}", text))

    def unsay(self, task: int) -> None:
        """Take back what the task said of itself."""
        self._connection.call("HDEL", self.keys.proof, f"{TASKS}{task}")

    def read_said(self) -> tuple[Target, dict[int, Said]]:
        """Return what an operator wants, and what tasks have said of themselves, by their numbers."""
        words = self._connection.call("HGETALL", self.keys.proof)
        values = dict(zip(words[::2], words[1::2], strict=True))
        numbers = {name.removeprefix(TASKS.encode()): text for name, text in values.items() if name.startswith(TASKS.encode())}
        said = {int(number): said for number, text in numbers.items() if number.isdigit() and (said := _parsed(text, Said)) is not None}
        return Target.parse(values.get(TARGET.encode())), said

    def aim(self, state: str) -> None:
        """Keep what an operator wants of the connector, and since when: a state that is there already keeps its time."""
        time, kept = self._connection.calls(("TIME",), ("HGET", self.keys.proof, TARGET))
        if kept is None or Target.parse(kept).state != state:
            self._connection.call("HSET", self.keys.proof, TARGET, msgspec.json.encode(Target(state, time_ms(time))))

    def forget(self) -> None:
        """Drop the index; public keys expire by themselves."""
        self._connection.calls(("UNLINK", *self.keys.all), ("SREM", CONNECTORS, self._connector))

    def read_proof(self) -> dict[TopicPartition, Stored]:
        """Return what is stored of every partition."""
        words = self._connection.call("HGETALL", self.keys.proof)
        values = dict(zip(words[::2], words[1::2], strict=True))
        found = [name.removesuffix(b"/token") for name in values if name.endswith(b"/token")]
        return {
            _partition(name): _stored([values.get(b"%b/%b" % (name, field.encode())) for field in ("offset", *_PROVEN)]) for name in found
        }


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _partition(name: bytes) -> TopicPartition:
    topic, _, number = name.decode().rpartition("/")
    return TopicPartition(topic, int(number))


def _stored(values: Sequence[bytes | None]) -> Stored:
    offset, since_ms, until_ms, epoch = map(_integer, values[:4])
    return Stored(offset, since_ms, until_ms, epoch, (values[4] or b"").decode(), _integer(values[5]))


def _parsed(text: bytes | None, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(text or b"", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _integer(text: bytes | None) -> int | None:
    return None if text is None else int(text)
