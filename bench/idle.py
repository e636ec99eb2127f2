"""Figure ``idle``: memory and CPU of a worker that waits for beats."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench import machine
from bench.results import Section, row
from bench.setting import Setting, Worker, ended, jvm, ours, unique

_RUNS = 3
_SETTLE_S = 30.0
_WATCH_S = 30.0


@dataclass(frozen=True, slots=True)
class _Use:
    rss_mb: float
    pss_mb: float
    cpu_percent: float


def idle(setting: Setting) -> Section:
    """RSS after 30 s, and CPU over the 30 s after that."""
    with ExitStack() as stack:
        # The heavier first and one after the other; then all of them idle together, which disturbs nobody and saves minutes.
        others = [
            _started(stack, jvm(setting.scratch("idle-jvm"), setting.kafka, "service_load"), _file_sink(setting)) for _ in range(_RUNS)
        ]
        own = [_started(stack, ours(setting.scratch("idle"), setting.kafka), _beat_sink(setting)) for _ in range(_RUNS)]
        time.sleep(_SETTLE_S)
        uses = _watched([*own, *others])
    ours_use, jvm_use = uses[:_RUNS], uses[_RUNS:]
    rows = [
        row("ours, RSS", [use.rss_mb for use in ours_use], "MB", 70, 1),
        row("ours, CPU of one core", [use.cpu_percent for use in ours_use], "%", 1),
        row("JVM worker with a FileStreamSink, RSS", [use.rss_mb for use in jvm_use], "MB", None, 1),
        row("JVM worker with a FileStreamSink, CPU of one core", [use.cpu_percent for use in jvm_use], "%"),
        row("ours, PSS (shared pages divided)", [use.pss_mb for use in ours_use], "MB", None, 1),
    ]
    notes = [
        f"One connector with one task that has its partition and has applied one record (to Redis, to a file), {_SETTLE_S:.0f} s of "
        f"silence, then {_WATCH_S:.0f} s are watched, in which nobody asks REST. Worker properties are the defaults.",
        "The three workers of a kind, and both kinds, idle at the same time, each a process and a group of its own. JVM options as in "
        "`startup`.",
    ]
    return Section("idle", "An idle worker with one connected connector.", rows, notes)


def _beat_sink(setting: Setting) -> Mapping[str, Any]:
    topic = setting.kafka.create_topic(unique("idle"))
    setting.send(topic, (0, topic))
    return setting.sink(topic)


def _file_sink(setting: Setting) -> Mapping[str, Any]:
    topic = setting.kafka.create_topic(unique("idle-jvm"))
    setting.send(topic, (0, topic))
    config = {
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "topics": topic,
        "file": str(setting.directory / topic),
    }
    return {"name": topic, "config": config}


def _started(stack: ExitStack, worker: Worker, connector: Mapping[str, Any]) -> Worker:
    stack.enter_context(ended(worker))
    worker.start()
    worker.wait_for_rest()
    worker.create(connector)
    worker.wait_until_running(connector["name"])
    return worker


def _watched(workers: list[Worker]) -> list[_Use]:
    before = [machine.cpu_s(worker.pid) for worker in workers]
    started_s = time.monotonic()
    time.sleep(_WATCH_S)
    after = [machine.cpu_s(worker.pid) for worker in workers]
    wall_s = time.monotonic() - started_s
    return [
        _Use(machine.rss_mb(worker.pid), machine.pss_mb(worker.pid), (last - first) / wall_s * 100)
        for worker, first, last in zip(workers, before, after, strict=True)
    ]
