"""The README's alert, typed by a shell: a monitor with a Slack channel tells of a failure once, and of the recovery once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from . import parts
from .broker import ROOT, Kafka
from .parts import HeartbeatWorker, Redis
from .programs import Program, answers, eventually, free_port
from .scenario import Connector, sink_config, unique

ALERT = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- alert")[1].split("<!-- end of alert")[0]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TTL_S = 5
CHANGING = ((r"\d\d:\d\d:\d\d", "TIME"), (r"was down for|was down [^,]+,", "was down,"), (r"\d+ beats? missed", "N missed"))
"""What of a message depends on when it is sent."""


class Slack:
    """Stands in for Slack: takes every message, and keeps its text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        texts = self.texts

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                texts.append(body["text"])
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/services/T0/B0/secret"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()

    def told(self, word: str) -> list[str]:
        """Return the messages that begin with a word."""
        return [text for text in self.texts if text.startswith(f"{word} ")]


@pytest.fixture
def slack() -> Iterator[Slack]:
    slack = Slack()
    yield slack
    slack.close()


@pytest.fixture
def worker(tmp_path: Path, kafka: Kafka) -> Iterator[HeartbeatWorker]:
    with parts.heartbeat_worker(tmp_path, kafka) as worker:
        yield worker


def here(text: str, addresses: Mapping[str, str]) -> str:
    """Put the addresses of this test in the place of those that the README shows."""
    for shown, address in addresses.items():
        assert shown in ALERT, f"the README no longer says {shown}"
        text = text.replace(shown, address)
    return text


def typed(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    argv = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(argv, cwd=directory, env=parts.clean_environment(), capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def left_running(command: str, directory: Path) -> Iterator[Program]:
    """Type lines of which the last does not end by itself."""
    *before, last = command.splitlines()
    argv = ["bash", "-euo", "pipefail", "-c", "\n".join([*before, f"exec {last}"])]
    program = Program("monitor", argv, directory, parts.clean_environment())
    try:
        program.start()
        yield program
    finally:
        program.end()


def shape(text: str) -> str:
    """A message without what differs each time."""
    for changing, name in CHANGING:
        text = re.sub(changing, name, text)
    return text


def test_the_readmes_alert_tells_slack_of_a_failure_once_and_of_the_recovery_once(
    tmp_path: Path, worker: HeartbeatWorker, kafka: Kafka, redis: Redis, slack: Slack
) -> None:
    topic, port = kafka.create_topic(unique("alert")), free_port()
    connector = Connector(worker, kafka, unique("sink"))
    connector.put(sink_config(redis, topic, {"redis.key": "heartbeat", "redis.ttl": str(TTL_S)}))
    addresses = {
        "https://hooks.slack.com/...": slack.url,
        "127.0.0.1:6379": f"127.0.0.1:{redis.port}",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "localhost:9092": kafka.bootstrap,
        "heartbeat-topic": topic,
        "redis-heartbeat-sink": connector.name,
        "heartbeat status": f"heartbeat status --url http://127.0.0.1:{port}",
        ".venv/bin/heartbeat": os.path.relpath(Path(sys.executable).with_name("heartbeat"), tmp_path),
    }
    blocks = [here(text, addresses).strip() for _, text in FENCE.findall(ALERT)]
    settings, monitor, tried, beat, down, status, recovery, up = blocks

    assert typed(settings, tmp_path).returncode == 0
    with left_running(monitor, tmp_path) as running:
        running.wait_until(lambda: "Monitor started" in running.log() and answers(port), timeout_s=60)
        assert re.sub(r"\d+ ms", "N ms", tried) in re.sub(r"\d+ ms", "N ms", running.log())
        assert len(slack.told("TEST")) == 1
        assert typed(beat, tmp_path).returncode == 0
        eventually(lambda: slack.told("DOWN"), "Slack is told of the failure", timeout_s=90)
        seen = typed(status, tmp_path)
        assert (seen.returncode, seen.stdout.split()[7:9]) == (1, ["heartbeat", "DOWN"]), seen
        assert typed(recovery, tmp_path).returncode == 0
        eventually(lambda: slack.told("UP"), "Slack is told of the recovery", timeout_s=60)
        # Whatever was stored has been delivered when the channel's cursor is at the end of the flips.
        eventually(lambda: cursor(redis, connector.name) == newest(redis, connector.name), "everything is delivered")
        assert running.terminate() == 0
    assert [shape(text) for text in slack.told("DOWN")] == [shape(down)]
    assert [shape(text) for text in slack.told("UP")] == [shape(up)]
    assert slack.url not in (tmp_path / "monitor.log").read_text(), "the address is a secret"


def cursor(redis: Redis, connector: str) -> str:
    return redis.cli("HGET", "hb:{}:channel:chat", f"at:{connector}")


def newest(redis: Redis, connector: str) -> str:
    return redis.cli("--raw", "XREVRANGE", f"hb:{{{connector}}}:flips", "+", "-", "COUNT", "1").split("\n")[0]
