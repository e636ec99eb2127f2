"""One fault after another, drawn at random, without time to heal between them: what each is alone, they must be together."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import parts
from .broker import Kafka
from .index import SHORT_SESSION, Beats, indexed_config, load, watching
from .parts import HeartbeatWorker, Redis
from .scenario import Connector, unique

FAULTS = 15
PARTITIONS = 4
SOURCES = [f"source-{n}" for n in range(200)]


def test_faults_upon_faults_heal_to_what_a_run_without_them_has(kafka: Kafka, tmp_path: Path) -> None:
    seed = int(os.environ.get("HEARTBEAT_TEST_SEED") or random.randrange(2**32))
    print(f"HEARTBEAT_TEST_SEED={seed}")  # noqa: T201  pytest shows it with a failure, for doing it again
    drawn = random.Random(seed)
    topic = kafka.create_topic(unique("chaos"), PARTITIONS)
    beats = Beats(kafka, topic)
    with (
        parts.redis_server(tmp_path / "redis") as redis,
        _workers(tmp_path, kafka, [{"name": topic, "config": indexed_config(redis, topic, SHORT_SESSION)}]) as workers,
        watching(redis, topic) as index,
    ):
        beats.send([f"once-{n}" for n in range(500)])  # who will not beat again comes back from Kafka only
        index.wait_until_healed(beats, range(PARTITIONS))
        with load(beats, SOURCES):
            for _ in range(FAULTS):
                fault = drawn.choice([_flush, _save, _restore, _hang, _hang, _kill, _kill])
                print(fault.__name__)  # noqa: T201  shown with a failure
                fault(redis, drawn.choice(workers), drawn)
                time.sleep(drawn.uniform(0, 1))  # the random moment itself
        Connector(workers[0], kafka, topic).wait_for_members(len(workers))
        index.wait_until_healed(beats, range(PARTITIONS))


@contextmanager
def _workers(directory: Path, kafka: Kafka, connectors: list[dict[str, object]]) -> Iterator[list[HeartbeatWorker]]:
    with ExitStack() as stack:
        homes = [directory / "first", directory / "second"]
        for home in homes:
            home.mkdir()
        yield [stack.enter_context(parts.heartbeat_worker(home, kafka, connectors=connectors)) for home in homes]


def _flush(redis: Redis, worker: HeartbeatWorker, drawn: random.Random) -> None:
    redis.cli("FLUSHALL")


def _save(redis: Redis, worker: HeartbeatWorker, drawn: random.Random) -> None:
    redis.cli("SAVE")


def _restore(redis: Redis, worker: HeartbeatWorker, drawn: random.Random) -> None:
    """Start with the last dump again, if there is one."""
    redis.end()
    redis.start()


def _hang(redis: Redis, worker: HeartbeatWorker, drawn: random.Random) -> None:
    """Stop a worker, now and then for longer than its session."""
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        time.sleep(drawn.uniform(0, 3))  # the time in which it is not there
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def _kill(redis: Redis, worker: HeartbeatWorker, drawn: random.Random) -> None:
    worker.kill9()
    worker.start()
