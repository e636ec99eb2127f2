"""Whoever held the partitions is killed, joined, moved or revived: what the index holds is what a run without that has."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import parts
from .broker import Kafka
from .index import SHORT_SESSION, Beats, Index, indexed_config, load, watching
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, end_offsets, now_ms, unique

SOURCES = [f"source-{n}" for n in range(300)]
ATTEMPTS = 5
REFUSED = "Redis no longer holds what this task left there|another task has claimed the same partitions meanwhile"


@contextmanager
def _revived(*workers: HeartbeatWorker) -> Iterator[None]:
    """See to it that no worker stays stopped, whatever happens within the block."""
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker.pid, signal.SIGCONT)


def test_a_rebuild_that_is_killed_again_and_again_comes_to_its_end_and_proves_nothing_before(
    kafka: Kafka, redis: Redis, tmp_path: Path
) -> None:
    topic = kafka.create_topic(unique("rebuild"))
    beats = Beats(kafka, topic, **{"linger.ms": 20})
    for _ in range(4):
        beats.send([f"source-{n}" for n in range(10_000)])
    end = end_offsets(kafka, topic)[0]
    slowly = {"consumer.override.max.poll.records": "100"}  # so that there is a middle to be killed in
    connector = {"name": topic, "config": indexed_config(redis, topic, SHORT_SESSION | slowly)}
    with watching(redis, topic) as index, parts.heartbeat_worker(tmp_path, kafka, connectors=[connector]) as worker:
        Connector(worker, kafka, topic).wait_for_members(1)
        index.wait_until_healed(beats)
        redis.cli("FLUSHALL")
        for part in (0.2, 0.4, 0.6):
            for _ in range(ATTEMPTS):
                _wait_until_past(index, topic, end * part)
                worker.kill9()
                if index.of_partitions(topic, "offset")[0] < end:
                    break
                redis.cli("FLUSHALL")  # the rebuild was faster than this process: once more
                worker.start()
            assert index.of_partitions(topic, "offset")[0] < end, "killed too late to be in the middle"
            assert index.of_partitions(topic, "until") == {}
            worker.start()
        index.wait_until_healed(beats)


def _wait_until_past(index: Index, topic: str, offset: float) -> None:
    eventually(lambda: index.of_partitions(topic, "offset").get(0, 0) > offset, "the rebuild goes on", every_s=0.01)


def test_tasks_and_workers_of_one_group_may_come_and_die_under_load(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("group"), 4)
    beats = Beats(kafka, topic)
    connectors = [{"name": topic, "config": indexed_config(redis, topic, SHORT_SESSION | {"tasks.max": "2"})}]
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with watching(redis, topic) as index, parts.heartbeat_worker(first, kafka, connectors=connectors) as dying:
        with load(beats, SOURCES):
            Connector(dying, kafka, topic).wait_for_members(2)
            with parts.heartbeat_worker(second, kafka, connectors=connectors) as lasting:
                group = Connector(lasting, kafka, topic)
                group.wait_for_members(4)
                _wait_until_spread(index, topic)
                dying.kill9()
                group.wait_for_members(2)
                dying.start()
                group.wait_for_members(4)
        index.wait_until_healed(beats, range(4))
        assert index.partitions() == {topic: 4}


def _wait_until_spread(index: Index, topic: str) -> None:
    def spread() -> bool:
        proof = index.proof()
        return len({proof.get(f"{topic}/{p}/token") for p in range(4)} - {None}) >= 2

    eventually(spread, "several tasks have partitions")


def test_a_revived_zombie_is_refused_and_moves_nothing_back(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("zombie"), 4)
    beats = Beats(kafka, topic)
    connectors = [{"name": topic, "config": indexed_config(redis, topic, SHORT_SESSION)}]
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with (
        watching(redis, topic) as index,
        parts.heartbeat_worker(first, kafka, connectors=connectors) as zombie,
        parts.heartbeat_worker(second, kafka, connectors=connectors) as heir,
    ):
        with _revived(zombie), load(beats, SOURCES):
            for _ in range(4):  # it may have been stopped where it had nothing to be refused
                Connector(heir, kafka, topic).wait_for_members(2)
                _wait_until_spread(index, topic)
                index.wait_until_proven(topic, now_ms(), range(4))
                _stop_within_a_batch(zombie, index, topic)
                before = index.deadlines()
                os.kill(zombie.pid, signal.SIGCONT)
                _watch_for_a_second(index, before)
                if re.search(REFUSED, zombie.log()):
                    break
        assert re.search(REFUSED, zombie.log())
        Connector(heir, kafka, topic).wait_for_members(2)
        index.wait_until_healed(beats, range(4))


def _stop_within_a_batch(worker: HeartbeatWorker, index: Index, topic: str) -> None:
    """Stop a worker while it waits for Redis to acknowledge beats, and wait until everything is somebody else's."""
    index.client.client_pause(1200, all=False)
    time.sleep(0.5)  # the load comes ten times meanwhile: the worker has sent what is not answered
    os.kill(worker.pid, signal.SIGSTOP)
    index.wait_until_proven(topic, now_ms(), range(4))


def _watch_for_a_second(index: Index, before: dict[str, int]) -> None:
    deadline_s = time.monotonic() + 1
    while time.monotonic() < deadline_s:
        after = index.deadlines()
        back = {source: after.get(source, 0) - was for source, was in before.items() if after.get(source, 0) < was}
        assert not back, f"deadlines went back: {back}"
        before = after
        time.sleep(0.02)  # the pace of looking
