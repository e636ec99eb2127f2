"""Measures all figures but the chaos, which takes an hour, or those named; writes ``bench/RESULTS.md``. Never judges by its exit code.

Usage: ``python -m bench.run [figure ...]``; on loopback only, within half an hour.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import redis
from tests.real.parts import kafka_4_1, redis_server

from bench import machine, results
from bench.backtest import backtest
from bench.chaos import chaos
from bench.cold_start import cold_start
from bench.compose import compose
from bench.cost import cost
from bench.flips import flips
from bench.fresh_clone import fresh_clone
from bench.idle import idle
from bench.latency import latency
from bench.memory import memory
from bench.rebuild import rebuild
from bench.results import Section
from bench.setting import Setting
from bench.sight import sight
from bench.silence import silence
from bench.startup import first_beat, rest
from bench.throughput import throughput
from bench.tick import tick

RESULTS = Path(__file__).parent / "RESULTS.md"
FIGURES: dict[str, Callable[[Setting], Section]] = {
    "startup": rest,
    "first-beat": first_beat,
    "idle": idle,
    "latency": latency,
    "cold-start": cold_start,
    "backtest": backtest,
    "throughput": throughput,
    "cost": cost,
    "sight": sight,
    "rebuild": rebuild,
    "flips": flips,
    "silence": silence,
    "tick": tick,
    "memory": memory,
    "fresh-clone": fresh_clone,
    "compose": compose,
    "chaos": chaos,
}
ONLY_BY_NAME = frozenset({"chaos"})


def main(names: Sequence[str]) -> int:
    """Measure the named figures, all if none is named."""
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"no such figure: {', '.join(unknown)}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 1
    description = machine.describe()
    print(description)
    with tempfile.TemporaryDirectory(prefix="heartbeat-bench-") as scratch:
        directory = Path(scratch)
        with kafka_4_1(directory / "kafka") as kafka, redis_server(directory / "redis") as server:
            setting = Setting(kafka, redis.Redis(port=server.port), server.port, directory)
            for name in names or [name for name in FIGURES if name not in ONLY_BY_NAME]:
                setting.redis.flushall()
                watch = machine.Watch()
                try:
                    section = FIGURES[name](setting)
                except (TimeoutError, RuntimeError) as error:
                    print(f"\n{name} could not be measured: {error}", file=sys.stderr)
                    continue
                rendered = results.render(section, watch.conditions())
                print(f"\n{rendered}", flush=True)
                results.update(RESULTS, description, {name: rendered}, list(FIGURES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
