"""Programs that the tests start: a free port for each, a log in a file, bounded waits, an end by pid.

Every real part (see ``parts``) is one or more of these, so that starting, failing and ending is told once.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

# Below the kernel's ephemeral ports: a client that keeps knocking at a stopped server's ephemeral port can be handed
# that very port as its own and so connect to itself; the server can then never come back.
PORTS = range(15000, 32000)
GIVEN: set[int] = set()
"""The ports that this process has been given: what was free at one moment is not given twice, before its first owner listens."""

LOGS: list[Path] = []
"""Every log file of this session, shown when a test fails."""


def missing(part: str, install: str) -> NoReturn:
    """Skip because a real part is missing; fail instead where CI requires them (``HEARTBEAT_REQUIRE_REAL=1``)."""
    reason = f"{part} is missing: {install}"
    if os.environ.get("HEARTBEAT_REQUIRE_REAL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(program: str, package: str) -> str:
    """Return the path of ``program``, or skip with the command that installs it."""
    path = shutil.which(program)
    return path or missing(program, f"apt-get install {package}")


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that no other test of this run is given, in whichever of its processes."""
    number, count = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    ours = [port for port in PORTS[int(number.removeprefix("gw")) :: int(count)] if port not in GIVEN]
    for port in random.sample(ours, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            GIVEN.add(port)
            return port
    raise AssertionError("no free port in 200 tries")


def eventually(check: Callable[[], T], what: str, *, timeout_s: float = 30.0, every_s: float = 0.1) -> T:
    """Call ``check`` until it returns something true, and return that; an assertion that it makes counts as not yet.

    Raises:
        AssertionError: with what was waited for and what was last seen.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        seen: object
        try:
            seen = result = check()
            if result:
                return result
        except AssertionError as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}; last seen: {seen!r}")
        time.sleep(every_s)


class Program:
    """One program, startable again after its end; its output is appended to ``log_file``.

    Start it from the main thread only: where ``setpriv`` exists the kernel ends the program with the thread that
    started it, so that a killed test run leaves nothing behind.
    """

    def __init__(self, name: str, argv: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.argv = list(argv)
        self.directory = directory
        self.environment = dict(os.environ if environment is None else environment)
        self.log_file = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        LOGS.append(self.log_file)

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is running now."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; whether it is ready is the caller's question (``wait_until``)."""
        assert not self.alive, f"{self.name} is running already"
        setpriv = shutil.which("setpriv")
        bound = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*bound, *self.argv], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until(self, ready: Callable[[], T], *, timeout_s: float) -> T:
        """Wait until ``ready`` returns something true; fail at once, with the log, if the program ends before that."""

        def check() -> T:
            if not self.alive:
                raise RuntimeError(f"{self.name} ended with {self.wait(0)}\n{self.log()[-4000:]}")
            return ready()

        try:
            return eventually(check, f"{self.name} is ready", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None

    def log(self) -> str:
        """Return everything it has written, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code (negative: the signal that ended it)."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.wait(timeout_s)

    def terminate(self, timeout_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit code.

        Raises:
            AssertionError: it did not end in time (it is killed then).
        """
        os.kill(self.pid, signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"{self.name} did not end within {timeout_s} s of SIGTERM\n{self.log()[-4000:]}") from None

    def kill9(self) -> None:
        """Send SIGKILL and wait for the end."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait(30)

    def end(self) -> None:
        """Make sure that it is gone, whatever its state."""
        if self.alive:
            self.kill9()


def tail(path: Path, characters: int = 4000) -> str:
    """Return the last lines of a log file."""
    return path.read_text(errors="replace")[-characters:]


def answers(port: int) -> bool:
    """Tell whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
