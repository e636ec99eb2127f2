"""The machine a figure was measured on, and what else it was doing."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_DISTURBED_CORES = 0.1


def describe() -> str:
    """Return the machine in one line."""
    model = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    client = f"confluent-kafka {version('confluent-kafka')}, redis-py {version('redis')}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"Machine: {os.cpu_count()} cores, {model}, {memory_gb:.0f} GB RAM, {platform.system()} {platform.release()}, {python}, {client}."
    )


def _field(file: str, name: str) -> str | None:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


class Watch:
    """Looks at the machine from now on, to say under what conditions something was measured."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()
        self._date = datetime.now(UTC)
        self._load = os.getloadavg()[0]
        self._busy_s = _busy_s()
        self._ours_s = _tree_cpu_s(os.getpid())

    def conditions(self) -> str:
        """Return the date, how long it took, the load average before and after, and what other processes used meanwhile."""
        wall_s = time.monotonic() - self._at_s
        others = max(0.0, _busy_s() - self._busy_s - _tree_cpu_s(os.getpid()) + self._ours_s) / wall_s
        load = f"load average {self._load:.2f} before, {os.getloadavg()[0]:.2f} after"
        disturbed = ", **disturbed**" if others > _DISTURBED_CORES else ""
        return f"{self._date:%Y-%m-%d %H:%M} UTC, {wall_s:.0f} s, {load}, others {others:.2f} cores{disturbed}"


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used; the kernel's sum is exact to its tick, also for short bursts."""
    return sum(_times(pid)[:2]) / _TICKS


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    kilobytes = _field(f"/proc/{pid}/status", "VmRSS") or "0"
    return int(kilobytes.split()[0]) / 1024


def peak_rss_mb(pid: int) -> float:
    """Return the most resident memory a process has had."""
    kilobytes = _field(f"/proc/{pid}/status", "VmHWM") or "0"
    return int(kilobytes.split()[0]) / 1024


def pss_mb(pid: int) -> float:
    """Return its share of memory: pages that n processes map count 1/n."""
    kilobytes = _field(f"/proc/{pid}/smaps_rollup", "Pss:") or "0"
    return int(kilobytes.split()[0]) / 1024


def _busy_s() -> float:
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) / _TICKS


def _tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants, ended ones included."""
    try:
        return sum(_times(pid)) / _TICKS + sum(_tree_cpu_s(child) for child in _children(pid))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _times(pid: int) -> list[int]:
    """Return user and system time, then those of its children that have ended, in ticks."""
    return [int(ticks) for ticks in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]]
