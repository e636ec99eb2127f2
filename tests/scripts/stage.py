"""A copy of the repository's scripts in which a test may break things, with only those programs on PATH that the test names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

ROOT: Final = Path(__file__).parents[2]
HEARTBEAT: Final = Path(sys.executable).with_name("heartbeat")
PLAIN_TOOLS: Final = (
    *("awk", "basename", "bash", "cat", "curl", "date", "dirname", "env", "grep", "head", "id", "ls", "mkdir", "mkfifo", "mktemp", "nohup"),
    *("perl", "rm", "sed", "seq", "sh", "sleep", "tail", "timeout"),
)
"""What every machine has. No Java tools, no redis-cli, no jq, no python3, no docker: a test that wants one says so."""
DEADLINE_S: Final = 30.0

T = TypeVar("T")


def eventually(check: Callable[[], T], what: str) -> T:
    """Call ``check`` until it returns something true, and return that."""
    deadline = time.monotonic() + DEADLINE_S
    while not (seen := check()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.05)
    return seen


@dataclass(frozen=True, slots=True)
class Started:
    """A script that runs in a session of its own."""

    process: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        """Everything it has said so far."""
        return self.output.read_text()

    def says(self, words: str, times: int = 1) -> None:
        """Wait until it has said that so often."""
        eventually(lambda: self.text().count(words) >= times, f"{words!r}, {times} times")

    def others(self) -> list[str]:
        """The command lines of the other processes in its session."""
        listed = subprocess.run(["ps", "-e", "-o", "sid=,pid=,args="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
        mine = str(self.process.pid)
        return [row[2] for row in rows if len(row) == 3 and row[0] == mine and row[1] != mine and "<defunct>" not in row[2]]


@dataclass(frozen=True, slots=True)
class Stage:
    """``root`` is the copy; ``bin`` is the whole PATH."""

    root: Path
    bin: Path
    environment: Mapping[str, str]

    def add(self, *programs: str) -> None:
        """Put programs of this machine on PATH."""
        for name in programs:
            if (found := shutil.which(name)) and not (self.bin / name).exists():
                (self.bin / name).symlink_to(found)

    def play(self, name: str, script: str) -> None:
        """Put a program of our own on PATH."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!/bin/bash\n{script}\n")
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        command = ["bash", script, *arguments]
        given = {**self.environment, **environment}
        return subprocess.run(command, cwd=self.root, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    @contextmanager
    def running(self, script: str, *arguments: str, **environment: str) -> Iterator[Started]:
        """Start a script; at the end its whole session is gone."""
        output = self.root / f"{Path(script).name}.output"
        given = {**self.environment, **environment}
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", script, *arguments],
                cwd=self.root,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            yield Started(process, output)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE_S)


def set_up(directory: Path, environment: Mapping[str, str]) -> Stage:
    """Copy what the scripts need, and make a PATH of plain tools."""
    root, programs = directory / "clone", directory / "bin"
    for name in ("scripts", "config"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "run.sh", root)
    programs.mkdir()
    stage = Stage(root, programs, {"PATH": str(programs), "LC_ALL": "C.UTF-8", **environment})
    stage.add(*PLAIN_TOOLS)
    return stage
