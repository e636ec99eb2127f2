"""The consumer, the sender and the admin of the worker against librdkafka's own mock broker, with the real client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace

import confluent_kafka as ck
import pytest
from tests.fakes import PATIENCE_S, FakeClock, eventually

from heartbeat.connect import kafka_admin
from heartbeat.connect.api import TopicPartition
from heartbeat.connect.kafka import Membership, SinkConsumer
from heartbeat.connect.kafka_admin import Admin
from heartbeat.connect.kafka_sender import Sender as KafkaSender
from heartbeat.connect.offsets import Progress
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import ConnectError

FETCH, OFFSET_COMMIT, JOIN_GROUP = 1, 8, 11
TOPIC_AUTHORIZATION_FAILED, GROUP_AUTHORIZATION_FAILED, TRANSPORT, REBALANCE_IN_PROGRESS = 29, 30, -195, 27
SESSION_TIMEOUT_MS = 2000
"""The mock broker ends a rebalance only this, less a second, after its first join, however many have joined by then."""
JOINING_MS = 5000
"""It forgets to answer who was joining when his session ended, as on a machine that stands still: 3 s after this he asks again."""


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"one": 1, "four": 4}) as embedded:
        yield embedded


class Sender:
    """Sends to given partitions, so that a test knows what is where."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._sender = KafkaSender({"bootstrap.servers": broker.bootstrap, "topic.metadata.refresh.interval.ms": "100"})
        self.sent: list[tuple[str, int, int]] = []

    def send(self, topic: str, count: int) -> None:
        """Send ``count`` records with different keys."""
        for number in range(count):
            self.sent.append((topic, *self._sender.send(topic, f"{len(self.sent)}-{number}".encode(), b"v")))


@pytest.fixture
def sender(broker: EmbeddedBroker) -> Sender:
    return Sender(broker)


class Member:
    """A group member that applies all it is given, as a task does, and remembers it."""

    def __init__(self, broker: EmbeddedBroker, topic: str = "four", **more: str) -> None:
        self.progress = Progress()
        self.applied: list[tuple[str, int, int]] = []
        properties = {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": "10",
            "session.timeout.ms": str(SESSION_TIMEOUT_MS),
            "heartbeat.interval.ms": "100",
            "max.poll.interval.ms": str(JOINING_MS),
            "topic.metadata.refresh.interval.ms": "200",
            **more,
        }
        self.consumer = SinkConsumer(properties, Membership(self._committable))
        self.consumer.subscribe([topic])

    def _committable(self) -> Mapping[TopicPartition, int]:
        self.progress.follow(self.consumer.assigned)
        return self.progress.committable()

    def turn(self, *, timeout_s: float = 0.05, commit: bool = False) -> None:
        """Poll once and apply what came."""
        delivery = self.consumer.poll(timeout_s, 100)
        self.progress.committed(self.consumer.take_committed())
        self.progress.follow(self.consumer.assigned)
        self.applied += [(m.topic(), m.partition(), m.offset()) for m in delivery.messages]
        self.progress.apply(delivery.next_offsets)
        offsets = self.progress.committable()
        if commit and offsets and self.consumer.commit_in_flight_s() is None:
            self.consumer.commit(offsets)

    def until(self, check: Callable[[], object], what: str, *, commit: bool = False) -> None:
        """Turn until it is so."""

        def turned() -> object:
            self.turn(commit=commit)
            return check()

        eventually(turned, what)


@contextmanager
def member(broker: EmbeddedBroker, topic: str = "four", **more: str) -> Iterator[Member]:
    made = Member(broker, topic, **more)
    try:
        yield made
    finally:
        close(made.consumer)


def close(consumer: SinkConsumer, timeout_s: float = 30.0) -> float:
    """Close in a thread, as a task does; return the seconds it took."""
    started = time.monotonic()
    thread = threading.Thread(target=consumer.close, daemon=True)
    thread.start()
    thread.join(timeout_s)
    assert not thread.is_alive(), f"close() did not return within {timeout_s} s"
    return time.monotonic() - started


@pytest.mark.parametrize("attempt", range(5))
def test_the_very_first_record_of_a_new_group_is_delivered(broker: EmbeddedBroker, sender: Sender, attempt: int) -> None:
    sender.send("one", 1)
    with member(broker, "one") as only:
        only.until(lambda: only.applied, "the record")
        assert only.applied == [("one", 0, 0)]


def test_the_first_record_comes_also_when_a_long_poll_takes_assignment_and_record_in_one_call(
    broker: EmbeddedBroker, sender: Sender
) -> None:
    sender.send("one", 3)
    with member(broker, "one") as only:
        deadline = time.monotonic() + PATIENCE_S
        while len(only.applied) < 3 and time.monotonic() < deadline:
            only.turn(timeout_s=5.0)
        assert only.applied == sender.sent


def test_records_come_once_each_in_order_with_the_offset_after_them(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 50)
    with member(broker, "one") as only:
        only.until(lambda: len(only.applied) >= 50, "all records")
        assert only.applied == sender.sent
        assert only.progress.committable() == {TopicPartition("one", 0): 50}


def test_the_end_of_an_empty_log_is_told_as_a_position(broker: EmbeddedBroker) -> None:
    with member(broker, "one") as only:
        only.until(lambda: only.progress.committable() == {TopicPartition("one", 0): 0}, "the position")
        assert only.applied == []


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_second_member_takes_its_share_and_nothing_is_lost_or_committed_ahead(
    broker: EmbeddedBroker, sender: Sender, strategy: str
) -> None:
    sender.send("four", 40)
    more = {"partition.assignment.strategy": strategy}
    with member(broker, **more) as first:
        first.until(lambda: len(first.applied) >= 40, "the first records", commit=True)
        with member(broker, **more) as second:

            def shared() -> bool:
                first.turn(commit=True)
                return len(first.consumer.assigned) == len(second.consumer.assigned) == 2

            second.until(shared, "two partitions each", commit=True)
            sender.send("four", 40)

            def complete() -> bool:
                first.turn(commit=True)
                return {*first.applied, *second.applied} == {*sender.sent}

            second.until(complete, "every record at one of the two", commit=True)
            # Nothing may be held twice: the partitions of both together are all four, each once.
            assert sorted([*first.consumer.assigned, *second.consumer.assigned]) == [TopicPartition("four", n) for n in range(4)]
        first.until(lambda: len(first.consumer.assigned) == 4, "the second's partitions back", commit=True)
        sender.send("four", 8)
        first.until(lambda: {*first.applied, *second.applied} == {*sender.sent}, "the last records", commit=True)


def test_what_was_applied_and_not_yet_committed_is_committed_by_leaving(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 10)
    with member(broker, "one") as first:
        first.until(lambda: len(first.applied) >= 10, "the records")
    sender.send("one", 1)
    with member(broker, "one") as second:
        second.until(lambda: second.applied, "a record")
        assert second.applied == [("one", 0, 10)]


def test_what_was_delivered_and_not_applied_comes_again_to_the_next_member(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 5)
    with member(broker, "one") as first:
        eventually(lambda: first.consumer.poll(0.1, 100).messages, "a delivery that is dropped")
    with member(broker, "one") as second:
        second.until(lambda: len(second.applied) >= 5, "the records")
        assert second.applied == sender.sent


def test_a_partition_revoked_and_assigned_again_is_another_assignment(broker: EmbeddedBroker) -> None:
    with member(broker, **{"partition.assignment.strategy": "range"}) as first:
        first.until(lambda: len(first.consumer.assigned) == 4, "an assignment")
        before = dict(first.consumer.assigned)
        with member(broker, **{"partition.assignment.strategy": "range"}) as second:

            def shared() -> bool:
                second.turn()
                return len(first.consumer.assigned) == 2

            first.until(shared, "a rebalance")
            assert all(first.consumer.assigned[p] > before[p] for p in first.consumer.assigned)


def test_a_cooperative_rebalance_leaves_the_assignments_that_stand(broker: EmbeddedBroker) -> None:
    with member(broker, **{"partition.assignment.strategy": "cooperative-sticky"}) as first:
        first.until(lambda: len(first.consumer.assigned) == 4, "an assignment")
        before = dict(first.consumer.assigned)
        with member(broker, **{"partition.assignment.strategy": "cooperative-sticky"}) as second:

            def shared() -> bool:
                second.turn()
                return len(second.consumer.assigned) == 2

            first.until(shared, "a rebalance")
            assert all(first.consumer.assigned[p] == before[p] for p in first.consumer.assigned)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_paused_member_stays_paused_over_a_rebalance_and_keeps_its_membership(
    broker: EmbeddedBroker, sender: Sender, strategy: str
) -> None:
    more = {"partition.assignment.strategy": strategy}
    with member(broker, **more) as first:
        first.until(lambda: len(first.consumer.assigned) == 4, "an assignment")
        identity = first.consumer.member_id()
        first.consumer.pause()
        with member(broker, **more) as second:

            def shared() -> bool:
                second.turn()
                return len(first.consumer.assigned) == len(second.consumer.assigned) == 2

            first.until(shared, "a rebalance")
        first.until(lambda: len(first.consumer.assigned) == 4, "all partitions back")
        sender.send("four", 20)
        # Long enough for a fetch, and for the member to be thrown out were it not polling.
        deadline = time.monotonic() + SESSION_TIMEOUT_MS / 1000 + 0.5
        while time.monotonic() < deadline:
            first.turn(timeout_s=0.2)
        assert first.applied == []
        assert first.consumer.member_id() == identity
        first.consumer.resume()
        first.until(lambda: {*first.applied} == {*sender.sent}, "all records after the resume")
        assert len(first.applied) == len(sender.sent)


def test_partitions_that_a_paused_member_never_had_before_are_paused_too(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    with member(broker, "one") as only:
        only.consumer.pause()
        only.until(lambda: only.consumer.assigned, "an assignment")
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            only.turn()
        assert only.applied == []
        only.consumer.resume()
        only.until(lambda: len(only.applied) >= 3, "the records")
        assert only.applied == sender.sent


def test_a_pause_loses_nothing_of_what_was_fetched_ahead(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 100)
    with member(broker, "one") as only:
        eventually(lambda: only.consumer.assigned or only.consumer.poll(0.05, 1).messages, "an assignment")
        for _ in range(10):
            delivery = only.consumer.poll(0.5, 3)
            only.applied += [(m.topic(), m.partition(), m.offset()) for m in delivery.messages]
            only.consumer.pause()
            only.consumer.resume()
        only.until(lambda: len(only.applied) >= 100, "all records")
        assert only.applied == sender.sent


# Commits


def test_an_acknowledged_commit_is_told_once(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    with member(broker, "one") as only:
        only.until(lambda: len(only.applied) >= 3, "the records")
        only.consumer.commit({TopicPartition("one", 0): 2})
        assert only.consumer.commit_in_flight_s() is not None
        only.consumer.wait_for_commit(PATIENCE_S)
        assert only.consumer.commit_in_flight_s() is None
        assert only.consumer.take_committed() == {TopicPartition("one", 0): 2}
        assert only.consumer.take_committed() == {}


def test_a_refused_commit_is_over_and_counts_for_nothing(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    with member(broker, "one") as only:
        only.until(lambda: len(only.applied) >= 3, "the records")
        broker.fail_requests(OFFSET_COMMIT, [GROUP_AUTHORIZATION_FAILED])
        only.consumer.commit({TopicPartition("one", 0): 2})
        only.consumer.wait_for_commit(PATIENCE_S)
        assert only.consumer.commit_in_flight_s() is None
        assert only.consumer.take_committed() == {}


def test_waiting_for_a_commit_ends_in_time_when_the_broker_is_gone(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    with member(broker, "one") as only:
        only.until(lambda: len(only.applied) >= 3, "the records")
        broker.set_down()
        started = time.monotonic()
        only.consumer.commit({TopicPartition("one", 0): 3})
        only.consumer.wait_for_commit(0.5)
        assert time.monotonic() - started < 10
        assert only.consumer.commit_in_flight_s() is not None
        assert only.consumer.take_committed() == {}
        only.consumer.forget_commit()
        assert only.consumer.commit_in_flight_s() is None
        broker.set_up()


def test_a_commit_sent_into_an_outage_arrives_when_the_broker_is_back(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    with member(broker, "one") as only:
        only.until(lambda: len(only.applied) >= 3, "the records")
        broker.set_down()
        only.consumer.commit({TopicPartition("one", 0): 3})
        only.consumer.wait_for_commit(0.3)
        broker.set_up()
        only.until(lambda: only.progress.committable() == {}, "the acknowledgement", commit=True)


# Outages and refusals


def test_a_dropped_connection_costs_neither_records_nor_the_task(broker: EmbeddedBroker, sender: Sender) -> None:
    with member(broker, "one") as only:
        only.until(lambda: only.consumer.assigned, "an assignment")
        broker.set_down()
        for _ in range(5):
            only.turn()
        broker.set_up()
        sender.send("one", 5)
        only.until(lambda: {*only.applied} >= {*sender.sent}, "the records")


def test_leaving_while_the_broker_is_down_ends_within_the_session_timeout(broker: EmbeddedBroker, sender: Sender) -> None:
    # Leaving commits what is applied, and nobody answers: the client gives up after session.timeout.ms (45 s by default,
    # which is why a stopping worker waits for its threads with a deadline and not for ever).
    sender.send("one", 3)
    only = Member(broker, "one")
    only.until(lambda: len(only.applied) >= 3, "the records")
    broker.set_down()
    close(only.consumer, timeout_s=SESSION_TIMEOUT_MS / 1000 + 20)


def test_leaving_with_nothing_to_commit_does_not_wait_for_a_broker_that_is_down(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    only = Member(broker, "one")
    only.until(lambda: len(only.applied) >= 3 and not only.progress.committable(), "records, committed", commit=True)
    broker.set_down()
    close(only.consumer, timeout_s=SESSION_TIMEOUT_MS / 1000 + 20)


def test_leaving_with_a_commit_under_way_ends_when_the_broker_is_back(broker: EmbeddedBroker, sender: Sender) -> None:
    # The client waits for that commit without a limit (measured: 150 s and more), so this close() is not bounded by itself.
    sender.send("one", 3)
    only = Member(broker, "one")
    only.until(lambda: len(only.applied) >= 3, "the records")
    broker.set_down()
    only.consumer.commit({TopicPartition("one", 0): 3})
    only.consumer.wait_for_commit(0.2)
    thread = threading.Thread(target=only.consumer.close, daemon=True)
    thread.start()
    broker.set_up()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_cluster_that_never_answers_fails_nothing_and_holds_no_close(broker: EmbeddedBroker) -> None:
    broker.set_down()
    with member(broker, "one") as only:
        for _ in range(3):
            only.turn()
        assert only.consumer.assigned == {}


def test_a_refusal_for_good_is_raised_from_poll(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 1)
    with member(broker, "one") as only:
        broker.fail_requests(JOIN_GROUP, [GROUP_AUTHORIZATION_FAILED] * 20)
        with pytest.raises(ConnectError, match="Kafka refused this consumer"):
            only.until(lambda: False, "a refusal")


def test_a_passing_refusal_is_not_raised(broker: EmbeddedBroker, sender: Sender) -> None:
    sender.send("one", 3)
    broker.fail_requests(JOIN_GROUP, [REBALANCE_IN_PROGRESS] * 2)
    broker.fail_requests(FETCH, [TRANSPORT])
    with member(broker, "one") as only:
        only.until(lambda: len(only.applied) >= 3, "the records")
        assert only.applied == sender.sent


def test_a_topic_that_does_not_exist_yet_fails_nothing_and_is_read_once_it_does(broker: EmbeddedBroker) -> None:
    with member(broker, "late", **{"allow.auto.create.topics": "false"}) as only:
        for _ in range(3):
            only.turn()
        broker.create_topic("late", 1)
        later = Sender(broker)
        later.send("late", 2)
        only.until(lambda: {*only.applied} >= {*later.sent}, "the records")


# Lookups


def test_a_pattern_matches_whole_names_in_pythons_syntax_and_no_internal_topics(broker: EmbeddedBroker) -> None:
    internal = ["__consumer_offsets", "__share_group_state", "__transaction_state"]
    for name in ("pump-1", "pump-22", "pump-x", "a-pump-1", "__mine", "_schemas", *internal):
        broker.create_topic(name)
    with member(broker, "one") as only:
        assert only.consumer.topics_matching(r"pump-\d+") == ["pump-1", "pump-22"]
        assert only.consumer.topics_matching("_.*") == ["__mine", "_schemas"]
        assert only.consumer.topics_matching("nothing") == []


def test_a_pattern_matches_nothing_while_the_cluster_does_not_answer(broker: EmbeddedBroker) -> None:
    with member(broker, "one") as only:
        broker.set_down()
        started = time.monotonic()
        assert only.consumer.topics_matching(".*") == []
        assert time.monotonic() - started < 30


# Sender and admin


def test_a_sent_record_is_where_the_sender_says(broker: EmbeddedBroker) -> None:
    plain = KafkaSender({"bootstrap.servers": broker.bootstrap})
    assert plain.send("one", None, b"a") == (0, 0)
    assert plain.send("one", b"k", b"b") == (0, 1)


def test_a_record_that_is_not_acknowledged_is_an_error_that_names_the_broker() -> None:
    with EmbeddedBroker({"one": 1}) as gone:
        address = gone.bootstrap
    plain = KafkaSender({"bootstrap.servers": address, "message.timeout.ms": "500"})
    with pytest.raises(ConnectError, match=address):
        plain.send("one", None, b"a")


def test_the_clusters_id_is_none_until_a_broker_answers_and_asked_for_once_in_ten_seconds(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(kafka_admin, "time", SimpleNamespace(monotonic=clock))
    admin = Admin({"bootstrap.servers": broker.bootstrap, "reconnect.backoff.max.ms": "200"})
    broker.set_down()
    for _ in range(20):
        assert admin.cluster_id(0.3) is None
        clock.advance(0.499)
    assert caplog.text.count("The Kafka cluster does not answer") == 1
    clock.advance(10)
    assert admin.cluster_id(0.3) is None
    assert caplog.text.count("The Kafka cluster does not answer") == 2
    broker.set_up()

    def found() -> str | None:
        clock.advance(10)
        return admin.cluster_id(1.0)

    known = eventually(found, "the id")
    broker.set_down()
    assert admin.cluster_id(0.3) == known


# What the client library may do within one call, and no broker does on demand


def event(topic: str, partition: int, offset: int, code: int | None = None) -> ck.Message:
    """Return what the library returns from poll(): a record, or an error."""
    error = None if code is None else ck.KafkaError(code)
    return ck.Message(topic=topic, partition=partition, offset=offset, error=error)  # type: ignore[call-arg, unused-ignore]


class Library:
    """Stands in for the library's consumer: one event ready, and a rebalance that comes with the second call."""

    def __init__(self, *ready: ck.Message, rebalance: Callable[[], None] = lambda: None, then: tuple[ck.Message, ...] = ()) -> None:
        self._ready = list(ready)
        self._rebalance = rebalance
        self._then = list(then)
        self.committed: list[dict[TopicPartition, int]] = []

    def poll(self, _timeout_s: float) -> ck.Message | None:
        return self._ready.pop(0) if self._ready else None

    def consume(self, _count: int, _timeout_s: float) -> list[ck.Message]:
        self._rebalance()
        then, self._then = self._then, []
        return then

    def commit(self, offsets: list[ck.TopicPartition], asynchronous: bool) -> None:
        self.committed.append({TopicPartition(p.topic, p.partition): p.offset for p in offsets})

    def assign(self, _partitions: object) -> None: ...
    def unassign(self) -> None: ...


ONE = TopicPartition("t", 0)
EOF = ck.KafkaError._PARTITION_EOF


def scripted(library: Library, applied: Mapping[TopicPartition, int] | None = None) -> SinkConsumer:
    """Return a consumer on this library, which holds one partition."""
    consumer = SinkConsumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}, Membership(lambda: applied or {}))
    close(consumer)
    consumer._consumer = library  # type: ignore[assignment]
    consumer._on_assign(library, [ck.TopicPartition("t", 0)])
    return consumer


@pytest.mark.parametrize("stale", [event("t", 0, 9, EOF), event("t", 0, 8)], ids=["end of log", "record"])
def test_what_was_taken_before_a_rebalance_in_the_same_poll_is_dropped(stale: ck.Message) -> None:
    def rebalance() -> None:
        consumer._on_revoke(library, [ck.TopicPartition("t", 0)])
        consumer._on_assign(library, [ck.TopicPartition("t", 0)])

    fresh = event("t", 0, 3)
    library = Library(stale, rebalance=rebalance, then=(fresh,))
    consumer = scripted(library)
    delivery = consumer.poll(0.1, 100)
    assert [message.offset() for message in delivery.messages] == [3]
    assert delivery.next_offsets == {ONE: 4}
    # Alone it must not become a position either: committed, it would skip what the new assignment has yet to deliver.
    library = Library(stale, rebalance=rebalance)
    consumer = scripted(library)
    assert consumer.poll(0.1, 100).next_offsets == {}


def test_the_end_of_a_log_without_a_rebalance_is_a_position() -> None:
    assert scripted(Library(event("t", 0, 9, EOF))).poll(0.1, 100).next_offsets == {ONE: 9}


def test_a_permanent_error_taken_before_a_rebalance_is_not_dropped() -> None:
    def rebalance() -> None:
        consumer._on_revoke(library, [ck.TopicPartition("t", 0)])

    library = Library(event("t", 0, 0, ck.KafkaError.TOPIC_AUTHORIZATION_FAILED), rebalance=rebalance)
    consumer = scripted(library)

    def polls() -> None:
        consumer.poll(0.1, 100)
        consumer.poll(0.1, 100)

    with pytest.raises(ConnectError, match="Kafka refused this consumer"):
        polls()


def test_the_answer_to_a_revocations_commit_does_not_end_the_wait_for_another() -> None:
    other = TopicPartition("t", 1)
    library = Library()
    consumer = scripted(library, applied={ONE: 5})
    consumer.commit({other: 7})
    consumer._on_revoke(library, [ck.TopicPartition("t", 0)])
    assert library.committed == [{other: 7}, {ONE: 5}]
    consumer._note_commit(None, [ck.TopicPartition("t", 0, 5)])
    assert consumer.commit_in_flight_s() is not None
    consumer._note_commit(None, [ck.TopicPartition("t", 1, 7)])
    assert consumer.commit_in_flight_s() is None
    assert consumer.take_committed() == {ONE: 5, other: 7}
