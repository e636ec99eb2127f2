"""``heartbeat redis`` prints what redis-cli prints, on a terminal and into a pipe: compared with the real one."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.patience import patient
from tests.real.programs import free_port

from heartbeat.beats import console
from heartbeat.beats.connection import Connection, Server
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import ConnectError

HEARTBEAT = str(Path(sys.executable).with_name("heartbeat"))
BINARY = '\x00\x07\x08\t\n\r"\\\x7f'
NESTED = "return {1,'two',{3,{'four',5},{}},false,redis.error_reply('ERR six'),'ü\\nx'}"


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as redis:
        connection = Connection(patient(redis.host, redis.port))
        connection.execute("SET", "heartbeat", "4102444800000", "PXAT", "4102444860000")  # in the year 2100
        connection.execute("SET", "text", "two words")
        connection.execute("SET", "ok", "OK")
        connection.execute("SET", "empty", "")
        connection.execute("SET", "lines", "one\r\ntwo\n")
        connection.execute("SET", "unicode", "ünï ✓ 😀")
        connection.execute("EVAL", r"redis.call('SET', 'binary', '\255\254\0\127')", "0")
        connection.execute("SET", "controls", BINARY[1:])
        connection.execute("RPUSH", "list", *(f"item {i}" for i in range(12)))
        connection.execute("ZADD", "scores", "1.5", "a", "2", 'b"c')
        connection.execute("HSET", "hash", "f", "v", "g", "")
        connection.close()
        yield redis


COMMANDS = [
    ["GET", "text"],
    ["get", "heartbeat"],
    ["GET", "missing"],
    ["GET", "ok"],
    ["GET", "empty"],
    ["GET", "lines"],
    ["GET", "unicode"],
    ["GET", "binary"],
    ["GET", "controls"],
    ["MGET", "binary", "missing", "unicode"],
    ["PEXPIRETIME", "heartbeat"],
    ["TTL", "missing"],
    ["TTL", "text"],
    ["LRANGE", "list", "0", "-1"],
    ["LRANGE", "list", "0", "0"],
    ["LRANGE", "missing", "0", "-1"],
    ["ZRANGE", "scores", "0", "-1", "WITHSCORES"],
    ["HGETALL", "hash"],
    ["TYPE", "list"],
    ["TYPE", "missing"],
    ["PING"],
    ["PING", "PONG"],
    ["ECHO", "OK"],
    ["SET", "fresh", "1"],
    ["SET", "text", "two words", "GET"],
    ["SET", "fresh", "2", "NX"],
    ["CONFIG", "SET", "maxmemory", "0"],
    ["CONFIG", "GET", "maxmemory"],
    ["CLIENT", "SETNAME", "x"],
    ["FLUSHDB", "BOGUS"],
    ["EVAL", NESTED, "0"],
    ["EVAL", "return {{},{{}}}", "0"],
    ["EVAL", "return redis.error_reply('MINE went wrong')", "0"],
    ["INCR", "text"],
    ["LPUSH", "text", "x"],
    ["NOSUCHCOMMAND", "a", "b"],
    ["GET"],
    ["INFO", "cluster"],
    ["CLUSTER", "INFO"],
    ["EVALSHA", "0" * 40, "0"],
    ["SELECT", "99"],
    ["SELECT", "1"],
]


def on_a_terminal(command: list[str]) -> bytes:
    """What a terminal shows of a program: each line's end becomes two characters there."""
    ours, its = pty.openpty()
    try:
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its)
        os.close(its)
        output = b""
        with contextlib.suppress(OSError):  # Linux's way to say that nobody has the other end any more
            while chunk := os.read(ours, 65536):
                output += chunk
        process.wait(30)
    finally:
        os.close(ours)
    return output


def real(redis: EmbeddedRedis, *command: str) -> list[str]:
    program = shutil.which("redis-cli")
    if program is None:
        pytest.skip("needs redis-cli: apt install redis-tools")
    return [program, "-h", redis.host, "-p", str(redis.port), *command]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reply_looks_the_same_on_a_terminal(redis: EmbeddedRedis, command: list[str]) -> None:
    expected = on_a_terminal(real(redis, *command))
    shown, _ = console.run(patient(redis.host, redis.port), command, raw=False)
    assert shown.replace(b"\n", b"\r\n") == expected


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reply_is_the_same_in_a_pipe(redis: EmbeddedRedis, command: list[str]) -> None:
    expected = subprocess.run(real(redis, *command), capture_output=True, timeout=30, check=True).stdout
    assert console.run(patient(redis.host, redis.port), command, raw=True)[0] == expected


def test_an_error_reply_is_told_from_a_result(redis: EmbeddedRedis) -> None:
    assert console.run(patient(redis.host, redis.port), ["INCR", "text"], raw=True)[1]
    assert not console.run(patient(redis.host, redis.port), ["GET", "missing"], raw=True)[1]


def ours(redis: EmbeddedRedis, *command: str) -> list[str]:
    return [HEARTBEAT, "redis", "-h", redis.host, "-p", str(redis.port), *command]


def test_the_command_knows_a_terminal_from_a_pipe(redis: EmbeddedRedis) -> None:
    for command in (["GET", "unicode"], ["GET", "binary"], ["LRANGE", "list", "-2", "-1"], ["GET", "missing"]):
        assert on_a_terminal(ours(redis, *command)) == on_a_terminal(real(redis, *command))
        piped = [subprocess.run(one, capture_output=True, timeout=30).stdout for one in (ours(redis, *command), real(redis, *command))]
        assert piped[0] == piped[1]


def test_the_exit_code_tells_an_error_reply(redis: EmbeddedRedis) -> None:
    codes = [subprocess.run(ours(redis, *command), capture_output=True, timeout=30).returncode for command in (["PING"], ["INCR", "text"])]
    assert codes == [0, 1]


def test_options_of_the_command_that_is_sent_are_not_ours(redis: EmbeddedRedis) -> None:
    done = subprocess.run(ours(redis, "ECHO", "-n"), capture_output=True, timeout=30, check=True)
    assert done.stdout == b"-n\n"


def test_a_server_that_is_not_there_is_an_error_in_one_line() -> None:
    port = free_port()
    with pytest.raises(ConnectError):
        console.run(Server("127.0.0.1", port), ["PING"], raw=True)
    done = subprocess.run([HEARTBEAT, "redis", "-p", str(port), "PING"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith(f"heartbeat: Redis at 127.0.0.1:{port}: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_database_and_the_password_can_be_given(redis: EmbeddedRedis) -> None:
    admin = Connection(patient(redis.host, redis.port))
    admin.execute("ACL", "SETUSER", "ann", "on", ">hunter2", "~*", "+@all")
    subprocess.run(
        ours(redis, "-n", "2", "--user", "ann", "-a", "hunter2", "SET", "in", "two"), check=True, capture_output=True, timeout=30
    )
    by_variable = {**os.environ, "REDISCLI_AUTH": "hunter2"}
    told = subprocess.run(
        ours(redis, "-n", "2", "--user", "ann", "GET", "in"), env=by_variable, check=True, capture_output=True, timeout=30
    )
    assert told.stdout == b"two\n"
    admin.execute("ACL", "DELUSER", "ann")
    admin.close()
