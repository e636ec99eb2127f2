"""Figure ``cost``: what applying a backlog costs the worker in CPU and memory, and what it keeps for every source it knows."""

from __future__ import annotations

import sys
import time
from functools import partial

from bench import machine
from bench.peers import sketch
from bench.race import Outcome, run_ours, run_peer
from bench.results import Section, ratios, row
from bench.setting import Setting, Worker
from bench.workloads import W1, W3, loaded

_ROUNDS = 3
_SKETCH_BATCH = 10_000
_SETTLE_S = 2.0
_NAME_BYTES = sys.getsizeof("dev-00000000")
_MB = 2**20


def cost(setting: Setting) -> Section:
    """CPU seconds for a million records, RSS under catch-up, and the growth of RSS from 10,000 to 1,000,000 sources."""
    few, many = loaded(setting.kafka, W1), loaded(setting.kafka, W3)
    ours: list[Outcome] = []
    limit: list[Outcome] = []
    few_mb: list[float] = []
    many_mb: list[float] = []
    for _ in range(_ROUNDS):
        ours.append(run_ours(setting, few, "${key}", partial(_note_rss, few_mb)))
        limit.append(run_peer(setting, sketch(setting, few.topic, _SKETCH_BATCH), few))
        run_ours(setting, many, "${key}", partial(_note_rss, many_mb))
    sources = W3.keys - W1.keys
    per_source = [(big - small) * _MB / sources - _NAME_BYTES for small, big in zip(few_mb, many_mb, strict=True)]
    cpu, limit_cpu = [run.cpu_s_per_million for run in ours], [run.cpu_s_per_million for run in limit]
    rows = [
        row(f"{W1.name}: CPU for a million records, ours", cpu, "s", 2),
        row(f"{W1.name}: CPU for a million records, sketch", limit_cpu, "s"),
        row(f"{W1.name}: CPU, ours / sketch", ratios(cpu, limit_cpu), "x"),
        row(f"{W1.name}: peak RSS, ours", [run.peak_rss_mb for run in ours], "MB", 150, 0),
        row(f"{W1.name}: peak RSS, sketch", [run.peak_rss_mb for run in limit], "MB", None, 0),
        row(f"{W1.name}: RSS after catching up", few_mb, "MB", None, 0),
        row(f"{W3.name}: RSS after catching up", many_mb, "MB", None, 0),
        row("for every source, besides its name", per_source, "bytes", 150, 0),
    ]
    notes = [
        f"{W1.records:,} and {W3.records:,} records, runs as in `throughput` and checked as there. CPU: user and system time of the whole "
        "process from exec until everything is applied, its start included.",
        f"RSS {_SETTLE_S:.0f} s after the sight is fresh. For every source: the difference of the two, divided by that of the sources; a "
        f"name is a Python string of 12 characters and takes {_NAME_BYTES} bytes, which are subtracted.",
    ]
    return Section("cost", "CPU and memory of the worker.", rows, notes)


def _note_rss(seen_mb: list[float], worker: Worker) -> None:
    time.sleep(_SETTLE_S)
    seen_mb.append(machine.rss_mb(worker.pid))
