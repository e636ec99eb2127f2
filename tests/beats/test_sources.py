"""What a task knows of its sources and writes of them: each rule by example, on a real Redis, by a time the test sets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.beats.parts import TTL, expiry_of, now_ms, public, value_of
from tests.beats.worlds import Breaking, Crash, Faults
from tests.patience import patient

from heartbeat.beats.beat import ALLOWED_SKEW_MS, Newest
from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Info, Keyspace
from heartbeat.beats.partitions import Advanced
from heartbeat.beats.settings import Limits
from heartbeat.beats.signals import Order, Signal
from heartbeat.beats.sources import Sources
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import RetriableError

LIMITS = Limits(TTL, 1_000_000, 600_000)


@pytest.fixture
def sources(keyspace: Keyspace) -> Sources:
    return Sources(keyspace, LIMITS)


@pytest.fixture
def breaking(server: EmbeddedRedis) -> Callable[..., tuple[Sources, Faults]]:
    """Sources over a connection whose command of this number, counted after the connection stands, goes wrong."""

    def made(*, command: int, kind: str) -> tuple[Sources, Faults]:
        faults = Faults({})
        connection = Breaking(patient(server.host, server.port), faults)
        connection.check()
        faults.commands, faults.plan = 0, {command: kind}
        return Sources(Keyspace(connection, "c"), LIMITS), faults

    return made


def beats(of: dict[str, int], ttls_ms: dict[str, int] | None = None) -> Newest:
    return Newest(dict(of), {}, ttls_ms or {})


def apply(sources: Sources, newest: Newest, now: int) -> None:
    """Write all of it, as the sink does with a small batch and the empty one that follows."""
    sources.send(sources.prepare(newest, now), now)
    sources.settle(now)
    sources.introduce(2_000)


def advanced(sources: int, gone: int = 0) -> Advanced:
    return Advanced(frozenset(), 0, sources, gone)


def test_beats_reach_keys_index_and_what_is_kept_of_their_sources(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now, "b": now - 5}, {"b": 30_000}), now)
    assert (value_of(connection, "a"), expiry_of(connection, "a")) == (now, now + TTL)
    assert (value_of(connection, "b"), expiry_of(connection, "b")) == (now - 5, now + 29_995)
    assert keyspace.read_deadlines("ab") == {"a": now + TTL, "b": now + 29_995}
    assert keyspace.read_infos("ab") == {"a": Info(now, TTL), "b": Info(now - 5, 30_000)}
    assert (sources.known, sources.counts.applied) == (2, 2)


def test_of_sources_that_find_no_room_nothing_is_kept_whatever_they_say(keyspace: Keyspace, connection: Connection) -> None:
    sources, now = Sources(keyspace, Limits(TTL, 1, 600_000)), now_ms()
    apply(sources, beats({"a": now}), now)
    for number in range(5):
        sources.advanced(advanced(1, int(connection.call("ZCARD", keyspace.keys.gone))))
        apply(sources, Newest({}, {f"ahead{number}": now + 60_000}), now)
        sources.signal([Signal(f"ahead{number}", Order(now, "t/0", number), "fail", "run")], now)
        sources.signal([Signal(f"bye{number}", Order(now, "t/0", number), "bye")], now)
    assert connection.call("HKEYS", keyspace.keys.status) == [b"bye0"]
    assert connection.call("ZRANGE", keyspace.keys.gone, 0, -1) == [b"bye0"]
    assert connection.call("HLEN", keyspace.keys.runs) == 0
    assert not sources._raws_ms


@pytest.mark.parametrize("back_ms", [0, 1, 10_000])
def test_a_beat_that_is_not_newer_is_not_written(sources: Sources, connection: Connection, back_ms: int) -> None:
    now = now_ms()
    apply(sources, beats({"a": now}), now)
    connection.execute("DEL", "a")
    apply(sources, beats({"a": now - back_ms}), now)
    assert public(connection) == set()
    assert sources.counts.applied == 1


def test_a_replay_by_a_task_that_knows_nothing_ends_with_what_the_index_says(connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(Sources(keyspace, LIMITS), beats({"a": now, "b": now}), now)
    replaying = Sources(keyspace, LIMITS)
    apply(replaying, beats({"a": now - 5_000, "b": now + 1}), now)
    assert (value_of(connection, "a"), expiry_of(connection, "a")) == (now, now + TTL)
    assert value_of(connection, "b") == now + 1
    assert replaying.counts.stale == 1
    apply(replaying, beats({"a": now - 1}), now)
    assert value_of(connection, "a") == now, "it has learnt what stands"


def test_a_replay_revives_nobody_and_kills_nobody(connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(Sources(keyspace, LIMITS), beats({"alive": now}), now)
    replaying = Sources(keyspace, LIMITS)
    for days_ago in range(10, 0, -1):
        apply(replaying, beats(dict.fromkeys(("alive", "dead"), now - days_ago * 86_400_000)), now)
    assert public(connection) == {"alive"}
    assert value_of(connection, "alive") == now
    assert keyspace.read_deadlines(["alive", "dead"]) == {"alive": now + TTL, "dead": now - 86_400_000 + TTL}
    assert replaying.counts.expired == 20


# --- faults in the middle


def test_a_batch_put_again_after_a_fault_finishes_what_was_begun(
    connection: Connection, keyspace: Keyspace, breaking: Callable[..., tuple[Sources, Faults]]
) -> None:
    """For each of its commands: the reply is lost, or the command is. An older beat has overwritten a public key meanwhile."""
    now = now_ms()
    batch = beats({"old": now - 5_000, "new": now, "short": now}, {"new": 30_000, "short": 5_000})
    ended = False
    for command in range(1, 40):
        for kind in ("lose", "refuse"):
            connection.execute("FLUSHALL")
            apply(Sources(keyspace, LIMITS), beats({"old": now, "short": now - 5_000}), now)
            sources, _ = breaking(command=command, kind=kind)
            try:
                apply(sources, batch, now)
                ended = True
            except RetriableError:
                sources.forget(TTL)
                apply(sources, batch, now)
            assert (value_of(connection, "old"), expiry_of(connection, "old")) == (now, now + TTL), (command, kind)
            assert (value_of(connection, "short"), expiry_of(connection, "short")) == (now, now + 5_000), (command, kind)
            assert keyspace.read_infos(["new", "short"]) == {"new": Info(now, 30_000), "short": Info(now - 5_000, 5_000)}, (command, kind)
        if ended:
            break
    assert ended
    assert command > 6


def test_a_ttl_is_never_forgotten_by_a_crash_between_two_commands(
    connection: Connection, keyspace: Keyspace, breaking: Callable[..., tuple[Sources, Faults]]
) -> None:
    """The replay brings both beats at once, so that the longer ttl of the first is not said again."""
    now = now_ms()
    for command in range(1, 10):
        connection.execute("FLUSHALL")
        sources, _ = breaking(command=command, kind="crash")
        try:
            apply(sources, beats({"a": now - 5_000}, {"a": 60 * TTL}), now)
        except Crash:
            pass
        else:
            break
        apply(Sources(keyspace, LIMITS), beats({"a": now}), now)
        assert keyspace.read_deadlines("a") == {"a": now + TTL}, command
        assert (value_of(connection, "a"), expiry_of(connection, "a")) == (now, now + TTL), command
    assert command > 2


# --- ttl


@pytest.mark.parametrize("ttl_ms", [5_000, 3 * TTL])
def test_a_ttl_that_changes_moves_the_deadline_either_way_and_back(
    sources: Sources, connection: Connection, keyspace: Keyspace, ttl_ms: int
) -> None:
    now = now_ms()
    for step, ttl in enumerate((TTL, ttl_ms, ttl_ms, TTL, ttl_ms)):
        apply(sources, beats({"a": now + step}, {"a": ttl} if ttl != TTL else {}), now)
        assert keyspace.read_deadlines("a") == {"a": now + step + ttl}
        assert (value_of(connection, "a"), expiry_of(connection, "a")) == (now + step, now + step + ttl)


def test_a_shorter_ttl_may_end_a_life_at_once(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now - 30_000}, {"a": 10 * TTL}), now)
    apply(sources, beats({"a": now - 20_000}, {"a": 5_000}), now)
    assert public(connection) == set()
    assert keyspace.read_deadlines("a") == {"a": now - 15_000}


def test_another_default_ttl_holds_from_the_next_beat_on(connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(Sources(keyspace, LIMITS), beats({"a": now, "silent": now}), now)
    apply(Sources(keyspace, Limits(5_000, 10, 600_000)), beats({"a": now + 1}), now)
    assert keyspace.read_deadlines(["a", "silent"]) == {"a": now + 5_001, "silent": now + TTL}
    assert expiry_of(connection, "a") == now + 5_001


# --- clocks ahead


def ahead(raw: int) -> Newest:
    return Newest({}, {"a": raw})


def test_a_timestamp_of_the_future_is_a_beat_of_now_and_the_skew_once(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    now, raw = now_ms(), now_ms() + 3_600_000
    apply(sources, ahead(raw), now)
    assert value_of(connection, "a") == now + ALLOWED_SKEW_MS
    assert keyspace.read_infos("a") == {"a": Info(now + ALLOWED_SKEW_MS, TTL, raw)}
    for again in (sources, Sources(keyspace, LIMITS)):
        apply(again, ahead(raw), now + 30_000)
        apply(again, ahead(raw - 1), now + 30_000)
        assert value_of(connection, "a") == now + ALLOWED_SKEW_MS, "a replay extends no life"
    apply(sources, ahead(raw + 1), now + 30_000)
    assert value_of(connection, "a") == now + 30_000 + ALLOWED_SKEW_MS
    assert sources.counts.clamped == 2


def test_a_clock_that_was_corrected_is_believed_again(sources: Sources, connection: Connection) -> None:
    now = now_ms()
    apply(sources, ahead(now + 3_600_000), now)
    apply(sources, beats({"a": now + 5_000}), now + 5_000)
    assert value_of(connection, "a") == now + 5_000


# --- the bound


def test_at_the_bound_the_longest_dead_make_room_and_then_the_new_are_refused(
    keyspace: Keyspace, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    now = now_ms()
    sources = Sources(keyspace, Limits(TTL, 3, 600_000))
    apply(sources, beats({"dead": now - 3 * TTL, "deader": now - 5 * TTL, "alive": now}), now)
    sources.advanced(advanced(3))
    apply(sources, beats({"new": now}), now)
    assert keyspace.read_deadlines(["dead", "deader", "alive", "new"]).keys() == {"dead", "alive", "new"}
    sources.advanced(advanced(3))
    apply(sources, beats({"newer": now, "newest": now, "alive": now + 1}), now)
    assert public(connection) == {"alive", "new", "newer"}
    assert value_of(connection, "alive") == now + 1
    assert sources.counts.refused == 1
    assert "heartbeat.sources.max" in caplog.text


def test_the_known_live_on_at_the_bound(keyspace: Keyspace, connection: Connection) -> None:
    now = now_ms()
    sources = Sources(keyspace, Limits(TTL, 2, 600_000))
    apply(sources, beats({"a": now, "b": now}), now)
    sources.advanced(advanced(2))
    for step in range(1, 4):
        apply(sources, beats({"a": now + step, "b": now + step, f"c{step}": now}), now)
    assert public(connection) == {"a", "b"}
    assert [value_of(connection, source) for source in "ab"] == [now + 3] * 2
    assert sources.counts.refused == 3


# --- names that somebody else uses


def test_an_applications_key_is_left_alone_told_and_taken_when_it_is_free(
    sources: Sources, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    now = now_ms()
    connection.execute("RPUSH", "a", "theirs")
    for step in range(3):
        apply(sources, beats({"a": now + step, "b": now + step}), now)
    assert connection.execute("LRANGE", "a", "0", "-1") == [b"theirs"]
    assert value_of(connection, "b") == now + 2
    assert sources.counts.occupied == 3
    assert caplog.text.count("another type") == 1
    connection.execute("DEL", "a")
    apply(sources, beats({"a": now + 3}), now)
    assert value_of(connection, "a") == now + 3


# --- signals and goodbyes


def signal(status: str, at_ms: int, offset: int = 1, run: str = "") -> Signal:
    return Signal("a", Order(at_ms, "t/0", offset), status, run)


def test_a_goodbye_ends_a_source_and_a_redelivered_older_beat_does_not_bring_it_back(
    sources: Sources, connection: Connection, keyspace: Keyspace
) -> None:
    now = now_ms()
    apply(sources, beats({"a": now}), now)
    sources.signal([signal("bye", now + 5)], now)
    assert (public(connection), keyspace.read_deadlines("a"), keyspace.read_gone("a")) == (set(), {}, {"a": now + 5})
    for task in (sources, Sources(keyspace, LIMITS)):
        apply(task, beats({"a": now + 4}), now)
        assert (public(connection), keyspace.read_deadlines("a")) == (set(), {})
    apply(sources, beats({"a": now + 6}), now)
    assert (value_of(connection, "a"), keyspace.read_gone("a")) == (now + 6, {})


def test_a_ttl_of_its_own_ends_with_a_goodbye(sources: Sources, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now, "b": now}, {"a": 5_000}), now)
    sources.signal([signal("bye", now + 1)], now)
    sources.advanced(advanced(1, gone=1))
    for step, task in enumerate((sources, Sources(keyspace, LIMITS)), 2):
        apply(task, beats({"a": now + step}), now)
        assert keyspace.read_deadlines("a") == {"a": now + step + TTL}


def test_a_late_goodbye_does_not_end_what_has_begun_again(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now}, {"a": 5_000}), now)
    for task in (sources, Sources(keyspace, LIMITS)):
        task.signal([signal("bye", now - 1)], now)
    assert (value_of(connection, "a"), keyspace.read_gone("a")) == (now, {})
    assert sources.counts.goodbyes == 0


def test_a_goodbye_right_after_a_claim_knows_the_ttl_its_source_had(sources: Sources, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now}, {"a": 10 * TTL}), now)
    sources.forget(TTL)
    sources.signal([signal("bye", now + 1)], now)
    assert (keyspace.read_deadlines("a"), keyspace.read_gone("a")) == ({}, {"a": now + 1})


def test_signals_of_one_batch_take_effect_in_the_order_of_time(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    sources.signal([signal("ok", 3, run="r"), signal("start", 1, run="r"), signal("fail", 2)], 5)
    assert b'"ok"' in connection.execute("HGET", keyspace.keys.status, "a")
    assert connection.execute("HLEN", keyspace.keys.runs) == 0


def test_ok_said_with_every_beat_asks_redis_once(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    for at_ms in range(1, 4):
        sources.signal([signal("ok", at_ms)], 5)
    connection.execute("HSET", keyspace.keys.status, "a", "not JSON: a script that read it would fail")
    sources.signal([signal("ok", 9)], 9)


def test_ok_after_a_failure_is_kept_although_ok_was_said_before(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    for at_ms, status in enumerate(("ok", "fail", "ok")):
        sources.signal([signal(status, at_ms)], 5)
    assert b'"ok"' in connection.execute("HGET", keyspace.keys.status, "a")


# --- memory


def test_the_dead_are_forgotten_and_found_again_by_the_index(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now, "b": now}, {"b": 5_000}), now)
    apply(sources, beats({"a": now + 1}), now + 60_000)
    assert sources.known == 1
    apply(sources, beats({"b": now - 1}, {"b": 5_000}), now + 60_000)
    assert keyspace.read_deadlines("b") == {"b": now + 5_000}


def test_after_a_claim_nothing_that_was_written_before_is_trusted(sources: Sources, connection: Connection, keyspace: Keyspace) -> None:
    now = now_ms()
    apply(sources, beats({"a": now}), now)
    sources.advanced(advanced(1))
    connection.execute("FLUSHALL")
    sources.forget(TTL)
    assert (sources.known, sources.indexed) == (0, None)
    apply(sources, beats({"a": now}), now)
    assert value_of(connection, "a") == now
    assert keyspace.read_infos("a") == {"a": Info(now, TTL)}
