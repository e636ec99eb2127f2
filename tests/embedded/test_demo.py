"""The demo as a user starts it: what it prints, how other commands find it, and what is left of it, which must be nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.real.programs import free_port

from heartbeat.embedded import state
from heartbeat.embedded.app import line
from heartbeat.embedded.ports import LOOPBACK, require_free
from heartbeat.errors import StartError
from heartbeat.monitor.detect import Observation
from heartbeat.monitor.vision import Blindness
from heartbeat.monitor.watch import Look

HEARTBEAT = str(Path(sys.executable).with_name("heartbeat"))
NAME = "redis-heartbeat-sink"
DEADLINE_S = 60.0
UP = re.compile(r"^\d\d:\d\d:\d\d  \S+ UP: Heartbeat TTL: (\d+)s$", re.MULTILINE)


def wait_until(reached: Callable[[], bool], why: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo with ports and a directory for temporary files of its own."""

    directory: Path
    kafka: int
    redis: int
    rest: int

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.directory), "PYTHONUNBUFFERED": "1"}

    @property
    def output(self) -> str:
        return self.directory.with_suffix(".output").read_text()

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        ports = ["--kafka-port", str(self.kafka), "--redis-port", str(self.redis), "--rest-port", str(self.rest)]
        with self.directory.with_suffix(".output").open("wb") as file:
            return subprocess.Popen([HEARTBEAT, "demo", *ports, *options], stdout=file, stderr=file, env=self.environment)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([HEARTBEAT, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, env=self.environment)

    def rest_call(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.rest}{path}", method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
            return bytes(reply.read())

    def task_states(self) -> list[str]:
        return [task["state"] for task in json.loads(self.rest_call(f"/connectors/{NAME}/status"))["tasks"]]

    def redis_pid(self) -> int:
        found = re.search(r"process_id:(\d+)", self.run("redis", "INFO", "server").stdout)
        assert found
        return int(found[1])

    def wait_for(self, words: str, process: subprocess.Popen[bytes], after: int = 0) -> None:
        """Wait until the demo, which goes on running, has printed this beyond the first ``after`` characters."""
        wait_until(lambda: words in self.output[after:] or process.poll() is not None, lambda: self.output)
        assert process.poll() is None, self.output

    def left(self) -> list[str]:
        """What there is of this demo: processes that know its directory, files in it, and ports that are taken."""
        mark = f"TMPDIR={self.directory}".encode()
        left = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    left.append(f"process {process.name}: {(process / 'cmdline').read_bytes()!r}")
        # Not rglob: it raises for a directory that goes while it looks, which is what is waited for here.
        left += [f"file {top}/{name}" for top, directories, files in os.walk(self.directory) for name in [*directories, *files]]
        for port in (self.kafka, self.redis, self.rest):
            try:
                require_free(port)
            except StartError as error:
                left.append(str(error))
        return left


@contextlib.contextmanager
def demo_in(directory: Path, *options: str) -> Iterator[tuple[Demo, subprocess.Popen[bytes]]]:
    directory.mkdir()
    demo = Demo(directory, free_port(), free_port(), free_port())
    process = demo.start(*options)
    try:
        demo.wait_for("Try, in another terminal:", process)
        yield demo, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, subprocess.Popen[bytes]]]:
    with demo_in(tmp_path_factory.mktemp("running") / "demo", "--every", "0.5") as both:
        yield both


Running = tuple[Demo, subprocess.Popen[bytes]]


BLIND = Blindness("consumer", "no worker reports", 0)


@pytest.mark.parametrize(
    ("look", "ttl_s", "word"),
    [
        (Look(sources=1), 60, "UP"),
        (Look(sources=1), 10, "UP"),
        (Look(sources=1), 9, "LATE"),
        (Look(sources=1), -1, "UP, but its key"),
        (Look(sources=3), None, "UP: 3 sources"),
        (Look(sources=1, late=1), -2, "LATE: 1 source"),
        (Look(sources=1, unknown=1), -2, "UNKNOWN: due"),
        (Look(sources=1, unknown=1, blind=BLIND), -2, "UNKNOWN: consumer: no worker reports"),
        (Look(sources=1, unknown=1, blind=BLIND, paused="PAUSED"), -2, "PAUSED"),
        (Look(down=1), -2, "DOWN: 1 source"),
        (Look(), -2, "NEW"),
    ],
)
def test_a_line_tells_the_state_and_up_only_of_what_beats(look: Look, ttl_s: int | None, word: str) -> None:
    assert f" {word}" in line(Observation(1, connectors={NAME: look}), NAME, ttl_s)


def test_what_redis_did_not_say_is_unknown() -> None:
    assert " UNKNOWN: Redis" in line(Observation(1, connectors={NAME: Look(sources=1)}, error="no answer"), NAME, 60)


def test_the_demo_says_what_is_where_and_that_all_is_well(running: Running) -> None:
    demo, process = running
    demo.wait_for("UP: Heartbeat TTL: ", process)
    for words in (f"{LOOPBACK}:{demo.kafka}", f"{LOOPBACK}:{demo.redis}", f"http://{LOOPBACK}:{demo.rest}/connectors/{NAME}/status"):
        assert words in demo.output
    assert all(50 <= int(ttl) <= 60 for ttl in UP.findall(demo.output))


def test_the_originals_connector_runs_with_its_config_as_it_was_posted(running: Running) -> None:
    demo, _ = running
    wait_until(lambda: demo.task_states() == ["RUNNING"], lambda: demo.output)
    assert json.loads(demo.rest_call(f"/connectors/{NAME}/status"))["connector"]["state"] == "RUNNING"
    original = json.loads((Path(__file__).parents[2] / "config" / "redis-heartbeat-sink.json").read_text())
    assert json.loads(demo.rest_call(f"/connectors/{NAME}/config")).items() >= original["config"].items()


def test_other_commands_find_the_demo_by_themselves(running: Running) -> None:
    demo, process = running
    demo.wait_for("UP: Heartbeat TTL: ", process)
    sent = demo.run("send", "--key", "k", "hello")
    assert (sent.returncode, sent.stderr) == (0, "")
    assert re.fullmatch(r"Sent 'hello' to heartbeat-topic, partition 0, offset \d+\n", sent.stdout)
    assert 0 < int(demo.run("redis", "TTL", "heartbeat").stdout) <= 60


def test_the_port_people_type_leads_to_the_broker(running: Running) -> None:
    demo, _ = running
    assert demo.run("send", "--bootstrap-server", f"{LOOPBACK}:{demo.kafka}", "hello").returncode == 0


def test_everything_is_on_loopback_only(running: Running) -> None:
    demo, _ = running
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address")
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    for port in (demo.kafka, demo.redis, demo.rest):
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((address, port), timeout=2).close()


def test_a_restarted_task_beats_again(running: Running) -> None:
    demo, process = running
    demo.wait_for("UP: Heartbeat TTL: ", process)
    demo.rest_call(f"/connectors/{NAME}/restart?includeTasks=true", "POST")
    demo.run("redis", "DEL", "heartbeat")
    wait_until(lambda: int(demo.run("redis", "TTL", "heartbeat").stdout) > 0, lambda: demo.output)


def test_a_demo_that_stood_still_while_a_task_was_joining_beats_again(running: Running) -> None:
    """As a laptop does that is closed: the session of who was joining has ended meanwhile."""
    demo, process = running
    demo.wait_for("UP: Heartbeat TTL: ", process)
    demo.rest_call(f"/connectors/{NAME}/restart?includeTasks=true", "POST")
    time.sleep(0.2)  # into the joining
    os.kill(process.pid, signal.SIGSTOP)
    try:
        time.sleep(4)  # longer than the session
    finally:
        os.kill(process.pid, signal.SIGCONT)
    demo.run("redis", "DEL", "heartbeat")
    wait_until(lambda: int(demo.run("redis", "TTL", "heartbeat").stdout) > 0, lambda: demo.output)


def test_a_pause_is_told_as_such_and_never_as_silence(running: Running) -> None:
    demo, process = running
    demo.wait_for("UP: Heartbeat TTL: ", process)
    demo.rest_call(f"/connectors/{NAME}/pause", "PUT")
    before = len(demo.output)
    demo.wait_for("PAUSED: an operator wants", process, before)
    demo.run("redis", "DEL", "heartbeat")
    before = len(demo.output)
    demo.rest_call(f"/connectors/{NAME}/resume", "PUT")
    demo.wait_for("UP: Heartbeat TTL: ", process, before)
    assert " DOWN: " not in demo.output


def test_silence_is_proven_and_told_and_so_is_recovery(tmp_path: Path) -> None:
    connector = tmp_path / "short.json"
    original = json.loads((Path(__file__).parents[2] / "config" / "redis-heartbeat-sink.json").read_text())
    connector.write_text(json.dumps(original | {"config": original["config"] | {"redis.ttl": "2"}}))
    with demo_in(tmp_path / "demo", "--no-producer", "--connector", str(connector)) as (demo, process):
        demo.wait_for("NEW: no beat yet", process)
        assert demo.run("send").returncode == 0
        demo.wait_for("DOWN: 1 source", process)
        demo.wait_for("DOWN heartbeat: silent since", process)  # by the log channel
        assert demo.run("status").returncode == 1
        before = len(demo.output)
        assert demo.run("send").returncode == 0
        demo.wait_for("UP heartbeat: beats again", process, before)


def test_a_redis_that_does_not_answer_is_unknown_and_never_ok(running: Running) -> None:
    demo, process = running
    demo.wait_for("UP: Heartbeat TTL: ", process)
    pid = demo.redis_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        before = len(demo.output)
        demo.wait_for("UNKNOWN: Redis does not answer", process, before)
        frozen = demo.output[before:]
        assert "UP:" not in frozen[frozen.index("UNKNOWN") :]
    finally:
        os.kill(pid, signal.SIGCONT)
    demo.wait_for("UP: Heartbeat TTL: ", process, before + len(frozen))


def test_without_a_producer_nobody_beats_but_the_user(tmp_path: Path) -> None:
    with demo_in(tmp_path / "demo", "--no-producer") as (demo, process):
        demo.wait_for("NEW: no beat yet", process)
        assert re.search(r"Nobody sends beats: \S*heartbeat send --topic heartbeat-topic", demo.output)
        assert not UP.search(demo.output)
        assert demo.run("send").returncode == 0
        demo.wait_for("UP: Heartbeat TTL: ", process)


@pytest.mark.parametrize("option", ["--kafka-port", "--redis-port", "--rest-port"])
def test_a_taken_port_is_one_line_that_names_it_and_the_option(tmp_path: Path, option: str) -> None:
    demo = Demo(tmp_path, free_port(), free_port(), free_port())
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--kafka-port": demo.kafka, "--redis-port": demo.redis, "--rest-port": demo.rest} | {option: port}
        done = demo.run("demo", *(str(word) for pair in ports.items() for word in pair))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert str(port) in done.stderr
    assert option in done.stderr
    assert demo.left() == []


def test_a_connector_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    done = Demo(tmp_path, 0, 0, 0).run("demo", "--connector", str(tmp_path / "none.json"))
    assert done.returncode == 3
    assert done.stderr == f"heartbeat: cannot read connector file {tmp_path / 'none.json'}: No such file or directory\n"


def test_the_demo_can_be_stopped_from_elsewhere_and_leaves_nothing(tmp_path: Path) -> None:
    with demo_in(tmp_path / "demo") as (demo, process):
        assert len(demo.left()) >= 3 + 2 + 2
        stopped = demo.run("demo", "--stop")
        assert (stopped.returncode, stopped.stdout) == (0, "The demo has stopped.\n")
        assert process.wait(DEADLINE_S) == 0
        wait_until(lambda: demo.left() == [], demo.left)
        assert demo.run("demo", "--stop").stdout == "No demo is running.\n"


def test_ctrl_c_stops_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    with demo_in(tmp_path / "demo") as (demo, process):
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
        wait_until(lambda: demo.left() == [], demo.left)


def test_a_killed_redis_is_unknown_and_a_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    with demo_in(tmp_path / "demo") as (demo, process):
        demo.wait_for("UP: Heartbeat TTL: ", process)
        assert any("redis-server" in one or "valkey" in one for one in demo.left())
        os.kill(demo.redis_pid(), signal.SIGKILL)
        before = len(demo.output)
        demo.wait_for("UNKNOWN: Redis does not answer", process, before)
        process.kill()
        process.wait()
        wait_until(lambda: demo.left() == [], demo.left)


def test_a_demo_killed_in_full_flight_leaves_no_process_port_or_file(tmp_path: Path) -> None:
    with demo_in(tmp_path / "demo", "--every", "0.1") as (demo, process):
        demo.wait_for("UP: Heartbeat TTL: ", process)
        assert len(demo.left()) >= 3 + 2 + 2
        process.kill()
        process.wait()
        wait_until(lambda: demo.left() == [], demo.left)


@pytest.mark.parametrize("content", ["dead", "{", "[]", ""])
def test_a_state_file_of_a_dead_demo_or_nonsense_is_ignored(tmp_path: Path, content: str) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    dead = {"pid": gone.pid, "kafka": f"{LOOPBACK}:1", "redis_host": LOOPBACK, "redis_port": 1, "rest": f"http://{LOOPBACK}:1"}
    (tmp_path / f"redis-heartbeat-sink-{os.getuid()}-{gone.pid}.json").write_text(json.dumps(dead) if content == "dead" else content)
    done = Demo(tmp_path, 0, 0, 0).run("demo", "--stop")
    assert (done.returncode, done.stdout) == (0, "No demo is running.\n")


# The state file

HOLD = """
import os, signal, sys
from heartbeat.embedded import state
with state.published(state.DemoState(os.getpid(), sys.argv[1], "127.0.0.1", 1, "http://127.0.0.1:1", "http://127.0.0.1:1")):
    print(state.own_file(), flush=True)
    signal.sigwait([signal.SIGTERM])
"""


def state_file(directory: Path, pid: int) -> Path:
    return directory / f"redis-heartbeat-sink-{os.getuid()}-{pid}.json"


def told(pid: int) -> str:
    """What a demo of this process would have written."""
    rest = monitor = f"http://{LOOPBACK}:1"
    return json.dumps({"pid": pid, "kafka": f"{LOOPBACK}:1", "redis_host": LOOPBACK, "redis_port": 1, "rest": rest, "monitor": monitor})


@contextlib.contextmanager
def holding(directory: Path, kafka: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a state file as a demo does, until it is told to stop."""
    environment = {**os.environ, "TMPDIR": str(directory)}
    command = [sys.executable, "-c", "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n" + HOLD, kafka]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_process_that_does_not_hold_its_state_files_lock_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            # What a killed demo leaves, when its process id has become somebody else's.
            state_file(tmp_path, bystander.pid).write_text(told(bystander.pid))
            done = Demo(tmp_path, 0, 0, 0).run("demo", "--stop")
            assert (done.returncode, done.stdout) == (0, "No demo is running.\n")
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_two_demos_at_once_keep_a_state_file_each_and_the_last_one_is_stopped_first(tmp_path: Path) -> None:
    stop = Demo(tmp_path, 0, 0, 0)
    with holding(tmp_path, "first:1") as (first, first_file), holding(tmp_path, "second:1") as (second, second_file):
        assert (first_file, second_file) == (state_file(tmp_path, first.pid), state_file(tmp_path, second.pid))
        os.utime(first_file, (1, 1))  # however coarse this file system's times are
        assert stop.run("demo", "--stop").stdout == "The demo has stopped.\n"
        assert second.wait(DEADLINE_S) == 0
        assert (first.poll(), first_file.exists(), second_file.exists()) == (None, True, False)
        assert stop.run("demo", "--stop").stdout == "The demo has stopped.\n"
        assert first.wait(DEADLINE_S) == 0
        assert stop.run("demo", "--stop").stdout == "No demo is running.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_link_where_the_state_file_goes_is_replaced_and_not_written_through(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.write_text("mine")
    state.own_file().symlink_to(precious)
    with state.published(state.DemoState(os.getpid(), "k:1", LOOPBACK, 1, "r", "m")):
        assert not state.own_file().is_symlink()
        assert state.own_file().stat().st_mode & 0o777 == 0o600
        found = state.read()
        assert found is not None
        assert found.kafka == "k:1"
    assert precious.read_text() == "mine"
    assert state.read() is None


def test_a_link_in_a_state_files_place_is_not_read(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.write_text(told(os.getpid()))
    with elsewhere.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state_file(temporary, 1).symlink_to(elsewhere)
        assert state.read() is None
        assert not state.alive(1)
        state_file(temporary, 1).unlink()
        elsewhere.rename(state_file(temporary, 1))  # the same, without a link, would be
        assert state.read() is not None


def test_a_state_file_that_goes_while_they_are_listed_is_none_of_them(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = state_file(temporary, 1)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone, state.own_file()]))
    with state.published(state.DemoState(os.getpid(), "k:1", LOOPBACK, 1, "r", "m")):
        found = state.read()
        assert found is not None
        assert found.kafka == "k:1"


def test_a_place_that_cannot_be_written_to_is_one_line_that_says_what_to_set(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "none"))
    with (
        pytest.raises(StartError, match="set TMPDIR to another place"),
        state.published(state.DemoState(os.getpid(), "k:1", LOOPBACK, 1, "r", "m")),
    ):
        pass
