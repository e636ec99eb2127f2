"""Figure ``tick``: what it costs to watch 1,000,000 sources: one look, where nothing is due and where something is, memory, and CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import machine
from bench.results import Row, Section, quantile, row
from bench.setting import Setting
from bench.watched import Scene, monitor, scene
from bench.workloads import W3
from heartbeat.beats import verdicts
from heartbeat.beats.connection import Argument, Connection, Server
from heartbeat.beats.verdicts import Verdicts
from heartbeat.monitor.beyond import Nothing
from heartbeat.monitor.detect import Detector
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Defaults, Settings

_ROUNDS = 3
_TICKS = 200
_TICKS_DOWN = 40
_EVERY_S = 0.01
_DUE = (1, 100, 10_000)
_TTL_MS = 1_000
_MARGIN_MS = 2_500
"""Slack, the age of the sight, and some."""
_MOST_MS = 20
_MOST_MB = 150
_SETTLE_S = 3.0
_WATCH_S = 8.0


class _Timed(Connection):
    """A connection that knows how long Redis took."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.waited_s = 0.0

    def call(self, *command: Argument) -> Any:
        """Send one command."""
        began_s = time.perf_counter()
        try:
            return super().call(*command)
        finally:
            self.waited_s += time.perf_counter() - began_s

    def calls(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send several."""
        began_s = time.perf_counter()
        try:
            return super().calls(*commands)
        finally:
            self.waited_s += time.perf_counter() - began_s


class _Live:
    """Settings that are defaults, but for a grace of nothing: it only makes one wait here."""

    live = Settings(defaults=Defaults(grace_s=0))
    rules = Rules(live)


def tick(setting: Setting) -> Section:
    """Milliseconds of a tick over 1,000,000 sources, and what a monitor process takes that looks at them."""
    with scene(setting, W3) as living:
        connection = _Timed(Server("127.0.0.1", setting.redis_port))
        detector = Detector(connection, "bench", _Live(), Nothing(), lambda: time.time_ns() // 1_000_000)
        detector.tick()
        rows = _idle_rows("nothing due", connection, detector, _TICKS, _MOST_MS)
        rows += _part_rows(living, connection)
        for due in _DUE:
            took = [_due_tick(living, connection, detector, due, number) for number in range(_ROUNDS)]
            rows.append(row(f"{due:,} due: tick", [whole for whole, _ in took], "ms"))
            rows.append(row(f"{due:,} due: of it until Redis has answered", [waited for _, waited in took], "ms"))
        down = int(setting.redis.zcard(living.keys.down))
        rows += _idle_rows(f"nothing due, {down:,} down", connection, detector, _TICKS_DOWN)
        setting.redis.delete(living.keys.down, living.keys.flips)
        rows += _process_rows(living)
        connection.close()
    notes = [
        f"{W3.total:,} living sources, a worker proves them. Ticks of a detector in this process, without `[kafka]`: "
        f"p50, p99 and max of {_TICKS} ({_TICKS_DOWN} where sources are down), {_EVERY_S * 1000:.0f} ms apart, in each of {_ROUNDS} runs.",
        "Due: sources that have beaten once and whose deadline and slack are over, without grace; the tick that puts all "
        "of them into the stream of flips.",
        f"Process: `heartbeat monitor` with `[kafka]` (canaries, the topic of flips), {_SETTLE_S:.0f} s after it proves the connector, "
        f"watched for {_WATCH_S:.0f} s.",
    ]
    return Section("tick", f"Looking at {W3.total:,} sources.", rows, notes)


def _idle_rows(what: str, connection: _Timed, detector: Detector, ticks: int, most_ms: float | None = None) -> list[Row]:
    runs = [[_timed_tick(connection, detector) for _ in range(ticks)] for _ in range(_ROUNDS)]
    whole = [[took for took, _ in run] for run in runs]
    return [
        row(f"{what}: tick, p50", [quantile(run, 0.5) for run in whole], "ms", most_ms),
        row(f"{what}: tick, p99", [quantile(run, 0.99) for run in whole], "ms", most_ms),
        row(f"{what}: tick, max", [max(run) for run in whole], "ms"),
        row(f"{what}: of it until Redis has answered, p50", [quantile([waited for _, waited in run], 0.5) for run in runs], "ms"),
    ]


def _part_rows(living: Scene, connection: Connection) -> list[Row]:
    index, name = Verdicts(connection, living.index.connector), "nothing due: of it"
    now_ms = time.time_ns() // 1_000_000
    parts = {
        f"{name} the connectors' names, p50": lambda: verdicts.known(connection, "bench", b"{}", 0),
        f"{name} the look at the index, p50": lambda: index.look(now_ms, 0),
        f"{name} who is due, p50": lambda: index.due(now_ms, 0, 500),
    }
    runs = {what: [quantile([_rested_ms(part) for _ in range(_TICKS)], 0.5) for _ in range(_ROUNDS)] for what, part in parts.items()}
    return [row(what, run, "ms") for what, run in runs.items()]


def _due_tick(living: Scene, connection: _Timed, detector: Detector, due: int, number: int) -> tuple[float, float]:
    """Let so many sources fall silent, and when all of them can be judged, take a tick. Return its ms, and those of Redis."""
    now_ms = time.time_ns() // 1_000_000
    beats = {f"due-{due}-{number}-{index:06d}": now_ms for index in range(due)}
    before = int(living.setting.redis.zcard(living.keys.down))
    living.last_beats(beats, _TTL_MS)
    time.sleep(max(0.0, (now_ms + _TTL_MS + _MARGIN_MS) / 1000 - time.time()))
    took = _timed_tick(connection, detector)
    judged = int(living.setting.redis.zcard(living.keys.down)) - before
    if judged != due:
        raise RuntimeError(f"{judged} of {due} sources were judged in one tick")
    return took


def _timed_tick(connection: _Timed, detector: Detector) -> tuple[float, float]:
    connection.waited_s = 0.0
    took_ms = _rested_ms(detector.tick)
    if detector.state.error:
        raise RuntimeError(detector.state.error)
    return took_ms, connection.waited_s * 1000


def _process_rows(living: Scene) -> list[Row]:
    rss_mb, peak_mb, cpu_percent = [], [], []
    for _ in range(_ROUNDS):
        with monitor(living) as process:
            time.sleep(_SETTLE_S)
            cpu_s, began_s = machine.cpu_s(process.pid), time.monotonic()
            time.sleep(_WATCH_S)
            cpu_percent.append((machine.cpu_s(process.pid) - cpu_s) / (time.monotonic() - began_s) * 100)
            rss_mb.append(machine.rss_mb(process.pid))
            peak_mb.append(machine.peak_rss_mb(process.pid))
    return [
        row("process: RSS", rss_mb, "MB", _MOST_MB, 1),
        row("process: peak RSS", peak_mb, "MB", _MOST_MB, 1),
        row("process: CPU of one core", cpu_percent, "%"),
    ]


def _rested_ms(act: Callable[[], Any]) -> float:
    """Return how long it takes after a pause, as in the monitor: without one everything is awake already."""
    time.sleep(_EVERY_S)
    began_s = time.perf_counter()
    act()
    return (time.perf_counter() - began_s) * 1000
