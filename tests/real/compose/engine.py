"""A Docker engine with Compose: the machine's own, or a private one with stand-ins for the public images (``standins.sh``)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..programs import missing

HERE = Path(__file__).parent
STANDINS = HERE / "standins.sh"
CANNOT_RUN = 3
LABEL = "compose-standin"
INSTALL = f"install Docker Engine 25 or newer with Compose, or run (Debian 12, root) {STANDINS.relative_to(HERE.parents[2])} up"


@dataclass(frozen=True, slots=True)
class Engine:
    """``stand_in``: the public images are stand-ins, and none can be pulled."""

    stand_in: bool


def docker(*arguments: str, timeout_s: float = 120.0) -> str:
    """Run the docker command and return its standard output.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def running() -> Iterator[Engine]:
    """Have an engine while the block lasts; one that was there before stays.

    Where none answers, a private one is made only if that was done before or real parts are required: it installs packages.
    """
    was_there = _succeeds("docker", "compose", "version") and _succeeds("docker", "info")
    if was_there and not _has_stand_ins():
        yield Engine(stand_in=False)
        return
    if not was_there and not _may_install():
        missing("a Docker engine", INSTALL)
    made = subprocess.run([str(STANDINS), "up"], capture_output=True, text=True, timeout=900, check=False)
    if made.returncode:
        lines = (made.stdout + made.stderr).strip().splitlines() or ["no reason given"]
        missing("a Docker engine", lines[-1] if made.returncode == CANNOT_RUN else "\n".join(lines[-30:]))
    try:
        yield Engine(stand_in=True)
    finally:
        if not was_there:
            gone = subprocess.run([str(STANDINS), "down"], capture_output=True, text=True, timeout=300, check=False)
            assert gone.returncode == 0, gone.stdout + gone.stderr


def _may_install() -> bool:
    cache = Path(os.environ.get("STANDINS_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compose-standins")
    return os.environ.get("HEARTBEAT_REQUIRE_REAL") == "1" or (cache / "cache").is_dir()


def _has_stand_ins() -> bool:
    return bool(docker("image", "ls", "-q", "--filter", f"label={LABEL}"))


def _succeeds(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
