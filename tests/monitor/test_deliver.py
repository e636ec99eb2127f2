from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.patience import patient
from tests.real.programs import free_port

from heartbeat.beats import keys, outbox
from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.outbox import Outbox, trim
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.monitor.alert import Delivery
from heartbeat.monitor.channels import TransportError
from heartbeat.monitor.deliver import Deliverer, Pace, backoff_s
from heartbeat.monitor.flips import Flip, incident_of, key_of
from heartbeat.monitor.messages import Message
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Defaults, Rule, Settings

DEADLINE_S = 30.0


QUIET = Rule("quiet*", channels=())
RULES = Rules(Settings(defaults=Defaults(channels=("ops", "slow")), rules=(QUIET,)))
"""Everybody is told everything, but of what begins with ``quiet``."""


@dataclass(slots=True)
class Hook:
    """A channel that keeps what it was sent, and raises what a test wants first: one for each attempt."""

    got: list[Message] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    before: Callable[[], object] = lambda: None
    dies: bool = False

    def send(self, message: Message) -> None:
        self.before()
        if self.errors:
            raise self.errors.pop(0)
        self.got.append(message)
        if self.dies:
            raise KeyboardInterrupt

    def close(self) -> None: ...

    @property
    def flips(self) -> list[tuple[str, str]]:
        return [(flip.source, flip.to) for message in self.got for flip in message.flips]


@dataclass(slots=True)
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


class World:
    """A Redis, channels, and the monitors that deliver to them; time is the test's."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self._server = server
        self._open: list[Connection] = []
        self.clock = Clock()
        self.connection = self.connect()
        self.connection.call("FLUSHALL")
        self.connection.call("SADD", CONNECTORS, "pumps")

    def connect(self, port: int | None = None) -> Connection:
        connection = Connection(patient(self._server.host, port or self._server.port))
        self._open.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    def deliverer(self, hook: Hook, name: str = "ops", *, group_wait_s: float = 0.0, rules: Rules | None = None) -> Deliverer:
        which, box = rules or RULES, Outbox(self.connect(), name)
        return Deliverer(name, hook, box, lambda: which, Pace(group_wait_s, self.clock, lambda: 1_755_000_000.0, lambda: 0.0))

    def append(self, *flips: Flip, connector: str = "pumps") -> None:
        for begin in range(0, len(flips), 5_000):
            commands = [("XADD", Keys(connector).flips, "*", *fields_of(flip)) for flip in flips[begin : begin + 5_000]]
            self.connection.calls(*commands)

    def cursor(self, name: str = "ops") -> bytes | None:
        found = self.connection.call("HGET", keys.channel(name), "at:pumps")
        assert found is None or isinstance(found, bytes)
        return found

    def log(self, name: str = "ops") -> list[Delivery]:
        return [msgspec.json.decode(line, type=Delivery) for line in self.connection.call("LRANGE", keys.deliveries(name), 0, -1)]


@pytest.fixture
def world(server: EmbeddedRedis) -> Iterator[World]:
    world = World(server)
    yield world
    world.close()


def fields_of(flip: Flip) -> tuple[str | bytes | int, ...]:
    return ("flip", msgspec.json.encode(flip), "proven_until_ms", 7_000, "detected_ms", 8_000)


def flip(source: str, to: str = "DOWN", judged: int = 5_000, **more: Any) -> Flip:
    incident = incident_of("pumps", source, judged)
    reason = {"DOWN": "silence", "UP": "recovered", "BLIND": "blind", "SIGHTED": "sighted"}[to]
    return Flip(key_of(incident, to), incident, source, "pumps", "UP", to, reason, judged, **more)


def begun(world: World, hook: Hook, **more: Any) -> Deliverer:
    deliverer = world.deliverer(hook, **more)
    deliverer.turn()
    assert deliverer.state.leader
    return deliverer


def test_a_flip_is_delivered_once_and_noted(world: World) -> None:
    hook = Hook()
    deliverer = begun(world, hook)
    world.append(flip("a"))
    deliverer.turn()
    deliverer.turn()
    [message] = hook.got
    assert message.flips == (msgspec.structs.replace(flip("a"), proven_until_ms=7_000, detected_ms=8_000),)
    assert message.key == flip("a").key
    [delivery] = world.log()
    assert (delivery.status, delivery.attempt, delivery.flips, delivery.key) == ("delivered", 1, 1, message.key)
    assert (deliverer.state.last_success_ms, deliverer.state.pending) == (1_755_000_000_000, 0)


def test_flips_that_are_not_for_the_channel_are_passed_over(world: World) -> None:
    hook = Hook()
    deliverer = begun(world, hook, rules=Rules(Settings(rules=(QUIET, Rule("*", channels=("ops",))))))
    world.append(flip("quiet-1"), flip("pipeline:pumps", "BLIND"))
    deliverer.turn()
    assert hook.got == []
    world.append(flip("a"))
    deliverer.turn()
    assert hook.flips == [("a", "DOWN")]


def test_who_was_told_of_an_incident_hears_of_its_end_though_the_rules_have_changed(world: World) -> None:
    hook, live = Hook(), [RULES]
    deliverer = Deliverer("ops", hook, Outbox(world.connect(), "ops"), lambda: live[0], Pace(0.0, world.clock))
    deliverer.turn()
    world.append(flip("a"), flip("pipeline:pumps", "BLIND"))
    deliverer.turn()
    live[0] = Rules(Settings(defaults=Defaults(channels=("dev",))))
    world.append(flip("a", "UP"), flip("pipeline:pumps", "SIGHTED"), flip("b"), flip("c", "UP"))
    deliverer.turn()
    assert hook.flips == [("a", "DOWN"), ("pipeline:pumps", "BLIND"), ("a", "UP"), ("pipeline:pumps", "SIGHTED")]


def test_what_failed_is_forgotten_with_the_lease_for_it_is_anothers_affair(world: World) -> None:
    one, other = Hook(errors=[TransportError("HTTP 503")]), Hook()
    first = begun(world, one)
    world.append(flip("a"))
    first.turn()
    assert (first.state.failures, first.state.last_error) == (1, "HTTP 503")
    first._outbox.release()
    second = begun(world, other)
    second.turn()
    first.turn()
    assert (first.state.leader, first.state.failures, first.state.last_error) == (False, 0, "")
    assert other.flips == [("a", "DOWN")]


def test_flips_that_come_together_are_told_together(world: World) -> None:
    hook, minute_ms = Hook(), 60_000
    deliverer = begun(world, hook, group_wait_s=60.0)
    world.append(flip("a"))
    wait_s = deliverer.turn()
    assert 0 < wait_s <= 60
    assert (deliverer.state.pending, hook.got) == (1, [])
    now_ms = 1000 * int(world.connection.call("TIME")[0])
    world.connection.call("DEL", Keys("pumps").flips)  # the time of Redis cannot be moved on: an entry of a minute ago takes its place
    world.connection.call("XADD", Keys("pumps").flips, f"{now_ms - minute_ms}-0", *fields_of(flip("a")))
    world.append(flip("b"))
    deliverer.turn()
    assert [[flip.source for flip in message.flips] for message in hook.got] == [["a", "b"]]


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_entry_from_the_future_is_not_waited_for(world: World) -> None:
    """The clock of Redis was set back; a stream's ids are not."""
    hook = Hook()
    deliverer = begun(world, hook, group_wait_s=5.0)
    future = int(world.connection.call("TIME")[0]) * 1000 + 3_600_000
    world.connection.call("XADD", Keys("pumps").flips, f"{future}-0", *fields_of(flip("a")))
    deliverer.turn()
    assert hook.flips == [("a", "DOWN")]


def test_a_failure_is_tried_again_later_and_what_came_meanwhile_goes_along(world: World) -> None:
    hook = Hook(errors=[TransportError("HTTP 500"), TransportError("HTTP 500")])
    deliverer = begun(world, hook)
    world.append(flip("a"), flip("b"))
    deliverer.turn()
    assert (deliverer.state.failures, deliverer.state.last_error, deliverer.state.pending) == (1, "HTTP 500", 2)
    assert deliverer.turn() == 0.5
    assert len(hook.errors) == 1, "it does not try before its time"
    world.clock.now_s += 1.0
    deliverer.turn()
    world.append(flip("a", "UP"))
    world.clock.now_s += 1.0
    deliverer.turn()
    assert hook.flips == [("b", "DOWN"), ("a", "UP")]
    assert "a" in hook.got[0].text
    assert [(one.attempt, one.status, one.error) for one in world.log()] == [
        (3, "delivered", ""),
        (2, "failed", "HTTP 500"),
        (1, "failed", "HTTP 500"),
    ]
    assert (deliverer.state.failures, deliverer.state.last_error) == (0, "")


@pytest.mark.parametrize(("wish_s", "pause_s"), [(17.0, 17.0), (0.0, 1.0), (86_400.0, 300.0)])
def test_the_wish_to_be_left_alone_is_honoured_within_bounds(world: World, wish_s: float, pause_s: float) -> None:
    hook = Hook(errors=[TransportError("HTTP 429", retry_after_s=wish_s)])
    deliverer = begun(world, hook)
    world.append(flip("a"))
    deliverer.turn()
    world.clock.now_s += pause_s - 0.1
    deliverer.turn()
    assert hook.got == []
    world.clock.now_s += 0.1
    deliverer.turn()
    assert hook.flips == [("a", "DOWN")]


def test_the_back_off_doubles_to_a_minute_with_full_jitter() -> None:
    assert [backoff_s(failures, 1.0) for failures in (0, 1, 2, 5, 6, 7, 1_000)] == [1, 2, 4, 32, 60, 60, 60]
    assert {backoff_s(failures, 0.0) for failures in range(100)} == {1.0}
    assert backoff_s(3, 0.5) == 4.5


def test_what_is_refused_for_good_is_counted_as_lost_and_the_next_is_told(world: World) -> None:
    hook = Hook(errors=[TransportError("HTTP 404", permanent=True)])
    deliverer = begun(world, hook)
    world.append(flip("a"), flip("b"))
    deliverer.turn()
    world.append(flip("c"))
    deliverer.turn()
    assert hook.flips == [("c", "DOWN")]
    assert (deliverer.state.lost, deliverer.state.failures) == (2, 0)
    assert [one.status for one in world.log()] == ["delivered", "lost"]


def test_what_is_too_large_is_sent_in_smaller_pieces(world: World) -> None:
    too_large = TransportError("HTTP 413", permanent=True, too_large=True)
    hook = Hook(errors=[too_large, too_large])
    deliverer = begun(world, hook)
    world.append(*[flip(str(number)) for number in range(10)])
    for _ in range(3):
        deliverer.turn()
    assert [len(message.flips) for message in hook.got] == [2, 2, 2, 2, 2]
    assert [source for source, _ in hook.flips] == [str(number) for number in range(10)]
    hook.errors = [too_large]
    world.append(flip("one"))
    deliverer.turn()
    assert deliverer.state.lost == 1


def test_garbage_in_the_stream_holds_up_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook()
    deliverer = begun(world, hook)
    unkeyed = msgspec.json.encode(msgspec.structs.replace(flip("x"), key="a\nb"))
    for garbage in (b"", b"{", b"\xff", b"[" * 5_000, b'{"key":1}', b"null", unkeyed):
        world.connection.call("XADD", Keys("pumps").flips, "*", "flip", garbage)
    world.connection.call("XADD", Keys("pumps").flips, "*", "unknown", "x")
    world.append(flip("a"))
    deliverer.turn()
    assert hook.flips == [("a", "DOWN")]
    assert sum("is no flip, and is passed over" in record.getMessage() for record in caplog.records) == 8
    caplog.clear()
    deliverer.turn()
    assert not caplog.records


def test_one_of_two_monitors_delivers_and_the_other_takes_over(world: World) -> None:
    first, second = Hook(), Hook()
    one, other = begun(world, first), world.deliverer(second)
    other.turn()
    assert not other.state.leader
    world.append(flip("a"))
    other.turn()
    one.turn()
    world.append(flip("b"))
    world.connection.call("HSET", keys.channel("ops"), "until_ms", 1)  # the first one was killed, and its lease is over
    other.turn()
    assert (first.flips, second.flips) == ([("a", "DOWN")], [("b", "DOWN")])
    one.turn()
    assert not one.state.leader


def test_an_owner_who_hung_in_a_sending_moves_no_cursor_when_he_wakes(world: World) -> None:
    second = Hook()
    other = world.deliverer(second)

    def hang() -> None:
        """Longer than the lease: the other monitor tells this, and more."""
        world.connection.call("HSET", keys.channel("ops"), "until_ms", 1)
        other.turn()
        world.append(flip("b"))
        other.turn()

    one = begun(world, first := Hook())
    world.append(flip("a"))
    first.before = hang
    one.turn()
    assert second.flips == [("a", "DOWN"), ("b", "DOWN")]
    assert world.cursor() == world.connection.call("XREVRANGE", Keys("pumps").flips, "+", "-", "COUNT", 1)[0][0]
    first.before = lambda: None
    one.turn()
    assert not one.state.leader
    assert first.flips == [("a", "DOWN")]


def test_a_crash_between_sending_and_noting_repeats_the_same_keys(world: World) -> None:
    first, second = Hook(dies=True), Hook()
    one = begun(world, first)
    world.append(flip("a"), flip("b"))
    with pytest.raises(KeyboardInterrupt):
        one.turn()
    world.connection.call("HSET", keys.channel("ops"), "until_ms", 1)
    world.deliverer(second).turn()
    assert [message.key for message in first.got] == [message.key for message in second.got]
    assert first.flips == second.flips == [("a", "DOWN"), ("b", "DOWN")]


def test_after_a_flush_what_comes_is_told_and_nothing_twice(world: World) -> None:
    hook = Hook()
    deliverer = begun(world, hook)
    world.append(flip("a"))
    deliverer.turn()
    world.connection.call("FLUSHALL")
    world.connection.call("SADD", CONNECTORS, "pumps")
    world.append(flip("a"), flip("b"))
    deliverer.turn()
    assert hook.flips == [("a", "DOWN"), ("b", "DOWN")]


def test_after_the_restore_of_an_older_state_what_comes_is_told(world: World) -> None:
    hook = Hook()
    deliverer = begun(world, hook)
    world.append(flip("a"))
    deliverer.turn()
    older = [(key, world.connection.call("DUMP", key)) for key in (keys.channel("ops"), Keys("pumps").flips)]
    world.append(flip("b"), flip("a", "UP"))
    deliverer.turn()
    for key, dump in older:
        world.connection.call("RESTORE", key, 0, dump, "REPLACE")
    world.append(flip("c"))
    deliverer.turn()
    assert hook.flips == [("a", "DOWN"), ("b", "DOWN"), ("a", "UP"), ("c", "DOWN")]


def test_a_channel_that_hangs_delays_no_other(world: World) -> None:
    """With threads, as they run: the slow one hangs in its sending until the end of the test."""
    let_go, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        let_go.wait(DEADLINE_S)

    slow, fast = Hook(before=hang), Hook()
    deliverers = [begun(world, slow, name="slow"), begun(world, fast)]
    with contextlib.ExitStack() as stack:
        for deliverer in deliverers:
            stack.callback(deliverer.stop)
            deliverer.start()
        stack.callback(let_go.set)
        world.append(flip("a"))
        assert hangs.wait(DEADLINE_S)
        wait_until(lambda: fast.flips == [("a", "DOWN")])
        world.append(flip("b"))
        wait_until(lambda: fast.flips == [("a", "DOWN"), ("b", "DOWN")])
        assert slow.got == []
    assert world.connection.call("HGET", keys.channel("ops"), "owner") is None, "a lease is given back at the end"


def test_a_fault_of_our_own_does_not_end_the_thread(world: World, caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook(errors=[ZeroDivisionError("ours")])
    deliverer = begun(world, hook)
    world.append(flip("a"))
    deliverer.start()
    wait_until(lambda: "The turn of channel ops failed" in caplog.text)
    assert deliverer._thread.is_alive()
    deliverer.stop()
    assert not deliverer._thread.is_alive()


def test_without_redis_only_who_had_the_lease_tells_and_nothing_is_told_twice() -> None:
    with EmbeddedRedis(free_port()) as server, contextlib.closing(World(server)) as world:
        one, other = begun(world, first := Hook()), world.deliverer(second := Hook())
        other.turn()
        server.close()
        blind = flip("pipeline:pumps", "BLIND", message="Redis is away")
        for deliverer in (one, other, one):
            deliverer.tell([blind, flip("quiet-1")])
            deliverer.turn()
        assert (first.flips, second.flips) == ([("pipeline:pumps", "BLIND")], [])
        with EmbeddedRedis(server.port):
            world.connection = world.connect()
            world.connection.call("SADD", CONNECTORS, "pumps")
            world.append(blind, flip("pipeline:pumps", "SIGHTED", down_ms=12_000))
            one.turn()
            other.turn()
            assert first.flips == [("pipeline:pumps", "BLIND"), ("pipeline:pumps", "SIGHTED")]
            assert first.got[-1].text == "SIGHTED pumps: sees again; was blind for 12 s."
            assert second.got == []


def test_what_could_not_be_told_without_redis_is_told_as_it_is_by_then(world: World) -> None:
    hook = Hook(errors=[TransportError("HTTP 500")])
    deliverer = begun(world, hook)
    blind = flip("pipeline:pumps", "BLIND")
    deliverer.tell([blind])
    deliverer.turn()
    world.append(blind, flip("pipeline:pumps", "SIGHTED", down_ms=12_000))
    world.clock.now_s += 1.0
    deliverer.turn()
    assert [message.text for message in hook.got] == ["pumps was blind for 12 s and sees again."]
    deliverer.turn()
    assert len(hook.got) == 1


def test_the_hard_bound_says_the_loss_and_who_is_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_ENTRIES", 10)
    hook = Hook(errors=[TransportError("HTTP 500"), TransportError("HTTP 500")])
    deliverer = begun(world, hook)
    world.append(*[flip(f"p{number}") for number in range(15)])
    deliverer.turn()
    judged = {"p1": 5_000, "p3": 5_000.5, "p14": 5_000, "quiet-1": 5_000}
    world.connection.call("ZADD", Keys("pumps").down, *(word for source, score in judged.items() for word in (score, source)))
    assert trim(world.connection, ["ops"]) == {"ops": 5}
    world.clock.now_s += 1.0
    deliverer.turn()
    world.clock.now_s += 1.0
    deliverer.turn()
    loss, rest = hook.got
    assert loss.text.startswith("LOST 5 changes of pumps: ")
    assert loss.text.endswith("At present DOWN (3): p1, p14, p3.")
    assert [(each.key, each.to, each.reason, each.at_ms) for each in loss.flips] == [
        (flip("p1").key, "DOWN", "silence", 10_000),
        (flip("p14").key, "DOWN", "silence", 10_000),
        (flip("p3").key, "DOWN", "fail", 5_000),
    ]
    assert [each.source for each in rest.flips] == [f"p{number}" for number in range(5, 15)]
    deliverer.turn()
    assert len(hook.got) == 2
    assert deliverer.state.lost == 5


def test_a_hundred_thousand_flips_are_twenty_messages_at_most(world: World) -> None:
    hook = Hook()
    deliverer = begun(world, hook)
    world.connection.call("SADD", CONNECTORS, "valves", "fans")
    world.append(*[flip(f"p{number}") for number in range(100_000)])
    while deliverer.turn() == 0.0:
        pass
    assert len(hook.got) <= 20
    assert len({source for source, _ in hook.flips}) == 100_000


@dataclass(slots=True)
class Flaky:
    """A channel that fails as it is told: before or after the other side has the message, for now or for good; and dies in between."""

    fates: list[str]
    got: list[Message]

    def send(self, message: Message) -> None:
        fate = self.fates.pop() if self.fates else "fine"
        if fate == "fails":
            raise TransportError("HTTP 500")
        self.got.append(message)
        if fate == "unheard":
            raise TransportError("no answer within 8 s")
        if fate == "dies":
            raise KeyboardInterrupt

    def close(self) -> None: ...


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), fates=st.lists(st.sampled_from(["fine", "fails", "unheard", "dies"]), max_size=12))
def test_whatever_fails_every_incidents_last_state_arrives_in_order_under_its_key(
    server: EmbeddedRedis, seed: int, fates: Sequence[str]
) -> None:
    world, rng = World(server), random.Random(seed)
    hook = Flaky(list(fates), [])
    monitors = [world.deliverer(hook) for _ in range(2)]  # type: ignore[arg-type]
    monitors[0].turn()
    judged = dict.fromkeys("abc", 0)
    history: list[Flip] = []
    for _ in range(rng.randrange(1, 30)):
        source = rng.choice("abc")
        opens = not any(each.source == source for each in history) or [f for f in history if f.source == source][-1].to == "UP"
        judged[source] += 1_000 * opens
        history.append(flip(source, "DOWN" if opens else "UP", judged[source]))
        world.append(history[-1])
        action = rng.random()
        if action < 0.2:
            world.connection.call("HSET", keys.channel("ops"), "until_ms", 1)
        if action < 0.7:
            take_turn(world, hook, monitors, rng.randrange(2))
        world.clock.now_s += rng.choice([0.0, 1.0])
    for number in range(60):
        world.clock.now_s += 100.0
        take_turn(world, hook, monitors, number % 2)
    try:
        see_that_all_arrived(history, [each for message in hook.got for each in message.flips])
    finally:
        world.close()


def take_turn(world: World, hook: Flaky, monitors: list[Deliverer], number: int) -> None:
    try:
        monitors[number].turn()
    except KeyboardInterrupt:  # killed: another process takes its place, and its lease has to end first
        monitors[number] = world.deliverer(hook)  # type: ignore[arg-type]
        world.connection.call("HSET", keys.channel("ops"), "until_ms", 1)


def see_that_all_arrived(history: Sequence[Flip], got: Sequence[Flip]) -> None:
    """Nothing is made up; each incident ends as it ended; and each source's flips arrive in order, but for repetitions of what was told."""
    order = {each.key: number for number, each in enumerate(history)}
    assert {each.key for each in got} <= order.keys()
    last = {each.incident: each.key for each in history}
    assert {each.incident: each.key for each in got} == last
    for source in "abc":
        first_times = list(dict.fromkeys(each.key for each in got if each.source == source))
        assert first_times == sorted(first_times, key=order.__getitem__)
