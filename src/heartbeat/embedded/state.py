"""Where a running demo's parts are, so that ``heartbeat send`` and ``heartbeat redis`` find them without being told.

One file per demo. The demo holds a lock on its file for as long as it lives, so that a file
left behind is known for what it is: a process id alone may be somebody else's by now.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from heartbeat.errors import StartError


class DemoState(msgspec.Struct, frozen=True):
    """Addresses of a demo and the process that holds it."""

    pid: int
    kafka: str
    redis_host: str
    redis_port: int
    rest: str
    monitor: str


def own_file() -> Path:
    """Return this process's state file."""
    return _file(os.getpid())


def _file(pid: int | str) -> Path:
    return Path(tempfile.gettempdir()) / f"redis-heartbeat-sink-{os.getuid()}-{pid}.json"


@contextmanager
def published(state: DemoState) -> Iterator[None]:
    """Say where things are, for as long as the context lasts."""
    path = own_file()
    try:
        path.unlink(missing_ok=True)
        # O_EXCL follows no link: anybody may write to this directory.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}; set TMPDIR to another place") from error
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode(state))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def read() -> DemoState | None:
    """Return the state of the demo that was started last of those that run, or None."""
    pattern = _file("*")
    files = sorted(pattern.parent.glob(pattern.name), key=_written, reverse=True)
    return next((state for path in files if (state := _living(path))), None)


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # its demo ended since the directory was read
        return 0.0


def alive(pid: int) -> bool:
    """Tell whether the demo of this process still runs."""
    return _living(_file(pid)) is not None


def _living(path: Path) -> DemoState | None:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return msgspec.json.decode(file.read(), type=DemoState)
    except (OSError, msgspec.MsgspecError):
        return None
    return None  # nobody holds the lock: what a dead process left
