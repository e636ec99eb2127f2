"""The overlay with the current Kafka, without ZooKeeper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import stack as stacks
from .engine import Engine
from .stack import Stack


@pytest.fixture(scope="module")
def kraft(engine: Engine, parent: Path) -> Iterator[Stack]:
    """The stack with the overlay, healthy, with the connector running."""
    with stacks.copied("heartbeat-kraft", parent, "docker-compose.yml", "compose.kraft.yml") as stack:
        stack.up()
        stack.set_up()
        stack.wait_for_running()
        yield stack


def test_zookeeper_and_its_volumes_are_gone(kraft: Stack) -> None:
    config = json.loads(kraft.compose("config", "--format", "json"))
    assert "zookeeper" not in config["services"]
    assert set(config["volumes"]) == kraft.volumes() == {"kraft-data", "redis-data", "connect-config"}
    assert "ZOOKEEPER" not in json.dumps(config["services"]["kafka"]).upper()


def test_a_beat_by_kafkas_own_producer_and_one_through_the_published_port_arrive(kraft: Stack) -> None:
    kraft.exec("test-runner", "kafka-console-producer", "--topic", "heartbeat-topic", "--bootstrap-server", "kafka:29092", input="beat\n")
    kraft.wait_for_beat(kraft.produce("from the host"))


def test_records_outlive_the_container(kraft: Stack) -> None:
    beat_ms = kraft.produce("kept")
    kraft.wait_for_beat(beat_ms)
    kraft.down()
    kraft.up()
    reader = "kafka-console-consumer --topic heartbeat-topic --bootstrap-server kafka:29092 --from-beginning --max-messages 3"
    assert kraft.exec("test-runner", *reader.split()).splitlines()[-1] == "kept"
    kraft.wait_for_running()
    kraft.wait_for_beat(kraft.produce("after the return"))
