"""Figure ``catch-up``: how fast a backlog is applied. For orientation; it has no target yet."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Producer

from bench.results import Section, row
from bench.setting import Setting, Worker, ended, ours, unique, wait_until

_RECORDS = 500_000
_KEYS = 10_000
_RUNS = 3
_TTL_S = "86400"


def catch_up(setting: Setting) -> Section:
    """Records a second of a backlog of 500,000, from POST to the last record applied."""
    many, one = setting.kafka.create_topic(unique("many"), 4), setting.kafka.create_topic(unique("one"))
    _load(setting, many, [b"dev-%08d" % number for number in range(_KEYS)])
    newest = _load(setting, one, [b"heartbeat"])
    ends = [f"{many}-end-{partition}" for partition in range(4)]
    setting.send(many, *enumerate(ends))
    with ended(ours(setting.scratch("catch-up"), setting.kafka)) as worker:
        worker.start()
        worker.wait_for_rest()
        # Not counted: the first group of a new broker may wait for its coordinator (see cold-start).
        _rate(setting, worker, one, one, lambda: setting.redis.get(one) == newest)
        many_rates, one_rates = [], []
        for _ in range(_RUNS):
            many_rates.append(_rate(setting, worker, many, "${key}", lambda: setting.redis.exists(*ends) == len(ends)))
            one_rates.append(_rate(setting, worker, one, one, lambda: setting.redis.get(one) == newest))
        worker.stop()
    rows = [
        row("10,000 keys, `${key}`, 4 partitions", many_rates, "k records/s", None, 0),
        row("one fixed key, 1 partition", one_rates, "k records/s", None, 0),
    ]
    notes = [
        f"{_RECORDS:,} records, 12-byte keys, 16-byte values, one task, a new consumer group each time; from POST, the group's first join "
        "included, until the last record of each partition is visible in Redis.",
    ]
    return Section("catch-up", "Throughput of a backlog; for orientation only.", rows, notes)


def _load(setting: Setting, topic: str, keys: list[bytes]) -> bytes:
    """Fill the topic with beats one millisecond apart that end now; return the newest beat's ms as Redis will show it."""
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": _RECORDS * 2})
    first = time.time_ns() // 1_000_000 - _RECORDS
    for number in range(_RECORDS):
        stamp = first + number
        producer.produce(topic, b"%016d" % stamp, keys[number % len(keys)], timestamp=stamp)
    if producer.flush(60):
        raise RuntimeError("the broker did not take the load")
    return b"%d" % (first + _RECORDS - 1)


def _rate(setting: Setting, worker: Worker, topic: str, key: str, done: Callable[[], bool]) -> float:
    setting.redis.flushall()
    connector = setting.sink(topic, redis__key=key, redis__ttl=_TTL_S) | {"name": unique("catch-up")}
    started = time.perf_counter()
    worker.create(connector)
    wait_until(done, "the backlog is applied")
    seconds = time.perf_counter() - started
    worker.delete(connector["name"])
    return _RECORDS / seconds / 1000
