"""A Redis and a connector's index in it, as a person asks about them. Reads only.

Every question stands for itself: a server that answers one of them with an error (an account that may not, a provider that
has taken a command away) is asked the others all the same.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from heartbeat.beats.connection import Connection, Server, pack, parse_info
from heartbeat.beats.keys import CONNECTORS
from heartbeat.beats.keyspace import Keyspace, time_ms
from heartbeat.beats.partitions import Partitions, Said, Stored, Target
from heartbeat.connect.api import TopicPartition
from heartbeat.errors import ConnectError

_MOST_SAMPLED: Final = 300


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A sampled source: the deadline in the index, and what its public key says.

    ``ttl_ms`` is -2 where there is no such key, -1 where it never expires; ``beat`` is False where it holds no time of a beat.
    """

    source: str
    deadline_ms: int
    ttl_ms: int
    beat: bool


@dataclass(frozen=True, slots=True)
class Index:
    """A connector's index. ``asked_ms`` is Redis's own time at the reading, ``sampled_ms`` when the public keys were looked at.

    ``target`` is what an operator wants of the connector, ``said`` what its tasks last said of themselves.
    """

    asked_ms: int
    proof: Mapping[TopicPartition, Stored]
    topics: Mapping[str, int]
    topics_at_ms: int | None
    sources: int
    down: int
    gone: int
    sample: tuple[PublicKey, ...]
    sampled_ms: int
    target: Target = field(default=Target())
    said: Mapping[int, Said] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RedisState:
    """``info`` holds the fields of INFO, ``settings`` those of CONFIG GET that it told; both empty where it may not be asked.

    ``ahead_ms`` is how far its clock is ahead of ours, give or take half of ``answer_ms``; None where it does not tell.
    """

    info: Mapping[str, str]
    settings: Mapping[str, str]
    answer_ms: float
    ahead_ms: float | None
    connectors: tuple[str, ...]
    indexes: Mapping[str, Index]


def look(server: Server, connectors: Collection[str] | None) -> RedisState:
    """Ask a server, and for the indexes of these connectors; None stands for all that have one.

    Raises:
        ConnectError: it does not answer, or refuses us.
    """
    connection = Connection(server, suitable=False)
    try:
        connection.call("PING")
        begun_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        told = connection.execute("TIME")
        took_ns = time.monotonic_ns() - begun_ns
        ahead_ms = None
        if isinstance(told, list):
            ahead_ms = int(told[0]) * 1000 + int(told[1]) / 1000 - (wall_ns + took_ns / 2) / 1e6
        info, persistence = connection.execute("INFO"), connection.execute("CONFIG", "GET", "save")
        names = connection.execute("SMEMBERS", CONNECTORS)
        known = tuple(sorted(name.decode("utf-8", "replace") for name in names)) if isinstance(names, list) else ()
        wanted = known if connectors is None else connectors
        return RedisState(
            parse_info(info) if isinstance(info, bytes) else {},
            _settings(persistence),
            took_ns / 1e6,
            ahead_ms,
            known,
            {name: index for name in wanted if (index := _read(connection, name)) is not None},
        )
    finally:
        connection.close()


def _settings(reply: Any) -> dict[str, str]:
    words = [word.decode("utf-8", "replace") for word in reply] if isinstance(reply, list) else []
    return dict(zip(words[::2], words[1::2], strict=True))


def _read(connection: Connection, name: str) -> Index | None:
    """Return a connector's index, None if it has none here, or it may not be read."""
    try:
        return _index(connection, name)
    except ConnectError:
        return None


def _index(connection: Connection, name: str) -> Index | None:
    keyspace, partitions = Keyspace(connection, name), Partitions(connection, name)
    told, fields, *counts = _answers(
        connection,
        ("TIME",),
        ("HMGET", keyspace.keys.proof, "partitions", "partitions_at", "config"),
        *(("ZCARD", key) for key in (keyspace.keys.deadlines, keyspace.keys.down, keyspace.keys.gone)),
    )
    if not isinstance(told, list) or not isinstance(fields, list) or fields[2] is None:
        return None
    sources, down, gone = (count if isinstance(count, int) else 0 for count in counts)
    asked_ms = time_ms(told)
    return Index(
        asked_ms,
        partitions.read_proof(),
        _counts(fields[0]),
        int(fields[1]) if fields[1] else None,
        sources,
        down,
        gone,
        *_sample(connection, keyspace, asked_ms),
        *partitions.read_said(),
    )


def _counts(text: bytes | None) -> dict[str, int]:
    try:
        return msgspec.json.decode(text or b"{}", type=dict[str, int])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _sample(connection: Connection, keyspace: Keyspace, asked_ms: int) -> tuple[tuple[PublicKey, ...], int]:
    """Return some sources with their public keys, and Redis's time then; those that beat while we looked are left out."""
    words = connection.execute("ZRANDMEMBER", keyspace.keys.deadlines, str(_MOST_SAMPLED), "WITHSCORES")
    if not isinstance(words, list):
        return (), asked_ms
    names = [word.decode("utf-8", "surrogateescape") for word in words[::2]]
    before = {name: int(float(score)) for name, score in zip(names, words[1::2], strict=True)}
    told, *ttls_ms = _answers(connection, ("TIME",), *(("PTTL", name) for name in names))
    values = _answers(connection, *(("GET", name) for name in names))
    after = keyspace.read_deadlines(names)
    keys = tuple(
        PublicKey(name, before[name], ttl_ms if isinstance(ttl_ms, int) else -2, isinstance(value, bytes) and value.isdigit())
        for name, ttl_ms, value in zip(names, ttls_ms, values, strict=True)
        if after.get(name) == before[name]
    )
    return keys, time_ms(told)


def _answers(connection: Connection, *commands: tuple[str, ...]) -> list[Any]:
    """Return the reply to each command; an error is a value among them."""
    with connection.faults():
        connection.send(b"".join(pack(*command) for command in commands))
        return connection.replies(len(commands))
