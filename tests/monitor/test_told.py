"""What a channel was told, held against a real Redis that has lost some of it, or let go of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.monitor.judging import TTL, Index, Monitor

from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS
from heartbeat.beats.outbox import Outbox
from heartbeat.monitor.entries import flip_of
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.told import Sent, Told


@dataclass
class Scene:
    """An index, a detector that judges, and a channel that has got everything so far."""

    index: Index
    monitor: Monitor
    outbox: Outbox
    told: Told

    def deliver(self) -> list[Flip]:
        """Take what the channel has not got yet; return it."""
        fence = self.outbox.lease().fence
        self.told.held(self.outbox.born, fence)
        entries = self.outbox.read(100)
        sent = [Sent(flip, entry.id) for entry in entries if (flip := flip_of(entry)) is not None]
        self.told.note(sent)
        if entries:
            assert self.outbox.advance(entries)
        return [one.flip for one in sent]

    def settle(self) -> None:
        """Hold what was told against Redis."""
        fence = self.outbox.lease().fence
        self.told.held(self.outbox.born, fence)
        self.told.settle(self.outbox, self.index.now())


@pytest.fixture
def scene(connection: Connection) -> Scene:
    scene = Scene(Index(connection), Monitor(connection), Outbox(connection, "ops"), Told())
    scene.deliver()
    scene.index.beat("pump", at=-80_000)
    scene.index.prove()
    scene.monitor.tick()
    (down,) = scene.deliver()
    assert (down.source, down.to) == ("pump", "DOWN")
    return scene


def test_nothing_is_done_while_redis_knows_what_was_told(scene: Scene) -> None:
    scene.settle()
    assert scene.deliver() == []
    assert list(scene.index.down()) == ["pump"]


def test_an_incident_whose_verdict_and_end_were_both_lost_is_open_again_and_ends(scene: Scene) -> None:
    judged = scene.index.down()["pump"]
    scene.index.connection.call("FLUSHALL")
    scene.index.beat("pump")
    scene.index.prove()
    scene.settle()
    assert scene.index.down() == {"pump": judged}
    scene.monitor.tick(2)
    assert [(flip.source, flip.to) for flip in scene.deliver() if not flip.about_pipeline] == [("pump", "UP")]


def test_an_end_that_waits_to_be_told_is_no_loss(scene: Scene) -> None:
    scene.index.beat("pump")
    scene.monitor.tick()
    assert scene.index.down() == {}
    scene.settle()
    assert scene.index.down() == {}
    assert [flip.to for flip in scene.deliver()] == ["UP"]


def test_a_stream_that_is_another_one_waits_to_be_told(scene: Scene, connection: Connection) -> None:
    assert not scene.outbox.waits()
    scene.index.beat("valve", at=-80_000)
    scene.monitor.tick()
    assert scene.outbox.waits()
    scene.deliver()
    assert not scene.outbox.waits()
    (entry, *_) = connection.call("XRANGE", scene.index.keys.flips, "-", "+")
    connection.call("DEL", scene.index.keys.flips)
    assert not scene.outbox.waits()
    connection.call("XADD", scene.index.keys.flips, "1-1", *entry[1])
    assert scene.outbox.waits()


def test_what_was_dropped_on_purpose_ends(scene: Scene) -> None:
    scene.index.connection.call("DEL", scene.index.keys.down)
    scene.settle()
    (ended,) = scene.deliver()
    assert (ended.to, ended.reason, ended.message) == ("PAUSED", "bye", "it is watched no more")
    scene.settle()
    assert scene.deliver() == []


def test_a_source_that_was_judged_again_meanwhile_was_up_in_between(scene: Scene) -> None:
    judged = scene.index.down()["pump"]
    scene.index.connection.call("ZADD", scene.index.keys.down, judged + 30_000, "pump")
    scene.settle()
    (ended,) = scene.deliver()
    assert (ended.to, ended.reason, ended.at_ms) == ("UP", "recovered", judged + 30_000 - TTL)


def test_a_blindness_that_was_lost_is_open_again(scene: Scene) -> None:
    scene.index.prove(-60_000)
    scene.monitor.tick(2)
    assert [flip.to for flip in scene.deliver()] == ["BLIND"]
    scene.index.connection.call("FLUSHALL")
    scene.index.prove(-60_000)
    scene.settle()
    assert scene.index.connection.call("EXISTS", scene.index.keys.blind) == 1


def test_a_connector_that_was_deleted_gets_no_index_back(scene: Scene) -> None:
    scene.index.connection.call("FLUSHALL")
    scene.settle()
    assert scene.index.connection.call("EXISTS", scene.index.keys.down) == 0


def test_a_connector_made_anew_under_a_deleted_ones_name_is_down_for_nothing_of_the_old_one(scene: Scene) -> None:
    scene.settle()
    scene.index.connection.call("DEL", *scene.index.keys.all)
    scene.index.connection.call("SREM", CONNECTORS, scene.index.connector)
    scene.settle()
    scene.index.beat("valve")
    scene.index.prove()
    scene.settle()
    assert scene.index.down() == {}


def test_a_connector_that_comes_back_late_after_a_loss_gets_its_incidents_back(scene: Scene) -> None:
    scene.settle()
    scene.index.connection.call("FLUSHALL")
    scene.settle()
    scene.settle()
    scene.index.prove()
    scene.settle()
    assert list(scene.index.down()) == ["pump"]


def test_who_has_the_lease_back_knows_nothing_of_what_another_has_told(scene: Scene, connection: Connection) -> None:
    """Its end may have been told by the other: put back, it would hide the next silence of the source."""
    scene.outbox.release()
    other = Outbox(connection, "ops")
    assert other.lease().fence
    scene.deliver()
    scene.index.beat("pump")
    scene.monitor.tick()
    (ended,) = other.read(100)
    assert other.advance([ended])
    other.release()
    connection.call("DEL", scene.index.keys.flips)
    scene.settle()
    assert scene.index.down() == {}


def test_who_has_the_first_lease_after_a_loss_knows_what_was_told(scene: Scene) -> None:
    judged = scene.index.down()["pump"]
    scene.index.connection.call("FLUSHALL")
    scene.index.prove()
    scene.settle()
    assert scene.index.down() == {"pump": judged}
