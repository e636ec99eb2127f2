"""What a plugin may ask about logs, on the embedded broker: answered once, in its time, and never in the way for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from tests.fakes import eventually

from heartbeat.connect.api import LogEnd, Survey, TopicPartition
from heartbeat.connect.kafka_admin import PartitionLogs
from heartbeat.connect.kafka_sender import Sender
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import RetriableError

T = TypeVar("T")

LIST_OFFSETS = 2
NOT_LEADER = 6
ONE = TopicPartition("one", 0)
MANY = [TopicPartition("many", number) for number in range(64)]
BOUND_S = 30.0
"""Far above the seconds that a question is given, far below what the client waits by itself, a minute and more."""


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"one": 1, "many": 64}) as embedded:
        yield embedded


@pytest.fixture
def logs(broker: EmbeddedBroker) -> Iterator[PartitionLogs]:
    made = PartitionLogs({"bootstrap.servers": broker.bootstrap, "reconnect.backoff.max.ms": "200"})
    yield made
    made.close()


def send(broker: EmbeddedBroker, topic: str, count: int) -> None:
    sender = Sender({"bootstrap.servers": broker.bootstrap})
    for number in range(count):
        sender.send(topic, str(number).encode(), b"v")


def answered(logs: PartitionLogs) -> Survey:
    """Wait for the answer."""
    answer: Survey = eventually(logs.answer, "an answer")
    return answer


def in_time(work: Callable[[], T]) -> T:
    """Return the outcome of something that must end by itself."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except RetriableError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(BOUND_S)
    assert not thread.is_alive(), f"not within {BOUND_S} s"
    if errors:
        raise errors[0]
    return outcome[0]


def warm(logs: PartitionLogs) -> None:
    """Have the client know its broker: the first question of a new client may take longer than it has."""

    def known() -> bool:
        logs.ask("warm", [ONE], [])
        return bool(answered(logs).ends)

    eventually(known, "a first answer")


def test_a_question_is_answered_once_with_what_the_asker_knows_it_by(broker: EmbeddedBroker, logs: PartitionLogs) -> None:
    send(broker, "one", 3)
    warm(logs)
    mark = object()
    logs.ask(mark, [ONE], ["one", "many", "gone"])
    assert logs.asking
    survey = answered(logs)
    assert survey.asked is mark
    assert {partition: end.offset for partition, end in survey.ends.items()} == {ONE: 3}
    assert {name: topic and topic.partitions for name, topic in survey.topics.items()} == {"one": 1, "many": 64, "gone": None}
    assert (logs.asking, logs.answer()) == (False, None)


def test_nothing_asked_is_nothing_answered(logs: PartitionLogs) -> None:
    assert (logs.asking, logs.answer()) == (False, None)


def test_a_question_about_nothing_is_answered_with_nothing(logs: PartitionLogs) -> None:
    logs.ask("q", [], [])
    assert answered(logs) == Survey("q", {}, {})
    assert logs.bounds([]) == {}
    assert logs.offsets_at({}) == {}


def test_a_later_question_sees_what_was_appended_meanwhile(broker: EmbeddedBroker, logs: PartitionLogs) -> None:
    warm(logs)
    for count in (0, 2, 5):
        send(broker, "one", count - answered_end(logs))
        assert answered_end(logs) == count


def answered_end(logs: PartitionLogs) -> int:
    logs.ask("q", [ONE], [])
    return answered(logs).ends[ONE].offset


def test_many_partitions_are_one_question(broker: EmbeddedBroker, logs: PartitionLogs) -> None:
    send(broker, "many", 200)
    warm(logs)
    logs.ask("q", MANY, [])
    survey = answered(logs)
    assert survey.ends.keys() == {*MANY}
    assert sum(end.offset for end in survey.ends.values()) == 200
    bounds = logs.bounds(MANY)
    assert bounds == {partition: (0, survey.ends[partition].offset) for partition in MANY}


def test_an_epoch_that_the_broker_does_not_tell_is_minus_one_or_its_number(logs: PartitionLogs) -> None:
    warm(logs)
    logs.ask("q", [ONE], [])
    assert answered(logs).ends[ONE] in {LogEnd(0, -1), LogEnd(0, 0)}


def test_partitions_that_do_not_exist_are_left_out_and_take_nothing_from_the_others(logs: PartitionLogs) -> None:
    warm(logs)
    logs.ask("q", [ONE, TopicPartition("gone", 0), TopicPartition("one", 7)], [])
    assert answered(logs).ends.keys() == {ONE}


# Silence


def test_a_question_that_nobody_answers_ends_in_its_time_with_nothing(broker: EmbeddedBroker, logs: PartitionLogs) -> None:
    warm(logs)
    broker.set_down()
    logs.ask("q", MANY, ["many"])
    assert logs.answer() is None
    survey = answered(logs)
    assert survey == Survey("q", {}, {})
    assert not logs.asking


def test_asking_never_waits_for_a_broker_that_is_down(broker: EmbeddedBroker, logs: PartitionLogs) -> None:
    broker.set_down()
    started = time.monotonic()
    for number in range(5):
        in_time(lambda number=number: logs.ask(number, MANY, ["many"]))  # type: ignore[misc]
    assert time.monotonic() - started < BOUND_S
    assert logs.asking


def test_after_an_outage_the_next_question_is_answered_and_no_answer_to_an_old_one_comes(
    broker: EmbeddedBroker, logs: PartitionLogs
) -> None:
    warm(logs)
    broker.set_down()
    logs.ask("old", [ONE], ["one"])
    assert answered(logs).asked == "old"
    broker.set_up()

    def back() -> bool:
        logs.ask("new", [ONE], [])
        survey = answered(logs)
        assert survey.asked == "new"
        return survey.ends.keys() == {ONE}

    eventually(back, "an answer after the outage")


def test_bounds_and_times_that_nobody_answers_are_to_be_asked_again_and_hold_nobody_for_long(
    broker: EmbeddedBroker, logs: PartitionLogs
) -> None:
    warm(logs)
    broker.set_down()
    with pytest.raises(RetriableError, match="Kafka did not answer about a log"):
        in_time(lambda: logs.bounds(MANY))
    with pytest.raises(RetriableError, match="Kafka did not answer about a log"):
        in_time(lambda: logs.offsets_at(dict.fromkeys(MANY, 0)))
    broker.set_up()

    def back() -> bool:
        try:
            return logs.bounds([ONE]) == {ONE: (0, 0)}
        except RetriableError:
            return False

    eventually(back, "bounds after the outage")


def test_bounds_of_a_partition_that_does_not_exist_are_to_be_asked_again(logs: PartitionLogs) -> None:
    warm(logs)
    with pytest.raises(RetriableError):
        in_time(lambda: logs.bounds([ONE, TopicPartition("gone", 0)]))


def test_a_leader_that_moves_costs_one_answer_at_most(broker: EmbeddedBroker, logs: PartitionLogs) -> None:
    warm(logs)
    broker.fail_requests(LIST_OFFSETS, [NOT_LEADER])
    logs.ask("q", [ONE, MANY[0]], [])
    assert answered(logs).ends.keys() <= {ONE, MANY[0]}
    eventually(lambda: answered_end_or_none(logs) == 0, "the next answer")


def answered_end_or_none(logs: PartitionLogs) -> int | None:
    logs.ask("q", [ONE], [])
    end = answered(logs).ends.get(ONE)
    return None if end is None else end.offset


# The end


@pytest.mark.parametrize("down", [False, True], ids=["answering", "silent"])
def test_a_close_while_asking_ends_soon_and_takes_the_question_with_it(broker: EmbeddedBroker, logs: PartitionLogs, down: bool) -> None:
    warm(logs)
    if down:
        broker.set_down()
    logs.ask("q", MANY, ["many"])
    in_time(logs.close)
    assert (logs.asking, logs.answer()) == (False, None)
    in_time(logs.close)


def test_a_close_before_anything_was_asked_does_nothing(logs: PartitionLogs) -> None:
    logs.close()
    assert logs.answer() is None


def test_a_client_that_is_never_asked_is_never_made(broker: EmbeddedBroker) -> None:
    # A property that the client refuses would be noticed.
    unused = PartitionLogs({"bootstrap.servers": broker.bootstrap, "no.such.property": "1"})
    assert unused.answer() is None
    unused.close()
