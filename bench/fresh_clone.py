"""Figure ``fresh-clone``: ``./run.sh --embedded`` on a clone that has never been installed, and again, to the first OK line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.real.programs import free_port

from bench.results import Section, row
from bench.setting import Setting

_ROOT = Path(__file__).parents[1]
_RUNS = 3
_LIMIT_S = 120.0


def fresh_clone(setting: Setting) -> Section:
    """Exec of ``run.sh`` -> its first OK line."""
    first, second, without_uv = [], [], []
    for _ in range(_RUNS):
        clone = setting.scratch("clone") / "clone"
        subprocess.run(["git", "clone", "-q", str(_ROOT), str(clone)], check=True, timeout=60)
        first.append(_first_ok_s(clone, os.environ["PATH"]))
        second.append(_first_ok_s(clone, os.environ["PATH"]))
        subprocess.run(["rm", "-rf", str(clone / ".venv")], check=True, timeout=60)
        without_uv.append(_first_ok_s(clone, _path_without_uv()))
    rows = [
        row("fresh clone, with uv", first, "s", 30),
        row("fresh clone, with venv and pip only", without_uv, "s", 30),
        row("the second time", second, "s", 3),
    ]
    notes = ["The packages' archives are in the cache of uv or pip. A beat is sent at start, so the wait for one is part of the figure."]
    return Section("fresh-clone", "`./run.sh --embedded` -> the first `OK: Heartbeat TTL` line.", rows, notes)


def _path_without_uv() -> str:
    return os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "uv").exists())


def _first_ok_s(clone: Path, path: str) -> float:
    ports = [argument for name in ("kafka", "redis", "rest") for argument in (f"--{name}-port", str(free_port()))]
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}}
    started = time.monotonic()
    process = subprocess.Popen(
        ["./run.sh", "--embedded", *ports], cwd=clone, env={**environment, "PATH": path}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "OK: Heartbeat TTL" in line:
                return time.monotonic() - started
            if time.monotonic() - started > _LIMIT_S:
                break
        raise RuntimeError(f"no OK line in {_LIMIT_S:.0f} s")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
