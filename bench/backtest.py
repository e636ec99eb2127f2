"""Figure ``backtest``: how fast a log is looked back on, with one history per source."""

from __future__ import annotations

import json
import resource
import subprocess
import time

from confluent_kafka import Producer
from tests.real.parts import clean_environment, heartbeat_argv

from bench.results import Section, row
from bench.setting import Setting, unique

_RECORDS = 3_000_000
_KEYS = 10_000
_PARTITIONS = 4
_RUNS = 5
_LEAST_PER_S = 500_000
_TIMEOUT_S = 120.0


def backtest(setting: Setting) -> Section:
    """Seconds of ``heartbeat backtest`` over 3,000,000 records of 10,000 sources, from exec to exit."""
    topic = setting.kafka.create_topic(unique("backtest"), _PARTITIONS)
    _load(setting, topic)
    runs = [_run(setting, topic) for _ in range(_RUNS)]
    wall = [seconds for seconds, _ in runs]
    rows = [
        row(f"{_RECORDS:,} records, {_KEYS:,} sources, {_PARTITIONS} partitions, exec to exit", wall, "s", _RECORDS / _LEAST_PER_S),
        row("the same, as a rate", [_RECORDS / seconds / 1000 for seconds in wall], "k records/s", None, 0),
        row("CPU of the process per million records", [cpu / _RECORDS * 1e6 for _, cpu in runs], "s", None),
    ]
    notes = [
        f"`heartbeat backtest --json` in a process of its own, `--key 'pump:${{key}}'`, the broker on the same cores; the target is "
        f"{_LEAST_PER_S:,} records/s, start-up and report included. 12-byte keys, 16-byte values, every record counted in every run.",
    ]
    return Section("backtest", "A retained log, read to its end and judged.", rows, notes)


def _load(setting: Setting, topic: str) -> None:
    """Fill the topic with beats: each source beats every ten seconds, and the last beats are now."""
    keys = [b"dev-%08d" % number for number in range(_KEYS)]
    producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    first = time.time_ns() // 1_000_000 - _RECORDS
    for number in range(_RECORDS):
        while True:
            try:
                producer.produce(topic, b"%016d" % number, keys[number % _KEYS], timestamp=first + number)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("the broker did not take the load")


def _run(setting: Setting, topic: str) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of one run."""
    argv = heartbeat_argv("backtest", "--bootstrap-server", setting.kafka.bootstrap, "--topic", topic, "--key", "pump:${key}", "--json")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, check=False, env=clean_environment())
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    total = json.loads(done.stdout)["total"]
    if (total["beats"], total["sources"], total["downs"], total["late_beats"]) != (_RECORDS, _KEYS, 0, 0):
        raise RuntimeError(f"the backtest found {total}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
