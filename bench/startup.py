"""Figures ``startup`` and ``first-beat``: how long after its exec a worker answers, and keeps a key alive."""

from __future__ import annotations

from bench.results import Row, Section, row
from bench.setting import Setting, Worker, ended, jvm, ours, unique

_RUNS = 10
_JVM_RUNS = 3


def rest(setting: Setting) -> Section:
    """exec -> ``GET /connectors`` is answered with 200."""
    _rest_s(ours(setting.scratch("warm-up"), setting.kafka))
    own = [_rest_s(ours(setting.scratch("startup"), setting.kafka)) for _ in range(_RUNS)]
    bare = [_rest_s(ours(setting.scratch("uncompiled"), setting.kafka, compiled=False))]
    best = [_rest_s(jvm(setting.scratch("startup-jvm"), setting.kafka, "service_load")) for _ in range(_JVM_RUNS)]
    default = [_rest_s(jvm(setting.scratch("startup-jvm"), setting.kafka, "hybrid_warn"))]
    rows: list[Row] = [
        row("ours", own, "s", 0.7),
        row("ours, nothing compiled", bare, "s"),
        row("JVM Connect worker, `plugin.discovery=service_load`", best, "s"),
        row("JVM Connect worker, its default `plugin.discovery`", default, "s"),
    ]
    notes = [
        "The clock starts before fork and exec; loopback is asked every 2 ms. No connector is configured.",
        "Ours: one run before the first is not counted, and `PYTHONDONTWRITEBYTECODE` is unset, so bytecode is compiled and kept, "
        'as the installation leaves it. "Nothing compiled" is a start without any bytecode file, as after an installation that makes none.',
        "JVM: Kafka 4.1 from Maven's jars with the file connectors as its only plugins, `-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
        "-Xmx256m`.",
    ]
    return Section("startup", "exec -> the REST API answers `GET /connectors` with 200.", rows, notes)


def _rest_s(worker: Worker) -> float:
    with ended(worker):
        worker.start()
        seconds = worker.wait_for_rest()
        worker.stop()
    return seconds


def first_beat(setting: Setting) -> Section:
    """exec -> the first beat is in Redis."""
    topic = setting.kafka.create_topic(unique("first-beat"))
    _first_beat_s(setting, topic)
    seconds = [_first_beat_s(setting, topic) for _ in range(_RUNS)]
    notes = [
        "The worker is started with one connector file, `tasks.max` 1 and a new consumer group each time; a beat of the moment lies in "
        "the topic of one partition already. `group.initial.rebalance.delay.ms=0`: with the broker's default, 3 s are added.",
        "One run before the first is not counted; bytecode as in `startup`.",
    ]
    return Section("first-beat", "exec -> the first beat's key is in Redis.", [row("ours", seconds, "s", 1.5)], notes)


def _first_beat_s(setting: Setting, topic: str) -> float:
    key = unique("key")
    connector = setting.sink(topic) | {"name": unique("first-beat")}
    setting.send(topic, (0, key))
    with ended(ours(setting.scratch("first-beat"), setting.kafka, [connector])) as worker:
        worker.start()
        setting.wait_for_keys(key)
        seconds = worker.since_start()
        worker.stop()
    return seconds
