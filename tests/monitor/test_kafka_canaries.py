"""Canaries, against the embedded broker: it answers and refuses as a broker does, but replicates nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from tests.monitor.kafka_parts import SetClock, eventually

from heartbeat.beats.canaries import HEADER
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import ConnectError
from heartbeat.monitor.canary import Canaries, Partition
from heartbeat.monitor.kafka import read_to_end
from heartbeat.monitor.settings import Kafka as Settings

PRODUCE = 0
TOPIC_AUTHORIZATION_FAILED = 29
INVALID_RECORD = 87
BEATS: Mapping[str, list[Partition]] = {"pumps": [("beats", 0), ("beats", 1)]}


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"beats": 2, "other": 1}) as broker:
        yield broker


def fly(canaries: Canaries, partitions: Mapping[str, list[Partition]], now_ms: int = 5000) -> None:
    """Take turns until each partition has had this canary acknowledged."""

    def flown() -> bool:
        canaries.turn(partitions, now_ms)
        return all(canaries.state.acknowledged_ms.get(partition) == now_ms for known in partitions.values() for partition in known)

    eventually(flown, f"canaries of {now_ms} in {partitions}: {canaries.state}")


def sent(broker: EmbeddedBroker, topic: str = "beats") -> Counter[int]:
    return Counter(record.partition for record in read_to_end(Settings(broker.bootstrap), topic, 20))


def test_every_partition_gets_a_record_that_is_no_beat_and_carries_its_time(broker: EmbeddedBroker) -> None:
    fly(Canaries(Settings(broker.bootstrap), SetClock()), BEATS, 1_700_000_000_123)
    records = list(read_to_end(Settings(broker.bootstrap), "beats", 20))
    assert sorted(record.partition for record in records) == [0, 1]
    assert {(record.key, record.value, tuple(record.headers)) for record in records} == {(None, None, ((HEADER, b"1700000000123"),))}


def test_a_partition_gets_its_next_canary_when_it_is_due_and_not_before(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    canaries = Canaries(Settings(broker.bootstrap, canary_every_s=2.0), clock)
    fly(canaries, BEATS, 5000)
    clock.now_s += 1.9
    canaries.turn(BEATS, 6900)
    assert sent(broker) == {0: 1, 1: 1}
    clock.now_s += 0.1
    fly(canaries, BEATS, 7000)
    assert sent(broker) == {0: 2, 1: 2}


def test_no_canary_is_sent_behind_one_that_is_not_settled(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    canaries = Canaries(Settings(broker.bootstrap), clock)
    broker.set_down()
    for turn in range(5):
        canaries.turn(BEATS, 5000 + turn)
        clock.now_s += 100
    assert canaries.state.acknowledged_ms == {}
    assert canaries.required("pumps")
    broker.set_up()
    fly(canaries, BEATS, 9000)
    assert max(sent(broker).values()) <= 2


def test_a_topic_that_refuses_canaries_is_not_asked_for_them_and_that_is_said_once(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SetClock()
    canaries = Canaries(Settings(broker.bootstrap), clock)
    both: dict[str, list[Partition]] = {**BEATS, "fans": [("other", 0)]}
    fly(canaries, both)
    assert canaries.required("pumps")
    assert canaries.required("fans")
    broker.fail_requests(PRODUCE, [INVALID_RECORD])
    clock.now_s += 2
    with caplog.at_level(logging.WARNING, "heartbeat"):
        fly_until_refused(canaries, {"fans": both["fans"]}, "other")
        for _ in range(3):
            clock.now_s += 100
            canaries.turn(both, 6000)
    assert not canaries.required("fans")
    assert canaries.required("pumps")
    assert [line.getMessage().partition(":")[0] for line in caplog.records] == ["Topic other takes no canaries"]
    assert "INVALID_RECORD" in canaries.state.errors["other", 0]
    assert sent(broker, "other") == {0: 1}


def fly_until_refused(canaries: Canaries, partitions: Mapping[str, list[Partition]], topic: str) -> None:
    def refused() -> bool:
        canaries.turn(partitions, 5500)
        return topic in canaries.state.refused

    eventually(refused, f"{topic} refuses canaries: {canaries.state}")


def test_a_canary_that_was_under_way_when_its_topic_refused_ends_no_refusal(broker: EmbeddedBroker) -> None:
    canaries = Canaries(Settings(broker.bootstrap), SetClock())
    broker.fail_requests(PRODUCE, [INVALID_RECORD])  # the first of two

    def settled() -> bool:
        canaries.turn(BEATS, 5000)
        return len(canaries.state.acknowledged_ms) == len(canaries.state.errors) == 1

    eventually(settled, "one refused, one taken")
    assert not canaries.required("pumps")


def test_a_topic_that_refused_is_tried_again_after_ten_minutes(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    canaries = Canaries(Settings(broker.bootstrap), clock)
    broker.fail_requests(PRODUCE, [INVALID_RECORD])
    fly_until_refused(canaries, {"fans": [("other", 0)]}, "other")
    clock.now_s += 599
    canaries.turn({"fans": [("other", 0)]}, 6000)
    assert not canaries.required("fans")
    clock.now_s += 1
    fly(canaries, {"fans": [("other", 0)]}, 7000)
    assert canaries.required("fans")
    assert canaries.state.errors == {}


def test_a_missing_permission_refuses_canaries_until_it_is_given(broker: EmbeddedBroker) -> None:
    clock = SetClock()
    canaries = Canaries(Settings(broker.bootstrap), clock)
    fly(canaries, BEATS)
    clock.now_s += 2
    broker.fail_requests(PRODUCE, [TOPIC_AUTHORIZATION_FAILED])
    fly_until_refused(canaries, BEATS, "beats")
    assert "TOPIC_AUTHORIZATION_FAILED" in canaries.state.refused["beats"]

    def allowed() -> bool:
        clock.now_s += 600  # the client itself keeps refusing until it has looked at the topic again
        canaries.turn(BEATS, 9000)
        return canaries.required("pumps")

    eventually(allowed, "canaries fly again")


def test_what_finds_no_room_to_wait_is_dropped_and_counted(broker: EmbeddedBroker) -> None:
    broker.set_down()
    canaries = Canaries(Settings(broker.bootstrap, properties={"queue.buffering.max.messages": "2"}), SetClock())
    canaries.turn({"pumps": [("beats", 0), ("beats", 1), ("other", 0)]}, 5000)
    assert canaries.state.dropped == 1


def test_nothing_is_kept_of_partitions_that_are_not_asked_for_any_more(broker: EmbeddedBroker) -> None:
    canaries = Canaries(Settings(broker.bootstrap), SetClock())
    fly(canaries, BEATS)
    canaries.turn({}, 6000)
    assert canaries.state.acknowledged_ms == {}


def test_canaries_are_demanded_before_the_first_is_sent_or_a_restart_would_judge_without_them(broker: EmbeddedBroker) -> None:
    assert Canaries(Settings(broker.bootstrap), SetClock()).required("pumps")


def test_a_topic_that_is_read_by_somebody_who_would_take_canaries_for_beats_gets_none(broker: EmbeddedBroker) -> None:
    canaries = Canaries(Settings(broker.bootstrap), SetClock())
    both = {"pumps": BEATS["pumps"], "fans": [("other", 0)]}

    def flown() -> bool:
        canaries.turn(both, 5000, spared={"beats"})
        return ("other", 0) in canaries.state.acknowledged_ms

    eventually(flown, "the other topic has its canary")
    assert sent(broker) == {}
    assert not canaries.required("pumps")
    assert canaries.required("fans")


def test_a_topic_that_is_gone_is_not_made_again(broker: EmbeddedBroker) -> None:
    canaries = Canaries(Settings(broker.bootstrap), SetClock())
    fly(canaries, BEATS)
    for _ in range(10):
        canaries.turn({"pumps": [("gone", 0)]}, 6000)
    assert list(read_to_end(Settings(broker.bootstrap), "gone", 20)) == []
    broker.create_topic("gone")  # raises if it exists: the embedded broker makes topics for producers that ask for it


def test_where_canaries_are_not_wanted_none_is_sent_and_none_demanded(broker: EmbeddedBroker) -> None:
    canaries = Canaries(Settings(broker.bootstrap, canary=False), SetClock())
    canaries.turn(BEATS, 5000)
    assert not canaries.required("pumps")
    assert sent(broker) == {}


def test_a_property_that_the_client_does_not_know_is_named() -> None:
    with pytest.raises(ConnectError, match="securty"):
        Canaries(Settings("127.0.0.1:1", properties={"securty.protocol": "ssl"}), SetClock())
