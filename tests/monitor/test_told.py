"""What a channel was told, held against a real Redis that has lost some of it, or let go of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from tests.monitor.judging import TTL, Index, Monitor

from heartbeat.beats import keys, outbox
from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS
from heartbeat.beats.outbox import Outbox
from heartbeat.monitor import incidents
from heartbeat.monitor.entries import flip_of
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.incidents import Judged
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Settings
from heartbeat.monitor.told import Told
from heartbeat.monitor.vision import Blindness


@dataclass
class Scene:
    """An index, a detector that judges, and a channel that has got everything so far."""

    index: Index
    monitor: Monitor
    outbox: Outbox
    told: Told

    def deliver(self) -> list[Flip]:
        """Take what the channel has not got yet; return it."""
        self.follow()
        entries = self.outbox.read(100)
        sent = [flip for entry in entries if (flip := flip_of(entry)) is not None]
        self.told.note(sent)
        if entries:
            assert self.outbox.advance(entries)
        return sent

    def follow(self) -> None:
        """Take or renew the lease, and see what stands there."""
        self.outbox.lease()
        self.told.follow(self.outbox)

    def settle(self) -> None:
        """Hold what stood there against Redis."""
        self.follow()
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
    assert [(flip.source, flip.to) for flip in scene.deliver() if not flip.about_pipeline] == [("pump", "DOWN"), ("pump", "UP")]


def test_an_end_that_waits_to_be_told_is_no_loss(scene: Scene) -> None:
    scene.index.beat("pump")
    scene.monitor.tick()
    assert scene.index.down() == {}
    scene.settle()
    assert scene.index.down() == {}
    assert [flip.to for flip in scene.deliver()] == ["UP"]


def test_a_source_that_was_judged_again_meanwhile_was_up_in_between(scene: Scene) -> None:
    judged = scene.index.down()["pump"]
    scene.index.connection.call("DEL", scene.index.keys.flips)
    wait_for_another_ms(scene.index)
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


def test_what_another_monitor_has_told_is_known_too(scene: Scene, connection: Connection) -> None:
    """Its end, which the topic has not got yet either: put back, the incident would hide the next silence of the source."""
    scene.outbox.release()
    other = Outbox(connection, "ops")
    assert other.lease().fence
    scene.index.beat("pump")
    scene.monitor.tick()
    (ended,) = other.read(100)
    assert other.advance([ended])
    scene.follow()
    connection.call("DEL", scene.index.keys.flips)
    scene.settle()
    assert scene.index.down() == {}
    assert scene.index.told() == [("pump", "UP", "recovered")]


def test_who_never_delivered_brings_back_what_another_has_told(scene: Scene, connection: Connection) -> None:
    judged, told = scene.index.down()["pump"], Told()
    told.follow(scene.outbox)
    connection.call("FLUSHALL")
    scene.index.claim()
    scene.outbox.lease()
    told.follow(scene.outbox)
    told.settle(scene.outbox, scene.index.now())
    assert scene.index.down() == {"pump": judged}


def test_who_has_the_first_lease_after_a_loss_knows_what_was_told(scene: Scene) -> None:
    judged = scene.index.down()["pump"]
    scene.index.connection.call("FLUSHALL")
    scene.index.prove()
    scene.settle()
    assert scene.index.down() == {"pump": judged}


def test_who_delivers_no_more_after_a_loss_brings_back_what_only_he_knows(scene: Scene, connection: Connection) -> None:
    judged = scene.index.down()["pump"]
    connection.call("FLUSHALL")
    assert Outbox(connection, "ops").lease().fence  # another monitor was faster
    scene.index.prove()
    scene.settle()
    assert scene.index.down() == {"pump": judged}
    assert not scene.told.looks


def test_what_has_ended_since_a_loss_is_not_put_back_by_who_slept_through_it(scene: Scene, connection: Connection) -> None:
    (down,) = scene.index.flips()
    connection.call("FLUSHALL")
    other = Monitor(connection, "other")
    other.kafka.memory = {"pumps": [down]}
    scene.index.beat("pump")
    scene.index.prove()
    other.tick(2)
    assert [flip.to for flip in scene.index.flips()] == ["DOWN", "UP"]
    scene.settle()
    assert scene.index.down() == {}


def test_what_the_topic_has_is_left_to_it(scene: Scene, connection: Connection) -> None:
    connection.call("HSET", keys.channel("kafka:flips"), "at:pumps", connection.call("XREVRANGE", scene.index.keys.flips, "+", "-")[0][0])
    scene.told.recorded(scene.outbox, "kafka:flips")
    connection.call("FLUSHALL")
    scene.index.prove()
    scene.settle()
    assert scene.index.down() == {}


def test_a_blindness_in_whose_place_another_one_is_open_ends(scene: Scene) -> None:
    scene.index.prove(-60_000)
    scene.monitor.tick(2)
    (blind,) = scene.deliver()
    scene.index.connection.call("FLUSHALL")
    scene.index.connection.call("SET", scene.index.keys.blind, msgspec.json.encode(Blindness("redis", "", 7, incident="another")))
    scene.index.prove(-60_000)
    scene.settle()
    assert [(flip.to, flip.incident) for flip in scene.deliver() if flip.about_pipeline] == [("SIGHTED", blind.incident)]


@pytest.mark.parametrize("fence", [1, 2, 7], ids=["ours", "another's since", "of many"])
def test_a_redis_from_before_gets_back_what_stood_there_as_often_as_it_comes(scene: Scene, connection: Connection, fence: int) -> None:
    """Whose the lease is there, and how often it has changed hands, says nothing of that."""
    judged, (down,) = scene.index.down()["pump"], scene.index.flips()
    for _ in range(2):
        connection.call("DEL", scene.index.keys.flips, scene.index.keys.down)
        connection.call("HSET", keys.channel("ops"), "fence", fence, "owner", "another")
        scene.settle()
        assert scene.index.down() == {"pump": judged}
        assert [flip.key for flip in scene.index.flips()] == [down.key]


def test_what_was_told_to_have_ended_is_not_open_in_a_redis_that_lacks_its_end(scene: Scene, connection: Connection) -> None:
    """Not even the topic had it: its next silence would pass for the same one."""
    down = scene.index.down()
    scene.index.beat("pump")
    scene.monitor.tick()
    (up,) = scene.deliver()
    connection.call("FLUSHALL")
    connection.call("ZADD", scene.index.keys.down, down["pump"], "pump")  # as the topic remembers it
    scene.index.claim()
    scene.settle()
    assert scene.index.down() == {}
    assert [flip.key for flip in scene.index.flips()] == [up.key]
    scene.settle()
    assert len(scene.index.flips()) == 1


def test_what_has_ended_is_not_open_where_only_its_beginning_stands_again(scene: Scene, connection: Connection) -> None:
    """A Redis from between the two, in which the recorder would write the beginning behind the end."""
    names = scene.index.keys.flips, scene.index.keys.down
    dumped = [connection.call("DUMP", name) for name in names]
    scene.index.beat("pump")
    scene.monitor.tick()
    scene.deliver()
    for name, value in zip(names, dumped, strict=True):
        connection.call("RESTORE", name, 0, value, "REPLACE")
    scene.settle()
    assert scene.index.down() == {}
    assert [flip.to for flip in scene.index.flips()] == ["DOWN", "UP"]


def test_who_slept_until_all_that_it_knew_was_cut_puts_nothing_back(
    scene: Scene, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HISTORY", 1)
    scene.index.beat("pump")
    scene.monitor.tick()
    wait_for_another_ms(scene.index)
    connection.call("XADD", scene.index.keys.flips, "*", "flip", "{}")
    connection.call("XTRIM", scene.index.keys.flips, "MAXLEN", 1)
    scene.settle()
    assert (connection.call("XLEN", scene.index.keys.flips), scene.index.down()) == (1, {})


def test_what_was_put_back_is_put_back_again_until_the_topic_has_it(scene: Scene, connection: Connection) -> None:
    judged = scene.index.down()["pump"]
    for _ in range(2):
        connection.call("FLUSHALL")
        scene.index.claim()
        scene.settle()
        assert scene.index.down() == {"pump": judged}


def test_of_two_incidents_of_a_source_that_were_lost_the_older_one_has_ended(scene: Scene, connection: Connection) -> None:
    (older,) = scene.index.flips()
    judged = scene.index.down()["pump"]
    newer = incidents.silent(Judged("pumps", "pump", judged + 30_000, TTL, Rules(Settings()).of("pumps", "pump")))
    connection.call("XADD", scene.index.keys.flips, "*", "flip", msgspec.json.encode(newer))
    scene.follow()
    connection.call("FLUSHALL")
    scene.index.claim()
    scene.settle()
    assert scene.index.down() == {"pump": judged + 30_000}
    # The newest flip of a source is what the topic remembers of it.
    assert [(flip.incident, flip.to) for flip in scene.index.flips()] == [(older.incident, "UP"), (newer.incident, "DOWN")]


def test_what_was_lost_before_the_topic_had_it_is_not_taken_for_recorded_by_what_came_in_its_place(
    scene: Scene, connection: Connection
) -> None:
    judged = scene.index.down()["pump"]
    connection.call("DEL", scene.index.keys.flips, scene.index.keys.down)  # a Redis from before, by the same fence
    wait_for_another_ms(scene.index)
    newest = connection.call("XADD", scene.index.keys.flips, "*", "flip", "{}")
    connection.call("HSET", keys.channel("kafka:flips"), "at:pumps", newest)
    scene.follow()
    scene.told.recorded(scene.outbox, "kafka:flips")
    scene.settle()
    assert scene.index.down() == {"pump": judged}


def test_what_the_topic_had_and_has_no_more_ends_when_everybody_had_time_to_bring_it_back(scene: Scene, connection: Connection) -> None:
    """It ended before the loss, and that waited for its channel; something newer of its source is all that the topic remembers."""
    connection.call("HSET", keys.channel("kafka:flips"), "at:pumps", connection.call("XREVRANGE", scene.index.keys.flips, "+", "-")[0][0])
    scene.told.recorded(scene.outbox, "kafka:flips")
    connection.call("FLUSHALL")
    scene.index.claim()
    connection.call("SET", scene.index.keys.remembered, 1)
    scene.settle()
    assert scene.index.flips() == []
    while scene.told.looks:
        scene.settle()
    assert scene.index.told() == [("pump", "UP", "recovered")]


def test_what_the_topic_had_and_brought_back_is_open(scene: Scene, connection: Connection) -> None:
    judged = scene.index.down()["pump"]
    connection.call("HSET", keys.channel("kafka:flips"), "at:pumps", connection.call("XREVRANGE", scene.index.keys.flips, "+", "-")[0][0])
    scene.told.recorded(scene.outbox, "kafka:flips")
    connection.call("FLUSHALL")
    scene.index.claim()
    connection.calls(("SET", scene.index.keys.remembered, 1), ("ZADD", scene.index.keys.down, judged, "pump"))
    scene.settle()
    while scene.told.looks:
        scene.settle()
    assert scene.index.flips() == []
    assert scene.index.down() == {"pump": judged}


def wait_for_another_ms(index: Index) -> None:
    """Ids in a stream are times: one that is new, and as old as the last of the stream before it, would be taken for that."""
    begun_ms = index.now()
    while index.now() == begun_ms:
        pass
