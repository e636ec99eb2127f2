"""Every Redis key and command we use; the only module that imports redis.

Here a source is one key: ``SET <source> <ms of the last beat> PXAT <last beat + ttl>``. Anything that can read Redis can
tell who is alive by ``GET`` and ``TTL``.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from heartbeat.errors import ConnectError, RetriableError

_BATCH_TIMEOUT_S: Final = 10.0
_OLDEST_SERVER: Final = (6, 2)
"""PXAT came with Redis 6.2."""

# What passes by itself: the server is away, loading, demoted, full, or busy. Everything else needs a person.
_PASSING: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    OSError,
)
_REFUSING: Final = (redis.AuthenticationError, redis.exceptions.AuthorizationError, ssl.SSLCertVerificationError)
_PASSING_WORDS: Final = ("MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED", "FAILOVER")  # replies redis-py has no class for


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards Redis; file names, each optional. ``verify`` checks the certificate and the host name in it."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    """Which Redis, and as whom."""

    host: str
    port: int
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None
    timeout_s: float = 2.0


class _Connection(Protocol):
    """The part of redis-py's connection that we use; it keeps TLS, ACL and HELLO working below us."""

    @property
    def is_connected(self) -> bool: ...
    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def pack_command(self, *args: Any) -> list[bytes]: ...
    def send_packed_command(self, command: Any, check_health: bool = True) -> None: ...
    def read_response(self) -> Any: ...


class Keyspace:
    """One connection to Redis, opened when needed. After any fault it is closed: replies could no longer be told apart."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = _connection(server)
        self._checked = False

    def check(self) -> None:
        """Connect, and see that the server can do what we need.

        Raises:
            RetriableError: it does not answer, or not yet.
            ConnectError: it refuses us for good, is too old, or our TLS files cannot be used.
        """
        if self._server.tls is not None:
            _check_files(self._server.tls)
        with self._faults():
            self._ensure_connected()

    def write(self, beats: Mapping[str, int], ttl_ms: int) -> None:
        """Write ``source -> ms of its beat``; return when the server has acknowledged every one.

        Raises:
            RetriableError: some may not have been written; writing all of them again is safe.
            ConnectError: the server refuses for good.
        """
        with self._faults():
            self._ensure_connected()
            self._connection.send_packed_command([_set_commands(beats, ttl_ms)], check_health=False)
            refused: Exception | None = None
            deadline_s = time.monotonic() + max(_BATCH_TIMEOUT_S, self._server.timeout_s)
            for _ in beats:
                if time.monotonic() > deadline_s:  # a server that answers, but each time just before the time-out
                    raise redis.TimeoutError("the batch was not acknowledged in time")
                try:
                    self._connection.read_response()
                except redis.ResponseError as error:
                    refused = error  # the rest of the replies is still to be read
            if refused is not None:
                raise refused

    def ttl_s(self, source: str) -> int:
        """Return the seconds a source's key has left; -2 if it is gone, -1 if somebody else wrote it without a deadline.

        Raises:
            ConnectError: Redis did not say.
        """
        seconds: int = self.execute("TTL", source)
        return seconds

    def execute(self, *command: str) -> Any:
        """Send one command and return the parsed reply; a server's error is returned, not raised, as redis-cli prints it.

        Raises:
            ConnectError: Redis did not answer.
        """
        with self._faults():
            self._ensure_connected()
            self._connection.send_packed_command(self._connection.pack_command(*command), check_health=False)
            try:
                return self._connection.read_response()
            except redis.ResponseError as error:
                return error

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _ensure_connected(self) -> None:
        if not self._connection.is_connected:
            self._checked = False
            self._connection.connect()
        if not self._checked:
            self._check_version()
            self._checked = True

    def _check_version(self) -> None:
        try:
            self._connection.send_packed_command(self._connection.pack_command("INFO", "server"), check_health=False)
            version = _version(self._connection.read_response())
        except redis.exceptions.NoPermissionError:
            return  # an account that may not ask; an old server will say so at the first PXAT
        except redis.ResponseError as error:
            if not str(error).startswith("unknown command"):
                raise
            return  # a provider that has taken INFO away
        if version < _OLDEST_SERVER:
            raise ConnectError(f"Redis {'.'.join(map(str, version))} is too old: 6.2 or newer is needed (SET with PXAT)")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Tell passing faults from permanent ones, and never reuse a connection that had either."""
        try:
            yield
        except ConnectError:
            self._connection.disconnect()
            raise
        except (redis.RedisError, OSError) as error:
            self._connection.disconnect()
            where = f"Redis at {self._server.host}:{self._server.port}"
            if _passes(error):
                raise RetriableError(f"{where}: {error}") from error
            raise ConnectError(f"{where} refuses us: {error}") from error


def _connection(server: Server) -> _Connection:
    """Return a connection that is not open yet. One owner of retries: the caller."""
    settings: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "db": server.database,
        "username": server.username,
        "password": server.password,
        "socket_timeout": server.timeout_s,
        "socket_connect_timeout": server.timeout_s,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "redis-heartbeat-sink",
        "protocol": 2,
    }
    kind: Callable[..., _Connection] = redis.Connection
    if server.tls is not None:
        kind = redis.SSLConnection
        settings |= {
            "ssl_ca_certs": server.tls.ca,
            "ssl_certfile": server.tls.certificate,
            "ssl_keyfile": server.tls.key,
            "ssl_cert_reqs": "required" if server.tls.verify else "none",
            "ssl_check_hostname": server.tls.verify,
        }
    return kind(**settings)


def _check_files(tls: Tls) -> None:
    """Load what redis-py would load at every attempt: there a missing file looks like a server that is away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key, password="")  # without one, OpenSSL would ask at the terminal
    except OSError as error:
        files = ", ".join(file for file in (tls.ca, tls.certificate, tls.key) if file)
        raise ConnectError(f"The TLS files for Redis cannot be used ({files}): {error}") from error


def _passes(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:  # redis-py wraps what the TLS library says
        if isinstance(cause, _REFUSING):
            return False
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_WORDS)


def _version(info: bytes | str) -> tuple[int, ...]:
    text = info.decode() if isinstance(info, bytes) else str(info)
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "redis_version":
            return tuple(int(part) for part in value.split(".") if part.isdigit())
    return _OLDEST_SERVER  # a compatible server that does not say; PXAT will tell


def _set_commands(beats: Mapping[str, int], ttl_ms: int) -> bytes:
    """Return one RESP buffer with a SET per source. By hand: redis-py's pipeline costs twenty times as much per key."""
    parts = []
    for source, beat in beats.items():
        key = source.encode("utf-8", "surrogateescape")  # as templates made names of binary keys
        stamp = b"%d" % beat
        deadline = b"%d" % (beat + ttl_ms)
        parts.append(
            b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$4\r\nPXAT\r\n$%d\r\n%b\r\n"
            % (len(key), key, len(stamp), stamp, len(deadline), deadline)
        )
    return b"".join(parts)
