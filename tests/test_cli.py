"""The command line: every verb explains itself, every error is a line that says what to do, and the exit code names its kind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real.programs import free_port

import heartbeat
from heartbeat.embedded.ports import LOOPBACK

HEARTBEAT = str(Path(sys.executable).with_name("heartbeat"))
STRINGS = "org.apache.kafka.connect.storage.StringConverter"
ENVIRONMENT = {key: text for key, text in os.environ.items() if not key.startswith("CONNECT_")}
DEADLINE_S = 30.0


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [HEARTBEAT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env={**ENVIRONMENT, **environment})


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """What an error says, which is never a traceback."""
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr.strip()


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    path = tmp_path / "worker.properties"
    path.write_text(
        f"bootstrap.servers={LOOPBACK}:1\nlisteners=http://{LOOPBACK}:{free_port()}\nkey.converter={STRINGS}\nvalue.converter={STRINGS}\n"
    )
    return path


@pytest.mark.parametrize("verb", ["connect-standalone", "demo", "send", "redis", "doctor"])
def test_every_verb_is_listed_and_explains_itself(verb: str) -> None:
    assert verb in run("--help").stdout
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"Usage: heartbeat {verb} " in done.stdout
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_no_error(option: str) -> None:
    done = run(option)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout.strip() == f"heartbeat, version {heartbeat.__version__}"


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "heartbeat", "--version"], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout == run("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Usage: "),
        (["nonsense"], "No such command"),
        (["--nonsense"], "No such option"),
        (["demo", "--kafka-port", "x"], "--kafka-port"),
        (["demo", "--every", "0"], "--every"),
        (["redis"], "COMMAND"),
        (["connect-standalone"], "heartbeat connect-standalone worker.properties [connector.json ...]"),
    ],
)
def test_a_wrong_command_line_ends_with_1(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert words in last_words(done)


def test_a_missing_worker_file_ends_with_2(tmp_path: Path) -> None:
    done = run("connect-standalone", tmp_path / "none.properties")
    assert done.returncode == 2
    assert last_words(done) == f"heartbeat: cannot read worker properties {tmp_path / 'none.properties'}: No such file or directory"


def test_an_unusable_worker_file_ends_with_2_and_says_everything_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "worker.properties"
    path.write_text(f"key.converter=a.B\nlisteners=https://:8443\noffset.flush.interval.ms=-1\nbootstrap.servers={LOOPBACK}:1\n")
    done = run("connect-standalone", path)
    assert done.returncode == 2
    for words in ("key.converter: Class a.B could not be found", '"value.converter"', "TLS proxy", "offset.flush.interval.ms"):
        assert words in last_words(done)


def test_client_properties_of_the_worker_that_cannot_be_honoured_end_with_2(worker: Path) -> None:
    with worker.open("a") as file:
        file.write("security.protocol=SSL\nssl.truststore.location=trust.jks\n")
    done = run("connect-standalone", worker)
    assert done.returncode == 2
    assert "ssl.truststore.location" in last_words(done)


def test_an_unusable_environment_ends_with_2() -> None:
    done = run("connect-standalone", CONNECT_BOOTSTRAP_SERVERS=f"{LOOPBACK}:1")
    assert done.returncode == 2
    assert "the environment (CONNECT_*) is not usable" in last_words(done)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        ("{", "is not valid JSON"),
        ('{"name": "c",\n "topics" "t"}', "line 2, column "),
        ("topics=t\n", 'must have a "name"'),
        ("name=c\nconnector.class=RedisHeartbeatSink\n", "Must configure one of topics or topics.regex"),
        ("name=c\nconnector.class=a.B\ntopics=t\n", "Failed to find any class that implements Connector"),
        ('{"name": "c", "config": {"topics": ["t"]}}', "Cannot deserialize value of type"),
    ],
)
def test_a_bad_connector_file_ends_with_3(worker: Path, tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "connector.json"
    if content is not None:
        path.write_text(content)
    done = run("connect-standalone", worker, path)
    assert done.returncode == 3
    assert str(path) in last_words(done)
    assert words in last_words(done)


def test_a_taken_port_ends_with_3_and_is_named(worker: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        done = run("connect-standalone", worker, CONNECT_LISTENERS=f"http://{LOOPBACK}:{port}")
    assert done.returncode == 3
    assert f"cannot listen on http://{LOOPBACK}:{port}" in last_words(done)
    assert len(last_words(done).splitlines()) == 1


def test_a_store_that_cannot_be_used_ends_with_3_and_is_left_alone(worker: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.json"
    store.write_text("{broken")
    done = run("connect-standalone", worker, CONNECT_CONFIG_STORAGE_FILE=str(store))
    assert done.returncode == 3
    assert f"config.storage.file={store} cannot be used" in last_words(done)
    assert store.read_text() == "{broken"


def test_a_broker_that_is_not_there_ends_send_with_3() -> None:
    done = run("send", "--bootstrap-server", f"{LOOPBACK}:{free_port()}", "x")
    assert done.returncode == 3
    assert last_words(done).splitlines()[-1].startswith("heartbeat: ")


@pytest.fixture
def running(worker: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A worker whose REST API answers, and what it printed."""
    output = tmp_path / "output"
    port = free_port()
    environment = {
        **ENVIRONMENT,
        "CONNECT_LISTENERS": f"http://{LOOPBACK}:{port}",
        "CONNECT_GROUP_ID": "g",
        "CONNECT_CONFIG_STORAGE_TOPIC": "c",
        "PYTHONUNBUFFERED": "1",
    }
    with (
        output.open("w") as file,
        subprocess.Popen([HEARTBEAT, "connect-standalone", worker], stdout=file, env=environment, text=True) as process,
    ):
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not answers(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process, output
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_told_to_stop_ends_with_0(running: tuple[subprocess.Popen[str], Path], number: signal.Signals) -> None:
    process, output = running
    process.send_signal(number)
    assert process.wait(DEADLINE_S) == 0
    assert "Worker stopped" in output.read_text()


def test_a_worker_names_the_keys_of_distributed_mode_once(running: tuple[subprocess.Popen[str], Path]) -> None:
    text = running[1].read_text()
    assert text.count("These keys mean nothing to this standalone worker: config.storage.topic, group.id (") == 1
    assert "without authentication" not in text


CONNECTOR = '{"name": "quiet", "config": {"connector.class": "RedisHeartbeatSink", "topics": "t", "redis.host": "127.0.0.1"}}'


def test_a_connectors_file_in_the_workers_place_runs_that_connector_with_the_environments_properties(tmp_path: Path) -> None:
    connector, output, port = tmp_path / "connector.json", tmp_path / "output", free_port()
    connector.write_text(CONNECTOR)
    environment = {
        **ENVIRONMENT,
        "CONNECT_BOOTSTRAP_SERVERS": f"{LOOPBACK}:1",
        "CONNECT_LISTENERS": f"http://{LOOPBACK}:{port}",
        "CONNECT_KEY_CONVERTER": STRINGS,
        "CONNECT_VALUE_CONVERTER": STRINGS,
    }
    with (
        output.open("w") as file,
        subprocess.Popen([HEARTBEAT, "connect-standalone", connector], stdout=file, stderr=file, env=environment) as process,
    ):
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not answers(port):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.05)
            with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/connectors", timeout=5) as reply:
                assert reply.read() == b'["quiet"]'
        finally:
            process.kill()


def test_a_connectors_file_alone_ends_with_1_and_says_what_is_missing(tmp_path: Path) -> None:
    connector = tmp_path / "connector.json"
    connector.write_text(CONNECTOR)
    done = run("connect-standalone", connector)
    assert done.returncode == 1
    assert last_words(done) == f"heartbeat: {connector} is a connector's file; the first file must be the worker's properties"


NO_ANSWER = 2
NOBODY = f"http://{LOOPBACK}:1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jso"], "No such option"),
        (["--url"], "--url"),
        (["--url", "127.0.0.1:8080"], "--url: a URL such as"),
        (["--url", ""], "--url: a URL such as"),
        (["more"], "more"),
    ],
)
def test_a_wrong_question_of_status_does_not_end_as_if_somebody_were_down(arguments: list[str], words: str) -> None:
    done = run("status", *arguments)
    assert done.returncode == NO_ANSWER
    assert words in last_words(done)


def test_status_answers_a_program_in_json_whatever_it_was_asked() -> None:
    done = run("status", "--json", "--url", "nonsense")
    assert done.returncode == NO_ANSWER
    assert json.loads(done.stdout)["status"] == "unknown"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["status", "--url", NOBODY], ["monitor", "--check", "FILE"], ["--help"]])
def test_an_output_that_takes_nothing_is_told_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    (file := tmp_path / "monitor.toml").write_text("")
    command = [HEARTBEAT, *(str(file) if word == "FILE" else word for word in arguments)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S, env=ENVIRONMENT)
    assert done.stderr == "heartbeat: [Errno 28] No space left on device\n"
    assert done.returncode == (NO_ANSWER if arguments[0] == "status" else 1)


@pytest.mark.parametrize("output", [">&-", "| true"])
def test_status_whose_output_is_closed_does_not_end_as_if_somebody_were_down(output: str) -> None:
    script = f'"$0" status --url {NOBODY} {output}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script, HEARTBEAT], capture_output=True, text=True, timeout=DEADLINE_S, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (NO_ANSWER, "")
