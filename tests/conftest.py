"""Settings for every test, and a real Redis for those that ask for one: expiry and scripts are what they are about."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.patience import patient

from heartbeat.beats.connection import Connection
from heartbeat.embedded.redis import EmbeddedRedis

# A machine that is busy must not fail a property: no time limit per example, none on making them. Failures print how to repeat them.
settings.register_profile("noisy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("noisy-machine")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Callable[..., Connection]]:
    with contextlib.ExitStack() as stack:

        def open_(host: str, port: int, **more: Any) -> Connection:
            connection = Connection(patient(host, port, **more))
            stack.callback(connection.close)
            return connection

        yield open_


@pytest.fixture
def connection(server: EmbeddedRedis, opened: Callable[..., Connection]) -> Connection:
    """A connection to an empty server."""
    connection = opened(server.host, server.port)
    connection.execute("FLUSHALL")
    return connection
