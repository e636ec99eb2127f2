"""What Kafka remembers, asked for by connectors that never wait: against an embedded broker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
from tests.monitor.kafka_parts import down, up
from tests.real.programs import free_port

from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import ConnectError, RetriableError
from heartbeat.monitor.beyond import KafkaSide, Nothing
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic, Recorded
from heartbeat.monitor.settings import Kafka

DEADLINE_S = 30.0
NOW_MS = 10_000_000


@pytest.fixture
def settings() -> Iterator[Kafka]:
    with EmbeddedBroker({"heartbeat-flips": 1}) as broker:
        yield Kafka(broker.bootstrap, canary=False)


def written(settings: Kafka, *recorded: tuple[Flip, str]) -> None:
    FlipsTopic(settings, Cluster(settings)).write([Recorded(flip, id_) for flip, id_ in recorded])


def asked(side: KafkaSide, connector: str, after: str = "") -> Sequence[Flip]:
    """Ask until there is an answer."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            found = side.remember(connector, after)
        except RetriableError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            assert found is not None
            return found


def test_what_is_open_and_what_ended_lately_comes_back_in_its_order(settings: Kafka) -> None:
    lately, long_ago = f"{NOW_MS - 1_000}-0", f"{NOW_MS - 900_000}-0"
    written(settings, (down("a"), "7-0"), (up("b"), lately), (up("c"), long_ago), (down("d"), f"{NOW_MS}-0"))
    side = KafkaSide(settings, lambda: NOW_MS)
    assert [(flip.source, flip.to) for flip in asked(side, "pumps")] == [("a", "DOWN"), ("b", "UP"), ("d", "DOWN")]


def test_what_redis_still_has_is_left_out(settings: Kafka) -> None:
    written(settings, (down("a"), "7-0"), (down("b"), "7-1"), (down("c"), "8-0"))
    side = KafkaSide(settings, lambda: NOW_MS)
    assert [flip.source for flip in asked(side, "pumps", "7-1")] == ["c"]


def test_each_connector_gets_its_own_though_they_ask_at_once(settings: Kafka) -> None:
    written(settings, (down("a"), "7-0"), (down("b", connector="fans"), "7-0"))
    side = KafkaSide(settings, lambda: NOW_MS)
    for connector in ("pumps", "fans"):
        with pytest.raises(RetriableError):
            side.remember(connector, "")
    assert [flip.source for flip in asked(side, "fans")] == ["b"]
    assert [flip.source for flip in asked(side, "pumps")] == ["a"]


def test_what_is_asked_again_is_read_again(settings: Kafka) -> None:
    side = KafkaSide(settings, lambda: NOW_MS)
    assert asked(side, "pumps") == []
    written(settings, (down("a"), "7-0"))
    assert [flip.source for flip in asked(side, "pumps")] == ["a"]


def test_what_is_asked_again_is_read_again_though_another_never_came_for_its_answer(settings: Kafka) -> None:
    side = KafkaSide(settings, lambda: NOW_MS)
    for connector in ("pumps", "fans"):
        with pytest.raises(RetriableError):
            side.remember(connector, "")
    assert asked(side, "pumps") == []
    written(settings, (down("a"), "7-0"))
    assert [flip.source for flip in asked(side, "pumps")] == ["a"]


def test_a_broker_that_is_away_is_an_error_and_not_waited_for() -> None:
    side = KafkaSide(Kafka(f"127.0.0.1:{free_port()}", canary=False), lambda: NOW_MS)
    with pytest.raises(ConnectError):
        side.remember("pumps", "")


def test_without_kafka_nothing_is_known_and_nothing_asked_for() -> None:
    nothing = Nothing()
    nothing.forget("pumps")
    assert (nothing.remember("pumps", ""), nothing.broker_ms(), nothing.canaries_required("pumps")) == (None, None, False)
