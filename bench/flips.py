"""Figure ``flips``: how soon a silence stands in the stream of flips, among 1,000, 100,000 and 1,000,000 sources that live."""

from __future__ import annotations

import random
import time

from bench.results import Row, Section, quantile, row
from bench.setting import Setting
from bench.watched import Persisted, Scene, monitor, scene
from bench.workloads import W3, Workload

_WORKLOADS = (Workload("1,000 sources", 996, 996), Workload("100,000 sources", 99_996, 99_996), W3)
_ROUNDS = 3
_ROUND_S = 6.0
_SILENT = 150
_TTL_MS = 2_000
_GRACES_MS = {"calm": 5_000, "soon": 0}
"""By the beginning of the silent sources' names: the default, and none."""
_RULES = '[[rule]]\nmatch = "soon-*"\ngrace_s = 0\n'
_MOST_S = 1.5
_SEED = 6


def flips(setting: Setting) -> Section:
    """Seconds from deadline + grace + slack until the flip is persisted, with the default grace and without any."""
    rows: list[Row] = []
    for workload in _WORKLOADS:
        with scene(setting, workload) as living, monitor(living, rules=_RULES):
            rounds = _rounds(living)
        for kind, grace_ms in _GRACES_MS.items():
            late_s = [[one.late_s(grace_ms) for one in found if one.flip.source.startswith(kind)] for found in rounds]
            what = f"{workload.total:,} sources, grace {grace_ms / 1000:g} s"
            rows += [
                row(f"{what}: p50", [quantile(run, 0.5) for run in late_s], "s"),
                row(f"{what}: p99", [quantile(run, 0.99) for run in late_s], "s", _MOST_S),
                row(f"{what}: max", [max(run) for run in late_s], "s"),
            ]
    notes = [
        f"From deadline + grace + slack (1 s) to the id that Redis gave the flip in its stream. Less than nothing: the proof was there "
        f"before the grace was over, and at least as much of the slack was left. In each of {_ROUNDS} rounds {_SILENT} sources of each "
        f"grace beat a last time (`hb-ttl` {_TTL_MS / 1000:g} s) at random moments of {_ROUND_S:g} s.",
        "All beats go through Kafka and one worker (4 partitions, all defaults), the monitor has all defaults and `[kafka]`, so verdicts "
        "wait for canaries too. The others live: up to 10,000 of them beat each second. Each run fails unless exactly "
        "the silent ones are DOWN, each once and on its deadline.",
    ]
    return Section("flips", "A silence -> its flip is persisted.", rows, notes)


def _rounds(living: Scene) -> list[list[Persisted]]:
    chance = random.Random(_SEED)
    begin_s = time.time() + 0.2
    rounds: list[dict[str, int]] = []
    for number in range(_ROUNDS):
        first_ms = (begin_s + number * _ROUND_S) * 1000
        names = [f"{kind}-{number}-{index:06d}" for kind in _GRACES_MS for index in range(_SILENT)]
        rounds.append({name: int(first_ms + chance.random() * _ROUND_S * 1000) for name in names})
    beats = {name: at_ms for part in rounds for name, at_ms in part.items()}
    last_s = (_TTL_MS + max(_GRACES_MS.values())) / 1000 + _MOST_S
    living.live(beats, _TTL_MS, begin_s + _ROUNDS * _ROUND_S + last_s)
    living.wait_for_downs(len(beats))
    found = living.persisted(beats, _TTL_MS)
    return [[one for one in found if one.flip.source in part] for part in rounds]
