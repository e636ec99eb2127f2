"""Redis hangs, dies, is full, flushed, restored, or replaced by a replica that lags: the index heals, and proves nothing before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import parts
from .broker import Kafka
from .forwarder import forwarding
from .index import Beats, Index, indexed_config, load, watching
from .parts import HeartbeatWorker, Redis
from .programs import eventually, free_port
from .scenario import Connector, now_ms, unique

SOURCES = [f"source-{n}" for n in range(300)]
LATER = [f"later-{n}" for n in range(100)]
FLUSHES = 20
TROUBLE_S = 5.0


@pytest.fixture
def connector(worker: HeartbeatWorker, kafka: Kafka) -> Iterator[Connector]:
    """A connector's name, which is its topic's too; deleted afterwards, before its Redis goes."""
    connector = Connector(worker, kafka, unique("proof"))
    yield connector
    worker.rest("DELETE", connector.path)


@pytest.mark.parametrize("running", [True, False], ids=["under-a-task", "between-tasks"])
def test_a_redis_restored_from_an_old_dump_gets_back_what_it_lacks(
    running: bool, connector: Connector, kafka: Kafka, tmp_path: Path
) -> None:
    topic = kafka.create_topic(connector.name, 2)
    beats = Beats(kafka, topic)
    with parts.redis_server(tmp_path) as redis, watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic))
        beats.send(SOURCES)
        index.wait_until_healed(beats, range(2))
        redis.cli("SAVE")
        shutil.copy(tmp_path / "dump.rdb", tmp_path / "old.rdb")
        beats.send([*SOURCES[:100], *LATER])
        index.wait_until_healed(beats, range(2))
        connector.wait_until_caught_up(topic)  # Kafka's own memory of how far we are is ahead of the dump
        if not running:
            connector.worker.rest("PUT", f"{connector.path}/stop")
            connector.wait_for_members(0)
        redis.stop()
        shutil.copy(tmp_path / "old.rdb", tmp_path / "dump.rdb")
        redis.start()
        if not running:
            assert not index.deadlines().keys() & set(LATER)
            connector.worker.rest("PUT", f"{connector.path}/resume")
        index.wait_until_healed(beats, range(2))


def test_a_failover_to_a_replica_that_lacks_the_tail_loses_nothing(connector: Connector, kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.create_topic(connector.name, 2)
    beats = Beats(kafka, topic)
    with (
        parts.redis_server(tmp_path / "master") as master,
        forwarding(master.port) as link,
        parts.redis_server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {link.port}") as replica,
        forwarding(master.port) as address,
        watching(address.port, topic) as index,
        watching(replica, topic) as behind,
    ):
        connector.put(indexed_config(address.port, topic))
        beats.send(SOURCES)
        index.wait_until_healed(beats, range(2))
        eventually(lambda: behind.deadlines() == index.deadlines(), "the replica follows")
        link.switch(free_port())  # nobody listens there
        with load(beats, [*SOURCES[:100], *LATER]):
            eventually(lambda: set(LATER) <= index.deadlines().keys(), "the master goes on alone")
            assert not behind.deadlines().keys() & set(LATER)
            replica.cli("REPLICAOF", "NO", "ONE")
            address.switch(replica.port)
            eventually(lambda: set(LATER) <= behind.deadlines().keys(), "the replica is written to")
        behind.wait_until_healed(beats, range(2))
        connector.worker.rest("DELETE", connector.path)


def test_a_redis_flushed_at_many_moments_under_load_heals_by_itself(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    seed = int(os.environ.get("HEARTBEAT_TEST_SEED") or random.randrange(2**32))
    print(f"HEARTBEAT_TEST_SEED={seed}")  # noqa: T201  pytest shows it with a failure, for doing it again
    moments = random.Random(seed)
    topic = kafka.create_topic(connector.name, 3)
    beats = Beats(kafka, topic)
    beats.send([f"once-{n}" for n in range(2_000)])  # who will not beat again comes back from Kafka only
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic, {"tasks.max": "2"}))
        index.wait_until_healed(beats, range(3))
        with load(beats, SOURCES, every_s=0.02):
            for _ in range(FLUSHES):
                time.sleep(moments.uniform(0, 0.4))  # the random moment itself
                redis.cli("FLUSHALL")
            flushed_s = time.monotonic()
        index.wait_until_healed(beats, range(3))
        print(f"healed {time.monotonic() - flushed_s:.1f} s after the last flush")  # noqa: T201  a figure to read, not to assert
        assert index.client.sismember("hb:connectors", topic)


def test_a_redis_that_hangs_or_dies_for_a_while_loses_nothing(connector: Connector, kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.create_topic(connector.name, 2)
    beats = Beats(kafka, topic)
    with parts.redis_server(tmp_path, "--appendonly", "yes") as redis, watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic))
        beats.send(SOURCES)
        index.wait_until_healed(beats, range(2))
        with load(beats, [*SOURCES[:100], *LATER], every_s=0.1):
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                time.sleep(TROUBLE_S)  # the outage itself
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            index.wait_until_proven(topic, now_ms(), range(2))
            redis.end()  # kill -9: up to a second of what was acknowledged is gone
            time.sleep(TROUBLE_S)
            redis.start()
        index.wait_until_healed(beats, range(2))
        assert connector.states() == ["RUNNING", "RUNNING"]


def test_a_redis_that_is_full_in_the_middle_of_a_batch_is_not_said_to_hold_it(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(connector.name)
    beats = Beats(kafka, topic, **{"linger.ms": 20})
    with watching(redis, topic) as index:
        connector.put(indexed_config(redis, topic))
        beats.send(SOURCES)
        index.wait_until_healed(beats)
        used = int(index.client.info("memory")["used_memory"])
        index.client.config_set("maxmemory", used + 1_000_000)
        try:
            sent_ms = beats.send([f"many-{n}" for n in range(20_000)])
            eventually(lambda: "used memory > 'maxmemory'" in connector.worker.log(), "the log tells what Redis answers")
            _look_on_for_two_seconds(index, topic, sent_ms)
            assert len(index.deadlines()) > len(SOURCES), "it is full in the middle, not before"
            missing = [source for source, (value, _) in index.public(beats.newest).items() if value is None]
            assert missing, "nothing is missing, so nothing was refused"
        finally:
            index.client.config_set("maxmemory", 0)
        index.wait_until_healed(beats)
        assert connector.states() == ["RUNNING", "RUNNING"]


def _look_on_for_two_seconds(index: Index, topic: str, sent_ms: int) -> None:
    deadline_s = time.monotonic() + 2
    while time.monotonic() < deadline_s:
        assert index.of_partitions(topic, "until")[0] <= sent_ms
        time.sleep(0.05)  # the pace of looking
