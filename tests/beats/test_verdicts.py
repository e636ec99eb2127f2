"""Verdicts on a real Redis: each clause of the proof of silence, violated alone, and everything else that a verdict rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.beats.verdict_worlds import BEHIND, DOWN, WORLDS, Bench, World, leaves

from heartbeat.beats import verdicts
from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS, MONITORS
from heartbeat.beats.keyspace import Info, time_ms
from heartbeat.beats.verdicts import FAILED, NEVER_MS, Case, Closing, Ended, Known, Returned, Terms, Verdicts, known
from heartbeat.embedded.redis import EmbeddedRedis

ODD = ["a\0b", "a\nb", "a\r\n$3", "\udcff\udc80", "ünïcødé", "a b", "%d", "-1", "{", '"']


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_judged_as_the_table_says(name: str, connection: Connection) -> None:
    assert Bench(connection).left(WORLDS[name].world) == leaves(WORLDS[name])


STALE = {"a set of unknown age": None, "an old set": -60_001}


@pytest.mark.parametrize("asked_at", STALE.values(), ids=STALE)
@pytest.mark.parametrize(
    ("name", "outcome"), [("just not blind", "opened"), ("sighted", "nothing"), ("a fail", "unproven")], ids=["blind", "sighted", "fail"]
)
def test_a_partition_set_that_is_not_asked_for_any_more_proves_nothing(
    name: str, outcome: str, asked_at: int | None, connection: Connection
) -> None:
    assert Bench(connection).left(replace(WORLDS[name].world, asked_at=asked_at)).outcome == outcome


@pytest.mark.parametrize("source", ODD)
@pytest.mark.parametrize("name", ["silent and proven", "a fail", "never seen", "a beat after the verdict", "a goodbye while down"])
def test_a_name_may_hold_any_bytes(name: str, source: str, connection: Connection) -> None:
    assert Bench(connection, source).left(WORLDS[name].world) == leaves(WORLDS[name])


@pytest.mark.parametrize("source", ODD)
def test_names_of_any_bytes_come_back_as_they_are(source: str, connection: Connection) -> None:
    bench = Bench(connection, source)
    now = time_ms(connection.call("TIME"))
    bench.make(World(down=-20_000, failing=-5_000, status=("fail", -5_000)), now)
    index = bench.verdicts
    assert index.due(now, 0, 10) == {source: now - 10_000}
    assert index.returned(0, 10) == [Returned(source, now - 20_000, False, now - 10_000, None)]
    assert index.infos([source, "nobody"]) == {source: Info(now - 3_600_000, 60_000)}
    assert list(index.statuses([source, "nobody"])) == [source]
    assert index.look(now, 0).fails == {source: now - 5_000}
    assert index.unseen([source, "nobody"]) == ["nobody"]


def test_of_two_monitors_that_judge_the_same_case_one_stores_a_flip(
    server: EmbeddedRedis, connection: Connection, opened: Callable[..., Connection]
) -> None:
    now = time_ms(connection.call("TIME"))
    bench = Bench(connection)
    bench.make(World(), now)
    other = Verdicts(opened(server.host, server.port), "c")
    terms = Terms(now, 1_000, 120_000)
    case = Case("silence", "s:1", now - 10_000, now - 10_000, 5_000, b"flip")
    outcomes = [index.judge(terms, [case])[0] for index in (other, bench.verdicts)]
    assert outcomes == ["down", "known"]
    connection.call("ZADD", bench.verdicts.keys.deadlines, now + 60_000, "s:1")
    closing = Closing(Returned("s:1", now - 10_000, False, now + 60_000, None), b"recovered", b"bye")
    assert [index.recover(terms, [closing])[0] for index in (other, bench.verdicts)] == ["recovered", "moved"]
    assert [flip for flip, *_ in flips(connection)] == [b"flip", b"recovered"]


def test_each_of_many_cases_has_its_own_outcome_in_their_order(connection: Connection) -> None:
    now = time_ms(connection.call("TIME"))
    bench = Bench(connection)
    bench.make(World(), now)
    keys = bench.verdicts.keys
    connection.call("ZADD", keys.deadlines, now - 7_000, "s:2", now - 1_000, "s:3", now - 7_000, "s:4")
    cases = [
        Case("silence", f"s:{n}", now - late, now - late, 5_000, f"flip {n}".encode()) for n, late in enumerate((1, 10_000, 7_000, 1_000))
    ]
    cases.append(Case("silence", "s:4", now - 8_000, now - 8_000, 5_000, b"flip 4"))
    assert bench.verdicts.judge(Terms(now, 1_000, 120_000), cases) == ["moved", "down", "down", "unproven", "moved"]
    assert [flip for flip, *_ in flips(connection)] == [b"flip 1", b"flip 2"]
    assert connection.call("ZRANGE", keys.down, 0, -1, "WITHSCORES") == [b"s:1", b"%d" % (now - 10_000), b"s:2", b"%d" % (now - 7_000)]


def test_a_flip_says_what_was_proven_and_when_it_was_detected_in_whole_ms(connection: Connection) -> None:
    now = time_ms(connection.call("TIME")) - BEHIND
    bench = Bench(connection)
    bench.make(World(until=(-17, -5, -3)), now)
    assert bench.ask(World(), now) == DOWN
    assert flips(connection) == [(b"flip", b"%d" % (now - 17), b"%d" % now)]


def test_a_flip_stored_while_nothing_is_proven_says_so(connection: Connection) -> None:
    now = time_ms(connection.call("TIME")) - BEHIND
    bench = Bench(connection)
    world = replace(WORLDS["a beat after the verdict"].world, until=(None,) * 3)
    bench.make(world, now)
    assert bench.ask(world, now) == "recovered"
    assert flips(connection) == [(b"recovered", b"", b"%d" % now)]


def test_a_look_counts_what_is_due_and_what_is_overdue(connection: Connection) -> None:
    bench = Bench(connection)
    now = time_ms(connection.call("TIME"))
    bench.make(World(down=-20_000, blind=b"open"), now)
    connection.call("ZADD", bench.verdicts.keys.deadlines, now, "on time", now - 5_000, "overdue", now + 1, "alive")
    seen = bench.verdicts.look(now, 5_000)
    assert (seen.sources, seen.down, seen.due, seen.overdue, seen.blind, seen.ttl_ms) == (4, 1, 3, 2, b"open", 60_000)
    assert seen.newest_flip == ""
    assert seen.proof["t/1/until"] == str(now)
    bench.verdicts.say([(b"flip", now)])
    assert int(bench.verdicts.look(now, 5_000).newest_flip.split("-")[0]) >= now
    assert flips(connection) == [(b"flip", b"", b"%d" % now)]


def test_a_look_at_nothing_finds_nothing(connection: Connection) -> None:
    seen = Verdicts(connection, "nobody's").look(time_ms(connection.call("TIME")), 0)
    assert (seen.sources, seen.down, seen.due, seen.overdue, seen.blind, seen.newest_flip, seen.ttl_ms) == (0, 0, 0, 0, None, "", 0)
    assert (seen.proof, seen.fails) == ({}, {})


def test_what_is_due_comes_page_by_page_the_longest_silent_first(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    connection.call("ZADD", index.keys.deadlines, 30, "c", 10, "a", 20, "b", 40, "d")
    assert list(index.due(30, 0, 2).items()) == [("a", 10), ("b", 20)]
    assert list(index.due(30, 2, 2).items()) == [("c", 30)]


def test_who_was_heard_of_again_comes_by_ranks_of_those_that_are_down(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    connection.call("ZADD", index.keys.down, 1, "a", 2 + FAILED, "b", 3, "c", 4, "d")
    connection.call("ZADD", index.keys.deadlines, 12, "b", 14, "d", 15, "e")
    connection.call("ZADD", index.keys.gone, 7, "c", 8, "d", 9, "f")
    assert index.returned(0, 1) == [Returned("b", 2, True, 12, None)]
    assert index.returned(2, 9) == [Returned("c", 3, False, None, 7), Returned("d", 4, False, 14, 8)]


def test_incidents_that_come_back_do_not_touch_what_this_redis_knows(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    connection.call("ZADD", index.keys.down, 5, "known")
    many = {f"s:{n}": n for n in range(2_500)}
    index.restore({"known": 3} | many, b"open")
    index.restore({}, b"another")
    assert connection.call("ZSCORE", index.keys.down, "known") == b"5"
    assert connection.call("ZCARD", index.keys.down) == 2_501
    assert connection.call("ZSCORE", index.keys.down, "s:2499") == b"2499"
    assert connection.call("GET", index.keys.blind) == b"open"


def test_declared_sources_keep_the_time_of_their_first_declaration(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    assert index.expect(["a", "b"], 100) == {"a": 100, "b": 100}
    assert index.expect(["b", "c"], 200) == {"b": 100, "c": 200}
    assert connection.call("ZRANGE", index.keys.expected, 0, -1) == [b"b", b"c"]
    assert index.expect([], 300) == {}
    assert connection.call("EXISTS", index.keys.expected) == 0


def test_who_has_said_goodbye_is_not_expected_before_it_beats_again(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    index.expect(["s"], 100)
    connection.call("ZADD", index.keys.gone, 150, "s")
    connection.call("HSET", index.keys.status, "s", "{}")
    assert index.expect(["s"], 200) == {"s": NEVER_MS}
    connection.call("DEL", index.keys.gone, index.keys.status)  # swept out
    assert index.expect(["s"], 300) == {"s": NEVER_MS}
    connection.call("ZADD", index.keys.deadlines, 460, "s")
    assert index.expect(["s"], 400) == {"s": 400}
    connection.call("DEL", index.keys.deadlines)  # room was needed
    assert index.expect(["s"], 500) == {"s": 400}


@pytest.mark.parametrize("known", ["info", "status"])
def test_who_is_declared_no_more_is_let_go_of_only_if_it_was_never_seen(known: str, connection: Connection) -> None:
    index = Verdicts(connection, "c")
    index.expect(["never", "seen", "up"], 100)
    connection.call("ZADD", index.keys.down, 160, "never", 160, "seen")
    connection.call("HSET", getattr(index.keys, known), "seen", "1 60000")
    assert index.expect([], 200) == {}
    assert connection.call("ZRANGE", index.keys.gone, 0, -1, "WITHSCORES") == [b"never", b"200"]


def test_who_is_declared_again_is_expected_from_then_on(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    index.expect(["s"], 100)
    connection.call("ZADD", index.keys.down, 160, "s")
    index.expect([], 200)
    assert index.expect(["s"], 300) == {"s": 300}
    assert connection.call("ZSCORE", index.keys.gone, "s") == b"200", "by that its incident ends"


def test_who_is_down_on_just_what_has_ended_is_let_go_of(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    judged = {"ended": 5, "failed": 5 + FAILED, "again": 6}
    connection.call("ZADD", index.keys.down, *(word for source, at in judged.items() for word in (at, source)))
    index.let_go(Ended(source, 5, 7) for source in ("ended", "failed", "again", "unknown"))
    assert index.judged(list(judged)) == {"again": 6}


def test_what_was_heard_since_the_end_of_what_is_let_go_of_is_judged_again(connection: Connection) -> None:
    """It passed for a part of the incident, and was taken out."""
    index = Verdicts(connection, "c")
    names = ["silent", "failed", "beats", "left"]
    for source in names:
        connection.call("ZADD", index.keys.down, 5, source)
        connection.call("HSET", index.keys.info, source, Info(1, 60).packed())
    connection.call("HSET", index.keys.status, "failed", b'{"status":"fail","at_ms":8}')
    connection.call("ZADD", index.keys.deadlines, 1_000, "beats")
    connection.call("ZADD", index.keys.gone, 7, "left")
    index.let_go(Ended(source, 5, 7) for source in index.judged(names))
    assert index.due(2_000, 0, 10) == {"silent": 67, "failed": 67, "beats": 1_000}
    assert index.look(0, 0).fails == {"failed": 8}


def test_the_keys_of_a_stream_are_read_page_by_page(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_SAID_AT_ONCE", 3)
    index = Verdicts(connection, "c")
    assert index.flip_keys() == set()
    for number in range(7):
        index.say([(b'{"key":"%d:UP"}' % number, 1)])
    index.say([(b"garbage", 1), (b"{}", 1)])
    assert index.flip_keys() == {f"{number}:UP" for number in range(7)}


def test_that_a_redis_was_given_what_is_remembered_goes_with_its_data(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    assert not index.look(0, 0).remembered
    index.remembered(7)
    assert index.look(0, 0).remembered
    connection.call("FLUSHALL")
    assert not index.look(0, 0).remembered


def test_unseen_are_those_of_whom_there_is_no_beat_no_verdict_and_no_goodbye(connection: Connection) -> None:
    index = Verdicts(connection, "c")
    for key, source in ((index.keys.deadlines, "beats"), (index.keys.down, "down"), (index.keys.gone, "gone")):
        connection.call("ZADD", key, 1, source)
    assert index.unseen(["down", "nobody", "beats", "gone", "neither"]) == ["nobody", "neither"]
    assert index.unseen([]) == []


def test_a_monitor_finds_out_what_redis_knows_of_it(connection: Connection) -> None:
    connection.call("SADD", CONNECTORS, "a", "ü")
    said = [b'{"tick_ms":%d}' % (2**52 + n) for n in range(5)]
    assert known(connection, "m", said[1], 7) == Known(frozenset({"a", "ü"}), None, 7)
    assert known(connection, "m", said[2], 8) == Known(frozenset({"a", "ü"}), said[1], 7)
    assert known(connection, "n", said[3], 9) == Known(frozenset({"a", "ü"}), None, 7)
    assert connection.call("HMGET", MONITORS, "m", "n") == [said[2], said[3]]
    connection.call("FLUSHALL")
    assert known(connection, "m", said[4], 10) == Known(frozenset(), None, 10)


def flips(connection: Connection) -> list[Any]:
    """Return the entries of the stream as (flip, proven until, detected)."""
    return [tuple(words[1::2]) for _, words in connection.call("XRANGE", Verdicts(connection, "c").keys.flips, "-", "+")]
