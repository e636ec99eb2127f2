"""The dead man's switch: a real server that counts, and a clock that is set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from heartbeat.monitor.self_ping import SelfPing
from heartbeat.monitor.settings import Self


@dataclass
class Switch:
    """An outside switch: what it was asked, and what it answers."""

    server: ThreadingHTTPServer
    asked: list[str] = field(default_factory=list)
    status: int = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/ping"


@pytest.fixture
def switch() -> Iterator[Switch]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    found = Switch(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join(10)


@dataclass
class Scene:
    trouble: str = ""
    now_s: float = 0.0


def ping(switch: Switch | None, scene: Scene, url: str = "") -> SelfPing:
    settings = Self(url or (switch.url if switch else "http://127.0.0.1:1/"), 60.0)
    return SelfPing(lambda: settings, lambda: scene.trouble, lambda: scene.now_s)


def test_it_is_asked_at_once_and_then_every_so_often(switch: Switch) -> None:
    scene = Scene()
    made = ping(switch, scene)
    for scene.now_s in (0.0, 30.0, 59.9, 60.0):
        made.turn()
    assert switch.asked == ["/ping", "/ping"]


def test_it_hears_nothing_while_something_is_wrong_and_at_once_when_that_is_over(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene("channel ops: 500")
    made = ping(switch, scene)
    made.turn()
    assert "hears nothing" not in caplog.text
    scene.now_s = 5.0
    made.turn()
    assert switch.asked == []
    assert "hears nothing from us: channel ops: 500" in caplog.text
    scene.trouble, scene.now_s = "", 6.0
    made.turn()
    assert switch.asked == ["/ping"]


@pytest.mark.parametrize("status", [500, 404])
def test_a_switch_that_refuses_is_logged_without_its_url(switch: Switch, status: int, caplog: pytest.LogCaptureFixture) -> None:
    switch.status = status
    ping(switch, Scene()).turn()
    assert "was not reached" in caplog.text
    assert switch.url not in caplog.text


def test_trouble_that_was_told_hides_no_switch_that_is_not_reached(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    switch.status = 500
    scene = Scene("channel ops: 500")
    made = ping(switch, scene)
    for scene.now_s in (0.0, 5.0):
        made.turn()
    scene.trouble, scene.now_s = "", 6.0
    made.turn()
    assert ["hears nothing" in caplog.messages[0], "was not reached" in caplog.messages[1]] == [True, True]


def test_without_one_nothing_is_asked() -> None:
    made = SelfPing(lambda: None, lambda: "", lambda: 0.0)
    assert made.turn() > 0
