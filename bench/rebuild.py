"""Figure ``rebuild``: how long a worker takes to bring back 1,000,000 sources after FLUSHALL, against the plain catch-up of their records.

It has to notice the loss, claim its partitions again and read the topic anew: the difference to the catch-up is what noticing costs.
"""

from __future__ import annotations

import time

from bench.index import Index
from bench.race import connector
from bench.results import Section, ratios, row
from bench.setting import Setting, Worker, ended, ours, wait_until
from bench.workloads import W3, Backlog, loaded

_ROUNDS = 3
_EVERY_S = 0.02


def rebuild(setting: Setting) -> Section:
    """Seconds from POST until everything is applied, and from FLUSHALL until everything is back, on the same worker."""
    backlog = loaded(setting.kafka, W3)
    setting.let_a_group_come_and_go(backlog.topic)
    rounds = [_round(setting, backlog) for _ in range(_ROUNDS)]
    plain, rebuilt = [first for first, _ in rounds], [second for _, second in rounds]
    rows = [
        row("plain catch-up, from POST", plain, "s"),
        row("rebuild, from FLUSHALL", rebuilt, "s"),
        row("rebuild / plain catch-up", ratios(rebuilt, plain), "x", 1.5),
    ]
    notes = [
        f"{W3.records:,} records of as many sources, {W3.partitions} partitions, idle otherwise. Each time until the index has all sources "
        "and the proof names the end of every partition; after the rebuild every deadline is checked, and a thousand of the public keys.",
        "Both on one worker, one after the other; the clock of the rebuild starts when Redis has answered FLUSHALL.",
    ]
    return Section("rebuild", "1,000,000 sources after FLUSHALL.", rows, notes)


def _round(setting: Setting, backlog: Backlog) -> tuple[float, float]:
    body = connector(setting, backlog, "${key}")
    index = Index(setting.redis, body["name"], backlog)
    with ended(ours(setting.scratch("rebuild"), setting.kafka)) as worker:
        worker.start()
        worker.wait_for_rest()
        setting.redis.flushall()
        started = time.perf_counter()
        worker.create(body)
        plain_s = _all_there(index, worker, started)
        index.wait_for_sight()
        setting.redis.flushall()
        rebuilt_s = _all_there(index, worker, time.perf_counter())
        index.wait_for_sight()
        worker.stop()
    index.check("${key}")
    return plain_s, rebuilt_s


def _all_there(index: Index, worker: Worker, started: float) -> float:
    sources = index.backlog.workload.total

    def there() -> bool:
        return index.sources() == sources and index.applied()

    wait_until(there, f"{sources:,} sources are in the index", worker.check_alive, every_s=_EVERY_S)
    return time.perf_counter() - started
