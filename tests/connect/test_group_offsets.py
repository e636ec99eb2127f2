"""Offsets over REST: what is refused, in Connect's words, and what is asked of the cluster. Deleting needs a real broker: faked here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError
from tests.fakes import PATIENCE_S, CollectingSink

from heartbeat.connect.api import TopicPartition, same_address
from heartbeat.connect.assembly import Assembly
from heartbeat.connect.group_offsets import GroupOffsets
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_admin import Admin, GroupError
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.requests import CreateRequest
from heartbeat.connect.store import Store, TargetState
from heartbeat.connect.worker import Worker
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.errors import BadRequest, Conflict, ConnectError, NotFound

BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
GIVEN = {"bootstrap.servers": "127.0.0.1:1", "key.converter": BYTES, "value.converter": BYTES}
P, Q = TopicPartition("t", 0), TopicPartition("t", 1)


class FakeCluster(Admin):
    """The groups of a cluster, in memory."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[TopicPartition, int]] = {}
        self.refuses: int | None = None
        self.asked = threading.Event()
        self.gate = threading.Event()
        """Closed, the cluster does not answer."""
        self.gate.set()

    def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        self._answer()
        return dict(self.groups.get(group, {}))

    def alter_group_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        self._answer()
        self.groups.setdefault(group, {}).update(offsets)

    def delete_group(self, group: str) -> None:
        self._answer()
        self.groups.pop(group, None)

    def _answer(self) -> None:
        self.asked.set()
        self.gate.wait(PATIENCE_S)
        if self.refuses is not None:
            raise GroupError(KafkaError(self.refuses))


class World:
    """A herder with one connector, and a cluster."""

    def __init__(self, target: TargetState = TargetState.STOPPED, **config: str) -> None:
        plugins = Plugins([Plugin("tests.fakes.CollectingSink", CollectingSink)])
        worker_config = WorkerConfig(GIVEN, WORKER_KEYS.load(GIVEN))
        self.herder = Herder(Store(), Worker(5.0), plugins, Assembly(plugins, worker_config, same_address), GIVEN)
        given = {"connector.class": "CollectingSink", "topics": "t", **{name.replace("_", "."): text for name, text in config.items()}}
        self.herder.create(CreateRequest("c", given, target))
        self.cluster = FakeCluster()
        self.cluster.groups["connect-c"] = {P: 5, Q: 6}
        self.offsets = GroupOffsets(self.herder, self.cluster, GIVEN)

    @property
    def group(self) -> dict[TopicPartition, int] | None:
        """The offsets of the connector's group, None if it is gone."""
        return self.cluster.groups.get("connect-c")


def entry(partition: Any, offset: Any, topic: Any = "t") -> dict[str, Any]:
    return {
        "partition": {"kafka_topic": topic, "kafka_partition": partition},
        "offset": None if offset is None else {"kafka_offset": offset},
    }


def test_offsets_are_read_in_any_state() -> None:
    assert World(TargetState.PAUSED).offsets.read("c") == {P: 5, Q: 6}


def test_the_group_is_the_one_the_consumer_is_told_to_use() -> None:
    world = World(consumer_override_group_id="own")
    world.cluster.groups["own"] = {P: 1}
    assert world.offsets.read("c") == {P: 1}
    world.offsets.reset("c")
    assert world.cluster.groups == {"connect-c": {P: 5, Q: 6}}


def test_an_unknown_connector_is_not_found_by_any_of_the_three() -> None:
    offsets = World().offsets
    calls: list[Callable[[], object]] = [
        lambda: offsets.read("x"),
        lambda: offsets.reset("x"),
        lambda: offsets.alter("x", [entry(0, 1)]),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="Connector x not found"):
            call()


@pytest.mark.parametrize("body", [None, []])
def test_an_empty_body_is_refused_even_for_an_unknown_connector(body: Any) -> None:
    with pytest.raises(BadRequest, match="Partitions / offsets need to be provided for an alter offsets request"):
        World().offsets.alter("x", body)


@pytest.mark.parametrize("target", [TargetState.PAUSED])
def test_a_connector_that_is_not_stopped_keeps_its_offsets(target: TargetState) -> None:
    world = World(target)
    calls: list[Callable[[], object]] = [lambda: world.offsets.alter("c", [entry(0, 1)]), lambda: world.offsets.reset("c")]
    for call in calls:
        with pytest.raises(BadRequest, match="Connectors must be in the STOPPED state before their offsets can be modified"):
            call()
    assert world.group == {P: 5, Q: 6}


@pytest.mark.parametrize(("partition", "offset"), [(0, 9), ("0", "9"), (0, "9")], ids=["numbers", "texts", "mixed"])
def test_numbers_and_their_texts_set_an_offset(partition: Any, offset: Any) -> None:
    world = World()
    assert "altered successfully" in world.offsets.alter("c", [entry(partition, offset)])
    assert world.group == {P: 9, Q: 6}


def test_the_last_of_several_entries_for_a_partition_wins() -> None:
    world = World()
    world.offsets.alter("c", [entry(0, 1), entry(0, 2)])
    assert world.group == {P: 2, Q: 6}


def test_a_null_offset_deletes_that_one_and_leaves_the_others() -> None:
    world = World()
    world.offsets.alter("c", [entry(0, None)])
    assert world.group == {Q: 6}


def test_setting_one_and_deleting_another_does_both() -> None:
    world = World()
    world.offsets.alter("c", [entry(0, None), entry(1, 60)])
    assert world.group == {Q: 60}


def test_deleting_the_last_offset_deletes_the_group() -> None:
    world = World()
    world.offsets.alter("c", [entry(0, None), entry(1, None)])
    assert world.group is None


def test_a_reset_deletes_the_group_and_a_group_that_is_gone_is_reset_already() -> None:
    world = World()
    assert "reset successfully" in world.offsets.reset("c")
    assert world.group is None
    assert "reset successfully" in world.offsets.reset("c")


NOT_A_PARTITION = "Failed to parse the following Kafka partition value in the provided offsets: "
NOT_AN_OFFSET = "Failed to parse the following Kafka offset value in the provided offsets: "
KEYS = "The partition for a sink connector offset must contain the keys 'kafka_topic' and 'kafka_partition'"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"offset": {"kafka_offset": 1}}, "The partition for a sink connector offset cannot be null or missing"),
        ({"partition": None, "offset": None}, "The partition for a sink connector offset cannot be null or missing"),
        ({"partition": {}, "offset": None}, KEYS),
        ({"partition": {"kafka_topic": "t"}, "offset": None}, KEYS),
        ({"partition": {"kafka_partition": 0}, "offset": None}, KEYS),
        (entry(0, 1, topic=None), "Kafka topic names must be valid strings and may not be null"),
        (entry(None, 1), "Kafka partitions must be valid numbers and may not be null"),
        (entry("x", 1), NOT_A_PARTITION + "'x'"),
        (entry(0.5, 1), NOT_A_PARTITION + "'0.5'"),
        (entry("1_0", 1), NOT_A_PARTITION + "'1_0'"),
        (entry(" 0", 1), NOT_A_PARTITION + "' 0'"),
        (entry(2**31, 1), NOT_A_PARTITION + f"'{2**31}'"),
        (
            {"partition": {"kafka_topic": "t", "kafka_partition": 0}, "offset": {}},
            "should either be null or contain the key 'kafka_offset'",
        ),
        (entry(0, "x"), NOT_AN_OFFSET + "'x'"),
        (entry(0, 1.5), NOT_AN_OFFSET + "'1.5'"),
        (entry(0, "1_000"), NOT_AN_OFFSET + "'1_000'"),
        (entry(0, 2**63), NOT_AN_OFFSET + f"'{2**63}'"),
        (entry(0, []), NOT_AN_OFFSET),
    ],
)
def test_a_fault_in_any_entry_is_refused_in_connects_words_and_nothing_is_changed(fault: dict[str, Any], words: str) -> None:
    world = World()
    with pytest.raises(BadRequest) as caught:
        world.offsets.alter("c", [entry(1, 60), fault])
    assert words in str(caught.value)
    assert world.group == {P: 5, Q: 6}


def test_a_negative_offset_is_an_error_and_changes_nothing() -> None:
    world = World()
    with pytest.raises(ConnectError, match="-1"):
        world.offsets.alter("c", [entry(0, -1)])
    assert world.group == {P: 5, Q: 6}


@pytest.mark.parametrize("verb", ["alter", "reset"])
def test_a_group_with_members_is_told_in_connects_words(verb: str) -> None:
    world = World()
    world.cluster.refuses = KafkaError.NON_EMPTY_GROUP
    with pytest.raises(ConnectError) as caught:
        _ = world.offsets.reset("c") if verb == "reset" else world.offsets.alter("c", [entry(0, 1)])
    text = str(caught.value)
    assert text.startswith(
        f"Failed to {verb} consumer group offsets for connector c either because its tasks haven't stopped completely yet or the "
        f"connector was resumed before the request to {verb} its offsets could be successfully completed."
    )
    assert caught.value.status == 500


def test_a_cluster_that_does_not_answer_is_told_by_the_connectors_name() -> None:
    world = World()
    world.cluster.refuses = KafkaError._TRANSPORT
    with pytest.raises(ConnectError, match="Failed to retrieve consumer group offsets for sink connector c"):
        world.offsets.read("c")
    with pytest.raises(ConnectError, match="Failed to reset consumer group offsets for connector c: "):
        world.offsets.reset("c")


def test_a_failed_change_does_not_hold_the_herder() -> None:
    world = World()
    world.cluster.refuses = KafkaError._TRANSPORT
    with pytest.raises(ConnectError):
        world.offsets.reset("c")
    world.herder.delete("c")
    assert world.herder.connectors() == []


@contextmanager
def changing(world: World, verb: str) -> Iterator[ThreadPoolExecutor]:
    """Have a change of the connector's offsets under way, which ends with the context; the pool is for other verbs."""
    world.cluster.asked.clear()
    world.cluster.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(world.offsets.alter, "c", [entry(0, 9)]) if verb == "alter" else pool.submit(world.offsets.reset, "c")
        try:
            assert world.cluster.asked.wait(PATIENCE_S)
            yield pool
            assert not change.done()
        finally:
            world.cluster.gate.set()
        change.result(PATIENCE_S)


@pytest.mark.parametrize("verb", ["alter", "reset"])
def test_while_offsets_are_being_changed_verbs_on_other_connectors_do_not_wait(verb: str) -> None:
    world = World()
    config = {"connector.class": "CollectingSink", "topics": "t"}

    def others() -> None:
        world.herder.create(CreateRequest("other", config, TargetState.STOPPED))
        world.herder.put_config("other", {**config, "topics": "u"})
        world.herder.set_target("other", TargetState.PAUSED)
        world.herder.restart("other", include_tasks=True)
        world.herder.delete("other")

    with changing(world, verb) as pool:
        pool.submit(others).result(PATIENCE_S / 2)
        assert world.herder.busy_s() == 0


@pytest.mark.parametrize("verb", ["alter", "reset"])
def test_while_offsets_are_being_changed_verbs_on_that_connector_are_a_conflict_and_then_work(verb: str) -> None:
    world = World()
    config = {"connector.class": "CollectingSink", "topics": "t"}
    verbs: list[Callable[[], object]] = [
        lambda: world.herder.set_target("c", TargetState.PAUSED),
        lambda: world.herder.put_config("c", config),
        lambda: world.herder.patch_config("c", {"topics": "u"}),
        lambda: world.offsets.reset("c"),
        lambda: world.offsets.alter("c", [entry(0, 1)]),
        lambda: world.herder.delete("c"),
    ]
    with changing(world, verb) as pool:
        before = world.herder.record("c")
        for refused in verbs:
            with pytest.raises(Conflict) as caught:
                pool.submit(refused).result(PATIENCE_S / 2)
            assert caught.value.status == 409
        assert world.herder.record("c") == before
    world.herder.delete("c")
