"""Every key, command and script against a real Redis: what each leaves behind, refuses, and survives."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from tests.beats.parts import TTL, expiry_of, now_ms, public, value_of, write

from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Beats, Info, Keyspace, Written
from heartbeat.embedded.redis import EmbeddedRedis

NAMES = [
    "heartbeat",
    "",
    " ",
    "pump:7",
    "{a b} {c}",
    "with space",
    "ünï ✓ 😀",
    "line\r\nbreak",
    "\x00nul\x00",
    "$5\r\nhello\r\n",
    b"\xff\x00\xc3".decode("utf-8", "surrogateescape"),
    "k" * 65_536,
]


def named(name: str) -> str:
    return ascii(name)[:20]


# --- beats


@pytest.mark.parametrize("kind", ["alive", "new"])
@pytest.mark.parametrize("name", NAMES, ids=named)
def test_any_name_is_a_key_with_exact_value_and_deadline(connection: Connection, keyspace: Keyspace, name: str, kind: str) -> None:
    beat = now_ms() - 1_234
    assert write(keyspace, Beats(TTL, **{kind: {name: beat}})) == Written(1, frozenset())
    assert connection.execute("GET", name) == str(beat).encode()
    assert expiry_of(connection, name) == beat + TTL
    assert keyspace.read_deadlines([name]) == {name: beat + TTL}
    assert connection.execute("DBSIZE") == 2


def test_the_name_of_a_binary_key_is_written_byte_for_byte(server: EmbeddedRedis, keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"s:" + b"\xff\x00\xc3".decode("utf-8", "surrogateescape"): beat}))
    with socket.create_connection((server.host, server.port), timeout=5) as plain:
        plain.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\ns:\xff\x00\xc3\r\n")
        assert plain.recv(100) == b"$13\r\n%d\r\n" % beat


def test_value_and_deadline_are_exact(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms() - 1_234
    write(keyspace, Beats(TTL, {"heartbeat": beat}))
    assert connection.execute("GET", "heartbeat") == str(beat).encode()
    assert connection.execute("PEXPIRETIME", "heartbeat") == beat + TTL


def test_many_sources_are_written_together(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    beats = {f"source:{i}": beat + i for i in range(5_000)}
    assert write(keyspace, Beats(TTL, beats)).moved == 5_000
    assert connection.execute("DBSIZE") == 5_001
    assert value_of(connection, "source:4999") == beat + 4_999
    assert expiry_of(connection, "source:17") == beat + 17 + TTL
    assert keyspace.read_deadlines(beats) == {source: at + TTL for source, at in beats.items()}


def test_a_later_beat_moves_value_and_deadline(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"s": beat}))
    assert write(keyspace, Beats(2 * TTL, {"s": beat + 1_500})).moved == 1
    assert (value_of(connection, "s"), expiry_of(connection, "s")) == (beat + 1_500, beat + 1_500 + 2 * TTL)


def test_an_older_beat_moves_no_deadline_and_shows_by_its_not_moving(keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"s": beat}))
    assert write(keyspace, Beats(TTL, {"s": beat - 1, "other": beat})).moved == 1
    assert keyspace.read_deadlines(["s"]) == {"s": beat + TTL}


def test_an_expired_beat_enters_the_index_and_touches_no_public_key(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"alive": beat}))
    write(keyspace, Beats(TTL, expired={"alive": beat - 2 * TTL, "dead": 0}))
    assert public(connection) == {"alive"}
    assert value_of(connection, "alive") == beat
    assert keyspace.read_deadlines(["alive", "dead"]) == {"alive": beat + TTL, "dead": TTL}


def test_each_beat_may_have_a_ttl_of_its_own(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"a": beat}, {"b": beat}, ttls_ms={"a": 5_000, "b": 7_000}))
    assert (expiry_of(connection, "a"), expiry_of(connection, "b")) == (beat + 5_000, beat + 7_000)
    assert keyspace.read_deadlines("ab") == {"a": beat + 5_000, "b": beat + 7_000}


def test_an_applications_key_of_another_type_is_left_alone_and_told(connection: Connection, keyspace: Keyspace) -> None:
    connection.execute("RPUSH", "list", "theirs")
    beat = now_ms()
    assert write(keyspace, Beats(TTL, new={"list": beat, "s": beat})) == Written(2, frozenset({"list"}))
    assert connection.execute("LRANGE", "list", "0", "-1") == [b"theirs"]
    assert keyspace.restore(["list", "s"], {}, TTL, beat) == {"list": beat, "s": beat}
    assert connection.execute("LRANGE", "list", "0", "-1") == [b"theirs"]


@pytest.mark.parametrize("kind", ["list", "string"])
def test_a_goodbye_deletes_no_key_of_another_type(connection: Connection, keyspace: Keyspace, kind: str) -> None:
    connection.execute("RPUSH", "s", "theirs") if kind == "list" else connection.execute("SET", "s", "1")
    assert goodbye(keyspace, "s", now_ms(), 0)
    assert connection.execute("EXISTS", "s") == int(kind == "list")


def test_the_index_says_what_stands_and_the_public_keys_follow(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"a": beat, "b": beat}, expired={"dead": beat - 2 * TTL}))
    connection.execute("SET", "a", str(beat - 7), "PXAT", str(beat + TTL - 7))
    connection.execute("DEL", "b")
    assert keyspace.restore(["a", "b", "dead", "unknown"], {}, TTL, beat) == {"a": beat, "b": beat, "dead": beat - 2 * TTL}
    assert public(connection) == {"a", "b"}
    assert [(value_of(connection, s), expiry_of(connection, s)) for s in "ab"] == [(beat, beat + TTL)] * 2


class Interrupted(Connection):
    """A connection in whose way something else is done before each of its commands that ``when`` picks."""

    def __init__(self, of: Connection, when: Callable[[bytes], bool], then: Callable[[], object]) -> None:
        super().__init__(of._server)
        self._when = when
        self._then = then

    def send(self, commands: bytes) -> None:
        if self._when(commands):
            self._then()
        super().send(commands)


def test_a_source_that_moves_while_it_is_being_restored_ends_as_its_writer_left_it(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    later = iter(range(1, 4))

    def another_task_writes() -> None:
        newer = next(later, None)
        if newer:
            write(keyspace, Beats(TTL, {"s": beat + newer}))

    write(keyspace, Beats(TTL, {"s": beat}))
    slow = Interrupted(connection, lambda commands: b"\r\nSET\r\n" in commands, another_task_writes)
    assert Keyspace(slow, "c").restore(["s"], {}, TTL, beat) == {"s": beat + 3}
    slow.close()
    assert (value_of(connection, "s"), expiry_of(connection, "s")) == (beat + 3, beat + 3 + TTL)


def goodbye(keyspace: Keyspace, source: str, at_ms: int, oldest_ms: int) -> bool:
    return source in keyspace.bye([(source, at_ms, TTL)], oldest_ms)


# --- ttl


def retimed(keyspace: Keyspace, beat: int, ttl_ms: int) -> tuple[int, int]:
    return keyspace.retime({"s": beat}, {"s": ttl_ms}, Info(beat, TTL))["s"]


@pytest.mark.parametrize("ttl_ms", [1_000, TTL, 10 * TTL])
def test_a_newer_beat_with_another_ttl_moves_the_deadline_either_way(keyspace: Keyspace, ttl_ms: int) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"s": beat}))
    keyspace.write_infos({"s": Info(beat, TTL, raw_ms=9)})
    assert retimed(keyspace, beat + 1, ttl_ms) == (beat + 1 + ttl_ms, ttl_ms)
    assert keyspace.read_deadlines(["s"]) == {"s": beat + 1 + ttl_ms}
    assert keyspace.read_infos(["s"]) == {"s": Info(beat, ttl_ms, raw_ms=9)}


@pytest.mark.parametrize("ttl_ms", [1_000, 10 * TTL])
def test_an_older_beat_with_another_ttl_moves_nothing(keyspace: Keyspace, ttl_ms: int) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"s": beat}))
    keyspace.write_infos({"s": Info(beat, TTL)})
    assert retimed(keyspace, beat - 1, ttl_ms) == (beat + TTL, TTL)
    assert keyspace.read_deadlines(["s"]) == {"s": beat + TTL}
    assert keyspace.read_infos(["s"]) == {"s": Info(beat, TTL)}


def test_a_source_that_the_index_lost_gets_a_deadline_and_an_info_by_another_ttl(keyspace: Keyspace) -> None:
    assert retimed(keyspace, 1_000, 5) == (1_005, 5)
    assert keyspace.read_infos(["s"]) == {"s": Info(1_000, 5)}


def test_infos_are_read_as_they_were_written(keyspace: Keyspace) -> None:
    infos = {"a": Info(1, 2), "b": Info(3, 4, 5), "\udcff": Info(6, 7)}
    keyspace.write_infos(infos)
    assert keyspace.read_infos([*infos, "unknown"]) == infos


def test_an_info_that_somebody_else_wrote_is_as_if_nothing_was_kept(connection: Connection, keyspace: Keyspace) -> None:
    keyspace.write_infos({"a": Info(1, 2)})
    for broken in ("", "x y", "1", "1 2 3 4", "1.5 2", "\u0661"):
        connection.call("HSET", keyspace.keys.info, "b", broken)
        assert keyspace.read_infos(["a", "b"]) == {"a": Info(1, 2)}


# --- signals


def packed(at_ms: int, where: str, offset: int, status: str) -> bytes:
    return msgspec.json.encode({"at_ms": at_ms, "partition": where, "offset": offset, "status": status})


def signalled(keyspace: Keyspace, status: str, at_ms: int, offset: int = 1, run: str = "", where: str = "t/0", most: int = 10) -> int:
    (kept,) = keyspace.signal([("s", (at_ms, where, offset), status, run, packed(at_ms, where, offset, status))], most)
    return kept


def status_of(connection: Connection, keyspace: Keyspace) -> Mapping[str, Any] | None:
    text = connection.execute("HGET", keyspace.keys.status, "s")
    return None if text is None else msgspec.json.decode(text)


@pytest.mark.parametrize(
    ("later", "newer"),
    [
        ((2, "t/0", 1), True),
        ((1, "t/1", 1), True),
        ((1, "t/0", 2), True),
        ((1, "t/0", 1), False),
        ((1, "t/0", 0), False),
        ((0, "t/9", 9), False),
        ((1, "t", 9), False),
    ],
)
def test_the_newest_signal_by_time_partition_and_offset_stands(
    connection: Connection, keyspace: Keyspace, later: tuple[int, str, int], newer: bool
) -> None:
    assert signalled(keyspace, "fail", 1) == 1
    at_ms, where, offset = later
    assert signalled(keyspace, "start", at_ms, offset, where=where) == int(newer)
    assert (status_of(connection, keyspace) or {})["status"] == ("start" if newer else "fail")


def test_a_replay_of_signals_says_nothing_twice(connection: Connection, keyspace: Keyspace) -> None:
    said = [("start", 1, "r"), ("fail", 2, "r"), ("start", 3, "q"), ("ok", 4, "q")]
    assert [signalled(keyspace, status, at, run=run) for status, at, run in said] == [1, 1, 1, 1]
    before = connection.execute("HGETALL", keyspace.keys.status), connection.execute("HGETALL", keyspace.keys.runs)
    assert [signalled(keyspace, status, at, run=run) for status, at, run in said] == [0, 0, 0, 0]
    assert (connection.execute("HGETALL", keyspace.keys.status), connection.execute("HGETALL", keyspace.keys.runs)) == before


def test_ok_is_kept_only_where_it_ends_something_else(connection: Connection, keyspace: Keyspace) -> None:
    assert signalled(keyspace, "ok", 1) == 1
    assert status_of(connection, keyspace) is None
    signalled(keyspace, "fail", 2)
    signalled(keyspace, "ok", 3)
    assert status_of(connection, keyspace) == {"at_ms": 3, "partition": "t/0", "offset": 1, "status": "ok"}


@pytest.mark.parametrize("end", ["ok", "fail", "bye"])
def test_a_run_is_open_from_its_start_to_its_end(connection: Connection, keyspace: Keyspace, end: str) -> None:
    signalled(keyspace, "start", 1, run="r")
    signalled(keyspace, "start", 2, run="q")
    assert connection.execute("HGETALL", keyspace.keys.runs) == [b"s\x00r", b"1", b"s\x00q", b"2"]
    signalled(keyspace, end, 3, run="r")
    assert connection.execute("HGETALL", keyspace.keys.runs) == [b"s\x00q", b"2"]


def test_a_run_ends_though_another_run_has_said_something_newer(connection: Connection, keyspace: Keyspace) -> None:
    signalled(keyspace, "start", 10, run="one")
    signalled(keyspace, "fail", 30, run="two")
    signalled(keyspace, "ok", 20, run="one")
    assert connection.execute("HGETALL", keyspace.keys.runs) == []


def test_an_end_from_the_past_does_not_end_a_run_that_began_again(connection: Connection, keyspace: Keyspace) -> None:
    signalled(keyspace, "start", 50, run="one")
    signalled(keyspace, "ok", 20, run="one")
    assert connection.execute("HGETALL", keyspace.keys.runs) == [b"s\0one", b"50"]


def test_a_run_beyond_the_bound_is_told_and_its_signal_kept(connection: Connection, keyspace: Keyspace) -> None:
    assert signalled(keyspace, "start", 1, run="r", most=1) == 1
    assert signalled(keyspace, "start", 2, run="q", most=1) == 2
    assert connection.execute("HKEYS", keyspace.keys.runs) == [b"s\x00r"]
    assert (status_of(connection, keyspace) or {})["at_ms"] == 2


# --- goodbye


def test_a_goodbye_takes_a_source_out_and_remembers_when(connection: Connection, keyspace: Keyspace) -> None:
    beat = now_ms()
    write(keyspace, Beats(TTL, {"s": beat, "other": beat}))
    assert goodbye(keyspace, "s", beat + 1, 0)
    assert goodbye(keyspace, "s", beat - 1, 0)
    assert public(connection) == {"other"}
    assert keyspace.read_deadlines(["s", "other"]) == {"other": beat + TTL}
    assert keyspace.read_gone(["s", "other"]) == {"s": beat + 1}


@pytest.mark.parametrize(("after_ms", "goes"), [(-1, False), (0, True), (1, True)])
@pytest.mark.parametrize("ttl_ms", [1_000, TTL, 10 * TTL])
def test_a_goodbye_older_than_the_last_beat_changes_nothing_whatever_ttl_the_beat_had(
    connection: Connection, keyspace: Keyspace, after_ms: int, goes: bool, ttl_ms: int
) -> None:
    beat = now_ms()
    write(keyspace, Beats(ttl_ms, {"s": beat}))
    keyspace.write_infos({"s": Info(beat, ttl_ms)})
    assert goodbye(keyspace, "s", beat + after_ms, 0) is goes
    assert public(connection) == (set() if goes else {"s"})
    assert keyspace.read_gone(["s"]) == ({"s": beat + after_ms} if goes else {})


def test_a_source_that_comes_back_is_no_longer_gone(keyspace: Keyspace) -> None:
    goodbye(keyspace, "a", 5, 0)
    goodbye(keyspace, "b", 5, 0)
    keyspace.come_back(["a", "unknown"])
    assert keyspace.read_gone(["a", "b"]) == {"b": 5}
    keyspace.come_back([])


def test_a_goodbye_is_kept_for_one_horizon_and_then_everything_of_that_source_goes(connection: Connection, keyspace: Keyspace) -> None:
    """Names made for one job each would otherwise fill Redis one by one."""
    for source, at_ms in (("old", 99), ("back", 98), ("edge", 100)):
        keyspace.write_infos({source: Info(1, TTL)})
        keyspace.signal([(source, (at_ms, "t/0", 1), "bye", "", packed(at_ms, "t/0", 1, "bye"))], 9)
        goodbye(keyspace, source, at_ms, 0)
    write(keyspace, Beats(TTL, {"back": now_ms()}))
    goodbye(keyspace, "new", 200, 100)
    assert keyspace.read_gone(["old", "back", "edge", "new"]) == {"edge": 100, "new": 200}
    assert sorted(connection.execute("HKEYS", keyspace.keys.info)) == [b"back", b"edge"]
    assert sorted(connection.execute("HKEYS", keyspace.keys.status)) == [b"back", b"edge"]


def test_a_goodbye_is_weighed_by_the_ttl_of_the_beat_before_it_though_another_task_writes_that_late(
    connection: Connection, keyspace: Keyspace
) -> None:
    """Two tasks read the same records for a moment: one had kept the ttl, the other has said goodbye before the first goes on."""
    keyspace.write_infos({"s": Info(1, 10 * TTL)})
    assert goodbye(keyspace, "s", 99, 0)
    connection.call("ZADD", keyspace.keys.deadlines, 90 + 10 * TTL, "s")
    assert keyspace.read_infos(["s"]) == {"s": Info(1, 10 * TTL)}
    assert goodbye(keyspace, "s", 99, 0)
    assert connection.call("ZSCORE", keyspace.keys.deadlines, "s") is None


def test_of_one_that_is_down_a_goodbye_and_its_ttl_are_kept_until_a_monitor_has_seen_them(
    connection: Connection, keyspace: Keyspace
) -> None:
    keyspace.write_infos({"s": Info(1, 10 * TTL), "up": Info(1, 10 * TTL)})
    connection.call("ZADD", keyspace.keys.down, 90, "s")
    for source in ("s", "up"):
        assert goodbye(keyspace, source, 99, 0)
    assert keyspace.read_infos(["s", "up"]) == {"s": Info(1, 10 * TTL), "up": Info(1, 10 * TTL)}
    goodbye(keyspace, "new", 200, 100)
    assert keyspace.read_gone(["s", "up", "new"]) == {"s": 99, "new": 200}
    connection.call("ZREM", keyspace.keys.down, "s")
    goodbye(keyspace, "new", 201, 100)
    assert keyspace.read_gone(["s"]) == {}
    assert keyspace.read_infos(["s"]) == {}


def test_goodbyes_are_swept_out_though_no_monitor_ends_the_incidents_of_many_older_ones(connection: Connection, keyspace: Keyspace) -> None:
    held = [word for n in range(150) for word in (n, f"down {n}")]
    connection.call("ZADD", keyspace.keys.down, *held)
    connection.call("ZADD", keyspace.keys.gone, *held, 200, "up")
    for n in range(100):
        goodbye(keyspace, "new", 1_000 + n, 300)
    assert keyspace.read_gone(["up", "down 0", "down 149"]) == {"down 0": 0, "down 149": 149}


# --- room


def test_the_longest_dead_make_room_and_the_living_never_do(connection: Connection, keyspace: Keyspace) -> None:
    write(keyspace, Beats(0, expired={"a": 10, "b": 30, "alive": 100}))
    connection.execute("ZADD", keyspace.keys.down, "20", "d", "40", "e")
    keyspace.write_infos({source: Info(1, 2) for source in ("a", "b", "d", "e", "alive")})
    assert keyspace.make_room(2, 100) == 2
    assert keyspace.read_infos(["a", "b", "d", "e", "alive"]).keys() == {"b", "e", "alive"}
    assert keyspace.make_room(10, 100) == 2
    assert keyspace.make_room(10, 100) == 0
    assert keyspace.read_deadlines(["a", "b", "alive"]) == {"alive": 100}
    assert connection.execute("ZRANGE", keyspace.keys.down, "0", "-1") == [b"d", b"e"], "a monitor ends their incidents"
    assert keyspace.read_gone(["a", "b", "d", "e"]) == {"d": 100, "e": 100}


def test_room_for_thousands_is_made_in_steps(connection: Connection, keyspace: Keyspace) -> None:
    write(keyspace, Beats(0, expired={f"s{i}": i for i in range(2_500)}))
    assert keyspace.make_room(2_300, 10_000) == 2_300
    assert connection.execute("ZRANGE", keyspace.keys.deadlines, "0", "0") == [b"s2300"]
    assert connection.execute("ZCARD", keyspace.keys.deadlines) == 200
