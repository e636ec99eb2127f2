"""The recorder, between a real Redis and the embedded broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec
import pytest
from tests.monitor.kafka_parts import SetClock, down, eventually, up
from tests.patience import patient

from heartbeat.beats import keys
from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.outbox import Outbox
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic
from heartbeat.monitor.kafka import read_to_end
from heartbeat.monitor.recorder import Recorder
from heartbeat.monitor.settings import Kafka as Settings

TOPIC = "heartbeat-flips"
CHANNEL = f"kafka:{TOPIC}"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def connection(server: EmbeddedRedis) -> Iterator[Connection]:
    connection = Connection(patient(server.host, server.port))
    connection.call("FLUSHALL")
    connection.call("SADD", CONNECTORS, "pumps")
    yield connection
    connection.close()


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({TOPIC: 1}) as broker:
        yield broker


class World:
    """Recorders over one Redis and one broker; ``clock`` is everybody's."""

    def __init__(self, server: EmbeddedRedis, broker: EmbeddedBroker) -> None:
        self.clock = SetClock()
        self.settings = Settings(broker.bootstrap)
        self._server = server

    def recorder(self) -> Recorder:
        outbox = Outbox(Connection(patient(self._server.host, self._server.port)), CHANNEL)
        return Recorder(outbox, FlipsTopic(self.settings, Cluster(self.settings), self.clock), self.clock, lambda: 1.0)

    def topic(self) -> list[tuple[bytes | None, bytes | None]]:
        return [(record.key, dict(record.headers).get("id")) for record in read_to_end(self.settings, TOPIC, 20)]


@pytest.fixture
def world(server: EmbeddedRedis, connection: Connection, broker: EmbeddedBroker) -> World:
    return World(server, broker)


def happen(connection: Connection, *flips: Flip | bytes) -> list[bytes]:
    """Append flips to their connector's stream, as the script that judges does; return their ids."""
    ids = []
    for flip in flips:
        text = flip if isinstance(flip, bytes) else msgspec.json.encode(flip)
        ids.append(connection.call("XADD", Keys("pumps").flips, "*", "flip", text, "proven_until_ms", "7000", "detected_ms", "8000"))
    return ids


def leaders(*recorders: Recorder) -> list[bool]:
    return [recorder.state.leader for recorder in recorders]


def test_flips_come_into_the_topic_in_their_order_with_their_ids_and_once(world: World, connection: Connection) -> None:
    recorder = world.recorder()
    assert not recorder.turn()
    ids = happen(connection, down("a"), down("b"), up("a"))
    recorder.turn()
    recorder.turn()
    assert world.topic() == list(zip([b"pumps/a", b"pumps/b", b"pumps/a"], ids, strict=True))
    assert recorder.state.leader
    assert recorder.state.last_success_ms


def test_what_the_script_filled_in_is_what_the_topic_says(world: World, connection: Connection) -> None:
    recorder = world.recorder()
    recorder.turn()
    happen(connection, down("a"))
    recorder.turn()
    flip = FlipsTopic(world.settings, Cluster(world.settings)).remember(20)["pumps"]["a"].flip
    assert (flip.proven_until_ms, flip.detected_ms) == (7000, 8000)


def test_of_two_recorders_one_writes_and_the_other_goes_on_where_it_ended(world: World, connection: Connection) -> None:
    first, second = world.recorder(), world.recorder()
    first.turn()
    happen(connection, down("a"))
    second.turn()
    assert leaders(first, second) == [True, False]
    assert world.topic() == []
    first.turn()
    first.close()
    happen(connection, down("b"))
    second.turn()
    first.turn()
    assert leaders(first, second) == [False, True]
    assert [key for key, _ in world.topic()] == [b"pumps/a", b"pumps/b"]


def test_what_happens_while_kafka_is_away_is_written_when_it_is_back(
    world: World, connection: Connection, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = world.recorder()
    recorder.turn()
    broker.set_down()
    happen(connection, down("a"))
    world.clock.step_s = 1.0
    recorder.turn()
    assert recorder.state.failures == 1
    assert recorder.state.pending == 1
    assert recorder.state.oldest_pending_ms
    assert TOPIC in recorder.state.last_error
    world.clock.step_s = 0.0
    recorder.turn()
    assert recorder.state.failures == 1, "it is tried again later"
    broker.set_up()
    happen(connection, up("a"))

    def recorded() -> bool:
        world.clock.now_s += 60
        recorder.turn()
        return recorder.state.failures == 0

    eventually(recorded, "written")
    assert recorder.state.last_error == ""
    assert [key for key, _ in world.topic()] == [b"pumps/a", b"pumps/a"]


def test_a_recorder_that_has_never_met_kafka_still_writes_what_happened_meanwhile(
    world: World, connection: Connection, broker: EmbeddedBroker
) -> None:
    broker.set_down()
    recorder = world.recorder()
    recorder.turn()
    assert recorder.state.failures == 1
    happen(connection, down("a"))
    broker.set_up()

    def recorded() -> bool:
        world.clock.now_s += 60
        recorder.turn()
        return recorder.state.failures == 0

    eventually(recorded, "written")
    assert [key for key, _ in world.topic()] == [b"pumps/a"]


def test_an_entry_that_cannot_be_read_holds_nothing_up(world: World, connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    recorder = world.recorder()
    recorder.turn()
    (bad, _) = happen(connection, b"{", down("a"))
    with caplog.at_level(logging.WARNING, "heartbeat"):
        recorder.turn()
        recorder.turn()
    assert [key for key, _ in world.topic()] == [b"pumps/a"]
    assert [line.getMessage().partition(":")[0] for line in caplog.records] == [
        f"Entry {bad.decode()} of the flips of pumps is no flip, and is passed over"
    ]


def test_flips_that_were_cut_before_they_were_written_are_counted_and_told_once(
    world: World, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = world.recorder()
    recorder.turn()
    connection.call("HSET", keys.channel(CHANNEL), "lost:pumps", 5)
    with caplog.at_level(logging.WARNING, "heartbeat"):
        recorder.turn()
        recorder.turn()
    assert recorder.state.lost == 5
    assert [line.getMessage().partition(" were")[0] for line in caplog.records] == ["5 flips of pumps"]


def test_a_redis_that_is_away_is_waited_for(world: World, connection: Connection) -> None:
    with EmbeddedRedis() as lost:
        outbox = Outbox(Connection(patient(lost.host, lost.port)), CHANNEL)
        recorder = Recorder(outbox, FlipsTopic(world.settings, Cluster(world.settings)), world.clock, lambda: 1.0)
        recorder.turn()
        assert recorder.state.failures == 0
    recorder.turn()
    assert recorder.state.failures == 1
    assert "Redis" in recorder.state.last_error
