"""Figure ``latency``: produce -> visible in Redis, beat by beat.

One thread produces a beat every 10 ms, each with a key of its own (template ``${key}``), and between two beats sleeps in
``select`` on a connection that is subscribed to Redis's keyspace events. A beat's latency is the time from just before
``produce()`` to the moment its SET event has been read. Redis fires the event as part of the SET, so from then on any GET
sees the key. Nothing spins: an observer that asked Redis in a tight loop would take the cores from what it observes.

Its own error: the event's way to this process, its parsing, and a late wake-up. ``_observer`` measures just that (a SET sent by this
process until its event has been read); it is reported beside the figure and not subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis.client
from confluent_kafka import Producer

from bench.results import Section, quantile, row
from bench.setting import Setting, ended, ours, unique

_RUNS = 3
_RATE = 100
_SECONDS = 20
_WARM_UP_S = 2
_PARTITIONS = 4


def latency(setting: Setting) -> Section:
    """Latency at 100 msg/s for 20 s."""
    before = setting.redis.config_get("notify-keyspace-events")["notify-keyspace-events"]
    setting.redis.config_set("notify-keyspace-events", "E$")
    try:
        observer = _observer(setting)
        runs = [_run(setting) for _ in range(_RUNS)]
    finally:
        setting.redis.config_set("notify-keyspace-events", before or "")
    rows = [
        row("p50", [quantile(run, 0.5) for run in runs], "ms", 3),
        row("p90", [quantile(run, 0.9) for run in runs], "ms"),
        row("p99", [quantile(run, 0.99) for run in runs], "ms", 15),
        row("max", [max(run) for run in runs], "ms"),
        row("the observer's own part, p50", [quantile(observer, 0.5)], "ms"),
        row("the observer's own part, p99", [quantile(observer, 0.99)], "ms"),
    ]
    notes = [
        f"{_RATE} msg/s for {_SECONDS} s ({_RATE * _SECONDS} beats a run, each with its own key) after {_WARM_UP_S} s of the same, "
        f"{_PARTITIONS} partitions, one task; the producer has `linger.ms` 0 and waits for all replicas (one).",
        "From just before `produce()` until Redis's keyspace event of the SET has been read. The observer's own part (SET -> its event "
        "read, by the same loop at the same rate) is contained in the figures and not subtracted.",
    ]
    return Section("latency", "Produce -> visible in Redis at 100 msg/s.", rows, notes)


def _run(setting: Setting) -> list[float]:
    topic = setting.kafka.create_topic(unique("latency"), _PARTITIONS)
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 0})

    def send(key: str) -> None:
        producer.produce(topic, b"beat", key)
        producer.poll(0)

    with ended(ours(setting.scratch("latency"), setting.kafka, [setting.sink(topic)])) as worker:
        worker.start()
        setting.send(topic, (0, topic))
        setting.wait_for_keys(topic)
        latencies = _observed(setting, send, _RATE * (_WARM_UP_S + _SECONDS))[_RATE * _WARM_UP_S :]
        producer.flush(10)
        worker.stop()
    return latencies


def _observer(setting: Setting) -> list[float]:
    return _observed(setting, lambda key: setting.redis.set(key, 0, ex=60), _RATE * 5)


def _observed(setting: Setting, send: Callable[[str], Any], count: int) -> list[float]:
    """Call ``send`` with ``count`` keys at the rate; return for each the ms until the key's SET was seen.

    Raises:
        TimeoutError: some were never seen.
    """
    prefix = unique("beat")
    sent: dict[bytes, float] = {}
    took: list[float] = []
    with redis.client.PubSub(setting.redis.connection_pool, ignore_subscribe_messages=True) as events:
        events.subscribe("__keyevent@0__:set")
        events.get_message(timeout=5)
        start = time.perf_counter()
        for number in range(count):
            _read(events, sent, took, start + number / _RATE)
            key = f"{prefix}-{number}"
            sent[key.encode()] = time.perf_counter()
            send(key)
        last = time.perf_counter() + 10
        while sent and time.perf_counter() < last:
            _read(events, sent, took, min(last, time.perf_counter() + 0.1))
    if sent:
        raise TimeoutError(f"{len(sent)} of {count} beats were not seen in Redis")
    return took


def _read(events: Any, sent: dict[bytes, float], took: list[float], until: float) -> None:
    """Read events until then."""
    while (left := until - time.perf_counter()) > 0:
        event = events.get_message(timeout=left)
        now = time.perf_counter()
        if event and event["data"] in sent:
            took.append((now - sent.pop(event["data"])) * 1000)
