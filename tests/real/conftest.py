"""The real parts that a test run shares, and the logs of whatever ran while a test failed.

This directory is the mark: ``pytest tests --ignore=tests/real`` leaves everything out that needs a real part.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from . import parts
from .broker import Kafka
from .parts import ConnectWorker, HeartbeatWorker, Redis
from .programs import LOGS, tail


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Kafka 4.1 in KRaft mode, shared: take a topic and a connector name of your own."""
    with parts.kafka_4_1(tmp_path_factory.mktemp("kafka-4.1")) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def kafka_zk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Kafka 3.4 with ZooKeeper 3.6, shared."""
    with parts.kafka_3_4(tmp_path_factory.mktemp("kafka-3.4")) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def redis_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """The Redis server behind ``redis``."""
    with parts.redis_server(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture
def redis(redis_session: Redis) -> Redis:
    """A Redis server without any key."""
    redis_session.cli("FLUSHALL")
    return redis_session


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka) -> Iterator[HeartbeatWorker]:
    """A worker of ours on ``kafka``, shared by the tests of a module."""
    with parts.heartbeat_worker(tmp_path_factory.mktemp("worker"), kafka) as worker:
        yield worker


@pytest.fixture(scope="session")
def connect_jvm(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka) -> Iterator[ConnectWorker]:
    """Kafka's own Connect worker, shared."""
    with parts.connect_jvm(tmp_path_factory.mktemp("connect-jvm"), kafka) as worker:
        yield worker


def _written_since(path: Path, started_s: float) -> bool:
    return path.exists() and path.stat().st_size > 0 and path.stat().st_mtime >= started_s


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the real parts have written meanwhile."""
    report = yield
    if report.failed:
        report.sections += [
            (f"log of {path.stem} in {path.parent.name}", tail(path)) for path in LOGS if _written_since(path, time.time() - call.duration)
        ]
    return report
