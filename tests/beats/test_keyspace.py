"""Redis commands against a real Redis, and faults that a real one does not show on demand against a scripted server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from heartbeat.beats.keyspace import Keyspace, Server, Tls
from heartbeat.embedded.ports import LOOPBACK, free_port
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import ConnectError, RetriableError

TTL = 60_000
PATIENCE_S = 15.0
"""Far above every time-out in this file: a bound for a noisy machine, not a measurement."""


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture
def opened() -> Iterator[Callable[..., Keyspace]]:
    with contextlib.ExitStack() as stack:

        def open_(host: str, port: int, **more: Any) -> Keyspace:
            keyspace = Keyspace(Server(host, port, **more))
            stack.callback(keyspace.close)
            return keyspace

        yield open_


@pytest.fixture
def keyspace(redis: EmbeddedRedis, opened: Callable[..., Keyspace]) -> Keyspace:
    keyspace = opened(redis.host, redis.port)
    keyspace.execute("FLUSHALL")
    return keyspace


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def permanent(action: Callable[[], object]) -> str:
    """What is said of a fault that needs a person."""
    with pytest.raises(ConnectError) as caught:
        action()
    assert not isinstance(caught.value, RetriableError), caught.value
    return str(caught.value)


def passing(action: Callable[[], object]) -> str:
    """What is said of a fault that passes by itself."""
    started = time.monotonic()
    with pytest.raises(RetriableError) as caught:
        action()
    assert time.monotonic() - started < PATIENCE_S
    return str(caught.value)


# --- a real server


def test_value_and_deadline_are_exact(keyspace: Keyspace) -> None:
    beat = now_ms() - 1_234
    keyspace.write({"heartbeat": beat}, TTL)
    assert keyspace.execute("GET", "heartbeat") == str(beat).encode()
    assert keyspace.execute("PEXPIRETIME", "heartbeat") == beat + TTL


def test_a_later_beat_moves_value_and_deadline(keyspace: Keyspace) -> None:
    beat = now_ms()
    keyspace.write({"heartbeat": beat}, TTL)
    keyspace.write({"heartbeat": beat + 1_500}, 2 * TTL)
    assert keyspace.execute("GET", "heartbeat") == str(beat + 1_500).encode()
    assert keyspace.execute("PEXPIRETIME", "heartbeat") == beat + 1_500 + 2 * TTL


NAMES = ["heartbeat", "", " ", "pump:7", "with space", "ünï ✓ 😀", "line\r\nbreak", "\x00nul\x00", "$5\r\nhello\r\n", "x" * 100_000]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_any_name_is_a_key(keyspace: Keyspace, name: str) -> None:
    beat = now_ms()
    keyspace.write({name: beat}, TTL)
    assert keyspace.execute("GET", name) == str(beat).encode()
    assert 0 < keyspace.ttl_s(name) <= 60
    assert keyspace.execute("DBSIZE") == 1


def test_many_sources_are_written_together(keyspace: Keyspace) -> None:
    beat = now_ms()
    beats = {f"source:{i}": beat + i for i in range(5_000)}
    keyspace.write(beats, TTL)
    assert keyspace.execute("DBSIZE") == 5_000
    assert keyspace.execute("GET", "source:4999") == str(beat + 4_999).encode()
    assert keyspace.execute("PEXPIRETIME", "source:17") == beat + 17 + TTL


def test_ttl_tells_alive_from_gone_from_foreign(keyspace: Keyspace) -> None:
    keyspace.write({"heartbeat": now_ms()}, TTL)
    keyspace.execute("SET", "foreign", "x")
    assert 58 <= keyspace.ttl_s("heartbeat") <= 60
    assert (keyspace.ttl_s("missing"), keyspace.ttl_s("foreign")) == (-2, -1)


def test_each_database_is_its_own(redis: EmbeddedRedis, keyspace: Keyspace, opened: Callable[..., Keyspace]) -> None:
    other = opened(redis.host, redis.port, database=5)
    other.write({"heartbeat": now_ms()}, TTL)
    assert keyspace.execute("GET", "heartbeat") is None
    assert other.execute("DBSIZE") == 1


def test_an_error_reply_to_a_single_command_is_returned_and_the_connection_goes_on(keyspace: Keyspace) -> None:
    keyspace.execute("SET", "k", "text")
    assert "not an integer" in str(keyspace.execute("INCR", "k"))
    assert keyspace.execute("GET", "k") == b"text"


def test_a_server_that_is_not_there_is_waited_for(opened: Callable[..., Keyspace]) -> None:
    keyspace = opened(LOOPBACK, free_port())
    assert f"Redis at {LOOPBACK}:" in passing(keyspace.check)
    passing(lambda: keyspace.write({"heartbeat": now_ms()}, TTL))
    passing(lambda: keyspace.ttl_s("heartbeat"))


def test_a_host_name_that_does_not_resolve_is_waited_for(opened: Callable[..., Keyspace]) -> None:
    assert "no-such-host.invalid" in passing(opened("no-such-host.invalid", 6379).check)


def test_a_server_that_comes_back_is_used_again(opened: Callable[..., Keyspace]) -> None:
    with EmbeddedRedis() as first:
        keyspace = opened(first.host, first.port)
        keyspace.write({"heartbeat": now_ms()}, TTL)
    passing(lambda: keyspace.write({"heartbeat": now_ms()}, TTL))
    with EmbeddedRedis(first.port):
        keyspace.write({"heartbeat": now_ms()}, TTL)
        assert 0 < keyspace.ttl_s("heartbeat") <= 60


@pytest.fixture
def guarded(redis: EmbeddedRedis, keyspace: Keyspace) -> Iterator[EmbeddedRedis]:
    """The server with a password, and with accounts that may not do everything."""
    for user, rules in {
        "reader": ["+@all", "-set"],
        "writer": ["-@all", "+set", "+select", "+ping", "+client"],
        "caged": ["+@all"],
    }.items():
        keys = "~cage:*" if user == "caged" else "~*"
        assert keyspace.execute("ACL", "SETUSER", user, "on", ">secret-" + user, keys, *rules) == b"OK"
    assert keyspace.execute("CONFIG", "SET", "requirepass", "secret-default") == b"OK"
    yield redis
    admin = Keyspace(Server(redis.host, redis.port, password="secret-default"))
    admin.execute("CONFIG", "SET", "requirepass", "")
    admin.execute("ACL", "DELUSER", "reader", "writer", "caged")
    admin.close()


def test_the_right_password_lets_us_in(guarded: EmbeddedRedis, opened: Callable[..., Keyspace]) -> None:
    keyspace = opened(guarded.host, guarded.port, password="secret-default")
    keyspace.write({"heartbeat": now_ms()}, TTL)
    assert keyspace.ttl_s("heartbeat") > 0


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ({}, "Authentication required"),
        ({"password": "wrong-password"}, "invalid username-password pair"),
        ({"username": "nobody", "password": "wrong-password"}, "invalid username-password pair"),
    ],
)
def test_a_wrong_account_needs_a_person_and_no_password_is_told(
    guarded: EmbeddedRedis, opened: Callable[..., Keyspace], account: dict[str, str], words: str
) -> None:
    keyspace = opened(guarded.host, guarded.port, **account)
    for action in (keyspace.check, lambda: keyspace.write({"heartbeat": now_ms()}, TTL)):
        told = permanent(action)
        assert words in told
        assert f"Redis at {guarded.host}:{guarded.port}" in told
        assert "wrong-password" not in told


def test_a_password_where_none_is_asked_for_needs_a_person(redis: EmbeddedRedis, opened: Callable[..., Keyspace]) -> None:
    assert "without any password configured" in permanent(opened(redis.host, redis.port, password="surplus").check)


def test_an_account_that_may_not_write_needs_a_person(guarded: EmbeddedRedis, opened: Callable[..., Keyspace]) -> None:
    reader = opened(guarded.host, guarded.port, username="reader", password="secret-reader")
    reader.check()
    assert "permissions" in permanent(lambda: reader.write({"heartbeat": now_ms()}, TTL))
    caged = opened(guarded.host, guarded.port, username="caged", password="secret-caged")
    caged.write({"cage:1": now_ms()}, TTL)
    assert "permissions" in permanent(lambda: caged.write({"cage:2": now_ms(), "heartbeat": now_ms()}, TTL))


def test_an_account_that_may_only_write_will_do(guarded: EmbeddedRedis, opened: Callable[..., Keyspace]) -> None:
    writer = opened(guarded.host, guarded.port, username="writer", password="secret-writer")
    writer.check()
    writer.write({"heartbeat": now_ms()}, TTL)


def test_an_unknown_database_needs_a_person(redis: EmbeddedRedis, opened: Callable[..., Keyspace]) -> None:
    keyspace = opened(redis.host, redis.port, database=99)
    assert "DB index is out of range" in permanent(keyspace.check)
    assert "DB index is out of range" in permanent(lambda: keyspace.write({"heartbeat": now_ms()}, TTL))


def test_a_full_server_is_waited_for(redis: EmbeddedRedis, keyspace: Keyspace) -> None:
    keyspace.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        assert "maxmemory" in passing(lambda: keyspace.write({"a": now_ms(), "b": now_ms()}, TTL))
    finally:
        keyspace.execute("CONFIG", "SET", "maxmemory", "0")
    keyspace.write({"a": now_ms(), "b": now_ms()}, TTL)


def test_a_replica_is_waited_for_to_become_the_master(redis: EmbeddedRedis, keyspace: Keyspace) -> None:
    keyspace.execute("REPLICAOF", LOOPBACK, str(free_port()))
    try:
        assert "read only" in passing(lambda: keyspace.write({"heartbeat": now_ms()}, TTL))
    finally:
        keyspace.execute("REPLICAOF", "NO", "ONE")
    keyspace.write({"heartbeat": now_ms()}, TTL)


# --- a scripted server, for what a real one does not do on demand

HANG = b""
OK = b"+OK\r\n"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text.encode()), text.encode())


class ScriptedServer:
    """Speaks enough RESP to be connected to. ``script(connection, command)`` gives a reply, or None for the usual one.

    An empty reply is a silence that keeps the connection open; one that ends within a reply is followed by the end of it.
    """

    def __init__(self, script: Callable[[int, list[str]], bytes | None], greeting: bytes = b"") -> None:
        self.commands: list[tuple[int, list[str]]] = []
        self._script = script
        self._greeting = greeting
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def close(self) -> None:
        for one in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection, len(self._connections)), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._greeting:
                connection.sendall(self._greeting)
                connection.close()
                return
            stream = connection.makefile("rb")
            while header := stream.readline():
                words = [stream.read(int(stream.readline()[1:]) + 2)[:-2].decode() for _ in range(int(header[1:]))]
                self.commands.append((number, words))
                reply = self._script(number, words)
                connection.sendall(self._usual(words) if reply is None else reply)
                if reply and not reply.endswith(b"\r\n"):
                    connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _usual(words: list[str]) -> bytes:
        return bulk("# Server\r\nredis_version:7.0.15\r\n") if words[0].upper() == "INFO" else OK


@pytest.fixture
def scripted(opened: Callable[..., Keyspace]) -> Iterator[Callable[..., tuple[ScriptedServer, Keyspace]]]:
    with contextlib.ExitStack() as stack:

        def start(script: Callable[[int, list[str]], bytes | None], **more: Any) -> tuple[ScriptedServer, Keyspace]:
            server = ScriptedServer(script, **more)
            stack.callback(server.close)
            return server, opened(LOOPBACK, server.port, timeout_s=0.5)

        yield start


Scripted = Callable[..., tuple[ScriptedServer, Keyspace]]


def replies(to: Mapping[str, bytes]) -> Callable[[int, list[str]], bytes | None]:
    return lambda _, words: to.get(words[0].upper())


PASSING = [
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n",
    b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    b"-NOREPLICAS Not enough good replicas to write.\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    b"-CLUSTERDOWN The cluster is down\r\n",
    b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    HANG,
    b"+O",
    b"$5\r\nab",
]


def word(reply: bytes) -> str:
    return reply.decode().split(" ")[0].strip("-\r\n") or "silence"


@pytest.mark.parametrize("reply", PASSING, ids=word)
def test_a_passing_fault_of_a_write_is_waited_out_on_a_new_connection(scripted: Scripted, reply: bytes) -> None:
    server, keyspace = scripted(lambda number, words: reply if words[0] == "SET" and number == 1 else None)
    keyspace.check()
    assert f"Redis at {LOOPBACK}:{server.port}" in passing(lambda: keyspace.write({"a": 1, "b": 2}, TTL))
    keyspace.write({"a": 1, "b": 2}, TTL)
    assert [(number, words[:3]) for number, words in server.commands if words[0] == "SET"][-2:] == [
        (2, ["SET", "a", "1"]),
        (2, ["SET", "b", "2"]),
    ]


LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


@pytest.mark.parametrize(
    "script",
    [
        replies(dict.fromkeys(["INFO", "SET", "SELECT", "CLIENT", "PING", "HELLO"], LOADING)),
        replies({"INFO": LOADING}),
        replies({"INFO": HANG}),
        replies({"INFO": b"$500\r\n# Server\r\n"}),
        lambda *_: HANG,
    ],
    ids=["loading", "loading INFO", "silent INFO", "half an INFO", "silence"],
)
def test_a_server_that_is_not_ready_is_waited_for_from_the_start(scripted: Scripted, script: Any) -> None:
    server, keyspace = scripted(script)
    passing(keyspace.check)
    passing(keyspace.check)
    assert server.connections == 2


def test_a_server_without_room_for_another_client_is_waited_for(scripted: Scripted) -> None:
    _, keyspace = scripted(replies({}), greeting=b"-ERR max number of clients reached\r\n")
    passing(keyspace.check)


PERMANENT = [
    b"-NOPERM this user has no permissions to run the 'set' command\r\n",
    b"-NOAUTH Authentication required.\r\n",
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    b"-ERR unknown command 'SET'\r\n",
]


@pytest.mark.parametrize("reply", PERMANENT, ids=word)
def test_a_refused_write_needs_a_person(scripted: Scripted, reply: bytes) -> None:
    server, keyspace = scripted(replies({"SET": reply}))
    assert "refuses us" in permanent(lambda: keyspace.write({"a": 1}, TTL))
    permanent(lambda: keyspace.write({"a": 1}, TTL))
    assert server.connections == 2


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_refused_key_of_many_fails_the_whole_write(scripted: Scripted, place: int) -> None:
    refused = ["a", "b", "c"][place]
    _, keyspace = scripted(lambda _, words: b"-OOM no room\r\n" if words[:2] == ["SET", refused] else None)
    passing(lambda: keyspace.write({"a": 1, "b": 2, "c": 3}, TTL))


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "6.1.240", "2.8.4"])
def test_a_server_that_is_too_old_is_refused_by_its_version(scripted: Scripted, version: str) -> None:
    _, keyspace = scripted(replies({"INFO": bulk(f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n")}))
    assert permanent(keyspace.check) == f"Redis {version} is too old: 6.2 or newer is needed (SET with PXAT)"


@pytest.mark.parametrize(
    "info", ["redis_version:6.2.0\r\n", "redis_version:255.255.255\r\n", "redis_version:7.4.0-rc1\r\n", "server_name:valkey\r\n", ""]
)
def test_a_server_that_is_new_enough_or_does_not_say_is_taken(scripted: Scripted, info: str) -> None:
    _, keyspace = scripted(replies({"INFO": bulk(info)}))
    keyspace.check()


def test_the_version_is_asked_once_for_each_connection(scripted: Scripted) -> None:
    server, keyspace = scripted(lambda number, words: HANG if words[0] == "GET" and number == 1 else None)
    keyspace.check()
    keyspace.check()
    keyspace.write({"a": 1}, TTL)
    passing(lambda: keyspace.execute("GET", "a"))
    keyspace.check()
    assert [number for number, words in server.commands if words[0] == "INFO"] == [1, 2]


def test_a_late_reply_is_never_taken_for_the_answer_to_another_question(scripted: Scripted) -> None:
    late = threading.Event()

    def script(number: int, words: list[str]) -> bytes | None:
        if words == ["GET", "slow"]:
            late.wait(PATIENCE_S)
            return bulk("the slow one")
        return bulk("the fast one") if words == ["GET", "fast"] else None

    server, keyspace = scripted(script)
    passing(lambda: keyspace.execute("GET", "slow"))
    late.set()
    assert keyspace.execute("GET", "fast") == b"the fast one"
    assert server.connections == 2


# --- TLS


def certificate(directory: Path, name: str, alternative: str) -> tuple[Path, Path]:
    """A self-made certificate and its key."""
    key, chain = directory / f"{name}.key", directory / f"{name}.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName={alternative}", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return chain, key


@contextlib.contextmanager
def tls_server(directory: Path, chain: Path, key: Path, clients: Path | None = None) -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs a redis-server with TLS: apt install redis-server")
    port = free_port()
    command = [program, "--port", "0", "--tls-port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(directory)]
    command += ["--tls-cert-file", str(chain), "--tls-key-file", str(key), "--tls-ca-cert-file", str(clients or chain)]
    command += ["--tls-auth-clients", "yes" if clients else "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
                    break
                time.sleep(0.02)
            assert process.poll() is None, "redis-server did not start; does it have TLS?"
            yield port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server whose certificate is for the name localhost and no address."""
    directory = tmp_path_factory.mktemp("tls")
    chain, key = certificate(directory, "localhost", "DNS:localhost")
    with tls_server(directory, chain, key) as port:
        yield port, chain


def test_tls_works_if_the_certificate_is_trusted_and_for_this_host(tls: tuple[int, Path], opened: Callable[..., Keyspace]) -> None:
    port, chain = tls
    keyspace = opened("localhost", port, tls=Tls(ca=str(chain)))
    keyspace.write({"heartbeat": now_ms()}, TTL)
    assert keyspace.ttl_s("heartbeat") > 0


def test_an_untrusted_certificate_needs_a_person(tls: tuple[int, Path], opened: Callable[..., Keyspace]) -> None:
    assert "certificate verify failed" in permanent(opened("localhost", tls[0], tls=Tls()).check)


def test_a_certificate_for_another_host_needs_a_person(tls: tuple[int, Path], opened: Callable[..., Keyspace]) -> None:
    assert "certificate is not valid for '127.0.0.1'" in permanent(opened(LOOPBACK, tls[0], tls=Tls(ca=str(tls[1]))).check)


@pytest.mark.parametrize("host", ["localhost", LOOPBACK])
def test_without_verification_any_certificate_will_do(tls: tuple[int, Path], opened: Callable[..., Keyspace], host: str) -> None:
    keyspace = opened(host, tls[0], tls=Tls(verify=False))
    keyspace.write({"heartbeat": now_ms()}, TTL)
    assert keyspace.ttl_s("heartbeat") > 0


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_certificate_that_cannot_be_read_needs_a_person(opened: Callable[..., Keyspace], tmp_path: Path, content: str | None) -> None:
    """Also while the server is away: its coming back would change nothing."""
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_text(content)
    for files in (Tls(ca=str(path)), Tls(certificate=str(path))):
        told = permanent(opened("localhost", free_port(), tls=files).check)
        assert f"The TLS files for Redis cannot be used ({path}): " in told


def test_a_server_that_asks_for_a_certificate_gets_ours(tmp_path: Path, opened: Callable[..., Keyspace]) -> None:
    chain, key = certificate(tmp_path, "localhost", "DNS:localhost")
    ours, our_key = certificate(tmp_path, "worker", "DNS:worker")
    with tls_server(tmp_path, chain, key, clients=ours) as port:
        keyspace = opened("localhost", port, tls=Tls(ca=str(chain), certificate=str(ours), key=str(our_key)))
        keyspace.write({"heartbeat": now_ms()}, TTL)
        assert keyspace.ttl_s("heartbeat") > 0
        with pytest.raises(ConnectError):
            opened("localhost", port, tls=Tls(ca=str(chain))).check()


def test_a_server_without_tls_is_not_written_to(redis: EmbeddedRedis, opened: Callable[..., Keyspace]) -> None:
    with pytest.raises(ConnectError):
        opened(redis.host, redis.port, tls=Tls(verify=False), timeout_s=1.0).check()


def test_a_server_without_info_is_taken_for_new_enough(scripted: Scripted) -> None:
    server, keyspace = scripted(replies({"INFO": b"-ERR unknown command 'INFO', with args beginning with: 'server' \r\n"}))
    keyspace.check()
    keyspace.write({"a": 1}, TTL)
    assert [words[1] for _, words in server.commands if words[0] == "SET"] == ["a"]
    assert server.connections == 1


def test_another_error_about_info_is_not_overlooked(scripted: Scripted) -> None:
    _, keyspace = scripted(replies({"INFO": b"-ERR something is wrong\r\n"}))
    assert "something is wrong" in permanent(keyspace.check)


def test_the_name_of_a_binary_key_is_written_byte_for_byte(redis: EmbeddedRedis, keyspace: Keyspace) -> None:
    beat = now_ms()
    keyspace.write({"s:" + b"\xff\x00\xc3".decode("utf-8", "surrogateescape"): beat}, TTL)
    with socket.create_connection((redis.host, redis.port), timeout=5) as plain:
        plain.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\ns:\xff\x00\xc3\r\n")
        assert plain.recv(100) == bulk(str(beat))
