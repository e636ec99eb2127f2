"""A command on a terminal, as a person runs it: redis-cli, compose and watch behave differently on a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>78M])")
MOVES = re.compile(r"\x1b\[[0-9;]*[Hfd]")
"""To another line: programs that fill the screen, as watch does, write no line ends."""
ROWS_AND_COLUMNS = struct.pack("HHHH", 50, 200, 0, 0)


class Terminal:
    """Run ``command`` by bash on a pseudo-terminal of its own, until :meth:`end`."""

    def __init__(self, command: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self._raw = b""
        self._open = True
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, ROWS_AND_COLUMNS)
        # --ctty: without a controlling terminal Ctrl-C would reach nobody.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "bash", "-c", command],
            cwd=directory,
            env={**environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    @property
    def output(self) -> str:
        """What it has shown so far, without colours."""
        text = MOVES.sub("\n", self._raw.decode("utf-8", "replace"))
        return ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")

    def read(self, for_s: float) -> bool:
        """Take in what it writes within ``for_s``; return False once it has closed its terminal."""
        if self._open and select.select([self._master], [], [], for_s)[0]:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end open any more
                chunk = b""
            self._raw += chunk
            self._open = bool(chunk)
        return self._open

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """Return the first match of ``pattern`` in its output.

        Raises:
            AssertionError: it ended, or the time was over, without one.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            going_on = self.read(0.1)
            if found := re.search(pattern, self.output, re.MULTILINE):
                return found
            assert going_on, f"{self.command} ended without {pattern!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"{self.command} did not show {pattern!r} in {timeout_s} s:\n{self.output}"

    def wait(self, timeout_s: float) -> int:
        """Return its exit code.

        Raises:
            AssertionError: it has not ended in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.read(0.1) or self._process.poll() is None:
            assert time.monotonic() < deadline, f"{self.command} has not ended in {timeout_s} s:\n{self.output}"
            if not self._open:
                time.sleep(0.02)
        return self._process.wait()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._master, b"\x03")

    def end(self) -> None:
        """Make sure that it is gone, with everything it started on this terminal."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGHUP)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(5)
        if self._master >= 0:
            os.close(self._master)
            self._master, self._open = -1, False
