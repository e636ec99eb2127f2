"""Figure ``sight``: how old the proof of silence is, on an idle topic and under full load with 64 partitions, and what it costs.

Full load is as many beats as the worker takes: a producer keeps a bounded number of records ahead of the applied offsets, so the worker
always has work and never falls behind. A backlog beyond that would be a catch-up, in which no sight can be fresh.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from confluent_kafka import Producer

from bench import machine
from bench.index import FRESH_S, Index
from bench.race import connector
from bench.results import Section, quantile, row
from bench.setting import Setting, Worker, ended, ours, unique
from bench.workloads import Backlog, Workload

_ROUNDS = 2
_WATCH_S = 20.0
_SETTLE_S = 3.0
_EVERY_S = 0.02
_PARTITIONS = 64
_KEYS = 10_000
_AHEAD = 30_000
_BURST = 6_400
_SHORT_S = 0.002


@dataclass(frozen=True, slots=True)
class _Watched:
    """The age of the oldest partition's sight at every look, the worker's share of a core in per cent, and thousand records a second."""

    ages_s: list[float]
    cpu_percent: float
    rate: float


def sight(setting: Setting) -> Section:
    """Age of ``until`` over 20 s of silence and 20 s of load, and the CPU of an idle worker that proves 64 partitions."""
    idle, load = [], []
    for _ in range(_ROUNDS):
        topic = setting.kafka.create_topic(unique("sight"), _PARTITIONS)
        setting.send(topic, *((partition, f"dev-{partition:08d}") for partition in range(_PARTITIONS)))
        backlog = Backlog(Workload("live", _PARTITIONS, _PARTITIONS, _PARTITIONS), topic, 0)
        setting.redis.flushall()
        body = connector(setting, backlog, "${key}")
        index = Index(setting.redis, body["name"], backlog)
        with ended(ours(setting.scratch("sight"), setting.kafka, [body])) as worker:
            worker.start()
            worker.wait_for_rest()
            worker.wait_until_running(body["name"])
            time.sleep(_SETTLE_S)
            index.wait_for_sight()
            idle.append(_idle(index, worker))
            load.append(_load(setting, index, worker))
            worker.stop()
    rows = [
        row("idle: oldest", [max(watched.ages_s) for watched in idle], "s", FRESH_S),
        row("idle: p99", [quantile(watched.ages_s, 0.99) for watched in idle], "s", FRESH_S),
        row("idle: p50", [quantile(watched.ages_s, 0.5) for watched in idle], "s"),
        row("idle: CPU of one core", [watched.cpu_percent for watched in idle], "%", 2),
        row("full load: oldest", [max(watched.ages_s) for watched in load], "s", FRESH_S),
        row("full load: p99", [quantile(watched.ages_s, 0.99) for watched in load], "s", FRESH_S),
        row("full load: p50", [quantile(watched.ages_s, 0.5) for watched in load], "s"),
        row("full load: CPU of one core", [watched.cpu_percent for watched in load], "%", None, 0),
        row("full load: records", [watched.rate for watched in load], "k/s", None, 0),
    ]
    notes = [
        f"One task, {_PARTITIONS} partitions. Every {_EVERY_S * 1000:.0f} ms at most for {_WATCH_S:.0f} s: now minus `until` of the "
        "partition where that is most. The CPU of the idle worker is all it uses, the sight with everything else.",
        f"Full load: {_KEYS:,} keys; the producer keeps up to {_AHEAD:,} records ahead of the applied offsets, on the same cores as the "
        "broker, Redis and the worker.",
    ]
    return Section("sight", f"How old `until` is, with {_PARTITIONS} partitions.", rows, notes)


def _idle(index: Index, worker: Worker) -> _Watched:
    ages_s: list[float] = []
    cpu_s, started_s = machine.cpu_s(worker.pid), time.monotonic()
    while time.monotonic() - started_s < _WATCH_S:
        ages_s.append(max(index.ages_s()))
        time.sleep(_EVERY_S)
    wall_s = time.monotonic() - started_s
    return _Watched(ages_s, (machine.cpu_s(worker.pid) - cpu_s) / wall_s * 100, 0.0)


def _load(setting: Setting, index: Index, worker: Worker) -> _Watched:
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": _AHEAD * 4})
    ages_s: list[float] = []
    sent, before = 0, sum(index.offsets())
    cpu_s, started_s = machine.cpu_s(worker.pid), time.monotonic()
    while (now_s := time.monotonic()) - started_s < _WATCH_S:
        ages_s.append(max(index.ages_s()))
        worker.check_alive()
        ahead = sent - (sum(index.offsets()) - before)
        if ahead + _BURST > _AHEAD:  # a few records at a time would make requests of a few bytes: the broker's load, not the worker's
            producer.poll(_SHORT_S)
            continue
        for number in range(sent, sent + _BURST):
            producer.produce(index.backlog.topic, b"%016d" % (now_s * 1000), b"dev-%08d" % (number % _KEYS), number % _PARTITIONS)
        sent += _BURST
    wall_s = time.monotonic() - started_s
    cpu_percent = (machine.cpu_s(worker.pid) - cpu_s) / wall_s * 100
    applied = sum(index.offsets()) - before
    if producer.flush(30):
        raise RuntimeError("the broker did not take the load")
    return _Watched(ages_s, cpu_percent, applied / wall_s / 1000)
