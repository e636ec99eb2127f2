"""The connection against a real Redis, and faults that a real one does not show on demand against a scripted server."""

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
from tests.beats.parts import TTL, now_ms, public
from tests.real.programs import free_port

from heartbeat.beats.connection import Connection, Server, Tls
from heartbeat.beats.keyspace import Beats, Keyspace, Written
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import ConnectError, RetriableError

PATIENCE_S = 15.0
"""Far above every time-out in this file: a bound for a noisy machine, not a measurement."""


def write(connection: Connection, *sources: str) -> Written:
    """Beats of now."""
    keyspace = Keyspace(connection, "c")
    return keyspace.receive(keyspace.send(keyspace.pack(Beats(TTL, dict.fromkeys(sources, now_ms())))))


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


def test_each_database_is_its_own(server: EmbeddedRedis, connection: Connection, opened: Callable[..., Connection]) -> None:
    other = opened(server.host, server.port, database=5)
    write(other, "heartbeat")
    assert connection.execute("GET", "heartbeat") is None
    assert public(other) == {"heartbeat"}


def test_an_error_reply_to_a_single_command_is_returned_and_the_connection_goes_on(connection: Connection) -> None:
    connection.execute("SET", "k", "text")
    assert "not an integer" in str(connection.execute("INCR", "k"))
    assert connection.execute("GET", "k") == b"text"


def test_a_server_that_is_not_there_is_waited_for(opened: Callable[..., Connection]) -> None:
    connection = opened(LOOPBACK, free_port())
    assert f"Redis at {LOOPBACK}:" in passing(connection.check)
    passing(lambda: write(connection, "heartbeat"))
    passing(lambda: connection.execute("TTL", "heartbeat"))


def test_a_host_name_that_does_not_resolve_is_waited_for(opened: Callable[..., Connection]) -> None:
    assert "no-such-host.invalid" in passing(opened("no-such-host.invalid", 6379).check)


def test_a_server_that_comes_back_is_used_again(opened: Callable[..., Connection]) -> None:
    with EmbeddedRedis(free_port()) as first:
        connection = opened(first.host, first.port)
        write(connection, "heartbeat")
    passing(lambda: write(connection, "heartbeat"))
    with EmbeddedRedis(first.port):
        write(connection, "heartbeat")
        assert 0 < connection.execute("TTL", "heartbeat") <= 60


@pytest.fixture
def guarded(server: EmbeddedRedis, connection: Connection) -> Iterator[EmbeddedRedis]:
    """The server with a password, and with accounts that may not do everything."""
    for user, rules in {
        "reader": ["+@all", "-set"],
        "writer": ["-@all", "+set", "+zadd", "+select", "+ping", "+client"],
        "caged": ["+@all"],
    }.items():
        keys = ["~cage:*", "~hb:*"] if user == "caged" else ["~*"]
        assert connection.execute("ACL", "SETUSER", user, "on", ">secret-" + user, *keys, *rules) == b"OK"
    assert connection.execute("CONFIG", "SET", "requirepass", "secret-default") == b"OK"
    yield server
    admin = Connection(Server(server.host, server.port, password="secret-default"))
    admin.execute("CONFIG", "SET", "requirepass", "")
    admin.execute("ACL", "DELUSER", "reader", "writer", "caged")
    admin.close()


def test_the_right_password_lets_us_in(guarded: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    connection = opened(guarded.host, guarded.port, password="secret-default")
    write(connection, "heartbeat")
    assert connection.execute("TTL", "heartbeat") > 0


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ({}, "Authentication required"),
        ({"password": "wrong-password"}, "invalid username-password pair"),
        ({"username": "nobody", "password": "wrong-password"}, "invalid username-password pair"),
    ],
)
def test_a_wrong_account_needs_a_person_and_no_password_is_told(
    guarded: EmbeddedRedis, opened: Callable[..., Connection], account: dict[str, str], words: str
) -> None:
    connection = opened(guarded.host, guarded.port, **account)
    for action in (connection.check, lambda: write(connection, "heartbeat")):
        told = permanent(action)
        assert words in told
        assert f"Redis at {guarded.host}:{guarded.port}" in told
        assert "wrong-password" not in told


def test_a_password_where_none_is_asked_for_needs_a_person(server: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    assert "without any password configured" in permanent(opened(server.host, server.port, password="surplus").check)


def test_an_account_that_may_not_write_needs_a_person(guarded: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    reader = opened(guarded.host, guarded.port, username="reader", password="secret-reader")
    reader.check()
    assert "permissions" in permanent(lambda: write(reader, "heartbeat"))
    caged = opened(guarded.host, guarded.port, username="caged", password="secret-caged")
    write(caged, "cage:1")
    assert "permissions" in permanent(lambda: write(caged, "cage:2", "heartbeat"))


def test_an_account_that_may_only_write_will_do(guarded: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    writer = opened(guarded.host, guarded.port, username="writer", password="secret-writer")
    writer.check()
    write(writer, "heartbeat")


def test_an_unknown_database_needs_a_person(server: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    connection = opened(server.host, server.port, database=99)
    assert "DB index is out of range" in permanent(connection.check)
    assert "DB index is out of range" in permanent(lambda: write(connection, "heartbeat"))


def test_a_full_server_is_waited_for(server: EmbeddedRedis, connection: Connection) -> None:
    connection.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        assert "maxmemory" in passing(lambda: write(connection, "a", "b"))
    finally:
        connection.execute("CONFIG", "SET", "maxmemory", "0")
    write(connection, "a", "b")


def test_a_replica_is_waited_for_to_become_the_master(server: EmbeddedRedis, connection: Connection) -> None:
    connection.execute("REPLICAOF", LOOPBACK, str(free_port()))
    try:
        assert "read only" in passing(lambda: write(connection, "heartbeat"))
    finally:
        connection.execute("REPLICAOF", "NO", "ONE")
    write(connection, "heartbeat")


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
        if words[0].upper() == "ZADD":
            return b":%d\r\n" % (len(words) // 2 - 2)
        return bulk("# Server\r\nredis_version:7.0.15\r\n") if words[0].upper() == "INFO" else OK


@pytest.fixture
def scripted(opened: Callable[..., Connection]) -> Iterator[Callable[..., tuple[ScriptedServer, Connection]]]:
    with contextlib.ExitStack() as stack:

        def start(script: Callable[[int, list[str]], bytes | None], **more: Any) -> tuple[ScriptedServer, Connection]:
            server = ScriptedServer(script, **more)
            stack.callback(server.close)
            return server, opened(LOOPBACK, server.port, timeout_s=0.5)

        yield start


Scripted = Callable[..., tuple[ScriptedServer, Connection]]


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
    b"-ERR Error running script (call to f_0): @user_script:4: @user_script: 4: -READONLY You can't write against a read only replica.\r\n",
    b"-ERR Error running script (call to f_0): @user_script:4: @user_script: 4: -OOM command not allowed when used memory.\r\n",
    b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    HANG,
    b"+O",
    b"$5\r\nab",
]


def word(reply: bytes) -> str:
    return reply.decode().split(" ")[0].strip("-\r\n") or "silence"


@pytest.mark.parametrize("command", ["ZADD", "SET"])
@pytest.mark.parametrize("reply", PASSING, ids=word)
def test_a_passing_fault_of_a_write_is_waited_out_on_a_new_connection(scripted: Scripted, reply: bytes, command: str) -> None:
    server, connection = scripted(lambda number, words: reply if words[0] == command and number == 1 else None)
    connection.check()
    assert f"Redis at {LOOPBACK}:{server.port}" in passing(lambda: write(connection, "a", "b"))
    write(connection, "a", "b")
    # The first connection may still be read from when the second one has been served.
    assert [words[:2] for number, words in server.commands if words[0] == "SET" and number == 2] == [["SET", "a"], ["SET", "b"]]


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
    server, connection = scripted(script)
    passing(connection.check)
    passing(connection.check)
    assert server.connections == 2


def test_a_server_without_room_for_another_client_is_waited_for(scripted: Scripted) -> None:
    _, connection = scripted(replies({}), greeting=b"-ERR max number of clients reached\r\n")
    passing(connection.check)


PERMANENT = [
    b"-NOPERM this user has no permissions to run the 'set' command\r\n",
    b"-NOAUTH Authentication required.\r\n",
    b"-ERR unknown command 'SET'\r\n",
]


@pytest.mark.parametrize("reply", PERMANENT, ids=word)
def test_a_refused_write_needs_a_person(scripted: Scripted, reply: bytes) -> None:
    server, connection = scripted(replies({"SET": reply}))
    assert "refuses us" in permanent(lambda: write(connection, "a"))
    permanent(lambda: write(connection, "a"))
    assert server.connections == 2


def test_an_index_key_of_another_type_needs_a_person_but_a_public_one_does_not(scripted: Scripted) -> None:
    wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    _, connection = scripted(lambda _, words: wrong if words[:2] == ["SET", "a"] else None)
    assert write(connection, "a", "b") == Written(2, frozenset({"a"}))
    _, connection = scripted(replies({"ZADD": wrong}))
    assert "refuses us" in permanent(lambda: write(connection, "a", "b"))


def test_a_failure_of_one_key_leaves_no_reply_behind_for_the_next_command(scripted: Scripted) -> None:
    _, connection = scripted(lambda number, words: b"-ERR no\r\n" if words[0] == "ZADD" and number == 1 else None)
    permanent(lambda: write(connection, "a", "b"))
    assert write(connection, "a", "b").moved == 2


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_refused_key_of_many_fails_the_whole_write(scripted: Scripted, place: int) -> None:
    refused = ["a", "b", "c"][place]
    _, connection = scripted(lambda _, words: b"-OOM no room\r\n" if words[:2] == ["SET", refused] else None)
    passing(lambda: write(connection, "a", "b", "c"))


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "6.1.240", "2.8.4"])
def test_a_server_that_is_too_old_is_refused_by_its_version(scripted: Scripted, version: str) -> None:
    _, connection = scripted(replies({"INFO": bulk(f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n")}))
    assert permanent(connection.check) == f"Redis {version} is too old: 6.2 or newer is needed (SET with PXAT)"


@pytest.mark.parametrize(
    "info", ["redis_version:6.2.0\r\n", "redis_version:255.255.255\r\n", "redis_version:7.4.0-rc1\r\n", "server_name:valkey\r\n", ""]
)
def test_a_server_that_is_new_enough_or_does_not_say_is_taken(scripted: Scripted, info: str) -> None:
    _, connection = scripted(replies({"INFO": bulk(info)}))
    connection.check()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_what_we_write_is_refused_with_the_way_out(scripted: Scripted, policy: str) -> None:
    info = f"redis_version:7.0.15\r\nmaxmemory:1000\r\nmaxmemory_policy:{policy}\r\n"
    _, connection = scripted(replies({"INFO": bulk(info)}))
    assert f"maxmemory-policy {policy}" in permanent(connection.check)
    assert "CONFIG SET maxmemory-policy noeviction" in permanent(lambda: write(connection, "a"))


@pytest.mark.parametrize(("memory", "policy"), [("0", "allkeys-lru"), ("1000", "noeviction")])
def test_a_server_that_never_has_to_evict_is_taken(scripted: Scripted, memory: str, policy: str) -> None:
    _, connection = scripted(replies({"INFO": bulk(f"maxmemory:{memory}\r\nmaxmemory_policy:{policy}\r\n")}))
    connection.check()


def test_several_commands_at_once_are_all_answered_before_an_error_is_raised(connection: Connection) -> None:
    connection.execute("SET", "k", "text")
    assert connection.calls(("GET", "k"), ("STRLEN", "k")) == [b"text", 4]
    assert "not an integer" in permanent(lambda: connection.calls(("INCR", "k"), ("SET", "k", "new")))
    assert connection.call("GET", "k") == b"new"


def test_the_version_is_asked_once_for_each_connection(scripted: Scripted) -> None:
    server, connection = scripted(lambda number, words: HANG if words[0] == "GET" and number == 1 else None)
    connection.check()
    connection.check()
    write(connection, "a")
    passing(lambda: connection.execute("GET", "a"))
    connection.check()
    assert [number for number, words in server.commands if words[0] == "INFO"] == [1, 2]


def test_a_late_reply_is_never_taken_for_the_answer_to_another_question(scripted: Scripted) -> None:
    late = threading.Event()

    def script(number: int, words: list[str]) -> bytes | None:
        if words == ["GET", "slow"]:
            late.wait(PATIENCE_S)
            return bulk("the slow one")
        return bulk("the fast one") if words == ["GET", "fast"] else None

    server, connection = scripted(script)
    passing(lambda: connection.execute("GET", "slow"))
    late.set()
    assert connection.execute("GET", "fast") == b"the fast one"
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


def test_tls_works_if_the_certificate_is_trusted_and_for_this_host(tls: tuple[int, Path], opened: Callable[..., Connection]) -> None:
    port, chain = tls
    connection = opened("localhost", port, tls=Tls(ca=str(chain)))
    write(connection, "heartbeat")
    assert connection.execute("TTL", "heartbeat") > 0


def test_an_untrusted_certificate_needs_a_person(tls: tuple[int, Path], opened: Callable[..., Connection]) -> None:
    assert "certificate verify failed" in permanent(opened("localhost", tls[0], tls=Tls()).check)


def test_a_certificate_for_another_host_needs_a_person(tls: tuple[int, Path], opened: Callable[..., Connection]) -> None:
    assert "certificate is not valid for '127.0.0.1'" in permanent(opened(LOOPBACK, tls[0], tls=Tls(ca=str(tls[1]))).check)


@pytest.mark.parametrize("host", ["localhost", LOOPBACK])
def test_without_verification_any_certificate_will_do(tls: tuple[int, Path], opened: Callable[..., Connection], host: str) -> None:
    connection = opened(host, tls[0], tls=Tls(verify=False))
    write(connection, "heartbeat")
    assert connection.execute("TTL", "heartbeat") > 0


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_certificate_that_cannot_be_read_needs_a_person(opened: Callable[..., Connection], tmp_path: Path, content: str | None) -> None:
    """Also while the server is away: its coming back would change nothing."""
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_text(content)
    for files in (Tls(ca=str(path)), Tls(certificate=str(path))):
        told = permanent(opened("localhost", free_port(), tls=files).check)
        assert f"The TLS files for Redis cannot be used ({path}): " in told


def test_a_server_that_asks_for_a_certificate_gets_ours(tmp_path: Path, opened: Callable[..., Connection]) -> None:
    chain, key = certificate(tmp_path, "localhost", "DNS:localhost")
    ours, our_key = certificate(tmp_path, "worker", "DNS:worker")
    with tls_server(tmp_path, chain, key, clients=ours) as port:
        connection = opened("localhost", port, tls=Tls(ca=str(chain), certificate=str(ours), key=str(our_key)))
        write(connection, "heartbeat")
        assert connection.execute("TTL", "heartbeat") > 0
        with pytest.raises(ConnectError):
            opened("localhost", port, tls=Tls(ca=str(chain))).check()


def test_a_server_without_tls_is_not_written_to(server: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    with pytest.raises(ConnectError):
        opened(server.host, server.port, tls=Tls(verify=False), timeout_s=1.0).check()


def test_a_server_without_info_is_taken_for_new_enough(scripted: Scripted) -> None:
    server, connection = scripted(replies({"INFO": b"-ERR unknown command 'INFO', with args beginning with: 'server' \r\n"}))
    connection.check()
    write(connection, "a")
    assert [words[1] for _, words in server.commands if words[0] == "SET"] == ["a"]
    assert server.connections == 1


def test_another_error_about_info_is_not_overlooked(scripted: Scripted) -> None:
    _, connection = scripted(replies({"INFO": b"-ERR something is wrong\r\n"}))
    assert "something is wrong" in permanent(connection.check)
