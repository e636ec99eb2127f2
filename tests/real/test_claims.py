"""A plugin that owns its offsets, on a real Kafka under each group protocol; and what may be asked of real logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewPartitions
from confluent_kafka.cimpl import TopicPartition as Partition
from tests.connect.owner import Ledger, Owner, goes_on, offsets_of, once_each, owner
from tests.fakes import Where

from heartbeat.connect.api import LogEnd, Survey, TopicPartition
from heartbeat.connect.kafka_admin import PartitionLogs

from .broker import Kafka
from .programs import eventually
from .scenario import unique

CLASSIC = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "200"}
PROTOCOLS = {
    "range": {**CLASSIC, "partition.assignment.strategy": "range"},
    "cooperative-sticky": {**CLASSIC, "partition.assignment.strategy": "cooperative-sticky"},
    # Here the broker says how often members report, which is every five seconds: a rebalance takes a few of them.
    "consumer": {"group.protocol": "consumer"},
}
REBALANCE_S = 60.0


class World:
    """A topic of four partitions, what was sent to it, and the offsets that its members have in common."""

    def __init__(self, kafka: Kafka, protocol: dict[str, str]) -> None:
        self.kafka = kafka
        self.protocol = protocol
        self.topic = kafka.create_topic(unique("claims"), 4)
        self.ledger: Ledger = {}
        self.sent: list[Where] = []
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 5})

    def partition(self, number: int) -> TopicPartition:
        return TopicPartition(self.topic, number)

    def send(self, count: int) -> None:
        """Send as many records to each partition."""
        for number in range(count * 4):
            self._producer.produce(
                self.topic,
                b"v",
                partition=number % 4,
                on_delivery=self._note,
            )
        assert self._producer.flush(30) == 0

    def _note(self, error: Any, message: Any) -> None:
        assert error is None
        self.sent.append((message.topic(), message.partition(), message.offset()))

    def log(self, number: int) -> list[int]:
        """The offsets of one partition."""
        return sorted(offsets_of(self.sent, number))

    def owner(self) -> AbstractContextManager[Owner]:
        return owner(self.kafka.bootstrap, self.topic, self.ledger, self.protocol)

    def drop_before(self, number: int, offset: int) -> None:
        """Delete the records of one partition below an offset, as retention does."""
        deleted = self.kafka.admin().delete_records([Partition(self.topic, number, offset)])
        for future in deleted.values():
            assert future.result(30).low_watermark == offset


@pytest.fixture(params=PROTOCOLS)
def world(request: pytest.FixtureRequest, kafka: Kafka) -> World:
    """A topic under each group protocol in turn."""
    return World(kafka, PROTOCOLS[request.param])


def test_each_partition_starts_at_the_very_offset_it_is_told_and_without_delay(world: World) -> None:
    world.send(20)
    starts = {world.partition(n): start for n, start in enumerate((0, 7, 19, 20))}
    world.ledger.update(starts)
    with world.owner() as only:
        only.opening = False
        only.until(lambda: len(only.waits_for) == 4, "an assignment", timeout_s=REBALANCE_S)
        goes_on([only], 0.5)
        assert only.applied == []
        only.opening = True
        only.turn()
        opened_s = time.monotonic()
        only.until(lambda: only.applied, "a first record")
        # Tens of ms as a rule; a client that backs off before it fetches would need a second and more.
        assert time.monotonic() - opened_s < 10
        only.until(lambda: len(only.applied) >= 20 + 13 + 1, "all that lies behind the starts")
        goes_on([only], 0.3)
        assert all(offsets_of(only.applied, n) == world.log(n)[start:] for n, start in enumerate((0, 7, 19, 20)))


def test_one_partition_opened_again_leaves_the_others_where_they_are(world: World) -> None:
    world.send(30)
    with world.owner() as only:
        only.until(lambda: once_each(world.sent, [only]), "every record", timeout_s=REBALANCE_S)
        for start in (0, 11, 29):
            only.applied.clear()
            only.opening = False
            only.consumer.reopen([world.partition(2)])
            only.ledger[world.partition(2)] = start
            before = {number: len(world.log(number)) for number in range(4)}
            world.send(10)
            only.until(lambda: len(only.applied) >= 30, "the others' records")
            only.opening = True
            only.until(lambda: len(offsets_of(only.applied, 2)) >= len(world.log(2)) - start, "its records again")  # noqa: B023
            goes_on([only], 0.3)
            assert offsets_of(only.applied, 2) == world.log(2)[start:]
            assert all(offsets_of(only.applied, number) == world.log(number)[before[number] :] for number in (0, 1, 3))


def test_a_position_beyond_the_end_waits_to_be_opened_again(world: World) -> None:
    world.send(20)
    world.ledger[world.partition(1)] = 5000
    with world.owner() as only:
        only.until(lambda: len(only.has) == 4, "an assignment", timeout_s=REBALANCE_S)
        only.opening = False
        only.until(lambda: only.waits_for == {1}, "the partition whose position does not exist")
        assert offsets_of(only.applied, 1) == []
        only.ledger[world.partition(1)] = 0
        only.opening = True
        only.until(lambda: once_each(world.sent, [only]), "every record, once")


def test_a_position_that_retention_has_taken_waits_to_be_opened_again(world: World) -> None:
    world.send(20)
    world.drop_before(3, 12)
    with world.owner() as only:
        only.until(lambda: len(only.has) == 4, "an assignment", timeout_s=REBALANCE_S)
        only.opening = False
        only.until(lambda: only.waits_for == {3}, "the partition whose position is gone")
        only.ledger[world.partition(3)] = 12
        only.opening = True
        left = [where for where in world.sent if where[1] != 3 or where[2] >= 12]
        only.until(lambda: once_each(left, [only]), "every record that is left, once")


def test_a_member_that_has_opened_nothing_yet_gives_partitions_up(world: World) -> None:
    world.send(20)
    with world.owner() as slow:
        slow.opening = False
        slow.until(lambda: len(slow.waits_for) == 4, "an assignment", timeout_s=REBALANCE_S)
        with world.owner() as quick:
            quick.until(lambda: len(quick.has) == len(slow.waits_for) == 2, "two partitions each", slow, timeout_s=REBALANCE_S)
            assert quick.has | slow.waits_for == {0, 1, 2, 3}
            slow.opening = True
            quick.until(lambda: once_each(world.sent, [quick, slow]), "every record at one of the two", slow)
        slow.until(lambda: len(slow.has) == 4, "the other's partitions", timeout_s=REBALANCE_S)
        world.send(10)
        slow.until(lambda: once_each(world.sent, [quick, slow]), "the last records, once")


def test_members_that_come_and_go_while_partitions_are_opened_apply_every_record_once(world: World) -> None:
    world.send(20)
    with world.owner() as first:
        first.opening = False
        first.until(lambda: len(first.waits_for) == 4, "an assignment", timeout_s=REBALANCE_S)
        # Half opened, half not: a rebalance finds both.
        first.consumer.start_at({world.partition(0): 0, world.partition(3): 0})
        first.until(lambda: offsets_of(first.applied, 3) and offsets_of(first.applied, 0), "the first records")
        with world.owner() as second:
            second.until(
                lambda: len(second.has) == len(first.has | first.waits_for) == 2, "two partitions each", first, timeout_s=REBALANCE_S
            )
            first.opening = True
            world.send(10)
            second.until(lambda: once_each(world.sent, [first, second]), "every record, once", first)
            # Given back while another member leaves.
            first.consumer.reopen([*first.consumer.assigned])
        first.until(lambda: len(first.has) == 4, "all partitions", timeout_s=REBALANCE_S)
        world.send(10)
        first.until(lambda: once_each(world.sent, [first, second]), "the last records, once")


def test_a_revocation_commits_offset_and_text_of_each_partition(world: World) -> None:
    world.send(5)
    with world.owner() as first:
        first.until(lambda: once_each(world.sent, [first]), "every record", timeout_s=REBALANCE_S)
    with world.owner() as second:
        second.until(lambda: second.opened, "an opening", timeout_s=REBALANCE_S)
        seen = {p.partition: (known.offset, known.metadata) if known else None for opened in second.opened for p, known in opened.items()}
        assert {seen[number] for number in seen} == {(5, f"seen {number}") for number in seen}


# What may be asked of the logs


@pytest.fixture
def logs(kafka: Kafka) -> Iterator[PartitionLogs]:
    made = PartitionLogs({"bootstrap.servers": kafka.bootstrap})
    yield made
    made.close()


def answered(logs: PartitionLogs) -> Survey:
    """Wait for the answer."""
    survey = eventually(logs.answer, "an answer", every_s=0.01)
    assert survey is not None
    return survey


def surveyed(logs: PartitionLogs, partitions: list[TopicPartition], topics: list[str]) -> Survey:
    """Ask until everything was answered: a new client may need longer than one question has."""

    def asked() -> Survey | None:
        logs.ask("q", partitions, topics)
        survey = answered(logs)
        return survey if len(survey.ends) == len(partitions) and len(survey.topics) == len(topics) else None

    survey = eventually(asked, "a whole answer")
    assert survey is not None
    return survey


def counts(survey: Survey) -> dict[str, int | None]:
    """How many partitions each topic has."""
    return {name: None if topic is None else topic.partitions for name, topic in survey.topics.items()}


def test_sixty_four_partitions_are_one_question_and_the_answer_comes_once(kafka: Kafka, logs: PartitionLogs) -> None:
    topic = kafka.create_topic(unique("many"), 64)
    kafka.produce(topic, [(str(n), "v") for n in range(500)])
    partitions = [TopicPartition(topic, n) for n in range(64)]
    survey = surveyed(logs, partitions, [topic])
    assert sum(end.offset for end in survey.ends.values()) == 500
    assert {end.epoch for end in survey.ends.values()} == {0}
    assert counts(survey) == {topic: 64}
    assert (logs.asking, logs.answer()) == (False, None)


def test_the_end_counts_transaction_markers_and_aborted_and_open_transactions(kafka: Kafka, logs: PartitionLogs) -> None:
    topic = kafka.create_topic(unique("transactions"))
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(60)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(topic, "v")
        producer.flush(30)
        end(30)
    producer.begin_transaction()
    producer.produce(topic, "open")
    producer.flush(30)
    partition = TopicPartition(topic, 0)
    assert surveyed(logs, [partition], [topic]).ends == {partition: LogEnd(5, 0)}
    assert logs.bounds([partition]) == {partition: (0, 5)}
    producer.abort_transaction(30)


def test_an_unknown_topic_is_none_and_takes_nothing_from_the_others(kafka: Kafka, logs: PartitionLogs) -> None:
    topic, stranger = kafka.create_topic(unique("known"), 2), unique("unknown")
    partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    surveyed(logs, partitions, [topic])
    logs.ask("q", [*partitions, TopicPartition(stranger, 0)], [topic, stranger])
    survey = answered(logs)
    assert survey.ends == dict.fromkeys(partitions, LogEnd(0, 0))
    assert counts(survey) == {topic: 2, stranger: None}


def test_partitions_that_are_added_and_topics_that_go_are_told(kafka: Kafka, logs: PartitionLogs) -> None:
    topic = kafka.create_topic(unique("growing"), 2)
    assert counts(surveyed(logs, [], [topic])) == {topic: 2}
    kafka.admin().create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    eventually(lambda: counts(surveyed(logs, [], [topic])) == {topic: 5}, "five partitions")
    kafka.admin().delete_topics([topic])[topic].result(30)
    eventually(lambda: counts(surveyed(logs, [], [topic])) == {topic: None}, "no such topic")


def test_a_topic_made_anew_under_its_name_is_known_by_its_id(kafka: Kafka, logs: PartitionLogs) -> None:
    topic, other = kafka.create_topic(unique("anew")), kafka.create_topic(unique("other"))
    first = ids(surveyed(logs, [], [topic, other]))
    assert first[topic]
    assert first[topic] != first[other]
    kafka.admin().delete_topics([topic])[topic].result(30)
    eventually(lambda: counts(surveyed(logs, [], [topic])) == {topic: None}, "no such topic")
    kafka.create_topic(topic)
    eventually(lambda: counts(surveyed(logs, [], [topic])) == {topic: 1}, "the new one")
    second = ids(surveyed(logs, [], [topic, other]))
    assert second[other] == first[other]
    assert second[topic]
    assert second[topic] != first[topic]


def ids(survey: Survey) -> dict[str, str]:
    """The id of each topic that there is."""
    return {name: topic.id for name, topic in survey.topics.items() if topic is not None}


def test_offsets_are_found_by_time_and_bounds_follow_retention(kafka: Kafka, logs: PartitionLogs) -> None:
    topic = kafka.create_topic(unique("times"), 2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    start_ms = int(time.time() * 1000) - 100_000
    for n in range(10):
        producer.produce(topic, b"v", partition=0, timestamp=start_ms + n * 1000)
    assert producer.flush(30) == 0
    assert logs.offsets_at({zero: start_ms + 4000, one: start_ms}) == {zero: 4, one: None}
    assert logs.offsets_at({zero: start_ms + 4001}) == {zero: 5}
    assert logs.offsets_at({zero: start_ms - 1}) == {zero: 0}
    assert logs.offsets_at({zero: start_ms + 9001}) == {zero: None}
    assert logs.bounds([zero, one]) == {zero: (0, 10), one: (0, 0)}
    for future in kafka.admin().delete_records([Partition(topic, 0, 6)]).values():
        future.result(30)
    assert logs.bounds([zero]) == {zero: (6, 10)}
    assert logs.offsets_at({zero: start_ms}) == {zero: 6}
    assert logs.bounds([]) == {}
    assert logs.offsets_at({}) == {}


def test_a_time_before_1970_is_no_other_question(kafka: Kafka, logs: PartitionLogs) -> None:
    # In the protocol -1 and -2 are the end and the beginning.
    topic = kafka.create_topic(unique("before"))
    kafka.produce(topic, [(None, "v")] * 3)
    partition = TopicPartition(topic, 0)
    assert [logs.offsets_at({partition: at_ms}) for at_ms in (0, -1, -2, -3, -600_000)] == [{partition: 0}] * 5
