"""What becomes of Kafka's logs, and what sight makes of it: ten days, transactions, topics made anew, grown or cut, a hanging broker."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.cimpl import NewPartitions

from . import parts
from .broker import Kafka
from .index import Beats, Index, indexed_config, load, watching
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, end_offsets, now_ms, unique

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SOURCES = [f"source-{n}" for n in range(50)]
STOPPED_S = 5.0
SOON = {"consumer.override.metadata.max.age.ms": "1000"}
"""How soon a consumer notices what has become of its topics."""


@pytest.fixture
def connector(worker: HeartbeatWorker, kafka: Kafka) -> Iterator[Connector]:
    """A connector's name, which is its topic's too; deleted afterwards."""
    connector = Connector(worker, kafka, unique("proof"))
    yield connector
    worker.rest("DELETE", connector.path)


# Ten days


def _ten_days(now: int) -> dict[str, list[int]]:
    """Return when each source beat: 200 that live, 250 that died at various times, 50 that died within the horizon."""
    drawn = random.Random(5)
    last = {f"live-{n}": now - drawn.randrange(60_000) for n in range(200)}
    last |= {f"dead-{n}": now - drawn.randrange(3 * HOUR_MS, 9 * DAY_MS) for n in range(250)}
    last |= {f"late-{n}": now - drawn.randrange(HOUR_MS + 300_000, 2 * HOUR_MS - 300_000) for n in range(50)}
    return {source: [*range(now - 10 * DAY_MS + drawn.randrange(DAY_MS), end, DAY_MS), end] for source, end in last.items()}


def test_ten_days_of_beats_leave_exactly_the_living_alive_and_the_dead_due(
    connector: Connector, worker: HeartbeatWorker, kafka: Kafka, redis: Redis
) -> None:
    topic = kafka.create_topic(connector.name, 2, **{"retention.ms": "-1"})
    beats, began_ms = Beats(kafka, topic, **{"linger.ms": 20}), now_ms()
    for stamp, source in sorted((stamp, source) for source, stamps in _ten_days(began_ms).items() for stamp in stamps):
        beats.producer.produce(topic, "beat", source, timestamp=stamp)
        beats.newest[source] = stamp
    beats.flush()
    assert len(beats.newest) == 500
    recent = Connector(worker, kafka, f"{topic}-recent")
    whole = {f"whole:{source}": stamp for source, stamp in beats.newest.items()}
    within = {f"recent:{source}": stamp for source, stamp in beats.newest.items() if stamp >= began_ms - 2 * HOUR_MS}
    with watching(redis, connector.name) as index, watching(redis, recent.name) as recently:
        connector.put(indexed_config(redis, topic, {"redis.key": "whole:${key}", "consumer.override.auto.offset.reset": "earliest"}))
        recent.put(indexed_config(redis, topic, {"redis.key": "recent:${key}"}))
        for looked_at, newest in ((index, whole), (recently, within)):
            looked_at.wait_until_proven(topic, now_ms(), range(2))
            looked_at.check(newest)
            due = {source.split(":")[1] for source, deadline in looked_at.deadlines().items() if deadline <= now_ms()}
            assert due == {source.split(":")[1] for source in newest if "live" not in source}
            assert sum(value is not None for value, _ in looked_at.public(newest).values()) == 200
    worker.rest("DELETE", recent.path)


# Transactions


@pytest.mark.parametrize("ending", ["commit", "abort"])
def test_an_open_transaction_holds_the_sight_of_its_partition_for_who_reads_only_what_is_committed(
    ending: str, connector: Connector, kafka: Kafka, redis: Redis
) -> None:
    topic = kafka.create_topic(connector.name, 2)
    plain = Beats(kafka, topic)
    within = Beats(kafka, topic, **{"transactional.id": topic})
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic, {"consumer.override.isolation.level": "read_committed"}))
        plain.send(SOURCES, partition=0)
        plain.send(["other"], partition=1)
        index.wait_until_healed(plain, range(2))
        within.producer.init_transactions(60)
        within.producer.begin_transaction()
        opened_ms = within.send(["in-transaction"], partition=0)
        plain.send(["other"], partition=1)
        index.wait_until_proven(topic, opened_ms + 2_000, [1])  # two seconds of samples that partition 0 could not meet
        assert index.of_partitions(topic, "until")[0] <= opened_ms
        index.check(plain.newest)
        if ending == "commit":
            within.producer.commit_transaction(30)
        else:
            within.producer.abort_transaction(30)
        index.wait_until_proven(topic, now_ms(), range(2))
        index.check(plain.newest | (within.newest if ending == "commit" else {}))


def test_by_default_the_beats_of_an_open_transaction_count_at_once(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(connector.name)
    beats = Beats(kafka, topic, **{"transactional.id": topic})
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic))
        beats.producer.init_transactions(60)
        beats.producer.begin_transaction()
        beats.send(SOURCES)
        index.wait_until_healed(beats)
        beats.producer.abort_transaction(30)
        index.wait_until_healed(beats)  # also past the record that marks the abort


# Logs that are made anew, grow, or lose their beginning


@pytest.mark.parametrize("times", [1, 5], ids=["fewer", "more"])
@pytest.mark.parametrize("running", [True, False], ids=["under-a-task", "between-tasks"])
def test_a_topic_made_anew_is_read_from_its_beginning(running: bool, times: int, connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(connector.name, 2)
    beats = Beats(kafka, topic)
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic, SOON | {"consumer.override.allow.auto.create.topics": "false"}))
        for _ in range(3):
            beats.send(SOURCES)
        index.wait_until_healed(beats, range(2))
        if not running:
            _stop(connector)
        kafka.admin().delete_topics([topic])[topic].result(30)
        eventually(lambda: topic not in kafka.admin().list_topics(timeout=10).topics, "the topic is gone")
        kafka.create_topic(topic, 2)
        anew = Beats(kafka, topic)
        anew.send([f"first-{n}" for n in range(10)])  # where the old log's records were
        for _ in range(times):
            anew.send(SOURCES)
        if not running:
            _resume(connector)
        index.wait_until_proven(topic, now_ms(), range(2))
        index.check(beats.newest | anew.newest)


def _stop(connector: Connector) -> None:
    assert connector.worker.rest("PUT", f"{connector.path}/stop").status_code == 204
    connector.wait_for_members(0)


def _resume(connector: Connector) -> None:
    assert connector.worker.rest("PUT", f"{connector.path}/resume").status_code == 202


def test_added_partitions_enter_the_set_at_once_and_are_proven_when_read(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(connector.name)
    beats = Beats(kafka, topic)
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic))
        beats.send(SOURCES)
        index.wait_until_healed(beats)
        assert index.partitions() == {topic: 1}
        kafka.admin().create_partitions([NewPartitions(topic, 3)])[topic].result(30)
        eventually(lambda: index.partitions() == {topic: 3}, "the new partitions are known of")
        eventually(lambda: set(end_offsets(kafka, topic)) == {0, 1, 2}, "they have their leaders")
        grown = Beats(kafka, topic)
        for number, source in enumerate(["zero", "one", "two"]):
            grown.send([source], partition=number)
        index.wait_until_proven(topic, now_ms(), range(3))
        index.check(beats.newest | grown.newest)


def test_a_log_cut_beyond_our_position_is_told_as_incomplete_and_read_on(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(connector.name)
    beats = Beats(kafka, topic)
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic))
        beats.send(SOURCES)
        index.wait_until_healed(beats)
        _stop(connector)
        stopped_ms = now_ms()
        lost = Beats(kafka, topic)
        lost.send(["never-seen"])
        end = end_offsets(kafka, topic)[0]
        kafka.admin().delete_records([TopicPartition(topic, 0, end)])[TopicPartition(topic, 0, end)].result(30)
        _resume(connector)
        beats.send(["after"])
        index.wait_until_healed(beats)
        assert index.of_partitions(topic, "since")[0] > stopped_ms
        assert f"{topic}-0: Kafka no longer has the records from offset {len(SOURCES)} to {end}" in connector.worker.log()
        assert "incomplete since" in connector.worker.log()


# Sight


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _since_after(index: Index, topic: str) -> Mapping[int, int]:
    """Return since of every partition, once something later than now is proven of all."""
    index.wait_until_proven(topic, now_ms(), range(2))
    return index.of_partitions(topic, "since")


def test_sight_goes_on_by_itself_and_begins_anew_after_a_time_without_looking(redis: Redis, tmp_path: Path) -> None:
    name = unique("sight")
    with parts.kafka_4_1(tmp_path / "kafka") as kafka, watching(redis, name) as index:
        topic = kafka.create_topic(name, 2)
        beats = Beats(kafka, topic)
        directory = tmp_path / "worker"
        directory.mkdir()
        connectors = [{"name": name, "config": indexed_config(redis, topic)}]
        with parts.heartbeat_worker(directory, kafka, connectors=connectors) as worker:
            with load(beats, SOURCES):
                eventually(lambda: _since_after(index, topic) == _since_after(index, topic), "sight goes on under load")
            eventually(lambda: _since_after(index, topic) == _since_after(index, topic), "sight goes on without a beat")
            for pid in (kafka.pid, worker.pid):
                stopped_ms = now_ms()
                with _stopped(pid):
                    time.sleep(STOPPED_S)  # the time without looking
                seen = _since_after(index, topic)
                assert set(seen) == {0, 1}
                assert all(since > stopped_ms for since in seen.values()), f"{seen}, stopped at {stopped_ms}"
            index.wait_until_healed(beats, range(2))
