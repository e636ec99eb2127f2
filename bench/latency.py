"""Figure ``latency``: produce -> visible in Redis, beat by beat, ours and the sketch turn about, at 100/s and at 1,000/s.

One thread produces beats evenly, each with a key of its own (template ``${key}``), and between two beats sleeps in
``select`` on a connection that is subscribed to Redis's keyspace events. A beat's latency is the time from just before
``produce()`` to the moment its SET event has been read. Redis fires the event as part of the SET, so from then on any GET
sees the key. Nothing spins: an observer that asked Redis in a tight loop would take the cores from what it observes.

Its own error: the event's way to this process, its parsing, and a late wake-up. ``_observer`` measures just that (a SET sent by this
process until its event has been read); it is reported beside the figure and not subtracted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import redis.client
from confluent_kafka import Producer

from bench.peers import sketch
from bench.results import Row, Section, quantile, row
from bench.setting import Setting, Worker, ended, ours, unique

_ROUNDS = 3
_SECONDS = {100: 20, 1_000: 10}
_WARM_UP_S = 2
_PARTITIONS = 4
_SKETCH_BATCH = 1_000


def latency(setting: Setting) -> Section:
    """Latency at 100 msg/s for 20 s and at 1,000 msg/s for 10 s."""
    before = setting.redis.config_get("notify-keyspace-events")["notify-keyspace-events"]
    setting.redis.config_set("notify-keyspace-events", "E$")
    runs: dict[tuple[int, str], list[list[float]]] = defaultdict(list)
    try:
        observer = {rate: _observer(setting, rate) for rate in _SECONDS}
        for _ in range(_ROUNDS):
            for rate in _SECONDS:
                for sink in ("ours", "sketch"):
                    runs[rate, sink].append(_run(setting, sink, rate))
    finally:
        setting.redis.config_set("notify-keyspace-events", before or "")
    rows: list[Row] = []
    for rate, own in observer.items():
        rows += _rows(f"{rate:,}/s, ours", runs[rate, "ours"], 2, 10)
        rows += _rows(f"{rate:,}/s, sketch", runs[rate, "sketch"])
        rows += [row(f"{rate:,}/s, the observer's own part, p{share}", [quantile(own, share / 100)], "ms") for share in (50, 99)]
    notes = [
        f"{' and '.join(f'{rate:,} msg/s for {seconds} s' for rate, seconds in _SECONDS.items())} (each beat with its own key) after "
        f"{_WARM_UP_S} s of the same, {_PARTITIONS} partitions, one task; the producer has `linger.ms` 0 and waits for all replicas (one).",
        "From just before `produce()` until Redis's keyspace event of the SET has been read. The observer's own part (SET -> its event "
        "read, by the same loop at the same rate) is contained in the figures and not subtracted.",
        f"Sketch: `bench/sketch.py`, batches of up to {_SKETCH_BATCH:,}; no product, and so the practical limit.",
    ]
    return Section("latency", "Produce -> visible in Redis at 100 and 1,000 msg/s.", rows, notes)


def _rows(what: str, runs: list[list[float]], p50_ms: float | None = None, p99_ms: float | None = None) -> list[Row]:
    return [
        row(f"{what}: p50", [quantile(run, 0.5) for run in runs], "ms", p50_ms),
        row(f"{what}: p90", [quantile(run, 0.9) for run in runs], "ms"),
        row(f"{what}: p99", [quantile(run, 0.99) for run in runs], "ms", p99_ms),
        row(f"{what}: max", [max(run) for run in runs], "ms"),
    ]


def _run(setting: Setting, sink: str, rate: int) -> list[float]:
    topic = setting.kafka.create_topic(unique("latency"), _PARTITIONS)
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 0})

    def send(key: str) -> None:
        producer.produce(topic, b"%016d" % (time.time_ns() // 1_000_000), key)
        producer.poll(0)

    with ended(_sink(setting, sink, topic)) as worker:
        worker.start()
        send(topic)
        setting.wait_for_keys(topic)
        latencies = _observed(setting, send, rate, _WARM_UP_S + _SECONDS[rate])[rate * _WARM_UP_S :]
        producer.flush(10)
        worker.stop()
    return latencies


def _sink(setting: Setting, sink: str, topic: str) -> Worker:
    if sink == "sketch":
        return sketch(setting, topic, _SKETCH_BATCH)
    return ours(setting.scratch("latency"), setting.kafka, [setting.sink(topic)])


def _observer(setting: Setting, rate: int) -> list[float]:
    return _observed(setting, lambda key: setting.redis.set(key, 0, ex=60), rate, 5)


def _observed(setting: Setting, send: Callable[[str], Any], rate: int, seconds: int) -> list[float]:
    """Call ``send`` with keys at the rate for so long; return for each the ms until the key's SET was seen.

    Raises:
        TimeoutError: some were never seen.
    """
    count, prefix = rate * seconds, unique("beat")
    sent: dict[bytes, float] = {}
    took: list[float] = []
    with redis.client.PubSub(setting.redis.connection_pool, ignore_subscribe_messages=True) as events:
        events.subscribe("__keyevent@0__:set")
        events.get_message(timeout=5)
        start = time.perf_counter()
        for number in range(count):
            _read(events, sent, took, start + number / rate)
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
