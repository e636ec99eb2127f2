"""Figure ``memory``: what a source costs Redis, all keys together, as the worker writes it."""

from __future__ import annotations

import time

from bench.results import Row, Section, row
from bench.setting import Setting, wait_until
from bench.watched import scene
from bench.workloads import Workload

_FIRST = Workload("1,000 sources", 996, 996)
_SOURCES = 1_000_000
_TTL_MS = 3_600_000
_NAME_BYTES = 16
_ROUNDS = 2
_MOST = 400
_SETTLE_S = 2.0
_LOOKED_AT = 1_000


def memory(setting: Setting) -> Section:
    """``used_memory`` with 1,000,000 sources less that of the empty Redis, for each; and what each key has of it."""
    runs = [_run(setting) for _ in range(_ROUNDS)]
    rows: list[Row] = [row("for every source, all keys", [run["all"] for run in runs], "bytes", _MOST, 0)]
    rows += [row(f"of it {part}", [run[part] for run in runs], "bytes", None, 0) for part in runs[0] if part != "all"]
    notes = [
        f"{_SOURCES:,} sources with names of {_NAME_BYTES} bytes, written by a worker (`redis.key` is `${{key}}`) from one beat each. "
        "`used_memory`, less that of the same Redis when it was empty.",
        "The beats have an `hb-ttl`: of such sources the worker writes `info` at once, of others when it has nothing else to do; it is the "
        "same then.",
        "The parts by `MEMORY USAGE`: of the index's keys whole, of public keys the mean of a thousand. The rest is the two dictionaries "
        "of the database: keys, and when they expire.",
    ]
    return Section("memory", "Redis memory for every source.", rows, notes)


def _run(setting: Setting) -> dict[str, float]:
    setting.redis.flushall()
    empty = _used(setting)
    with scene(setting, _FIRST) as found:
        now_ms = time.time_ns() // 1_000_000
        names = [f"pump-{number:011d}" for number in range(_SOURCES - _FIRST.total)]
        found.last_beats(dict.fromkeys(names, now_ms), _TTL_MS)
        indexed = (setting.redis.zcard, found.keys.deadlines), (setting.redis.hlen, found.keys.info)
        wait_until(lambda: all(count(key) == _SOURCES for count, key in indexed), "the index has all sources", every_s=0.5)
        time.sleep(_SETTLE_S)
        whole = (_used(setting) - empty) / _SOURCES
        parts = {
            name: (setting.redis.memory_usage(key, samples=_LOOKED_AT) or 0) / _SOURCES
            for name, key in (("deadlines", found.keys.deadlines), ("info", found.keys.info))
        }
        public = [setting.redis.memory_usage(name) or 0 for name in names[:: _SOURCES // _LOOKED_AT]]
    parts["public key"] = sum(public) / len(public)
    return {"all": whole, **parts, "the rest": whole - sum(parts.values())}


def _used(setting: Setting) -> float:
    return float(setting.redis.info("memory")["used_memory"])
