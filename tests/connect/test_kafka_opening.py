"""The consumer of a plugin that owns its offsets, on the embedded broker: it starts where it is told, and only what it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import confluent_kafka as ck
import pytest
from tests.connect.owner import Ledger, goes_on, offsets_of, once_each, owner
from tests.fakes import Where, eventually

from heartbeat.connect.api import Committed, TopicPartition
from heartbeat.connect.kafka import Membership, SinkConsumer
from heartbeat.connect.kafka_sender import Sender
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import RetriableError

EAGER = {"partition.assignment.strategy": "range"}
COOPERATIVE = {"partition.assignment.strategy": "cooperative-sticky"}
# The mock broker ends a rebalance only session.timeout.ms less a second after its first join, however many have joined.
# It forgets to answer who was joining when his session ended, as on a machine that stands still: 3 s after the last one he asks again.
PACE = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "100", "max.poll.interval.ms": "5000"}
ZERO, ONE, TWO, THREE = (TopicPartition("four", number) for number in range(4))

protocols = pytest.mark.parametrize("protocol", [EAGER, COOPERATIVE], ids=["range", "cooperative-sticky"])


class World:
    """A broker, what was sent to it, and the offsets that its members have in common."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.ledger: Ledger = {}
        self.sent: list[Where] = []
        self._sender = Sender({"bootstrap.servers": broker.bootstrap, "topic.metadata.refresh.interval.ms": "100"})

    def send(self, count: int) -> None:
        """Send records with different keys, so that every partition gets its share."""
        for _ in range(count):
            self.sent.append(("four", *self._sender.send("four", str(len(self.sent)).encode(), b"v")))

    def log(self, partition: int) -> list[int]:
        """The offsets of one partition."""
        return offsets_of(self.sent, partition)

    def owner(self, protocol: dict[str, str], **more: str) -> Any:
        return owner(self.broker.bootstrap, "four", self.ledger, {**PACE, **protocol, **more})


@pytest.fixture
def world() -> Iterator[World]:
    with EmbeddedBroker({"four": 4}) as broker:
        yield World(broker)


@protocols
def test_each_partition_starts_at_the_very_offset_it_is_told(world: World, protocol: dict[str, str]) -> None:
    world.send(60)
    world.ledger.update({ZERO: 3, ONE: 0, TWO: len(world.log(2)), THREE: 1})
    wanted = {where for where in world.sent if where[2] >= world.ledger[TopicPartition("four", where[1])]}
    with world.owner(protocol) as only:
        only.until(lambda: len(only.applied) >= len(wanted), "what lies behind the starts")
        goes_on([only], 0.3)
        assert sorted(only.applied) == sorted(wanted)


@protocols
def test_nothing_is_consumed_before_it_is_opened_and_nothing_is_missing_then(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as only:
        only.opening = False
        only.until(lambda: only.waits_for == {0, 1, 2, 3}, "an assignment")
        goes_on([only], 0.5)
        assert (only.applied, only.has, only.progress.committable()) == ([], set(), {})
        only.opening = True
        only.until(lambda: once_each(world.sent, [only]), "every record")
        assert (only.has, only.waits_for) == ({0, 1, 2, 3}, set())


@protocols
def test_partitions_may_be_opened_one_by_one_and_the_others_do_not_notice(world: World, protocol: dict[str, str]) -> None:
    world.send(60)
    with world.owner(protocol) as only:
        only.opening = False
        only.until(lambda: len(only.waits_for) == 4, "an assignment")
        for partition in (TWO, ZERO, THREE, ONE):
            only.consumer.start_at({partition: 0})
            only.until(lambda number=partition.partition: offsets_of(only.applied, number) == world.log(number), "its records")
            world.send(10)
        only.until(lambda: once_each(world.sent, [only]), "every record, once")


@protocols
def test_a_partition_opened_again_starts_where_it_is_told_and_the_others_go_on_where_they_are(
    world: World, protocol: dict[str, str]
) -> None:
    world.send(60)
    with world.owner(protocol) as only:
        only.until(lambda: once_each(world.sent, [only]), "every record")
        before = dict(only.consumer.assigned)
        only.opening = False
        only.consumer.reopen([ONE])
        assert (only.has, only.waits_for) == ({0, 2, 3}, {1})
        world.send(20)
        elsewhere = [where for where in world.sent if where[1] != 1]
        only.until(lambda: len([w for w in only.applied if w[1] != 1]) == len(elsewhere), "the others' records")
        assert len(offsets_of(only.applied, 1)) < len(world.log(1))
        only.consumer.start_at({ONE: 2})
        expected = len(world.sent) + len(world.log(1)) - 2 - (len(world.log(1)) - len(set(offsets_of(only.applied, 1))))
        only.until(lambda: len(only.applied) >= expected, "its records again")
        goes_on([only], 0.3)
        assert offsets_of(only.applied, 1)[-(len(world.log(1)) - 2) :] == world.log(1)[2:]
        assert all(offsets_of(only.applied, number) == world.log(number) for number in (0, 2, 3))
        assert {p: number for p, number in only.consumer.assigned.items() if p != ONE} == {p: before[p] for p in (ZERO, TWO, THREE)}
        assert only.consumer.assigned[ONE] > before[ONE]


@protocols
def test_what_was_fetched_ahead_of_a_reopening_is_not_delivered_afterwards(world: World, protocol: dict[str, str]) -> None:
    world.send(80)
    with world.owner(protocol) as only:
        only.opening = False
        only.until(lambda: len(only.waits_for) == 4, "an assignment")
        only.consumer.start_at(dict.fromkeys((ZERO, ONE, TWO, THREE), 0))
        first = eventually(lambda: only.consumer.poll(0.2, 1).messages, "a first record")[0]
        partition = TopicPartition("four", first.partition())
        only.consumer.reopen([partition])
        goes_on([only], 0.5)
        assert offsets_of(only.applied, partition.partition) == []
        only.consumer.start_at({partition: 0})
        only.until(lambda: offsets_of(only.applied, partition.partition) == world.log(partition.partition), "the whole log, once")


@protocols
def test_a_position_that_the_log_does_not_have_waits_to_be_opened_again_and_is_no_jump(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    world.ledger[ONE] = 1000
    with world.owner(protocol) as only:
        only.until(lambda: only.has == {0, 1, 2, 3}, "an assignment")
        only.opening = False
        only.until(lambda: only.waits_for == {1}, "the partition whose position does not exist")
        assert offsets_of(only.applied, 1) == []
        only.ledger[ONE] = 0
        only.opening = True
        only.until(lambda: once_each(world.sent, [only]), "every record, once")


@protocols
def test_a_member_that_was_given_partitions_and_opened_none_gives_them_up_in_a_rebalance(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as slow:
        slow.opening = False
        slow.until(lambda: len(slow.waits_for) == 4, "an assignment")
        with world.owner(protocol) as quick:
            quick.until(lambda: len(quick.has) == len(slow.waits_for) == 2, "two partitions each", slow)
            assert quick.has | slow.waits_for == {0, 1, 2, 3}
            slow.opening = True
            quick.until(lambda: once_each(world.sent, [quick, slow]), "every record at one of the two", slow)
        slow.until(lambda: len(slow.has) == 4, "the other's partitions")
        world.send(20)
        slow.until(lambda: once_each(world.sent, [quick, slow]), "the last records")


@protocols
def test_a_member_that_opened_some_gives_up_both_kinds_in_a_rebalance(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as first:
        first.opening = False
        first.until(lambda: len(first.waits_for) == 4, "an assignment")
        first.consumer.start_at({ZERO: 0, THREE: 0})
        first.until(lambda: offsets_of(first.applied, 3) == world.log(3), "a partition's records")
        with world.owner(protocol) as second:
            second.until(lambda: len(second.has) == len(first.has | first.waits_for) == 2, "two partitions each", first)
            assert not second.has & (first.has | first.waits_for)
            first.opening = True
            second.until(lambda: once_each(world.sent, [first, second]), "every record at one of the two", first)
            world.send(20)
            second.until(lambda: once_each(world.sent, [first, second]), "the next records", first)


@protocols
def test_members_that_come_and_go_while_partitions_are_opened_apply_every_record_once(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as first, world.owner(protocol) as second:
        both = [first, second]
        first.until(lambda: first.has or second.has, "a first opening", second)
        world.send(20)
        with world.owner(protocol) as third:
            both.append(third)
            third.until(lambda: third.has, "a partition of its own", first, second)
            world.send(20)
        first.until(lambda: len(first.has) == len(second.has) == 2, "two partitions each", second)
        world.send(20)
        first.until(lambda: once_each(world.sent, both), "every record, once", second)


# Pause


@protocols
def test_a_partition_opened_while_paused_waits_and_its_neighbours_stay_paused(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as only:
        only.opening = False
        only.until(lambda: len(only.waits_for) == 4, "an assignment")
        only.consumer.start_at({ZERO: 0, ONE: 0})
        only.until(lambda: offsets_of(only.applied, 0) == world.log(0), "a partition's records")
        only.until(lambda: offsets_of(only.applied, 1) == world.log(1), "a partition's records")
        only.consumer.pause()
        only.consumer.start_at({TWO: 0, THREE: 0})
        before = len(only.applied)
        world.send(20)
        goes_on([only], 0.7)
        assert len(only.applied) == before
        only.consumer.resume()
        only.until(lambda: once_each(world.sent, [only]), "every record, once")


@protocols
def test_a_partition_paused_then_given_back_is_fetched_after_the_resume_that_it_missed(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as only:
        only.until(lambda: once_each(world.sent, [only]), "every record")
        only.opening = False
        only.consumer.pause()
        only.consumer.reopen([ONE])
        only.consumer.resume()
        world.send(20)
        only.consumer.start_at({ONE: only.ledger[ONE]})
        only.until(lambda: once_each(world.sent, [only]), "every record, once")


# What the group holds


@protocols
def test_what_was_committed_comes_back_with_its_text_and_none_where_nothing_was(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as first:
        first.opening = False
        first.until(lambda: len(first.waits_for) == 4, "an assignment")
        assert first.consumer.committed() == dict.fromkeys((ZERO, ONE, TWO, THREE))
        first.consumer.start_at({ZERO: 0, THREE: 0})
        first.until(lambda: first.progress.committable().keys() == {ZERO, THREE}, "something applied")
        first.until(lambda: offsets_of(first.applied, 0) == world.log(0) and offsets_of(first.applied, 3) == world.log(3), "all of it")
        first.commit()
        first.consumer.reopen([ZERO])
        assert first.consumer.committed()[ZERO] == Committed(len(world.log(0)), "seen 0")
        assert THREE not in first.consumer.committed()


@protocols
def test_a_revocation_commits_with_the_text_that_belongs_to_each_partition(world: World, protocol: dict[str, str]) -> None:
    world.send(40)
    with world.owner(protocol) as first:
        first.until(lambda: once_each(world.sent, [first]), "every record")
    with world.owner(protocol) as second:
        second.until(lambda: second.opened, "an opening")
        ends = {n: len(world.log(n)) for n in range(4)}
        assert second.opened[0] == {TopicPartition("four", n): Committed(ends[n], f"seen {n}") for n in range(4)}


def test_a_coordinator_that_does_not_answer_is_to_be_asked_again(world: World) -> None:
    with world.owner(EAGER, **{"session.timeout.ms": "20000", "max.poll.interval.ms": "20000"}) as only:
        only.opening = False
        only.until(lambda: len(only.waits_for) == 4, "an assignment")
        world.broker.set_down()
        with pytest.raises(RetriableError, match="committed offsets could not be read"):
            only.consumer.committed()
        assert len(only.waits_for) == 4
        world.broker.set_up()
        only.opening = True
        only.until(lambda: only.has == {0, 1, 2, 3}, "an opening")


# What the client library may do within one call, and no broker does on demand


def event(partition: int, offset: int, code: int | None = None) -> ck.Message:
    """Return what the library returns from poll(): a record, or an error."""
    error = None if code is None else ck.KafkaError(code)
    return ck.Message(topic="four", partition=partition, offset=offset, error=error)  # type: ignore[call-arg, unused-ignore]


class Library:
    """Stands in for the library's consumer: it gives what is ready, and refuses to assign while ``refuses``."""

    def __init__(self, *ready: ck.Message) -> None:
        self._ready = list(ready)
        self.refuses = False
        self.assigns: list[list[tuple[int, int]]] = []
        self.held: set[int] = set()
        """The partitions that the library fetches nothing of; it remembers them beyond an assignment."""

    def poll(self, _timeout_s: float) -> ck.Message | None:
        return self._ready.pop(0) if self._ready else None

    def consume(self, count: int, _timeout_s: float) -> Sequence[ck.Message]:
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    def assign(self, partitions: Sequence[ck.TopicPartition]) -> None:
        if self.refuses:
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._STATE))
        self.assigns.append([(p.partition, p.offset) for p in partitions])

    def unassign(self) -> None: ...

    def pause(self, partitions: Sequence[ck.TopicPartition]) -> None:
        self.held |= {p.partition for p in partitions}

    def resume(self, partitions: Sequence[ck.TopicPartition]) -> None:
        self.held -= {p.partition for p in partitions}


def scripted(library: Library, *, opens: bool = True) -> SinkConsumer:
    """Return a consumer on this library, which was given two partitions."""
    consumer = SinkConsumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}, Membership(dict, opens=opens))
    consumer.close()
    consumer._consumer = library  # type: ignore[assignment]
    consumer._on_assign(library, [ck.TopicPartition("four", 0), ck.TopicPartition("four", 1)])
    return consumer


def test_records_delivered_with_the_word_that_their_position_is_gone_are_dropped_with_their_partition() -> None:
    # They would be put after the plugin has opened the partition anew, and pass for what comes from there.
    library = Library(event(0, 7), event(1, 3), event(0, 8, ck.KafkaError._AUTO_OFFSET_RESET), event(1, 4))
    consumer = scripted(library)
    consumer.start_at({ZERO: 7, ONE: 3})
    delivery = consumer.poll(0.1, 100)
    assert [message.partition() for message in delivery.messages] == [1, 1]
    assert delivery.next_offsets == {ONE: 5}
    assert consumer.unopened == {ZERO}
    assert library.assigns == [[], [(0, 7), (1, 3)], [(1, 5)]]


def test_a_start_that_the_library_refuses_is_to_be_tried_again_and_takes_nothing_from_the_others() -> None:
    library = Library()
    consumer = scripted(library)
    consumer.start_at({ZERO: 7})
    library.refuses = True
    with pytest.raises(RetriableError, match="Could not start"):
        consumer.start_at({ONE: 3})
    assert consumer.assigned.keys() == {ZERO}
    assert consumer.unopened == {ONE}


def test_what_does_not_wait_is_neither_started_nor_given_back() -> None:
    library = Library()
    consumer = scripted(library)
    consumer.start_at({ZERO: 7, TopicPartition("other", 0): 1})
    assert consumer.assigned.keys() == {ZERO}
    before, asked = consumer.assigned, len(library.assigns)
    consumer.start_at({ZERO: 99})
    consumer.reopen([ONE, TopicPartition("other", 0)])
    assert consumer.assigned == before
    assert len(library.assigns) == asked


def test_a_resume_reaches_partitions_that_were_taken_away_while_they_were_paused() -> None:
    # Else the client would still hold them when they come back, and nobody would fetch them again.
    library = Library()
    consumer = scripted(library, opens=False)
    consumer.pause()
    consumer._on_revoke(library, [ck.TopicPartition("four", 0), ck.TopicPartition("four", 1)])
    assert library.held == {0, 1}
    consumer.resume()
    assert library.held == set()


def test_what_is_given_to_a_paused_member_is_held_when_it_is_started_and_not_before() -> None:
    library = Library()
    consumer = scripted(library)
    consumer.pause()
    assert library.held == set()
    consumer.start_at({ONE: 3})
    assert library.held == {1}
    consumer.resume()
    assert library.held == set()
