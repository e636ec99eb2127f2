"""The topic of flips and the cluster's answers, against the embedded broker: it makes no topics and compacts nothing (see tests/real)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import msgspec
import pytest
from tests.monitor.kafka_parts import SetClock, down, eventually, up

from heartbeat.display import utf8
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import ConnectError, RetriableError
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import BLIND, REASON_BLIND, REASON_SIGHTED, SIGHTED, Flip, incident_of, key_of, pipeline_of
from heartbeat.monitor.flips_topic import FlipsTopic, Recorded
from heartbeat.monitor.kafka import Record, Sender, read_to_end
from heartbeat.monitor.settings import Kafka as Settings

PRODUCE = 0
TOPIC_AUTHORIZATION_FAILED = 29
TOPIC = "heartbeat-flips"


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({TOPIC: 1}) as broker:
        yield broker


def topic_at(broker: EmbeddedBroker, clock: SetClock | None = None) -> FlipsTopic:
    settings = Settings(broker.bootstrap)
    cluster = Cluster(settings)
    return FlipsTopic(settings, cluster) if clock is None else FlipsTopic(settings, cluster, clock)


def numbered(*flips: Flip) -> list[Recorded]:
    return [Recorded(flip, f"1700000000000-{n}") for n, flip in enumerate(flips)]


def pipeline(from_: str, to: str, reason: str) -> Flip:
    source = pipeline_of("pumps")
    incident = incident_of("pumps", source, 7)
    return Flip(key_of(incident, to), incident, source, "pumps", from_, to, reason, 7)


def test_what_is_written_is_remembered_with_its_stream_id(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    topic.ensure()
    written = numbered(down("pump:7"), down("fan", connector="fans"))
    topic.write(written)
    assert topic_at(broker).remember(20) == {"pumps": {"pump:7": written[0]}, "fans": {"fan": written[1]}}


def test_records_keep_the_order_of_the_stream_and_are_keyed_by_source(broker: EmbeddedBroker) -> None:
    flips = [flip for n in range(50) for flip in (down(f"pump:{n % 5}", n), up(f"pump:{n % 5}", n))]
    topic_at(broker).write(numbered(*flips))
    records = list(read_to_end(Settings(broker.bootstrap), TOPIC, 20))
    assert [record.key for record in records] == [f"pumps/{flip.source}".encode() for flip in flips]
    assert [dict(record.headers) for record in records] == [{"id": f"1700000000000-{n}".encode()} for n in range(len(flips))]


def test_more_flips_than_the_client_has_room_for_keep_their_order_too(broker: EmbeddedBroker) -> None:
    settings = Settings(broker.bootstrap, properties={"queue.buffering.max.messages": "10"})
    flips = [down(f"pump:{n}") for n in range(100)]
    FlipsTopic(settings, Cluster(settings)).write(numbered(*flips))
    assert [record.key for record in read_to_end(settings, TOPIC, 20)] == [f"pumps/pump:{n}".encode() for n in range(100)]


def test_only_open_incidents_are_remembered(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    topic.write(numbered(down("a"), down("b"), up("a"), pipeline(SIGHTED, BLIND, REASON_BLIND)))
    assert set(topic.remember(20)["pumps"]) == {"b", "pipeline:pumps"}
    topic.write(numbered(up("b"), pipeline(BLIND, SIGHTED, REASON_SIGHTED)))
    assert topic.remember(20) == {}


def test_the_newest_of_several_incidents_is_remembered_however_often_they_are_written(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    flips = numbered(down("a", 1000), up("a", 1000), down("a", 2000))
    for _ in range(3):
        topic.write(flips)
    assert topic.remember(20) == {"pumps": {"a": flips[-1]}}


def test_tombstones_take_sources_out_of_memory(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    topic.write(numbered(down("a"), down("b")))
    topic.tombstones([("pumps", "a")])
    assert set(topic.remember(20)["pumps"]) == {"b"}


def test_nothing_of_a_forgotten_connector_is_remembered(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    topic.write(numbered(down("a"), down("b"), up("b"), down("a", connector="fans")))
    topic.forget("pumps", 20)
    assert list(topic.remember(20)) == ["fans"]


@pytest.mark.parametrize("source", ["pump/7", "", "물펌프", "two\nlines", "b\udcffytes", "\u202eright"])
def test_a_source_of_any_name_comes_back_under_it(broker: EmbeddedBroker, source: str) -> None:
    topic = topic_at(broker)
    flip = down(utf8(source), connector="pumps/north")
    topic.write(numbered(flip))
    assert topic.remember(20)["pumps/north"][utf8(source)].flip == flip
    topic.tombstones([("pumps/north", source)])
    assert topic.remember(20) == {}


def test_records_that_are_no_flips_are_passed_over_and_counted_once(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    topic = topic_at(broker)
    topic.write(numbered(down("a")))
    sender = Sender(Settings(broker.bootstrap), {})
    settled: list[object] = []
    misplaced = msgspec.json.encode(down("a"))
    for key, value in [
        (b"pumps/d", misplaced),
        (b"x", b"{"),
        (None, b"\xff\xfe"),
        (b"pumps/b", b'{"key": 1}'),
        (b"pumps/c", b"[" * 100_000),
        (None, None),
    ]:
        assert sender.send(Record(TOPIC, key, value), settled.append)

    def all_sent() -> bool:
        sender.poll(0.1)
        return len(settled) == 6

    eventually(all_sent, "all sent")
    with caplog.at_level(logging.WARNING, "heartbeat"):
        assert set(topic.remember(20)["pumps"]) == {"a"}
    assert [line.getMessage() for line in caplog.records] == [f"5 records of topic {TOPIC} are no flips: they are passed over"]


def test_where_there_is_no_topic_nothing_is_remembered() -> None:
    with EmbeddedBroker() as broker:
        assert topic_at(broker).remember(20) == {}
        broker.create_topic(TOPIC)  # raises if reading has made it


def test_a_broker_that_is_away_passes_and_what_is_written_again_arrives(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    topic = topic_at(broker, clock)
    topic.write(numbered(down("a")))
    broker.set_down()
    clock.step_s = 1.0
    with pytest.raises(RetriableError, match="did not acknowledge"):
        topic.write(numbered(up("a"), down("b")))
    broker.set_up()
    clock.step_s = 0.0

    def written() -> bool:
        try:
            topic.write(numbered(up("a"), down("b")))
        except RetriableError:
            return False
        return True

    eventually(written, "written again")
    assert set(topic.remember(20)["pumps"]) == {"b"}


def test_what_was_given_up_does_not_arrive_behind_what_was_written_later(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    topic = topic_at(broker, clock)
    broker.set_down()
    clock.step_s = 1.0
    with pytest.raises(RetriableError):
        topic.write(numbered(down("a")))
    clock.step_s = 0.0
    broker.set_up()
    topic_at(broker).write(numbered(down("a"), up("a")))
    topic.tombstones([("pumps", "nobody")])  # from the same client: what it still held would have gone before this
    records = list(read_to_end(Settings(broker.bootstrap), TOPIC, 20))
    assert [(record.key, record.value is None) for record in records] == [(b"pumps/a", False), (b"pumps/a", False), (b"pumps/nobody", True)]


def test_a_refusal_for_good_says_so(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    broker.fail_requests(PRODUCE, [TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(ConnectError, match="TOPIC_AUTHORIZATION_FAILED") as refused:
        topic.write(numbered(down("a")))
    assert not isinstance(refused.value, RetriableError)


def test_a_broker_that_makes_no_topics_is_a_refusal_for_good() -> None:
    with EmbeddedBroker() as broker, pytest.raises(ConnectError, match=TOPIC) as refused:
        topic_at(broker).ensure()
    assert not isinstance(refused.value, RetriableError)


def test_reading_while_the_broker_is_away_ends_in_time_and_passes(broker: EmbeddedBroker) -> None:
    topic = topic_at(broker)
    broker.set_down()
    with pytest.raises(RetriableError, match=TOPIC):
        topic.remember(0.5)


def test_a_cluster_is_reachable_from_when_it_was_asked_to_when_it_no_longer_answers(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    cluster = Cluster(Settings(broker.bootstrap), clock)
    assert cluster.reachable(5000) is None
    eventually(lambda: cluster.reachable(5500) == 5000, "the first answer, dated when it was asked for")
    clock.now_s += 1
    cluster.reachable(6000)
    eventually(lambda: cluster.reachable(6500) == 6000, "the second answer")
    broker.set_down()
    clock.now_s += 1
    asked_s = time.monotonic()
    assert cluster.reachable(7000) == 6000
    while time.monotonic() < asked_s + 0.5:  # wide of an answer's time, were there one
        clock.now_s += 1
        assert cluster.reachable(8000) == 6000
    broker.set_up()

    def answers() -> bool:
        clock.now_s += 1
        return cluster.reachable(9000) == 9000

    eventually(answers, "reachable again")
