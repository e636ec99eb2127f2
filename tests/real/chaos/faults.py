"""What can be broken: each fault is begun, lasts, and is ended again. Some are over at once; all are followed by a time to heal."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from confluent_kafka import KafkaException, Producer
from confluent_kafka.cimpl import NewPartitions

from ..forwarder import Forwarder
from ..index import MOST_PARTITIONS
from ..scenario import now_ms
from .history import Record
from .receiver import Answer
from .stage import STAGES, TRANSACTION_SOURCES, Stage

Act = Callable[[Stage, random.Random], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. Two of one ``part`` are never there at once. ``heals_s`` is how long its victims need after its end."""

    name: str
    part: str
    longest_s: float
    heals_s: float
    act: Act
    loses: bool = False


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _worker_killed(number: int, stage: Stage, drawn: random.Random) -> Iterator[None]:
    worker = stage.workers[number]
    worker.kill9()
    yield
    worker.start()


@contextmanager
def _monitor_killed(number: int, stage: Stage, drawn: random.Random) -> Iterator[None]:
    monitor = stage.monitors[number]
    monitor.kill9()
    yield
    monitor.start()


def _worker_stopped(number: int, stage: Stage, drawn: random.Random) -> AbstractContextManager[None]:
    return _stopped(stage.workers[number].pid)


def _monitor_stopped(number: int, stage: Stage, drawn: random.Random) -> AbstractContextManager[None]:
    return _stopped(stage.monitors[number].pid)


def _redis_hangs(stage: Stage, drawn: random.Random) -> AbstractContextManager[None]:
    return _stopped(stage.redis.master.pid)


@contextmanager
def _redis_flushed(stage: Stage, drawn: random.Random) -> Iterator[None]:
    stage.redis.master.cli("FLUSHALL")
    yield


@contextmanager
def _redis_emptied(stage: Stage, drawn: random.Random) -> Iterator[None]:
    stage.redis.master.end()
    yield
    stage.redis.restart()


@contextmanager
def _redis_restored(stage: Stage, drawn: random.Random) -> Iterator[None]:
    older = stage.redis.save()
    yield
    stage.redis.restart(older)


@contextmanager
def _redis_fails_over(stage: Stage, drawn: random.Random) -> Iterator[None]:
    """The replica gets nothing more, and later takes over."""
    stage.redis.replication.hold()
    try:
        yield
        stage.redis.fail_over()
    finally:
        stage.redis.replication.release()


@contextmanager
def _broker_stopped(stage: Stage, drawn: random.Random) -> Iterator[None]:
    drawn.choice([stage.kafka.stop, stage.kafka.end])()
    yield
    stage.kafka.start()


def _broker_hangs(stage: Stage, drawn: random.Random) -> AbstractContextManager[None]:
    return _stopped(stage.kafka.pid)


@contextmanager
def _partitions_added(stage: Stage, drawn: random.Random) -> Iterator[None]:
    admin = stage.kafka.admin()
    for _, topic, _ in STAGES:
        count = len(admin.list_topics(topic, timeout=30).topics[topic].partitions)
        if count < MOST_PARTITIONS:
            admin.create_partitions([NewPartitions(topic, count + 1)])[topic].result(30)
    yield


@contextmanager
def _transaction_hangs(stage: Stage, drawn: random.Random) -> Iterator[None]:
    """Its sources may be in the log or not: only that it is open matters."""
    producer = Producer({"bootstrap.servers": stage.kafka.bootstrap, "transactional.id": "hanging", "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for source, (_, topic, _) in zip(TRANSACTION_SOURCES, STAGES, strict=True):
        said = Record(source.name, stamp := now_ms(), stamp, None)
        producer.produce(topic, "beat", said.source, 0, timestamp=stamp)
        stage.doubtful.append(said)
    producer.flush(10)
    yield
    with suppress(KafkaException):  # the broker may have been restarted meanwhile: then it ends the transaction itself
        drawn.choice([producer.commit_transaction, producer.abort_transaction])(20)


@contextmanager
def _delayed(link: str, stage: Stage, drawn: random.Random) -> Iterator[None]:
    forwarder = stage.links[link]
    forwarder.delay_s = drawn.uniform(0.05, 0.4)
    yield
    forwarder.delay_s = 0.0


@contextmanager
def _held(link: str, stage: Stage, drawn: random.Random) -> Iterator[None]:
    forwarder: Forwarder = stage.links[link]
    forwarder.hold()
    try:
        yield
    finally:
        forwarder.release()
        forwarder.cut()


@contextmanager
def _cut(link: str, stage: Stage, drawn: random.Random) -> Iterator[None]:
    stage.links[link].cut()
    yield
    stage.links[link].cut()


@contextmanager
def _receiver_troubled(stage: Stage, drawn: random.Random) -> Iterator[None]:
    before, answers = stage.receiver.choose, random.Random(drawn.random())
    stage.receiver.choose = lambda: answers.choice([Answer.BUSY, Answer.BROKEN, Answer.HANG, Answer.OK])
    yield
    stage.receiver.choose = before


def _of_links() -> Iterator[Kind]:
    heals_s = {"worker-redis": 6.0, "worker-kafka": 14.0, "monitor-receiver": 14.0, "monitor-0-redis": 12.0, "monitor-1-redis": 12.0}
    for link, heals in heals_s.items():
        for word, act in (("delayed", _delayed), ("held", _held), ("cut", _cut)):
            yield Kind(f"{link} {word}", link, 6.0, heals, partial(act, link))


def _of_two() -> Iterator[Kind]:
    for n in range(2):
        yield Kind(f"worker {n} killed", f"worker-{n}", 4.0, 8.0, partial(_worker_killed, n))
        yield Kind(f"worker {n} stopped", f"worker-{n}", 7.0, 8.0, partial(_worker_stopped, n))
        # A lease lasts ten seconds: only then does the other monitor deliver.
        yield Kind(f"monitor {n} killed", f"monitor-{n}", 4.0, 12.0, partial(_monitor_killed, n))
        yield Kind(f"monitor {n} stopped", f"monitor-{n}", 14.0, 12.0, partial(_monitor_stopped, n))


KINDS: tuple[Kind, ...] = (
    *_of_two(),
    Kind("redis hangs", "redis", 6.0, 6.0, _redis_hangs),
    Kind("redis flushed", "redis", 0.0, 8.0, _redis_flushed, loses=True),
    Kind("redis emptied", "redis", 5.0, 8.0, _redis_emptied, loses=True),
    Kind("redis restored", "redis", 8.0, 8.0, _redis_restored, loses=True),
    Kind("redis fails over", "redis", 6.0, 8.0, _redis_fails_over, loses=True),
    Kind("broker stopped", "broker", 5.0, 15.0, _broker_stopped),
    Kind("broker hangs", "broker", 6.0, 10.0, _broker_hangs),
    Kind("partitions added", "broker", 0.0, 10.0, _partitions_added),
    Kind("transaction hangs", "broker", 8.0, 5.0, _transaction_hangs),
    Kind("receiver troubled", "receiver", 8.0, 14.0, _receiver_troubled),
    *_of_links(),
)
