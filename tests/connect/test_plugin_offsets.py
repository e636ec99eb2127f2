"""What a plugin keeps of offsets follows what REST does to a connector: told in time, and no hindrance when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
from tests.fakes import PATIENCE_S, CollectingSink, eventually

from heartbeat.connect.api import TaskContext, TopicPartition, same_address
from heartbeat.connect.assembly import Assembly
from heartbeat.connect.group_offsets import GroupOffsets
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_admin import Admin
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.requests import CreateRequest
from heartbeat.connect.store import ConnectorRecord, Store, TargetState
from heartbeat.connect.task import State
from heartbeat.connect.worker import Worker
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import BadRequest, Conflict, ConnectError, NotFound

BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
CONFIG = {"connector.class": "KeepingSink", "topics": "t", "tasks.max": "2"}
P, Q = TopicPartition("t", 0), TopicPartition("t", 1)


class KeepingSink(CollectingSink):
    """A plugin that keeps offsets of its own; ``journal`` has what it was told, and how many of its tasks had stopped by then."""

    journal: ClassVar[list[tuple[Any, ...]]] = []
    error: ClassVar[Exception | None] = None
    meanwhile: ClassVar[Callable[[], object] | None] = None

    @classmethod
    def alter_offsets(cls, config: Mapping[str, Any], context: TaskContext, offsets: Mapping[TopicPartition, int | None] | None) -> bool:
        assert config["sink.mode"] == "ok"
        cls.journal.append(("alter", context.connector, offsets))
        if cls.meanwhile:
            cls.journal.append(("meanwhile", cls.meanwhile()))
        if cls.error:
            raise cls.error
        return True

    @classmethod
    def on_delete(cls, config: Mapping[str, Any], context: TaskContext) -> None:
        assert config["sink.mode"] == "ok"
        cls.journal.append(("delete", context.connector, CollectingSink.stopped))
        if cls.error:
            raise cls.error


class Cluster(Admin):
    """One group, in memory; it writes into the plugin's journal."""

    def __init__(self) -> None:
        self.group: dict[TopicPartition, int] | None = {P: 5, Q: 6}

    def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        return dict(self.group or {})

    def alter_group_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        KeepingSink.journal.append(("group altered",))
        self.group = {**(self.group or {}), **offsets}

    def delete_group(self, group: str) -> None:
        KeepingSink.journal.append(("group deleted",))
        self.group = None


class World:
    """A herder, its worker, a cluster's group, and the plugin."""

    def __init__(self, bootstrap: str = "127.0.0.1:1", plugin: type[CollectingSink] = KeepingSink) -> None:
        given = {"bootstrap.servers": bootstrap, "key.converter": BYTES, "value.converter": BYTES}
        plugins = Plugins([Plugin(f"tests.connect.test_plugin_offsets.{plugin.__name__}", plugin)])
        self.store = Store()
        self.worker = Worker(graceful_timeout_s=10.0)
        assembly = Assembly(plugins, WorkerConfig(given, WORKER_KEYS.load(given)), same_address)
        self.herder = Herder(self.store, self.worker, plugins, assembly, given)
        self.cluster = Cluster()
        self.offsets = GroupOffsets(self.herder, self.cluster, given)

    def create(self, target: TargetState = TargetState.STOPPED) -> None:
        self.herder.create(CreateRequest("c", CONFIG, target))


@pytest.fixture
def world() -> Iterator[World]:
    CollectingSink.reset()
    KeepingSink.journal, KeepingSink.error, KeepingSink.meanwhile = [], None, None
    made = World()
    made.create()
    yield made
    assert made.herder.shut_down(PATIENCE_S)


def entry(partition: int, offset: int | None) -> dict[str, Any]:
    return {
        "partition": {"kafka_topic": "t", "kafka_partition": partition},
        "offset": None if offset is None else {"kafka_offset": offset},
    }


# Deleted


def test_a_deleted_connector_is_told_to_its_plugin_once_all_its_tasks_have_stopped(world: World) -> None:
    with EmbeddedBroker({"t": 2}) as broker:
        live = World(broker.bootstrap)
        live.create(TargetState.STARTED)
        eventually(lambda: [task.state for task in live.herder.status("c").tasks.values()] == [State.RUNNING] * 2, "running tasks")
        live.herder.delete("c")
        assert KeepingSink.journal == [("delete", "c", 2)]
        assert live.herder.connectors() == []
        assert live.herder.shut_down(PATIENCE_S)


@pytest.mark.parametrize("target", [TargetState.STOPPED, TargetState.PAUSED])
def test_a_connector_without_tasks_is_told_to_its_plugin_too(world: World, target: TargetState) -> None:
    world.herder.set_target("c", target)
    world.herder.delete("c")
    assert KeepingSink.journal == [("delete", "c", 0)]


def test_a_plugin_that_cannot_forget_keeps_no_connector(world: World, caplog: pytest.LogCaptureFixture) -> None:
    KeepingSink.error = ConnectError("redis is away")
    world.herder.delete("c")
    assert world.herder.connectors() == []
    assert "Connector c was deleted, but its plugin could not forget it: redis is away" in caplog.text
    KeepingSink.error = None
    world.create()
    assert world.herder.connectors() == ["c"]


def test_a_plugin_that_breaks_while_it_forgets_keeps_no_connector_and_blocks_no_verb(world: World) -> None:
    KeepingSink.error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        world.herder.delete("c")
    assert world.herder.connectors() == []
    world.create()


def test_a_connector_whose_plugin_is_gone_can_be_deleted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.store.put(ConnectorRecord("old", {"name": "old", "connector.class": "gone.Sink", "topics": "t"}, TargetState.STOPPED))
    world.herder.delete("old")
    assert world.herder.connectors() == ["c"]
    assert KeepingSink.journal == []
    assert "Connector old was deleted, but its plugin could not forget it" in caplog.text


def test_a_connector_that_does_not_exist_is_told_to_nobody(world: World) -> None:
    with pytest.raises(NotFound):
        world.herder.delete("x")
    assert KeepingSink.journal == []


def test_a_connector_that_is_stopped_reconfigured_or_restarted_is_forgotten_by_nobody(world: World) -> None:
    world.herder.put_config("c", {**CONFIG, "topics": "u"})
    world.herder.set_target("c", TargetState.PAUSED)
    world.herder.restart("c", include_tasks=True)
    world.herder.set_target("c", TargetState.STOPPED)
    assert KeepingSink.journal == []


# Offsets


def test_the_plugin_follows_a_change_before_the_groups_own_are_changed(world: World) -> None:
    told = world.offsets.alter("c", [entry(0, 9), entry(1, 7)])
    assert told == "The offsets for this connector have been altered successfully"
    assert KeepingSink.journal == [("alter", "c", {P: 9, Q: 7}), ("group altered",)]
    assert world.cluster.group == {P: 9, Q: 7}


def test_the_plugin_is_told_of_single_offsets_that_are_deleted(world: World) -> None:
    world.offsets.alter("c", [entry(0, None)])
    assert KeepingSink.journal == [("alter", "c", {P: None}), ("group deleted",), ("group altered",)]
    assert world.cluster.group == {Q: 6}


def test_the_plugin_follows_a_reset_before_the_group_is_deleted(world: World) -> None:
    assert world.offsets.reset("c") == "The offsets for this connector have been reset successfully"
    assert KeepingSink.journal == [("alter", "c", None), ("group deleted",)]


@pytest.mark.parametrize("error", [ConnectError("redis is away"), ValueError("a bug")])
def test_a_plugin_that_cannot_follow_leaves_the_group_as_it_is_and_holds_nobody(world: World, error: Exception) -> None:
    KeepingSink.error = error
    with pytest.raises(type(error), match=str(error)):
        world.offsets.alter("c", [entry(0, 9)])
    with pytest.raises(type(error), match=str(error)):
        world.offsets.reset("c")
    assert world.cluster.group == {P: 5, Q: 6}
    KeepingSink.error = None
    world.offsets.alter("c", [entry(0, 9)])
    assert world.cluster.group == {P: 9, Q: 6}


def test_a_request_with_a_fault_reaches_no_plugin(world: World) -> None:
    with pytest.raises(BadRequest):
        world.offsets.alter("c", [entry(0, 9), {"partition": None}])
    with pytest.raises(ConnectError, match="negative"):
        world.offsets.alter("c", [entry(0, -1)])
    world.herder.set_target("c", TargetState.PAUSED)
    with pytest.raises(BadRequest, match="STOPPED"):
        world.offsets.reset("c")
    assert KeepingSink.journal == []


def test_while_the_plugin_follows_the_connector_is_held_and_the_others_are_not(world: World) -> None:
    def verbs() -> str:
        world.herder.create(CreateRequest("other", CONFIG, TargetState.STOPPED))
        with pytest.raises(Conflict):
            world.herder.set_target("c", TargetState.STARTED)
        with pytest.raises(Conflict):
            world.herder.delete("c")
        return "held"

    KeepingSink.meanwhile = verbs
    world.offsets.reset("c")
    assert ("meanwhile", "held") in KeepingSink.journal
    assert world.herder.connectors() == ["c", "other"]


def test_offsets_of_a_connector_whose_plugin_is_gone_are_read_but_not_changed(world: World) -> None:
    world.store.put(ConnectorRecord("old", {"name": "old", "connector.class": "gone.Sink", "topics": "t"}, TargetState.STOPPED))
    assert world.offsets.read("old") == {P: 5, Q: 6}
    with pytest.raises(BadRequest, match="Failed to find any class"):
        world.offsets.reset("old")
    with pytest.raises(BadRequest, match="Failed to find any class"):
        world.offsets.alter("old", [entry(0, 9)])
    assert world.cluster.group == {P: 5, Q: 6}


def test_a_plugin_that_keeps_no_offsets_need_not_follow() -> None:
    CollectingSink.reset()
    plain = World(plugin=CollectingSink)
    plain.herder.create(CreateRequest("c", {**CONFIG, "connector.class": "CollectingSink"}, TargetState.STOPPED))
    plain.offsets.alter("c", [entry(0, 9)])
    assert plain.cluster.group == {P: 9, Q: 6}
    plain.herder.delete("c")
