"""Kill -9 at random moments under load: afterwards nothing lags and every key says what the newest record says."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

from confluent_kafka import Producer

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, is_beat, newest_stamps, sink_config, unique

KILLS = 5
RECORDS = 50_000
KEYS = 10_000
LOAD_S = 3.0
"""How long the load of one kill lasts; the worker dies somewhere within."""

HELD_S = 0.8
"""For how long before every second kill Redis holds writes back: longer than the interval between commits, so that a
worker that commits what is not applied has the time to do so."""


def test_no_beat_is_lost_to_five_kills_under_load(kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    seed = int(os.environ.get("HEARTBEAT_TEST_SEED") or random.randrange(2**32))
    print(f"HEARTBEAT_TEST_SEED={seed}")  # noqa: T201  pytest shows it with a failure, for doing it again
    moments = random.Random(seed)
    topic = kafka.create_topic(unique("killed"), 3)
    # Without its ttl's help: a key that expires within the test would hide that it was never written.
    config = sink_config(redis, topic, {"redis.key": "${key}", "redis.ttl": "3600", "tasks.max": "2"})
    # A killed member's partitions stay its own until its session lapses.
    config |= {"redis.timeout.ms": "200"}  # within HELD_S a write is given up and tried again
    config |= {"consumer.override.session.timeout.ms": "2000", "consumer.override.heartbeat.interval.ms": "500"}
    with parts.heartbeat_worker(tmp_path, kafka, connectors=[{"name": topic, "config": config}]) as worker:
        connector = Connector(worker, kafka, topic)
        for kill in range(KILLS):
            _kill_under_load(worker, kafka, redis, topic, kill, moments)
        connector.wait_until_caught_up(topic, timeout_s=120)
    oracle = newest_stamps(kafka, topic)
    assert len(oracle) == KEYS
    keys = sorted(oracle)
    held = redis.cli("MGET", *keys).splitlines()
    wrong = [(key, value, oracle[key]) for key, value in zip(keys, held, strict=True) if not is_beat(value, oracle[key])]
    assert not wrong, f"{len(wrong)} of {len(keys)} keys, e.g. {wrong[:5]}"


def _kill_under_load(worker: HeartbeatWorker, kafka: Kafka, redis: Redis, topic: str, kill: int, moments: random.Random) -> None:
    per_kill = RECORDS // KILLS
    keys = [f"source-{moments.randrange(KEYS)}" if kill else f"source-{n}" for n in range(per_kill)]
    before = redis.cli("GET", keys[0])
    load = threading.Thread(target=_send_paced, args=(kafka, topic, keys))
    load.start()
    eventually(lambda: redis.cli("GET", keys[0]) != before, "the load is being applied", timeout_s=60, every_s=0.02)
    time.sleep(moments.uniform(0, LOAD_S * 0.6))  # the random moment itself
    if kill % 2 == 0:
        redis.cli("CLIENT", "PAUSE", str(int(HELD_S * 1000) + 500), "WRITE")
        time.sleep(HELD_S)
    worker.kill9()
    load.join()
    worker.start()


def _send_paced(kafka: Kafka, topic: str, keys: list[str]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 5})
    slices = 30
    for start in range(slices):
        for key in keys[start::slices]:
            producer.produce(topic, "beat", key)
        producer.flush(60)
        time.sleep(LOAD_S / slices)
