"""Faults upon faults for an hour: how many verdicts were wrong, or missing. An hour long, so only if it is asked for by name."""

from __future__ import annotations

import os
import re
import subprocess

from bench.results import Row, Section
from bench.setting import Setting

_LONGEST_S = 4_500
_SUMMARY = re.compile(r"seed (\d+): ([\d.]+) minutes, (\d+) faults, ([\d,]+) of ([\d,]+) records acknowledged, told (\{.*?\}), (\d+) wrong")


def chaos(_setting: Setting) -> Section:
    """Run ``make chaos`` for ``MINUTES`` (60); it has brokers, servers, workers and monitors of its own.

    Raises:
        RuntimeError: it did not come to its end.
    """
    command = ["make", "chaos", f"MINUTES={os.environ.get('MINUTES', '60')}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    return section(done.stdout)


def section(printed: str) -> Section:
    """Return what a run of the chaos printed as a figure.

    Raises:
        RuntimeError: it printed no summary.
    """
    found = _SUMMARY.search(printed)
    if found is None:
        raise RuntimeError(f"the chaos came to no end: {printed[-500:]}")
    seed, minutes, faults, acknowledged, records, told, wrong = found.groups()
    rows = [
        Row("wrong or missing verdicts", "0", wrong, f"{wrong} / {wrong} / {wrong}", 1, "met" if wrong == "0" else "**missed**"),
        Row("minutes of it", "-", minutes, "-", 1, "-"),
        Row("faults", "-", faults, "-", 1, "-"),
        Row("records acknowledged", "-", f"{acknowledged} of {records}", "-", 1, "-"),
        Row("changes told", "-", told.strip("{}").replace("'", ""), "-", 1, "-"),
    ]
    notes = (f"`make chaos MINUTES=60 SEED={seed}` draws the same faults again, not the same milliseconds.",)
    return Section("chaos", "Faults upon faults, against real Kafka and Redis: what the monitors told, held against the truth", rows, notes)
