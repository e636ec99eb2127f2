"""The connection to Redis, and which of its faults pass by themselves; the only module that imports redis."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import redis
import redis.exceptions
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.retry import Retry

from heartbeat.errors import ConnectError, RetriableError

Argument = str | bytes | float

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
_WITHIN_SCRIPT: Final = re.compile(r"Error running script .*: -(READONLY|OOM|MISCONF|NOREPLICAS|LOADING|MASTERDOWN) ")
"""How servers before Redis 7 put it when a script meets one of these."""


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


class _RedisConnection(Protocol):
    """The part of redis-py's connection that we use; it keeps TLS, ACL and HELLO working below us."""

    _parser: Any
    """Asked directly: a batch has thousands of replies, and ``read_response`` costs ten times what parsing does."""

    @property
    def is_connected(self) -> bool: ...
    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def send_packed_command(self, command: Any, check_health: bool = True) -> None: ...


class Connection:
    """One connection, opened when needed. After any fault it is closed: replies could no longer be told apart.

    A batch is ``send``, once or more, then ``replies``; both within ``faults``. Everything else is ``call``. ``suitable`` wants a
    server that can do what we need and keeps what we write; without it any is taken, to look at it or to mend it.
    """

    def __init__(self, server: Server, *, suitable: bool = True) -> None:
        self._server = server
        self._suitable = suitable
        self._connection = _connect_to(server)
        self._checked = False

    def check(self) -> None:
        """Connect, and see that the server can do what we need.

        Raises:
            RetriableError: it does not answer, or not yet.
            ConnectError: it refuses us for good, is too old, may evict what we write, or our TLS files cannot be used.
        """
        if self._server.tls is not None:
            _check_files(self._server.tls)
        with self.faults():
            pass

    def send(self, commands: bytes) -> None:
        """Send packed commands."""
        self._connection.send_packed_command([commands], check_health=False)

    def replies(self, count: int) -> list[Any]:
        """Return the next ``count`` replies; an error is a value among them (``redis.ResponseError``)."""
        found: list[Any] = []
        deadline_s = time.monotonic() + max(_BATCH_TIMEOUT_S, self._server.timeout_s)
        next_reply = self._connection._parser._reader.gets
        while len(found) < count:
            reply = next_reply(False)
            if reply is not NOT_ENOUGH_DATA:
                found.append(reply)
                continue
            if time.monotonic() > deadline_s:  # a server that answers, but each time just before the time-out
                raise redis.TimeoutError("the batch was not acknowledged in time")
            self._connection._parser.read_from_socket()
        return found

    def call(self, *command: Argument) -> Any:
        """Send one command and return its reply.

        Raises:
            RetriableError: it was not answered, or the server says later.
            ConnectError: the server refuses for good.
        """
        with self.faults():
            self.send(pack(*command))
            return raised(self.replies(1)[0])

    def calls(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send several commands at once and return their replies; raises as ``call`` does, when all have been read."""
        with self.faults():
            self.send(b"".join(pack(*command) for command in commands))
            return [raised(reply) for reply in self.replies(len(commands))]

    def execute(self, *command: str) -> Any:
        """Send one command and return the parsed reply; a server's error is returned, not raised, as redis-cli prints it.

        Raises:
            ConnectError: Redis did not answer.
        """
        with self.faults():
            self.send(pack(*command))
            return self.replies(1)[0]

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _ensure_connected(self) -> None:
        if not self._connection.is_connected:
            self._checked = False
            self._connection.connect()
        if self._suitable and not self._checked:
            self._check_server()
            self._checked = True

    def _check_server(self) -> None:
        self.send(pack("INFO"))
        reply = self.replies(1)[0]
        if isinstance(reply, redis.exceptions.NoPermissionError):
            return  # an account that may not ask; an old server will say so at the first PXAT
        if isinstance(reply, redis.ResponseError) and str(reply).startswith("unknown command"):
            return  # a provider that has taken INFO away
        info = parse_info(raised(reply))
        version = tuple(int(part) for part in info.get("redis_version", "").split(".") if part.isdigit()) or _OLDEST_SERVER
        if version < _OLDEST_SERVER:
            raise ConnectError(f"Redis {'.'.join(map(str, version))} is too old: 6.2 or newer is needed (SET with PXAT)")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and info.get("maxmemory", "0") != "0":
            raise ConnectError(
                f"Redis at {self._server.host}:{self._server.port} may evict what we write (maxmemory-policy {policy}): a lost key would "
                "look like a source that stopped. Use a Redis of its own, or: CONFIG SET maxmemory-policy noeviction"
            )

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Tell passing faults from permanent ones, and never reuse a connection that had either. Connects if need be."""
        with self.replying():
            self._ensure_connected()
            yield

    @contextmanager
    def replying(self) -> Iterator[None]:
        """Do the same for replies to what was sent before: on a new connection they would never come."""
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


def _connect_to(server: Server) -> _RedisConnection:
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
    kind: Callable[..., _RedisConnection] = redis.Connection
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
    text = str(error)
    return isinstance(error, _PASSING) or text.startswith(_PASSING_WORDS) or _WITHIN_SCRIPT.search(text) is not None


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of an INFO reply."""
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def pack(*command: Argument) -> bytes:
    """Return a command as the protocol has it."""
    words = [word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape") for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def raised(reply: Any) -> Any:
    """Return a reply that is no error.

    Raises:
        redis.ResponseError: it is one; also where it is one of several.
    """
    if isinstance(reply, redis.RedisError):
        raise reply
    return reply


def is_wrong_type(reply: Any) -> bool:
    """Tell whether the server refused because the key holds another type of value."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE")
