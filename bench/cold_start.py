"""Figure ``cold-start``: a new connector with two tasks on a topic of two partitions.

Two members that join one group at the same moment can keep each other waiting, so three things are looked at: each of ten starts in a
row; the seconds after a start, in which the second task joins (beats go on, and the longest that one of them took is shown); and the
first group that a new broker ever has, which meets a coordinator that is still loading.
"""

from __future__ import annotations

import time
from dataclasses import replace

from confluent_kafka import Producer
from tests.real.parts import kafka_4_1

from bench.results import Section, row
from bench.setting import POLL_S, Setting, Worker, ended, ours, unique

_STARTS = 10
_NEW_BROKERS = 6
_BEATS_S = 6.0
_EVERY_S = 0.05


def cold_start(setting: Setting) -> Section:
    """POST -> first beat of each partition visible, and the longest a beat waited in the seconds after it."""
    first = [_on_a_new_broker(setting) for _ in range(_NEW_BROKERS)]
    with ended(ours(setting.scratch("cold-start"), setting.kafka)) as worker:
        worker.start()
        worker.wait_for_rest()
        _start(setting, worker)  # so that this is not the broker's first group
        starts = [_start(setting, worker) for _ in range(_STARTS)]
        settling = [_settle(setting, worker) for _ in range(3)]
        worker.stop()
    rows = [
        row("POST -> first beat of each partition visible", starts, "s", 3),
        row("the same for the first group that a new broker has", first, "s", 3),
        row(f"longest that a beat took in the {_BEATS_S:.0f} s after POST", settling, "s"),
    ]
    notes = [
        "All ten, in order: " + ", ".join(f"{seconds:.2f}" for seconds in starts) + " s.",
        "`tasks.max` 2, a new topic with one beat in each of its 2 partitions and a new consumer group each time, one worker, no restart "
        "in between; the broker has `group.initial.rebalance.delay.ms=0`, with its default 3 s are added.",
        "The second row, in order: " + ", ".join(f"{seconds:.2f}" for seconds in first) + " s, each on a broker of its own that has "
        "just come up. Where it is about 3 s (several in ten on a busy machine, seldom on a quiet one), the "
        "broker's coordinator was still loading when a task first joined, and librdkafka then "
        "waits 2 s and up to 1 s more (fixed in `rd_kafka_cgrp_handle_JoinGroup`: 1 s of back-off on top of the 1 s between joins, "
        "looked at once a second).",
        f"The third row: a beat every {_EVERY_S * 1000:.0f} ms in each partition while the two tasks find their places (the first member "
        "learns of the second at its next heartbeat, `heartbeat.interval.ms`, 3 s).",
    ]
    return Section("cold-start", "A new connector with `tasks.max` 2 on a topic of 2 partitions.", rows, notes)


def _start(setting: Setting, worker: Worker) -> float:
    topic = setting.kafka.create_topic(unique("cold-start"), 2)
    keys = [f"{topic}-{partition}" for partition in range(2)]
    setting.send(topic, *enumerate(keys))
    started = time.perf_counter()
    worker.create(setting.sink(topic, tasks__max="2"))
    setting.wait_for_keys(*keys)
    seconds = time.perf_counter() - started
    worker.delete(topic)
    return seconds


def _on_a_new_broker(setting: Setting) -> float:
    with (
        kafka_4_1(setting.scratch("new-broker")) as kafka,
        ended(ours(setting.scratch("cold-start"), kafka)) as worker,
    ):
        worker.start()
        worker.wait_for_rest()
        seconds = _start(replace(setting, kafka=kafka), worker)
        worker.stop()
        return seconds


def _settle(setting: Setting, worker: Worker) -> float:
    """Return the longest time in seconds from a beat to its visibility, of beats sent from just before POST on."""
    topic = setting.kafka.create_topic(unique("settle"), 2)
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 0})
    unseen: dict[str, float] = {}
    longest = 0.0
    started = next_beat = time.perf_counter()
    worker.create(setting.sink(topic, tasks__max="2"))
    while (now := time.perf_counter()) < started + _BEATS_S or unseen:
        if next_beat <= now < started + _BEATS_S:
            next_beat += _EVERY_S
            for partition in range(2):
                key = f"{topic}-{partition}-{len(unseen)}-{now}"
                producer.produce(topic, b"beat", key, partition)
                unseen[key] = now
            producer.poll(0)
        if unseen:
            values = setting.redis.mget(list(unseen))
            seen = [key for key, value in zip(unseen, values, strict=True) if value is not None]
            longest = max([longest, *(time.perf_counter() - unseen.pop(key) for key in seen)])
        if now > started + 90:
            raise TimeoutError(f"{len(unseen)} beats were not seen in Redis")
        time.sleep(POLL_S * 2)
    producer.flush(10)
    worker.delete(topic)
    return longest
