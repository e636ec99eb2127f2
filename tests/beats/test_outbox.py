from __future__ import annotations

from collections.abc import Callable

import pytest

from heartbeat.beats import keys, outbox
from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.outbox import Entry, Lease, Outbox, trim
from heartbeat.embedded.redis import EmbeddedRedis

OPS = keys.channel("ops")
Open = Callable[[], Connection]


@pytest.fixture
def another(server: EmbeddedRedis, opened: Callable[..., Connection]) -> Open:
    return lambda: opened(server.host, server.port)


@pytest.fixture
def box(connection: Connection) -> Outbox:
    """The outbox of a channel that has begun, and has the lease."""
    begun = Outbox(connection, "ops")
    assert begun.lease().fence == 1
    return begun


def append(connection: Connection, flip: str, *, connector: str = "pumps", id_: str = "*") -> str:
    connection.call("SADD", CONNECTORS, connector)
    fields = ("flip", flip, "proven_until_ms", 1_000, "detected_ms", 1_001)
    return str(connection.call("XADD", Keys(connector).flips, id_, *fields).decode())


def flips(entries: list[Entry]) -> list[str]:
    return [entry.flip.decode() for entry in entries]


def field(connection: Connection, name: str) -> str | None:
    found = connection.call("HGET", OPS, name)
    return None if found is None else str(found.decode())


def test_a_new_channel_begins_at_the_end_of_what_there_is(connection: Connection) -> None:
    append(connection, "old")
    box = Outbox(connection, "ops")
    box.lease()
    append(connection, "new")
    assert flips(box.read(10)) == ["new"]


def test_a_connector_that_comes_after_the_channel_is_read_from_its_beginning(connection: Connection, box: Outbox) -> None:
    append(connection, "first", connector="later")
    box.lease()
    assert flips(box.read(10)) == ["first"]


def test_an_entry_says_what_the_judging_script_wrote(connection: Connection, box: Outbox) -> None:
    id_ = append(connection, "x")
    assert box.read(10) == [Entry("pumps", id_, b"x", 1_000, 1_001)]
    assert box.read(10)[0].written_ms == int(id_.split("-")[0])


def test_an_entry_without_the_fields_is_read_all_the_same(connection: Connection, box: Outbox) -> None:
    connection.call("SADD", CONNECTORS, "pumps")
    connection.call("XADD", Keys("pumps").flips, "5-1", "other", "x", "detected_ms", "soon")
    assert box.read(10) == [Entry("pumps", "5-1", b"", None, None)]


def test_what_the_channel_has_is_not_read_again(connection: Connection, box: Outbox) -> None:
    for number in range(5):
        append(connection, str(number))
    assert box.advance(box.read(3))
    assert flips(box.read(10)) == ["3", "4"]
    box.lease()
    assert flips(box.read(10)) == ["3", "4"]


def test_the_successor_goes_on_where_the_channel_is(connection: Connection, box: Outbox, another: Open) -> None:
    for number in range(3):
        append(connection, str(number))
    assert box.advance(box.read(2))
    box.release()
    successor = Outbox(another(), "ops")
    assert successor.lease().fence == 2
    assert flips(successor.read(10)) == ["2"]


def test_one_of_two_has_the_lease_and_keeps_it(box: Outbox, another: Open) -> None:
    other = Outbox(another(), "ops")
    assert other.lease().fence == 0
    assert box.lease().fence == 1
    assert other.lease().fence == 0


def test_the_lease_of_an_owner_who_is_gone_ends(connection: Connection, box: Outbox, another: Open) -> None:
    connection.call("HSET", OPS, "until_ms", box.lease().now_ms - 1)
    assert Outbox(another(), "ops").lease().fence == 2


def test_a_lease_from_before_the_clock_was_set_back_does_not_hold_for_ever(connection: Connection, box: Outbox, another: Open) -> None:
    connection.call("HSET", OPS, "until_ms", box.lease().now_ms + 3_600_000)
    assert Outbox(another(), "ops").lease().fence == 2


def test_an_owner_who_wakes_up_too_late_writes_nothing(connection: Connection, box: Outbox, another: Open) -> None:
    append(connection, "x")
    slept_over = box.read(10)
    connection.call("HSET", OPS, "until_ms", 1)
    successor = Outbox(another(), "ops")
    assert successor.lease().fence == 2
    assert not box.advance(slept_over)
    assert flips(successor.read(10)) == ["x"]
    assert box.lease().fence == 0


def test_giving_back_a_lease_that_is_somebody_elses_changes_nothing(connection: Connection, box: Outbox, another: Open) -> None:
    connection.call("HSET", OPS, "until_ms", 1)
    successor = Outbox(another(), "ops")
    successor.lease()
    box.release()
    assert box.lease().fence == 0
    assert successor.lease().fence == 2


def test_a_cursor_that_was_moved_by_somebody_is_not_overwritten(connection: Connection, box: Outbox) -> None:
    append(connection, "x", id_="7-1")
    found = box.read(10)
    connection.call("HSET", OPS, "at:pumps", "3-0")
    assert not box.advance(found)
    assert field(connection, "at:pumps") == "3-0"


def test_a_flush_loses_nothing_that_comes_after_it(connection: Connection, box: Outbox) -> None:
    append(connection, "told")
    assert box.advance(box.read(10))
    connection.call("FLUSHALL")
    append(connection, "after the flush", id_="5-1")  # an id that says nothing: clocks differ between servers
    assert box.lease().fence == 1
    assert flips(box.read(10)) == ["after the flush"]


def test_a_channel_begun_anew_by_one_who_knew_nothing_goes_back_if_another_knows_it(
    connection: Connection, box: Outbox, another: Open
) -> None:
    append(connection, "told")
    assert box.advance(box.read(10))
    connection.call("FLUSHALL")
    append(connection, "of a known connector")
    append(connection, "of a connector without a cursor", connector="valves")
    stranger = Outbox(another(), "ops")
    assert stranger.lease().fence == 1
    assert stranger.read(10) == []
    assert box.lease().fence == 0
    stranger.lease()
    assert sorted(flips(stranger.read(10))) == ["of a connector without a cursor", "of a known connector"]


def test_a_cursor_beyond_the_end_of_its_stream_goes_back_to_the_beginning(connection: Connection, box: Outbox) -> None:
    append(connection, "later", id_="900-1")
    assert box.advance(box.read(10))
    connection.call("DEL", Keys("pumps").flips)
    assert box.read(10) == []
    append(connection, "restored", id_="800-1")
    assert flips(box.read(10)) == ["restored"]
    assert field(connection, "at:pumps") == "0-0"


def test_a_restored_channel_is_read_from_where_it_was_then(connection: Connection, box: Outbox) -> None:
    for number in range(3):
        append(connection, str(number))
    assert box.advance(box.read(1))
    then = field(connection, "at:pumps")
    assert box.advance(box.read(10))
    connection.call("HSET", OPS, "at:pumps", str(then))
    box.lease()
    assert flips(box.read(10)) == ["1", "2"]


def test_a_flood_of_one_connector_keeps_no_other_waiting(connection: Connection, box: Outbox) -> None:
    for connector in ("a", "b", "c"):
        for number in range(4):
            append(connection, f"{connector}{number}", connector=connector)
    first = [box.read(4)[0].connector for _ in range(3)]
    assert sorted(first) == ["a", "b", "c"]


def test_a_name_that_is_no_utf_8_is_a_name(connection: Connection, box: Outbox) -> None:
    name = b"\xff".decode("utf-8", "surrogateescape")
    append(connection, "x", connector=name)
    box.lease()
    found = box.read(10)
    assert [entry.connector for entry in found] == [name]
    assert box.advance(found)
    box.lease()
    assert box.read(10) == []


def test_the_log_of_attempts_keeps_the_newest_thousand(connection: Connection, box: Outbox) -> None:
    for number in range(1_005):
        box.log(b"%d" % number)
    log = connection.call("LRANGE", keys.deliveries("ops"), 0, -1)
    assert (len(log), log[0], log[-1]) == (1_000, b"1004", b"5")


def test_who_is_down_is_counted_and_named_up_to_a_bound(connection: Connection, box: Outbox) -> None:
    connection.call("ZADD", Keys("pumps").down, 5_000, "a", 6_000, "b", 7_000, "c")
    assert box.down("pumps", 2) == (3, [("a", 5_000), ("b", 6_000)])


def fill(connection: Connection, count: int, connector: str = "pumps") -> None:
    connection.call("SADD", CONNECTORS, connector)
    key = Keys(connector).flips
    for begin in range(1, count + 1, 10_000):
        connection.calls(*(("XADD", key, f"{number}-1", "flip", "x") for number in range(begin, min(begin + 10_000, count + 1))))


def test_what_every_channel_has_is_cut_but_for_the_history(
    connection: Connection, box: Outbox, another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HISTORY", 150)
    fill(connection, 2_000)
    slow = Outbox(another(), "slow")
    slow.lease()
    assert box.advance(box.read(2_000))
    connection.call("HSET", keys.channel("slow"), "at:pumps", "700-1")
    assert trim(connection, ["ops", "slow"]) == {}
    slow.lease()
    assert slow.read(1)[0].id == "701-1"
    assert 1_300 <= connection.call("XLEN", Keys("pumps").flips) < 1_500
    trim(connection, ["ops"])
    assert 150 <= connection.call("XLEN", Keys("pumps").flips) < 350


def test_without_a_channel_only_the_history_stays(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HISTORY", 100)
    fill(connection, 1_000)
    trim(connection, [])
    trim(connection, ["never begun"])
    assert 100 <= connection.call("XLEN", Keys("pumps").flips) < 300


def test_a_stream_is_never_emptied(connection: Connection, box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HISTORY", 1)
    fill(connection, 500)
    assert box.advance(box.read(500))
    trim(connection, ["ops"])
    assert connection.call("XREVRANGE", Keys("pumps").flips, "+", "-", "COUNT", 1)[0][0] == b"500-1"
    assert box.read(10) == []


def test_what_is_cut_at_the_hard_bound_is_counted_for_the_channel_that_lacks_it(
    connection: Connection, box: Outbox, another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_ENTRIES", 1_000)
    fast = Outbox(another(), "fast")
    fast.lease()
    fill(connection, 3_500)
    assert box.advance(box.read(400))
    fast.lease()
    assert fast.advance(fast.read(3_500))
    assert trim(connection, ["ops", "fast"]) == {"ops": 2_100}
    assert connection.call("XLEN", Keys("pumps").flips) == 1_000
    box.lease()
    assert box.cut == {"pumps": 2_100}
    assert box.read(1)[0].id == "2501-1"
    fast.lease()
    assert fast.cut == {}
    assert box.loss_told("pumps")
    box.lease()
    assert box.cut == {}


def test_a_cut_that_is_made_twice_is_counted_once(connection: Connection, box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a crash between writing down and cutting, or when two monitors cut the same."""
    monkeypatch.setattr(outbox, "MOST_ENTRIES", 100)
    fill(connection, 150)
    contents = connection.call("DUMP", Keys("pumps").flips)
    assert trim(connection, ["ops"]) == {"ops": 50}
    connection.call("RESTORE", Keys("pumps").flips, 0, contents, "REPLACE")
    assert trim(connection, ["ops"]) == {}
    box.lease()
    assert box.cut == {"pumps": 50}


def test_a_loss_that_grows_while_it_is_being_told_is_told_again(
    connection: Connection, box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_ENTRIES", 100)
    fill(connection, 150)
    trim(connection, ["ops"])
    box.lease()
    connection.call("HINCRBY", OPS, "lost:pumps", 5)
    assert not box.loss_told("pumps")
    box.lease()
    assert box.cut == {"pumps": 55}


def test_a_lease_needs_no_outbox(connection: Connection, another: Open) -> None:
    canary, other = Lease(connection, "canary"), Lease(another(), "canary")
    assert (canary.take().fence, other.take().fence, canary.take().fence) == (1, 0, 1)
    canary.release()
    assert (other.take().fence, canary.take().fence) == (2, 0)
