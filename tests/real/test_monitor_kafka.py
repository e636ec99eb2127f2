"""The monitor's side of Kafka, with real brokers: the topic of flips is made compacted, keeps its order, and comes back; canaries fly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewPartitions
from tests.monitor.kafka_parts import SetClock, down, up

from heartbeat.errors import RetriableError
from heartbeat.monitor.canary import Canaries, Partition
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic, Recorded
from heartbeat.monitor.kafka import read_to_end
from heartbeat.monitor.settings import Kafka as Settings

from .broker import Kafka
from .programs import eventually
from .scenario import unique


@pytest.fixture(params=["kafka", "kafka_zk"])
def broker(request: pytest.FixtureRequest) -> Kafka:
    """Kafka 4.1 and Kafka 3.4."""
    broker: Kafka = request.getfixturevalue(request.param)
    return broker


def flips_at(kafka: Kafka, name: str, **properties: str) -> FlipsTopic:
    settings = Settings(kafka.bootstrap, flips_topic=name, properties=properties)
    return FlipsTopic(settings, Cluster(settings))


def numbered(*flips: Flip) -> list[Recorded]:
    return [Recorded(flip, f"1700000000000-{n}") for n, flip in enumerate(flips)]


def config_of(kafka: Kafka, topic: str) -> Mapping[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = kafka.admin().describe_configs([resource])[resource].result(20)
    return {name: entry.value for name, entry in found.items()}


def written(topic: FlipsTopic, flips: list[Recorded]) -> bool:
    try:
        topic.write(flips)
    except RetriableError:
        return False
    return True


# The topic of flips


def test_the_topic_is_made_compacted_with_as_many_replicas_as_there_are_brokers(broker: Kafka) -> None:
    topic = flips_at(broker, unique("flips"))
    topic.ensure()
    topic.write(numbered(down("a")))
    assert config_of(broker, topic.name)["cleanup.policy"] == "compact"
    made = broker.admin().list_topics(timeout=20).topics[topic.name].partitions
    assert {number: len(partition.replicas) for number, partition in made.items()} == {0: 1}
    flips_at(broker, topic.name).ensure()  # a second monitor finds it


def test_a_topic_that_is_not_compacted_is_warned_of_and_used(broker: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    topic = flips_at(broker, broker.create_topic(unique("flips")))
    topic.ensure()
    topic.write(numbered(down("a")))
    assert [line.getMessage().partition("(")[0] for line in caplog.records if line.name.startswith("heartbeat")] == [
        f"Topic {topic.name} is not compacted "
    ]


def test_flips_keep_their_order_and_each_is_written_once(broker: Kafka) -> None:
    topic = flips_at(broker, unique("flips"))
    topic.ensure()
    flips = [flip for n in range(2_000) for flip in (down(f"pump:{n % 7}", n), up(f"pump:{n % 7}", n))]
    for first in range(0, len(flips), 500):
        topic.write(numbered(*flips[first : first + 500]))
    found = [record.key for record in read_to_end(Settings(broker.bootstrap), topic.name, 30)]
    assert found == [f"pumps/{flip.source}".encode() for flip in flips]


def test_memory_outlives_compaction_repetition_and_tombstones(broker: Kafka) -> None:
    topic = flips_at(broker, unique("flips"))
    topic.ensure()
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    for name, value in [("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.001"), ("delete.retention.ms", "100")]:
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
    broker.admin().incremental_alter_configs([resource])[resource].result(20)
    everything = numbered(*(flip for n in range(300) for flip in (down(f"pump:{n % 30}", n), up(f"pump:{n % 30}", n))))
    last = numbered(down("pump:1", 9_000), down("pump:2", 9_000), down("pump:3", 9_000))
    for _ in range(3):
        topic.write(everything)
        topic.write(last)
    topic.tombstones([("pumps", "pump:2")])

    def compacted() -> bool:
        topic.write(numbered(up("filler")))  # a segment is rolled with the next record only
        return len(list(read_to_end(Settings(broker.bootstrap), topic.name, 30))) < len(everything)

    assert topic.remember(30) == {"pumps": {"pump:1": last[0], "pump:3": last[2]}}
    eventually(compacted, "the broker has compacted the topic", timeout_s=90, every_s=1)
    assert topic.remember(30) == {"pumps": {"pump:1": last[0], "pump:3": last[2]}}


def test_nothing_is_remembered_and_no_topic_made_where_there_is_none(broker: Kafka) -> None:
    name = unique("flips")
    assert flips_at(broker, name).remember(20) == {}
    assert name not in broker.admin().list_topics(timeout=20).topics


def test_a_topic_that_is_deleted_is_made_again_compacted(broker: Kafka) -> None:
    topic = flips_at(broker, unique("flips"))
    topic.ensure()
    topic.write(numbered(down("a")))
    broker.admin().delete_topics([topic.name])[topic.name].result(20)

    def written_again() -> bool:
        try:
            topic.ensure()
            topic.write(numbered(down("b")))
        except RetriableError:
            return False
        return True

    eventually(written_again, "written again", timeout_s=60)
    assert config_of(broker, topic.name)["cleanup.policy"] == "compact"


def test_a_broker_that_hangs_and_comes_back_gets_every_flip_in_order(broker: Kafka) -> None:
    topic = flips_at(broker, unique("flips"))
    topic.ensure()
    topic.write(numbered(down("a")))
    second = numbered(up("a"), down("b"))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        begun_s = time.monotonic()
        with pytest.raises(RetriableError):
            topic.write(second)
        with pytest.raises(RetriableError):
            topic.remember(0.5)
        assert time.monotonic() - begun_s < 30
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    eventually(lambda: written(topic, second), "written again")
    assert topic.remember(30) == {"pumps": {"b": second[1]}}
    keys = [record.key for record in read_to_end(Settings(broker.bootstrap), topic.name, 30)]
    assert keys[-2:] == [b"pumps/a", b"pumps/b"]


# Canaries


def fly(canaries: Canaries, partitions: Mapping[str, list[Partition]]) -> None:
    """Take turns until each partition has had a canary acknowledged that was sent from now on."""
    begun_ms = time.time_ns() // 1_000_000

    def flown() -> bool:
        canaries.turn(partitions, time.time_ns() // 1_000_000)
        known = canaries.state.acknowledged_ms
        return all(known.get(partition, 0) >= begun_ms for wanted in partitions.values() for partition in wanted)

    eventually(flown, "canaries acknowledged", timeout_s=60, every_s=0.01)


def test_a_compacted_topic_takes_no_canaries_and_others_do(broker: Kafka) -> None:
    beats = broker.create_topic(unique("beats"), 2)
    keyed = broker.create_topic(unique("keyed"), 1, **{"cleanup.policy": "compact"})
    partitions: dict[str, list[Partition]] = {"pumps": [(beats, 0), (beats, 1)], "fans": [(keyed, 0), (beats, 0)]}
    canaries = Canaries(Settings(broker.bootstrap, canary_every_s=0.2))

    def refused() -> bool:
        canaries.turn(partitions, time.time_ns() // 1_000_000)
        return keyed in canaries.state.refused

    eventually(refused, "refused by the compacted topic", every_s=0.01)
    fly(canaries, {"pumps": partitions["pumps"]})
    canaries.turn(partitions, time.time_ns() // 1_000_000)
    assert canaries.required("pumps")
    assert not canaries.required("fans")


def test_canaries_reach_a_partition_that_is_added(broker: Kafka) -> None:
    beats = broker.create_topic(unique("beats"))
    canaries = Canaries(Settings(broker.bootstrap, canary_every_s=0.2))
    fly(canaries, {"pumps": [(beats, 0)]})
    broker.admin().create_partitions([NewPartitions(beats, 2)])[beats].result(20)
    fly(canaries, {"pumps": [(beats, 0), (beats, 1)]})
    assert canaries.required("pumps")


def test_a_deleted_topic_is_not_made_again_by_its_canaries(broker: Kafka) -> None:
    beats = broker.create_topic(unique("beats"))
    canaries = Canaries(Settings(broker.bootstrap, canary_every_s=0.05))
    fly(canaries, {"pumps": [(beats, 0)]})
    broker.admin().delete_topics([beats])[beats].result(20)
    eventually(lambda: beats not in broker.admin().list_topics(timeout=20).topics, "deleted")
    end_s = time.monotonic() + 8  # longer than the client goes without looking at its topics
    while time.monotonic() < end_s:
        canaries.turn({"pumps": [(beats, 0)]}, time.time_ns() // 1_000_000)
        assert beats not in broker.admin().list_topics(timeout=20).topics


def test_canaries_stop_with_a_hanging_broker_without_waiting_for_it_and_fly_again_after(broker: Kafka) -> None:
    beats = broker.create_topic(unique("beats"))
    clock = SetClock()
    canaries = Canaries(Settings(broker.bootstrap), clock)
    cluster = Cluster(Settings(broker.bootstrap))
    fly(canaries, {"pumps": [(beats, 0)]})
    eventually(lambda: cluster.reachable(1), "reachable")
    before = canaries.state.acknowledged_ms
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        begun_s = time.monotonic()
        for _ in range(10):
            clock.now_s += 2
            canaries.turn({"pumps": [(beats, 0)]}, time.time_ns() // 1_000_000)
            cluster.reachable(2)
        assert time.monotonic() - begun_s < 20  # ten turns of 0.1 s
        assert canaries.state.acknowledged_ms == before
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    clock.step_s = 1
    fly(canaries, {"pumps": [(beats, 0)]})
    eventually(lambda: (cluster.reachable(3) or 0) == 3, "reachable again")
