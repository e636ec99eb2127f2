"""The two halves of an index, over the connection of the test."""

from __future__ import annotations

import pytest

from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Keyspace
from heartbeat.beats.partitions import Partitions


@pytest.fixture
def keyspace(connection: Connection) -> Keyspace:
    return Keyspace(connection, "c")


@pytest.fixture
def partitions(connection: Connection) -> Partitions:
    return Partitions(connection, "c")
