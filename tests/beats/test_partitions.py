"""What Redis holds of partitions, against a real one: what claims, advances and operators leave behind, and who is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from tests.beats.parts import P0, P1, P2, TTL, now_ms, write

from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS
from heartbeat.beats.keyspace import Beats, Info, Keyspace, time_ms
from heartbeat.beats.partitions import TARGET, Advanced, Partitions, Row, Said, Stored, Target
from heartbeat.beats.verdicts import Verdicts
from heartbeat.errors import ConnectError


def claimed(partitions: Partitions, *taken: Any) -> None:
    """Take partitions over at offset 10."""
    partitions.claim("x", TTL, "me", taken)
    assert partitions.begin("me", dict.fromkeys(taken, 10), [])


def advance(partitions: Partitions, rows: Sequence[Row], topics: Mapping[str, int] | None, at_ms: int) -> Advanced:
    run_id = re.search(r"run_id:(\w+)", partitions._connection.call("INFO", "server").decode())
    assert run_id is not None
    return partitions.advance(run_id[1], rows, topics, at_ms)


def row(partition: Any = P0, expected: int = 10, to: int = 20, sight: tuple[Any, Any, Any] = (None, None, None)) -> Row:
    return Row(partition, "me", expected, to, *sight, "log")


def test_a_first_claim_finds_nothing_and_makes_the_connector_known(connection: Connection, partitions: Partitions) -> None:
    before = now_ms()
    found = partitions.claim("x", TTL, "me", [P0, P1])
    assert (found.dropped, dict(found.topics), dict(found.partitions)) == (False, {}, {P0: Stored(), P1: Stored()})
    assert before - 2_000 <= found.redis_ms <= now_ms() + 2_000
    assert connection.execute("SMEMBERS", CONNECTORS) == [b"c"]


def test_a_claim_finds_what_was_left_of_each_partition(partitions: Partitions) -> None:
    claimed(partitions, P0, P1)
    advance(partitions, [row(sight=(5, 6, 7))], {"t": 3}, 100)
    found = partitions.claim("x", TTL, "next", [P1, P0, P2])
    assert list(found.partitions.items()) == [(P1, Stored(10)), (P0, Stored(20, 5, 6, 7, "log")), (P2, Stored())]
    assert found.topics == {"t": 3}
    assert not found.dropped


def test_what_was_proven_stays_so_only_where_the_claimant_says_it(partitions: Partitions) -> None:
    claimed(partitions, P0, P1)
    advance(partitions, [row(P0, sight=(5, 6, 7)), row(P1, sight=(5, 6, 7))], None, 0)
    partitions.claim("x", TTL, "next", [P0, P1])
    assert partitions.begin("next", {P0: 20, P1: 15}, [P0])
    assert partitions.read_proof() == {P0: Stored(20, 5, 6, 7, "log"), P1: Stored(15)}


@pytest.mark.parametrize("between", ["another claim", "flush"])
def test_a_claim_that_no_longer_holds_cannot_begin(connection: Connection, partitions: Partitions, between: str) -> None:
    partitions.claim("x", TTL, "me", [P0, P1])
    if between == "flush":
        connection.execute("FLUSHALL")
    else:
        partitions.claim("x", TTL, "other", [P1])
    before = connection.execute("HGETALL", partitions.keys.proof)
    assert not partitions.begin("me", {P0: 1, P1: 1}, [])
    assert connection.execute("HGETALL", partitions.keys.proof) == before


def test_an_advance_stores_offset_and_sight_and_counts_what_the_index_holds(connection: Connection, partitions: Partitions) -> None:
    claimed(partitions, P0, P1)
    write(Keyspace(connection, "c"), Beats(TTL, {"a": now_ms(), "b": now_ms()}))
    connection.execute("ZADD", partitions.keys.down, "5", "d")
    connection.execute("ZADD", partitions.keys.gone, "5", "g")
    reply = advance(partitions, [row(P0, sight=(1, 2, -1)), row(P1, to=11)], None, 0)
    assert (reply.refused, reply.sources, reply.gone) == (frozenset(), 3, 1)
    assert partitions.read_proof() == {P0: Stored(20, 1, 2, -1, "log"), P1: Stored(11, log="log")}
    advance(partitions, [row(P0, 20, 30)], None, 0)
    assert partitions.read_proof()[P0] == Stored(30, 1, 2, -1, "log")


WRONG = {"behind": row(expected=9), "ahead": row(expected=11), "somebody else's": row()._replace(token="other"), "never claimed": row(P2)}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_one_refused_partition_refuses_the_whole_advance(partitions: Partitions, wrong: Row) -> None:
    claimed(partitions, P0, P1)
    before = partitions.read_proof()
    assert advance(partitions, [row(P1, sight=(1, 2, 3)), wrong], {"t": 9}, 5).refused == {wrong.partition}
    assert partitions.read_proof() == before
    assert partitions.claim("x", TTL, "next", [P0]).topics == {}


def test_an_advance_whose_reply_was_lost_may_be_sent_again(partitions: Partitions) -> None:
    claimed(partitions, P0)
    for _ in range(2):
        assert not advance(partitions, [row(sight=(1, 2, 3))], None, 0).refused
        assert partitions.read_proof() == {P0: Stored(20, 1, 2, 3, "log")}
    assert advance(partitions, [row(to=21)], None, 0).refused == {P0}


def test_a_server_that_did_not_take_the_data_refuses_to_have_it(partitions: Partitions) -> None:
    claimed(partitions, P0)
    assert partitions.advance("another run id", [row()], None, 0).refused == {P0}
    assert partitions.read_proof() == {P0: Stored(10)}


def test_a_claim_tells_which_ttl_was_everybodys_before(partitions: Partitions) -> None:
    assert [partitions.claim("x", ttl_ms, "me", [P0]).previous_ttl_ms for ttl_ms in (TTL, 5, 5, TTL)] == [TTL, TTL, 5, 5]


def made_ms(connection: Connection) -> int:
    return Verdicts(connection, "c").look(0, 0).made_ms


def test_an_index_keeps_when_it_was_made_until_it_is_another_one(connection: Connection, partitions: Partitions) -> None:
    assert made_ms(connection) == 0
    before = time_ms(connection.call("TIME"))
    claimed(partitions, P0)
    made = made_ms(connection)
    assert before <= made <= time_ms(connection.call("TIME"))
    connection.call("HSET", partitions.keys.proof, "made_ms", 5)
    partitions.claim("x", TTL, "next", [P1])
    assert made_ms(connection) == 5
    partitions.claim("y", TTL, "next", [P1])
    assert made_ms(connection) >= made
    connection.call("HSET", partitions.keys.proof, "made_ms", 5)
    partitions.forget()
    partitions.claim("y", TTL, "next", [P1])
    assert made_ms(connection) >= made


def test_whoever_had_a_partition_before_a_claim_is_refused(partitions: Partitions) -> None:
    claimed(partitions, P0)
    partitions.claim("x", TTL, "next", [P0])
    assert advance(partitions, [row()], None, 0).refused == {P0}


def test_a_flush_refuses_the_next_advance(connection: Connection, partitions: Partitions) -> None:
    claimed(partitions, P0)
    connection.execute("FLUSHALL")
    assert advance(partitions, [row()], None, 0).refused == {P0}
    assert partitions.read_proof() == {}


def test_of_two_partition_sets_the_one_asked_for_later_stands(partitions: Partitions) -> None:
    for topics, at_ms in (({"t": 2}, 100), ({"t": 1}, 99), ({"t": 5}, 100)):
        advance(partitions, [], topics, at_ms)
        assert partitions.claim("x", TTL, "me", []).topics == {"t": 2}
    advance(partitions, [], {"t": 3, "u": 1}, 101)
    assert partitions.claim("x", TTL, "me", []).topics == {"t": 3, "u": 1}


def filled(connection: Connection, partitions: Partitions) -> None:
    """Put something into every key of the index."""
    claimed(partitions, P0)
    keyspace = Keyspace(connection, "c")
    write(keyspace, Beats(TTL, {"s": now_ms()}))
    keyspace.write_infos({"s": Info(1, TTL)})
    keyspace.signal([("s", (1, "t/0", 1), "start", "r", b'{"at_ms":1,"partition":"t/0","offset":1,"status":"start"}')], 10)
    connection.execute("ZADD", partitions.keys.down, "1", "d")
    connection.execute("ZADD", partitions.keys.gone, "1", "g")
    connection.execute("XADD", partitions.keys.flips, "*", "k", "v")


def test_another_configuration_drops_the_index_and_neither_public_keys_nor_history(connection: Connection, partitions: Partitions) -> None:
    filled(connection, partitions)
    write(Keyspace(connection, "other"), Beats(TTL, {"theirs": now_ms()}))
    found = partitions.claim("y", TTL, "next", [P0])
    assert (found.dropped, dict(found.partitions)) == (True, {P0: Stored()})
    left = set(connection.execute("KEYS", "*"))
    assert left == {
        b"s",
        b"theirs",
        b"hb:connectors",
        b"hb:{other}:deadlines",
        partitions.keys.proof.encode(),
        partitions.keys.flips.encode(),
        partitions.keys.down.encode(),
        partitions.keys.gone.encode(),
    }
    assert list(Keyspace(connection, "c").read_gone(["d", "g", "s"])) == ["d"]
    assert not partitions.claim("y", TTL, "again", [P0]).dropped


def test_the_last_word_of_a_connector_takes_everything_of_its_own_and_nothing_else(connection: Connection, partitions: Partitions) -> None:
    filled(connection, partitions)
    claimed(Partitions(connection, "other"), P0)
    partitions.forget()
    assert set(connection.execute("KEYS", "*")) == {b"s", b"hb:connectors", b"hb:{other}:proof"}
    assert connection.execute("SMEMBERS", CONNECTORS) == [b"other"]
    partitions.forget()


def test_an_operators_offset_replaces_the_stored_one_and_ends_what_was_proven(partitions: Partitions) -> None:
    claimed(partitions, P0, P1, P2)
    advance(partitions, [row(p, sight=(1, 2, 3)) for p in (P0, P1, P2)], None, 0)
    partitions.alter({P0: 5, P1: None})
    assert advance(partitions, [row(P0, 5, 6)], None, 0).refused == {P0}
    assert partitions.claim("x", TTL, "next", [P0, P1, P2]).partitions == {P0: Stored(5), P1: Stored(), P2: Stored(20, 1, 2, 3, "log")}


def test_a_reset_of_all_offsets_forgets_them_and_not_what_the_index_is_of(connection: Connection, partitions: Partitions) -> None:
    filled(connection, partitions)
    advance(partitions, [row(sight=(1, 2, 3))], {"t": 3}, 9)
    partitions.alter(None)
    assert partitions.read_proof() == {}
    found = partitions.claim("y", TTL, "next", [P0])
    assert found.dropped, "the template was changed along with the reset: the old index is of other sources"
    assert found.partitions == {P0: Stored()}


def test_a_reset_where_nothing_is_stored_changes_nothing(connection: Connection, partitions: Partitions) -> None:
    partitions.alter(None)
    partitions.alter({P0: None})
    assert connection.execute("KEYS", "*") == []


def test_an_index_key_of_another_type_is_an_error_that_needs_a_person(connection: Connection, partitions: Partitions) -> None:
    connection.execute("SET", partitions.keys.proof, "theirs")
    with pytest.raises(ConnectError, match="WRONGTYPE"):
        partitions.claim("x", TTL, "me", [P0])


# --- canaries


def test_who_claims_says_that_it_takes_canaries(connection: Connection, partitions: Partitions) -> None:
    partitions.claim("x", TTL, "me", [P0])
    assert connection.execute("HGET", partitions.keys.proof, "canaries") == b"1"
    partitions.claim("y", TTL, "me", [P0])
    assert connection.execute("HGET", partitions.keys.proof, "canaries") == b"1"


def test_a_canary_moves_forward_only_and_stays_without_a_new_one(partitions: Partitions) -> None:
    claimed(partitions, P0, P1)
    for expected, (canary_ms, stands) in enumerate(
        [(None, None), (7, 7), (None, 7), (5, 7), (7, 7), (1_755_138_687_438, 1_755_138_687_438)], 10
    ):
        assert not advance(partitions, [row(P0, expected, expected + 1)._replace(canary_ms=canary_ms)], None, 0).refused
        assert partitions.read_proof()[P0].canary_ms == stands
    assert partitions.read_proof()[P1].canary_ms is None


def test_a_refused_advance_brings_no_canary(partitions: Partitions) -> None:
    claimed(partitions, P0)
    assert advance(partitions, [row(expected=9)._replace(canary_ms=7)], None, 0).refused
    assert partitions.read_proof()[P0].canary_ms is None


def test_a_canary_goes_when_sight_begins_anew_and_is_found_by_the_next_claim_where_it_does_not(partitions: Partitions) -> None:
    claimed(partitions, P0, P1, P2)
    advance(partitions, [row(p, sight=(1, 2, 3))._replace(canary_ms=7) for p in (P0, P1, P2)], None, 0)
    proven = Stored(20, 1, 2, 3, "log", 7)
    assert partitions.claim("x", TTL, "next", [P0, P1]).partitions == {P0: proven, P1: proven}
    partitions.begin("next", {P0: 20, P1: 20}, [P0])
    partitions.alter({P2: 5})
    assert partitions.read_proof() == {P0: proven, P1: Stored(20)}
    assert partitions.claim("x", TTL, "last", [P2]).partitions == {P2: Stored(5)}


# --- what an operator wants


def target(partitions: Partitions) -> Target:
    return Target.parse(partitions._connection.call("HGET", partitions.keys.proof, TARGET))


def test_what_an_operator_wants_is_kept_with_the_time_since_when(partitions: Partitions) -> None:
    before = now_ms()
    partitions.aim("PAUSED")
    first = target(partitions)
    assert first.state == "PAUSED"
    assert before - 2_000 <= first.at_ms <= now_ms() + 2_000
    partitions._connection.call("HSET", partitions.keys.proof, TARGET, msgspec.json.encode(Target("PAUSED", 5)))
    partitions.aim("PAUSED")
    assert target(partitions) == Target("PAUSED", 5)
    partitions.aim("STOPPED")
    assert (target(partitions).state, target(partitions).at_ms >= before - 2_000) == ("STOPPED", True)


@pytest.mark.parametrize("rubbish", ["", "PAUSED", "[]", '{"state":5}', b"\xff"])
def test_rubbish_in_its_place_is_replaced(partitions: Partitions, rubbish: str | bytes) -> None:
    partitions._connection.call("HSET", partitions.keys.proof, TARGET, rubbish)
    partitions.aim("PAUSED")
    assert target(partitions).state == "PAUSED"


def test_another_configuration_drops_the_proof_and_not_what_an_operator_wants(connection: Connection, partitions: Partitions) -> None:
    claimed(partitions, P0)
    partitions.say(0, 5, "lag", 1)
    partitions.aim("PAUSED")
    kept = target(partitions)
    assert partitions.claim("y", TTL, "next", [P1]).dropped
    assert target(partitions) == kept
    fields = connection.execute("HKEYS", partitions.keys.proof)
    assert sorted(fields) == [b"canaries", b"config", b"made_ms", b"t/1/token", b"target", b"ttl"]
    partitions.alter(None)
    assert target(partitions) == kept


def test_what_tasks_said_is_no_partition(partitions: Partitions) -> None:
    claimed(partitions, P0)
    partitions.say(0, 5, "lag", 1)
    assert set(partitions.read_proof()) == {P0}
    partitions.unsay(0)
    partitions.unsay(0)
    assert set(partitions.read_proof()) == {P0}


def test_what_is_said_is_read_and_rubbish_is_left_out(connection: Connection, partitions: Partitions) -> None:
    assert partitions.read_said() == (Target(), {})
    claimed(partitions, P0)
    partitions.say(12, 5, "lag", 1)
    connection.execute("HSET", partitions.keys.proof, "tasks/1", "rubbish", "tasks/x", '{"at_ms":1,"why":"lag"}', "target", "rubbish")
    assert partitions.read_said() == (Target(), {12: Said(5, "lag", 1)})
    partitions.aim("PAUSED")
    assert partitions.read_said()[0].state == "PAUSED"
