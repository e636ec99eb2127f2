"""One sink against one backlog, from its exec until everything is applied, watched alike whoever runs.

"First write" is the first SET that Redis has run, "done" the moment when the last record of every partition is visible. Redis is asked
every 5 ms before the first write, afterwards the more seldom the longer it takes: watching must cost a run nothing that shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import machine
from bench.index import Index
from bench.setting import Setting, Worker, ended, ours, unique
from bench.workloads import TTL_S, Backlog

_PATIENCE_S = 120.0
_BEFORE_S = 0.005
_SHORTEST_S, _LONGEST_S, _SHARE = 0.003, 0.03, 0.004


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went; times are seconds since the sink's exec. At ``warm_s`` more than half had been written, ``left`` were to come."""

    records: int
    first_s: float
    warm_s: float
    left: int
    done_s: float
    cpu_s: float
    peak_rss_mb: float

    @property
    def rate(self) -> float:
        """Thousand records a second from the first write until done."""
        return self.records / (self.done_s - self.first_s) / 1000

    @property
    def rate_warm(self) -> float:
        """The same for what was left when more than half had been written; only of runs that were ``halved``."""
        return self.left / (self.done_s - self.warm_s) / 1000

    @property
    def cpu_s_per_million(self) -> float:
        """CPU seconds of the sink, its start included, for a million records."""
        return self.cpu_s / self.records * 1e6


def connector(setting: Setting, backlog: Backlog, key: str) -> dict[str, Any]:
    """Return our connector on this backlog, with a name, so a group and an index, of its own; everything else is a default."""
    return setting.sink(backlog.topic, redis__key=key, redis__ttl=str(TTL_S)) | {"name": unique("heartbeats")}


def run_ours(setting: Setting, backlog: Backlog, key: str, after: Callable[[Worker], None] | None = None) -> Outcome:
    """Let our worker apply the backlog, see that its sight is fresh, call ``after`` if given, then see that the index is exact.

    Raises:
        RuntimeError: the sight is stale or the index is wrong.
    """
    body = connector(setting, backlog, key)
    index = Index(setting.redis, body["name"], backlog)

    def done() -> bool:
        return _marked(setting, backlog) if key == "${key}" else index.applied()

    with ended(ours(setting.scratch("ours"), setting.kafka, [body])) as worker:
        outcome = run(setting, worker, backlog, done)
        index.wait_for_sight()
        if after is not None:
            after(worker)
        worker.stop()
    index.check(key)
    return outcome


def run_peer(setting: Setting, peer: Worker, backlog: Backlog, *, halved: bool = False) -> Outcome:
    """Let a peer apply the backlog."""
    with ended(peer) as worker:
        outcome = run(setting, worker, backlog, lambda: _marked(setting, backlog), halved=halved)
        worker.stop()
    return outcome


def run(setting: Setting, worker: Worker, backlog: Backlog, done: Callable[[], bool], *, halved: bool = False) -> Outcome:
    """Empty Redis, start the worker, and watch until ``done``; ``halved`` asks for the middle, where each record is one SET.

    Raises:
        TimeoutError: it took too long.
        RuntimeError: the worker ended.
    """
    setting.redis.flushall()
    setting.redis.config_resetstat()
    total = left = backlog.workload.total
    first_s = warm_s = 0.0
    worker.start()
    while not (first_s and done()):
        now_s = worker.since_start()
        if not first_s and _sets(setting):
            first_s = now_s
        elif halved and left > total / 2:
            warm_s, left = now_s, total - _sets(setting)
        worker.check_alive()
        if now_s > _PATIENCE_S:
            raise TimeoutError(f"{backlog.workload.name}: not applied within {_PATIENCE_S:.0f} s")
        time.sleep(min(_LONGEST_S, max(_SHORTEST_S, (now_s - first_s) * _SHARE)) if first_s else _BEFORE_S)
    done_s = worker.since_start()
    return Outcome(total, first_s, warm_s, left, done_s, machine.cpu_s(worker.pid), machine.peak_rss_mb(worker.pid))


def _sets(setting: Setting) -> int:
    calls = setting.redis.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"]
    return int(calls)


def _marked(setting: Setting, backlog: Backlog) -> bool:
    return bool(setting.redis.exists(*backlog.ends) == len(backlog.ends))
