"""The forward is tried with plain sockets; what it is for, kcat, is tried in test_embedded_broker."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from tests.real.programs import free_port

from heartbeat.embedded.ports import LOOPBACK, Forward, require_free
from heartbeat.errors import StartError

DEADLINE_S = 10.0


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"echo " + line)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def echo() -> Iterator[str]:
    with EchoServer((LOOPBACK, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"{LOOPBACK}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S)


def ask(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line + b"\n")
    return connection.makefile("rb").readline()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_bytes_pass_in_both_directions_on_several_connections(echo: str) -> None:
    with Forward(0, to=echo) as forward, connect(forward.port) as first, connect(forward.port) as second:
        assert ask(first, b"one") == b"echo one\n"
        assert ask(second, b"two") == b"echo two\n"
        assert ask(first, b"three") == b"echo three\n"


def test_more_bytes_than_any_buffer_holds_arrive_complete(echo: str) -> None:
    line = b"x" * 3_000_000
    with Forward(0, to=echo) as forward, connect(forward.port) as connection:
        assert ask(connection, line) == b"echo " + line + b"\n"


def test_closing_ends_the_connections_and_frees_the_port(echo: str) -> None:
    forward = Forward(0, to=echo)
    with connect(forward.port) as connection:
        assert ask(connection, b"one") == b"echo one\n"
        forward.close()
        forward.close()
        assert is_closed(connection)
    require_free(forward.port)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("forward-")]


def test_a_connection_above_the_bound_is_closed_and_one_that_ends_makes_room(echo: str) -> None:
    with Forward(0, to=echo, most=1) as forward:
        with connect(forward.port) as first:
            assert ask(first, b"one") == b"echo one\n"
            with connect(forward.port) as second:
                assert is_closed(second)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with connect(forward.port) as third:
                third.sendall(b"three\n")
                if not is_closed(third):
                    break
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_target_that_is_down_closes_the_client_and_not_the_forward() -> None:
    with Forward(0, to=f"{LOOPBACK}:{free_port()}") as forward:
        for _ in range(2):
            with connect(forward.port) as connection:
                assert is_closed(connection)


def test_a_taken_port_is_named_together_with_the_option(echo: str) -> None:
    port = int(echo.rpartition(":")[2])
    with pytest.raises(StartError) as raised:
        Forward(port, to=echo, option="--kafka-port")
    assert str(raised.value) == f"Cannot listen on port {port} of 127.0.0.1: it is already in use; choose another with --kafka-port."
    with pytest.raises(StartError, match=rf"^Cannot listen on port {port} of 127\.0\.0\.1: it is already in use\.$"):
        require_free(port)


def test_a_port_that_somebody_holds_on_all_addresses_is_taken_too() -> None:
    with socket.create_server(("", 0)) as other, pytest.raises(StartError, match="already in use"):
        require_free(other.getsockname()[1])


def test_a_port_is_free_again_at_once_after_a_connection_that_we_closed(echo: str) -> None:
    with Forward(0, to=echo) as forward, connect(forward.port) as connection:
        assert ask(connection, b"one") == b"echo one\n"
        forward.close()
    with Forward(forward.port, to=echo), connect(forward.port) as connection:
        assert ask(connection, b"two") == b"echo two\n"
