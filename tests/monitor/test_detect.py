"""Several connectors, several monitors, and a Redis that loses its data or is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest
from tests.monitor.judging import TTL, Index, Kafka, Monitor
from tests.patience import patient

from heartbeat.beats import verdict_scripts, verdicts
from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keys import CONNECTORS, MONITORS
from heartbeat.beats.keyspace import time_ms
from heartbeat.beats.partitions import Partitions
from heartbeat.connect.api import TopicPartition
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import RetriableError
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.settings import Monitor as Timing
from heartbeat.monitor.settings import Settings

BLIND, SIGHTED = ("pipeline:pumps", "BLIND", "blind"), ("pipeline:pumps", "SIGHTED", "sighted")
DOWN, UP = ("pump", "DOWN", "silence"), ("pump", "UP", "recovered")


@pytest.fixture
def index(connection: Connection) -> Index:
    return Index(connection)


@pytest.fixture
def monitor(server: EmbeddedRedis, connection: Connection, opened: Callable[..., Connection]) -> Monitor:
    """A monitor with a connection of its own."""
    return Monitor(opened(server.host, server.port))


@contextmanager
def stopped(server: EmbeddedRedis, *monitors: Monitor) -> Iterator[None]:
    """Let the server answer nobody, and these monitors not wait for long. Before and after that whoever is late is no outage."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            for monitor in monitors:
                stack.enter_context(hurried(monitor.connection))
            yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextmanager
def hurried(connection: Connection) -> Iterator[None]:
    """Have a connection wait for 0.3 s, by what it is made of: what is open stays so, as in an outage."""
    inner: Any = connection._connection
    patience_s = inner.socket_timeout
    inner.socket_timeout = 0.3
    if inner._sock is not None:
        inner._sock.settimeout(0.3)
    try:
        yield
    finally:
        inner.socket_timeout = patience_s
        connection.close()


class Failing(Connection):
    """A connection that fails at commands of a kind while ``failing`` names it."""

    failing = ""

    def call(self, *command: Argument) -> Any:
        self._look_at(command)
        return super().call(*command)

    def calls(self, *commands: Any) -> list[Any]:
        self._look_at(commands[-1])
        return super().calls(*commands)

    def _look_at(self, command: Any) -> None:
        if self.failing and command[0] == self.failing:
            raise RetriableError("cut off")


@pytest.fixture
def failing(server: EmbeddedRedis, connection: Connection) -> Iterator[Failing]:
    found = Failing(patient(server.host, server.port))
    yield found
    found.close()


class Overtaken(Connection):
    """A connection that is overtaken by another monitor, once, right before it sends a script."""

    script = ""
    by: Callable[[], object] = staticmethod(lambda: None)

    def call(self, *command: Argument) -> Any:
        if self.script and command[:2] == ("EVAL", self.script):
            self.script = ""
            self.by()
        return super().call(*command)


def open_flips(index: Index) -> list[Flip]:
    """Return what a topic of flips would hold open."""
    return [flip for flip in {flip.source: flip for flip in index.flips()}.values() if flip.opens]


def test_two_monitors_that_look_in_turn_tell_each_change_once(index: Index, monitor: Monitor, connection: Connection) -> None:
    other = Monitor(connection, "other")
    sources = [f"pump-{n}" for n in range(700)]
    index.beat(*sources, at=-80_000)
    index.fail("job", "no disk", at=-1_000)
    index.prove()
    for _ in range(3):
        monitor.tick()
        other.tick()
    index.beat(*sources, "job", at=100)
    for _ in range(3):
        other.tick()
        monitor.tick()
    told = index.told()
    assert len(told) == len(set(told)) == 2 * 701
    keys = [flip.key for flip in index.flips()]
    assert len(set(keys)) == len(keys)


def test_connectors_are_watched_side_by_side(index: Index, monitor: Monitor, connection: Connection) -> None:
    other = Index(connection, "fans")
    for one in (index, other):
        one.beat("pump", at=-80_000)
        one.prove()
    monitor.tick()
    assert (index.told(), other.told()) == ([DOWN], [DOWN])
    assert index.flips()[0].incident != other.flips()[0].incident
    assert set(monitor.detector.state.connectors) == {"fans", "pumps"}


def test_a_connector_that_was_deleted_is_forgotten_without_alert(index: Index, monitor: Monitor, connection: Connection) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick()
    connection.calls(("DEL", *index.keys.all), ("SREM", CONNECTORS, "pumps"))
    assert monitor.tick(3) == []
    assert monitor.kafka.forgotten == ["pumps"]
    assert monitor.detector.state.connectors == {}
    assert connection.call("EXISTS", *index.keys.all) == 0


@pytest.mark.parametrize("key", ["deadlines", "proof", "down", "flips", "fails", "expected", "blind"])
def test_an_index_that_somebody_broke_does_not_stop_the_others(key: str, index: Index, monitor: Monitor, connection: Connection) -> None:
    broken = Index(connection, "broken")
    for one in (index, broken):
        one.beat("pump", at=-80_000)
        one.prove()
    connection.calls(("DEL", getattr(broken.keys, key)), ("LPUSH", getattr(broken.keys, key), "x"))
    monitor.tick()
    assert index.told() == [DOWN]
    assert monitor.detector.state.error == ""
    assert "WRONGTYPE" in monitor.detector.state.connectors["broken"].error
    connection.call("DEL", getattr(broken.keys, key))
    monitor.tick(2)
    assert monitor.detector.state.connectors["broken"].error == ""


def test_an_info_that_somebody_broke_does_not_stop_the_others(index: Index, monitor: Monitor, connection: Connection) -> None:
    broken = Index(connection, "broken")
    for one in (index, broken):
        one.beat("pump", at=-80_000)
        one.prove()
    connection.call("HSET", broken.keys.info, "pump", "soon")
    monitor.tick(2)
    assert index.told() == [DOWN]


def test_a_target_that_somebody_broke_does_not_stop_the_others(index: Index, monitor: Monitor, connection: Connection) -> None:
    broken = Index(connection, "broken")
    index.beat("pump", at=-80_000)
    index.prove()
    broken.prove(target='{"state":"PAUSED","at_ms":"today"}')
    monitor.tick(2)
    assert index.told() == [DOWN]


@pytest.mark.parametrize("command", [("HSET", "proof", "ttl", "soon"), ("ZADD", "fails", "inf", "pump")], ids=["ttl", "fails"])
def test_a_number_that_somebody_broke_does_not_stop_the_others(
    command: tuple[str, ...], index: Index, monitor: Monitor, connection: Connection
) -> None:
    broken = Index(connection, "broken")
    for one in (index, broken):
        one.beat("pump", at=-80_000)
        one.prove()
    connection.call(command[0], getattr(broken.keys, command[1]), *command[2:])
    monitor.tick(2)
    assert index.told() == [DOWN]


def lose(connection: Connection) -> None:
    """Lose everything, and go on in another millisecond: the ids of flips are times."""
    lost_ms = time_ms(connection.call("TIME"))
    connection.call("FLUSHALL")
    while time_ms(connection.call("TIME")) <= lost_ms + 1:
        pass


def test_what_was_down_comes_back_from_memory_and_ends_as_the_same_incident(index: Index, monitor: Monitor, connection: Connection) -> None:
    judged = index.beat("pump", "other", at=-80_000) + TTL
    index.prove()
    monitor.tick(2)
    before = {flip.source: flip.incident for flip in index.flips()}
    monitor.kafka.memory = {"pumps": open_flips(index)}
    lose(connection)
    monitor.tick()
    assert index.down() == {"pump": judged, "other": judged}
    index.claim()
    index.beat("pump", "other", at=-80_000)  # the replay
    index.beat("pump")
    index.prove()
    monitor.tick(3)
    again, also, up = [flip for flip in index.flips() if not flip.about_pipeline]
    assert {again.incident, also.incident} == set(before.values()), "nobody knows whether a channel had them"
    assert (up.source, up.to, up.incident) == ("pump", "UP", before["pump"])
    assert index.down() == {"other": judged}
    assert connection.call("ZCARD", index.keys.deadlines) == 1


def test_what_comes_back_from_memory_where_another_incident_is_open_ends(index: Index, monitor: Monitor, connection: Connection) -> None:
    """Its memory could not be read for long, and the next silence was judged without it: of one source one incident is open."""
    judged = index.beat("pump", at=-80_000) + TTL
    index.prove()
    monitor.tick(2)
    (down,) = open_flips(index)
    monitor.kafka.memory = {"pumps": [down]}
    lose(connection)
    index.prove()
    connection.call("ZADD", index.keys.down, judged + 10_000, "pump")
    monitor.tick(2)
    assert [(flip.incident, flip.to) for flip in index.flips()] == [(down.incident, "UP")]
    assert index.down() == {"pump": judged + 10_000}


def test_who_looks_after_another_has_told_something_waits_for_memory_all_the_same(
    index: Index, monitor: Monitor, connection: Connection
) -> None:
    """The newest flip says nothing of a loss then: it is newer than all that was lost."""
    other = Monitor(connection, "other")
    monitor.kafka.memory = other.kafka.memory = {}
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(2)
    other.tick(2)
    down = open_flips(index)
    lose(connection)
    index.claim()
    other.kafka.away = True
    monitor.kafka.memory = other.kafka.memory = {"pumps": down}
    new = msgspec.structs.replace(down[0], key="new:DOWN", incident="new", source="valve")
    connection.call("XADD", index.keys.flips, "*", "flip", msgspec.json.encode(new), "proven_until_ms", "", "detected_ms", 1)
    index.beat("pump", at=-70_000)
    index.prove()
    other.tick()
    assert len(index.flips()) == 1
    other.kafka.away = False
    other.clock.ahead_ms = 1_100  # it is asked once a second
    other.tick()
    assert other.kafka.asked[-1] == ("pumps", "")
    assert list(index.down()) == ["pump"]
    other.tick(3)
    assert {flip.incident for flip in index.flips()} == {"new", down[0].incident}


def test_who_hears_of_a_loss_late_puts_nothing_behind_what_came_since(index: Index, monitor: Monitor, connection: Connection) -> None:
    """Another monitor has brought it back and gone on: told again, an end would stand behind the next beginning, in the topic too."""
    late = Monitor(connection, "late")
    monitor.kafka.memory = late.kafka.memory = {}
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(2)
    late.tick(2)
    down = open_flips(index)
    lose(connection)
    monitor.kafka.memory = late.kafka.memory = {"pumps": down}
    index.beat("pump")
    index.prove()
    monitor.tick(2)
    assert index.told() == [DOWN, UP]
    late.tick(2)
    assert index.told() == [DOWN, UP]
    assert index.down() == {}


def test_an_incident_that_had_ended_is_not_open_again_in_a_redis_from_before(
    index: Index, monitor: Monitor, connection: Connection
) -> None:
    """Its next silence would be taken for the same one, and told to nobody."""
    monitor.kafka.memory = {}
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(2)
    before = connection.call("DUMP", index.keys.down)
    index.beat("pump", at=-70_000 + TTL)
    index.prove()
    monitor.tick()
    (_, up) = index.flips()
    connection.call("RESTORE", index.keys.down, 0, before)
    connection.call("HDEL", MONITORS, "m")
    monitor.kafka.memory = {"pumps": [up]}
    monitor.tick()
    assert index.down() == {}


def test_a_name_that_is_no_text_comes_back_from_memory_too(index: Index, monitor: Monitor, connection: Connection) -> None:
    judged = index.beat("\udcff", at=-80_000) + TTL
    index.prove()
    monitor.tick(2)
    monitor.kafka.memory = {"pumps": open_flips(index)}
    lose(connection)
    monitor.tick()
    assert index.down() == {"\udcff": judged}


def test_memory_that_cannot_be_read_yet_is_asked_for_again(index: Index, monitor: Monitor, connection: Connection) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(2)
    monitor.kafka.memory = {"pumps": open_flips(index)}
    monitor.kafka.away = True
    lose(connection)
    monitor.tick(2)
    monitor.kafka.away = False
    monitor.tick()
    assert index.down() == {}
    monitor.clock.ahead_ms = 5_001
    monitor.tick()
    assert list(index.down()) == ["pump"]


def test_a_monitor_that_starts_after_a_loss_asks_memory_for_what_redis_does_not_hold(
    index: Index, monitor: Monitor, connection: Connection
) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(2)
    kafka = Kafka({"pumps": open_flips(index)})
    lose(connection)
    index.claim()
    fresh = Monitor(connection, "fresh", kafka=kafka)
    fresh.tick(2)
    assert list(index.down()) == ["pump"]
    assert kafka.asked == [("pumps", "")]


def test_an_open_blindness_survives_the_loss(index: Index, monitor: Monitor, connection: Connection) -> None:
    index.prove(-60_000)
    monitor.tick(2)
    (blind,) = index.flips()
    lose(connection)
    monitor.tick(2)
    index.prove()
    monitor.tick(2)
    assert [(flip.to, flip.incident) for flip in index.flips()] == [("SIGHTED", blind.incident)]


def test_without_memory_one_message_says_how_many_were_forgotten(index: Index, monitor: Monitor, connection: Connection) -> None:
    other = Monitor(connection, "other")
    index.beat(*(f"pump-{n}" for n in range(17)), at=-80_000)
    index.prove()
    for one in (monitor, other, monitor, other):
        one.tick()
    lose(connection)
    for one in (monitor, other, monitor, other):
        one.tick()
    assert [flip.message.split(". ")[1].split(" are")[0] for flip in index.flips()] == ["17 source(s) that were DOWN"]


def test_what_was_forgotten_ends_no_blindness(server: EmbeddedRedis, index: Index, monitor: Monitor, connection: Connection) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(2)
    with stopped(server, monitor):
        monitor.clock.ahead_ms = 11_000
        (blind,) = monitor.tick()
    monitor.clock.ahead_ms = 0
    lose(connection)
    index.claim()
    monitor.tick(3)
    assert sorted(flip.to for flip in index.flips()) == ["BLIND", "SIGHTED"]
    assert [flip.to for flip in index.flips() if flip.incident == blind.incident] == ["BLIND"]


def test_a_lost_connector_is_watched_on_until_it_is_back_and_its_blindness_told(
    index: Index, monitor: Monitor, connection: Connection
) -> None:
    index.beat("pump")
    index.prove()
    monitor.tick(2)
    lose(connection)
    monitor.tick(2)
    assert set(monitor.detector.state.connectors) == {"pumps"}
    monitor.settings.live = Settings(monitor=Timing(blind_after_s=0.0))
    while not index.told():
        monitor.tick()
    assert index.told() == [BLIND]
    assert connection.call("SMEMBERS", CONNECTORS) == [b"pumps"]  # by its name deliverers find what they have to tell
    monitor.settings.live = Settings()
    index.prove()
    monitor.tick(2)
    assert index.told() == [BLIND, SIGHTED]


def test_a_lost_connector_that_is_deleted_before_it_is_back_is_forgotten(index: Index, monitor: Monitor, connection: Connection) -> None:
    index.prove()
    monitor.tick(2)
    lose(connection)
    monitor.tick(2)
    Partitions(connection, "pumps").forget()
    monitor.tick()
    assert monitor.detector.state.connectors == {}
    assert monitor.kafka.forgotten == ["pumps"]


def test_an_older_redis_that_knows_this_monitor_has_lost_data_all_the_same(index: Index, monitor: Monitor, connection: Connection) -> None:
    """It was restored from a file, or failed over to a replica that lacks the tail: of when the connector was not there yet."""
    monitor.tick(2)
    before = connection.call("HGETALL", MONITORS)
    index.prove()
    monitor.tick(2)
    lose(connection)
    connection.call("HSET", MONITORS, *before)
    monitor.tick(2)
    assert set(monitor.detector.state.connectors) == {"pumps"}
    assert monitor.kafka.forgotten == []


def test_a_clock_that_was_ahead_at_the_start_holds_nothing_up_when_it_is_right(index: Index, monitor: Monitor) -> None:
    monitor.kafka.memory, monitor.kafka.away = {}, True
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.clock.ahead_ms = 3_600_000
    monitor.tick()
    monitor.clock.ahead_ms, monitor.kafka.away = 0, False
    monitor.tick(2)
    assert index.told() == [DOWN]


def test_an_outage_of_redis_is_told_though_the_clock_was_set_back(server: EmbeddedRedis, index: Index, monitor: Monitor) -> None:
    index.prove()
    monitor.clock.ahead_ms = 3_600_000
    monitor.tick()
    with stopped(server, monitor):
        monitor.clock.ahead_ms = 0
        assert monitor.tick() == []
        monitor.clock.ahead_ms = 11_000
        assert [flip.to for flip in monitor.tick()] == ["BLIND"]


def test_a_loss_of_what_was_stored_just_now_is_noticed_too(index: Index, monitor: Monitor, connection: Connection) -> None:
    index.prove()
    monitor.tick()
    index.prove(-60_000)
    monitor.tick()
    assert index.told() == [BLIND]
    lose(connection)
    index.prove()
    monitor.tick(3)
    assert index.told() == [SIGHTED]


def test_a_loss_is_not_overlooked_if_the_reply_that_tells_of_it_is_lost(index: Index, monitor: Monitor, connection: Connection) -> None:
    index.prove()
    monitor.tick()
    lose(connection)
    verdicts.known(connection, monitor.name, b'{"tick_ms":0}', index.now())  # as Redis took it; nobody has heard the reply
    monitor.tick()
    assert set(monitor.detector.state.connectors) == {"pumps"}
    assert monitor.kafka.forgotten == []


def test_a_loss_is_not_overlooked_if_redis_fails_while_it_is_looked_at(index: Index, failing: Failing, connection: Connection) -> None:
    monitor = Monitor(failing)
    index.prove()
    monitor.tick()
    lose(connection)
    failing.failing = "ZRANGE"  # the last of what a turn reads
    monitor.tick()
    failing.failing = ""
    monitor.tick()
    assert set(monitor.detector.state.connectors) == {"pumps"}
    assert monitor.kafka.forgotten == []


def test_while_redis_is_away_its_blindness_is_told_once_and_stored_when_it_is_back(
    server: EmbeddedRedis, index: Index, monitor: Monitor
) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick()
    with stopped(server, monitor):
        assert monitor.tick() == []
        assert monitor.detector.state.error
        monitor.clock.ahead_ms = 11_000
        (told,) = monitor.tick()
        assert (told.source, told.to, told.reason) == BLIND
        assert f"Redis cannot be read: Redis at {server.host}:{server.port}: " in told.message
        seen = monitor.detector.state.connectors["pumps"].blind
        assert seen is not None, "what is told is there to see at once"
        assert seen.stage == "redis"
        monitor.clock.ahead_ms = 12_000
        assert monitor.tick(2) == []
        assert monitor.detector.state.connectors["pumps"].blind == seen
    monitor.clock.ahead_ms = 0
    index.prove()
    assert monitor.tick(3) == []
    assert index.told() == [DOWN, BLIND, SIGHTED]
    assert {flip.incident for flip in index.flips()[1:]} == {told.incident}
    assert index.flips()[1].key == told.key
    assert monitor.detector.state.error == ""


def test_two_monitors_tell_of_the_same_incident_while_redis_is_away(
    server: EmbeddedRedis, index: Index, monitor: Monitor, opened: Callable[..., Connection]
) -> None:
    other = Monitor(opened(server.host, server.port), "other")
    index.beat("pump", at=-80_000)
    index.prove()
    for one in (monitor, other, monitor):
        one.tick()
    with stopped(server, monitor, other):
        for one in (monitor, other):
            one.clock.ahead_ms = 11_000
        (told,), (told_too,) = monitor.tick(), other.tick()
    assert told.key == told_too.key
    for one in (monitor, other):
        one.clock.ahead_ms = 0
    index.prove()
    for one in (monitor, other, monitor, other):
        one.tick()
    assert index.told() == [DOWN, BLIND, SIGHTED]


def test_two_monitors_tell_of_the_same_incident_though_one_has_just_stored_a_flip(
    server: EmbeddedRedis, index: Index, monitor: Monitor, opened: Callable[..., Connection]
) -> None:
    other = Monitor(opened(server.host, server.port), "other")
    index.beat("pump", at=-80_000)
    index.prove()
    for one in (monitor, other):
        one.tick()
    with stopped(server, monitor, other):
        for one in (monitor, other):
            one.clock.ahead_ms = 11_000
        (told,), (told_too,) = monitor.tick(), other.tick()
    assert told.key == told_too.key


def test_of_two_monitors_of_which_one_has_not_seen_the_newest_flip_both_end_what_they_told(
    server: EmbeddedRedis, index: Index, monitor: Monitor, opened: Callable[..., Connection]
) -> None:
    other = Monitor(opened(server.host, server.port), "other")
    index.prove()
    for one in (monitor, other):
        one.tick()
    index.beat("pump", at=-80_000)
    monitor.tick()
    assert index.told() == [DOWN]
    with stopped(server, monitor, other):
        for one in (monitor, other):
            one.clock.ahead_ms = 11_000
        (told,), (told_too,) = monitor.tick(), other.tick()
    assert told.incident != told_too.incident
    for one in (monitor, other):
        one.clock.ahead_ms = 0
    index.prove()
    for one in (monitor, other, monitor, other):
        one.tick()
    assert {flip.incident for flip in index.flips() if flip.to == "SIGHTED"} == {told.incident, told_too.incident}


def test_who_is_overtaken_while_it_stores_its_blindness_ends_what_it_told(server: EmbeddedRedis, index: Index, monitor: Monitor) -> None:
    overtaken = Overtaken(patient(server.host, server.port))
    other = Monitor(overtaken, "other")
    index.prove()
    for one in (monitor, other):
        one.tick()
    index.beat("pump", at=-80_000)
    monitor.tick()
    with stopped(server, monitor, other):
        for one in (monitor, other):
            one.clock.ahead_ms = 11_000
        (told,), (told_too,) = monitor.tick(), other.tick()
    for one in (monitor, other):
        one.clock.ahead_ms = 0
    overtaken.script, overtaken.by = verdict_scripts.BLIND, monitor.tick
    for one in (other, other):
        one.tick()
    index.prove()
    for one in (monitor, other):
        one.tick()
    overtaken.close()
    assert not overtaken.script
    assert {flip.incident for flip in index.flips() if flip.to == "SIGHTED"} == {told.incident, told_too.incident}


def test_the_blindness_of_a_connector_that_is_deleted_ends(index: Index, monitor: Monitor) -> None:
    index.prove(-60_000)
    monitor.tick()
    assert index.told() == [BLIND]
    (blind,) = index.flips()
    Partitions(index.connection, "pumps").forget()
    (sighted,) = monitor.tick()
    assert (sighted.to, sighted.incident) == ("SIGHTED", blind.incident)
    assert monitor.tick() == []


def test_the_blindness_that_was_told_while_redis_was_away_ends_with_its_connector(
    server: EmbeddedRedis, index: Index, monitor: Monitor, connection: Connection
) -> None:
    index.prove()
    monitor.tick()
    with stopped(server, monitor):
        monitor.clock.ahead_ms = 11_000
        (blind,) = monitor.tick()
    monitor.clock.ahead_ms = 0
    Partitions(connection, "pumps").forget()
    (sighted,) = monitor.tick()
    assert (blind.to, sighted.to, sighted.incident) == ("BLIND", "SIGHTED", blind.incident)


def test_a_connector_that_is_made_anew_goes_blind_in_an_incident_of_its_own(index: Index, monitor: Monitor) -> None:
    incidents = []
    for n in range(2):
        partitions = Partitions(index.connection, "pumps")
        partitions.claim("config", TTL, f"token-{n}", [TopicPartition("t", 0)])
        index.prove(-60_000)
        monitor.tick()
        (blind,) = index.flips()
        incidents.append(blind.incident)
        partitions.forget()
        monitor.tick()
    assert len({*incidents}) == 2


def test_a_blindness_that_was_open_already_is_not_told_again_while_redis_is_away(
    server: EmbeddedRedis, index: Index, monitor: Monitor
) -> None:
    index.prove(-60_000)
    monitor.tick()
    with stopped(server, monitor):
        monitor.clock.ahead_ms = 11_000
        assert monitor.tick(2) == []


def test_a_blindness_whose_writing_fails_is_not_told_again(index: Index, failing: Failing) -> None:
    monitor = Monitor(failing)
    index.prove()
    monitor.tick()
    failing.failing = "HGET"  # nothing can be looked at
    monitor.clock.ahead_ms = 11_000
    assert len(monitor.tick()) == 1
    failing.failing = "EVAL"  # it can be looked at, and not written
    assert monitor.tick() == []
    failing.failing = ""
    monitor.clock.ahead_ms = 0
    monitor.tick(2)
    assert index.told() == [BLIND, SIGHTED]


def test_redis_that_is_away_from_the_start_is_an_error_and_no_blindness(server: EmbeddedRedis, index: Index, monitor: Monitor) -> None:
    index.prove()
    with stopped(server, monitor):
        assert monitor.tick() == []
        monitor.clock.ahead_ms = 60_000
        assert monitor.tick() == []
        assert monitor.detector.state.error
    monitor.clock.ahead_ms = 0
    monitor.tick()
    assert monitor.detector.state.error == ""
    assert index.told() == []


def test_a_monitor_that_has_said_nothing_for_a_day_is_forgotten(index: Index, connection: Connection) -> None:
    now = index.now()
    said = {"old": f'{{"tick_ms":{now - 86_400_001}}}', "other": f'{{"tick_ms":{now - 3_600_000}}}', "odd": "?"}
    connection.call("HSET", MONITORS, *(word for item in said.items() for word in item))
    Monitor(connection, "new").tick()
    assert sorted(connection.call("HKEYS", MONITORS)) == [b"born_ms", b"new", b"other"]
