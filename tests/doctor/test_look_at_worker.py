"""Whatever answers at a worker's address, the look ends in its time, and says why it came to nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.real.programs import free_port

from heartbeat import logs
from heartbeat.doctor import worker
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.errors import ConnectError, UsageError

DEADLINE_S = 30.0
EXPANDED = {
    "c": {
        "info": {"name": "c", "config": {"topics": "t", "gone": None}, "tasks": [], "type": "sink"},
        "status": {
            "name": "c",
            "connector": {"state": "RUNNING", "worker_id": "w", "version": "1"},
            "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w", "trace": "a\nb"}],
            "type": "sink",
        },
    }
}
INFO = {"version": "4.1.0", "commit": "0.1.0", "kafka_cluster_id": "abc"}


def reply(body: object, status: str = "200 OK") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


@contextmanager
def answering(*replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these replies, one a connection, and then is silent; what it was asked."""
    asked: list[bytes] = []
    done = threading.Event()

    def serve() -> None:
        for content in replies:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                asked.append(connection.recv(65536))
                connection.sendall(content)
        done.wait(DEADLINE_S)

    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(DEADLINE_S)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.getsockname()[1]}", asked
        finally:
            done.set()
            thread.join(DEADLINE_S)


def test_a_worker_is_asked_twice_for_everything() -> None:
    with answering(reply(EXPANDED), reply(INFO)) as (url, asked):
        found = worker.look(url)
    assert (found.version, found.commit, found.cluster_id) == ("4.1.0", "0.1.0", "abc")
    known = found.connectors["c"]
    assert (known.state, known.tasks[0].state, known.tasks[0].trace) == ("RUNNING", "FAILED", "a\nb")
    assert known.config == {"topics": "t", "name": "c"}
    assert len(asked) == 2


def test_what_a_worker_says_of_itself_hides_no_connector() -> None:
    with answering(reply(EXPANDED), reply({}, "500 Server Error")) as (url, _):
        found = worker.look(url)
    assert found.version is None
    assert list(found.connectors) == ["c"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (reply({}, "503 Starting"), "it answers 503 Starting"),
        (reply(b"<html>"), "not answer as Kafka Connect"),
        (reply(["a"]), "not answer as Kafka Connect"),
        (reply(b"\xff"), "not answer as Kafka Connect"),
        (b"220 mail\r\n", "not answer as Kafka Connect"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"c":', "not answer as Kafka Connect"),
    ],
)
def test_a_stranger_at_the_address_is_told_as_such(content: bytes, words: str) -> None:
    with answering(content) as (url, _), pytest.raises(ConnectError, match=words):
        worker.look(url)


def test_a_worker_that_accepts_and_is_silent_is_given_up() -> None:
    with answering() as (url, _), pytest.raises(ConnectError, match="no answer in 4 s"):
        worker.look(url)


def test_nobody_at_the_address_is_told_at_once() -> None:
    with pytest.raises(ConnectError, match="refused"):
        worker.look(f"http://{LOOPBACK}:{free_port()}")


def test_a_user_in_the_address_is_sent_and_the_password_is_a_secret() -> None:
    with answering(reply(EXPANDED), reply(INFO)) as (url, asked):
        worker.look(url.replace("://", "://me:url%20pass@"))
    assert b"Authorization: Basic bWU6dXJsIHBhc3M=" in asked[0]
    assert logs.secrets.clean("url%20pass url pass") == "[hidden] [hidden]"


@pytest.mark.parametrize("url", ["127.0.0.1:8083", "ftp://x", "http://", "http://x:y", "http://x:0", "http://[x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--rest"):
        worker.address(url)
