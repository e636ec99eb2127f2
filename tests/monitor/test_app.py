"""The whole monitor in this process, on a real Redis: what its file says, it does; what the file comes to say, it does from then on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.monitor.judging import Index

from heartbeat.beats.connection import Connection, Server
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import InvalidConfig, StartError, UsageError
from heartbeat.monitor import app
from heartbeat.monitor.app import Monitor

DEADLINE_S = 20.0


def eventually(reached: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def toml(server: EmbeddedRedis, channel: str = "ops", more: str = "") -> str:
    return f"""[monitor]
listen = "127.0.0.1:0"
group_wait_s = 0
[redis]
url = "redis://{server.host}:{server.port}/0"
[defaults]
channels = ["{channel}"]
{more}
[[channel]]
name = "{channel}"
type = "log"
"""


@pytest.fixture
def file(tmp_path: Path, server: EmbeddedRedis) -> Path:
    path = tmp_path / "monitor.toml"
    path.write_text(toml(server))
    return path


@pytest.fixture
def monitor(file: Path, connection: Connection) -> Iterator[Monitor]:
    running = Monitor(file, {})
    running.start()
    yield running
    running.stop()


def test_a_silence_is_seen_told_and_no_trouble(monitor: Monitor, connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    index = Index(connection)
    index.beat("pump", at=-80_000)
    index.prove()
    eventually(lambda: "DOWN pump: silent since" in caplog.text, "the log channel tells")
    eventually(lambda: monitor.observation().connectors["pumps"].down == 1, "it is counted")
    assert monitor.trouble() == ""


def test_a_channel_that_takes_anothers_place_is_delivered_to_from_then_on(
    monitor: Monitor, file: Path, server: EmbeddedRedis, connection: Connection
) -> None:
    assert [state.channel for state in monitor.channels()] == ["ops"]
    file.write_text(toml(server, "night"))
    monitor.ask()
    eventually(lambda: [state.channel for state in monitor.channels()] == ["night"], "the file is applied")
    index = Index(connection)
    index.beat("pump", at=-80_000)
    index.prove()
    eventually(lambda: monitor.channels()[0].last_success_ms, "the new channel has it")


def test_a_broken_file_changes_nothing_and_is_told(monitor: Monitor, file: Path) -> None:
    file.write_text("[monitr]\n")
    monitor.ask()
    eventually(lambda: monitor.settings().errors, "the errors are told")
    assert "line 1: unknown table" in monitor.settings().errors[0]
    assert [state.channel for state in monitor.channels()] == ["ops"]


def test_settings_that_tell_nobody_are_applied_with_a_warning(monitor: Monitor, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(f'[redis]\nurl = "{monitor.live.redis.url}"\n')
    eventually(lambda: "nobody is told of sources that no rule matches" in caplog.text, "it is said what the file comes to")


def test_what_takes_effect_with_the_next_start_is_said_once(
    monitor: Monitor, file: Path, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    before = file.read_text()
    wrong = before + '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[kafka.properties]\nfoo.bar = 1\n'
    file.write_text(wrong)
    eventually(
        lambda: "the monitor would not start again: The Kafka client does not take" in caplog.text, "it is said before it is too late"
    )
    assert "[kafka] has changed: that takes effect when the monitor is started again" in caplog.text
    caplog.clear()
    file.write_text(before)
    eventually(lambda: monitor.live.kafka is None, "it is as it was")
    assert "has changed" not in caplog.text
    file.write_text(wrong)
    with pytest.raises(InvalidConfig, match=r"\[kafka\]: The Kafka client does not take"):
        Monitor(file, {})


def test_a_redis_that_refuses_us_brings_no_trace(tmp_path: Path, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text(toml(server).replace("/0", "/9999"))
    running = Monitor(path, {})
    running.start()
    try:
        eventually(lambda: "Nothing can be looked at" in caplog.text, "it is said that Redis refuses us")
        assert running._trim(Connection(Server(server.host, server.port, 9_999))) > 0
    finally:
        running.stop()
    assert "Traceback" not in caplog.text


def test_a_blind_connector_is_trouble(monitor: Monitor, connection: Connection) -> None:
    Index(connection).prove(-60_000)
    eventually(lambda: "connector pumps" in monitor.trouble(), "the dead man's switch must not be told that all is well")


def test_a_monitor_that_starts_before_its_redis_says_so_and_ends_in_time(tmp_path: Path) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text('[monitor]\nlisten = "127.0.0.1:0"\n[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    running = Monitor(path, {})
    running.start()
    try:
        eventually(lambda: running.observation().error, "it says what it cannot reach")
        assert running.trouble()
    finally:
        begun_s = time.monotonic()
        running.stop()
    assert time.monotonic() - begun_s < 10


def test_channels_that_hang_in_a_sending_hold_up_no_end(
    file: Path, server: EmbeddedRedis, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short time to end in, and many that hang: one machine may be late by seconds, and the other end still be too long."""
    monkeypatch.setattr(app, "_STOP_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        more = "".join(f'[[channel]]\nname = "hook-{n}"\ntype = "webhook"\nurl = "{url}"\n' for n in range(6))
        hooks = ", ".join(f'"hook-{n}"' for n in range(6))
        file.write_text(toml(server).replace('channels = ["ops"]', f'channels = ["ops", {hooks}]') + more)
        running = Monitor(file, {})
        running.start()
        index = Index(connection)
        index.beat("pump", at=-80_000)
        index.prove()
        eventually(lambda: [state.pending for state in running.channels()] == [0, *[1] * 6], "six hang in a sending")
        begun_s = time.monotonic()
        running.stop()
        assert time.monotonic() - begun_s < 5.5  # one after the other: six, or as long as a sending may take, eight


class Revoked(BaseHTTPRequestHandler):
    """A receiver that nobody can post to any more."""

    def do_POST(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def test_a_channel_that_refuses_for_good_is_trouble(file: Path, server: EmbeddedRedis, connection: Connection) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Revoked) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        hook = f'[[channel]]\nname = "hook"\ntype = "webhook"\nurl = "http://127.0.0.1:{receiver.server_port}/"\n'
        file.write_text(toml(server, more=hook).replace('["ops"]', '["ops", "hook"]'))
        running = Monitor(file, {})
        running.start()
        try:
            index = Index(connection)
            index.beat("pump", at=-80_000)
            index.prove()
            eventually(lambda: [state.lost for state in running.channels() if state.channel == "hook"] == [1], "it was refused")
            index.prove()
            eventually(lambda: running.trouble() == "channel hook: HTTP 404", "the dead man's switch must not be told that all is well")
        finally:
            running.stop()
            receiver.shutdown()


@pytest.mark.parametrize(
    "environment", [("SSL_CERT_FILE", "/nowhere"), ("http_proxy", "socks5://proxy:1080"), ("http_proxy", "proxy:secret")]
)
def test_a_channel_that_cannot_be_opened_is_told_and_holds_up_no_other(
    file: Path, server: EmbeddedRedis, monitor: Monitor, environment: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*environment)
    hook = '[[channel]]\nname = "hook"\ntype = "webhook"\nurl = "http://receiver.invalid/"\n'
    file.write_text(toml(server, "night", hook).replace('["night"]', '["night", "hook"]'))
    monitor.ask()
    eventually(lambda: [state.channel for state in monitor.channels()] == ["night"], "the other one is delivered to")
    eventually(lambda: monitor.trouble().startswith("channel hook: the "), "the dead man's switch must not be told that all is well")
    (error,) = monitor.settings().errors
    assert "cannot be used" in error
    assert "secret" not in error
    with pytest.raises(StartError, match="channel hook: the "):
        app.test_channel(file, "hook", {})


def test_a_test_message_goes_to_a_channel_of_the_settings(file: Path) -> None:
    text, code = app.test_channel(file, "ops", {})
    assert (text.partition(",")[0], code) == ("Channel ops", 0)
    with pytest.raises(UsageError, match=r"has no channel 'opps'.+`ops`"):
        app.test_channel(file, "opps", {})


def test_settings_that_cannot_be_used_start_nothing(tmp_path: Path) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text("[[channel]]\nname = 1\n")
    with pytest.raises(InvalidConfig):
        Monitor(path, {})
