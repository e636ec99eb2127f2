"""A real Redis for the tests of this folder: verdicts are scripts, so nothing imitates it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from heartbeat.beats.connection import Connection, Server
from heartbeat.embedded.redis import EmbeddedRedis


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Callable[..., Connection]]:
    with contextlib.ExitStack() as stack:

        def open_(host: str, port: int, **more: Any) -> Connection:
            connection = Connection(Server(host, port, **more))
            stack.callback(connection.close)
            return connection

        yield open_


@pytest.fixture
def connection(server: EmbeddedRedis, opened: Callable[..., Connection]) -> Connection:
    """A connection to an empty server."""
    connection = opened(server.host, server.port)
    connection.execute("FLUSHALL")
    return connection
