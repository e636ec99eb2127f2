"""Partitions whose plugin says where they start: asked with a pause after trouble, closed before they are opened again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes import FakeClock, FakeConsumer, OwningSink

from heartbeat.connect.api import Committed, TopicPartition
from heartbeat.connect.opening import Opening, backoff_s
from heartbeat.errors import ConnectError, Reclaim, RetriableError

P, Q, R = (TopicPartition("t", number) for number in range(3))


class World:
    """An opening between a fake consumer and a fake plugin."""

    def __init__(self, *offered: TopicPartition) -> None:
        self.clock, self.journal = FakeClock(), list[Any]()
        self.consumer, self.plugin = FakeConsumer(self.clock, self.journal), OwningSink(self.journal)
        self.opening = Opening("c-0", self.consumer, self.plugin, self.clock)
        self.consumer.offer(*offered)

    def turns(self, count: int = 1) -> None:
        for _ in range(count):
            self.opening.turn()

    def asked(self) -> int:
        return len([entry for entry in self.journal if entry[0] == "open"])

    def attempts(self, seconds: float, step_s: float = 0.01) -> int:
        """Turn every ``step_s`` for so long; return how often the plugin was asked."""
        before, end_s = self.asked(), self.clock() + seconds
        while self.clock() < end_s:
            self.turns()
            self.clock.advance(step_s)
        return self.asked() - before


def test_a_new_partition_is_opened_with_what_the_group_holds_and_started_where_the_plugin_says() -> None:
    world = World(P, Q)
    world.consumer.held[P] = Committed(7, "text")
    world.plugin.starts = {P: 5, Q: 9}
    world.turns()
    assert world.journal == [("open", {P: Committed(7, "text"), Q: None}), ("start", {P: 5, Q: 9})]
    assert world.consumer.assigned.keys() == {P, Q}


def test_what_is_open_is_not_asked_about_again() -> None:
    world = World(P)
    world.turns(5)
    world.consumer.offer(Q)
    world.turns(5)
    assert [entry for entry in world.journal if entry[0] == "open"] == [("open", {P: None}), ("open", {Q: None})]


def test_with_nothing_to_open_nobody_is_asked() -> None:
    world = World()
    world.turns(3)
    assert world.journal == []


def test_a_turn_is_due_when_something_is_to_be_opened_or_closed() -> None:
    world = World()
    assert not world.opening.due()
    world.consumer.offer(P)
    assert world.opening.due()
    world.turns()
    assert not world.opening.due()
    world.consumer.revoke(P)
    assert world.opening.due()
    world.turns()
    assert not world.opening.due()
    world.plugin.openings.append(RetriableError("busy", retry_after_s=5.0))
    world.consumer.offer(Q)
    world.turns()
    assert not world.opening.due()
    world.clock.advance(5.1)
    assert world.opening.due()


# Trouble


def test_a_plugin_that_cannot_open_yet_is_asked_again_at_once_and_then_with_growing_pauses() -> None:
    world = World(P)
    world.plugin.openings.extend([RetriableError("redis is away")] * 1000)
    first = world.attempts(0.02)
    assert first == 2
    world.attempts(10.0)
    # By now the pauses are at their longest: between half a second and a second.
    assert 10 / backoff_s(20, 1.0) - 1 <= world.attempts(10.0) <= 10 / backoff_s(20, 0.0) + 1
    assert world.consumer.unopened == {P}


def test_the_pause_that_the_plugin_asks_for_is_honoured() -> None:
    world = World(P)
    world.plugin.openings.append(RetriableError("busy", retry_after_s=30.0))
    assert world.attempts(29.9) == 1
    assert world.attempts(0.5) == 1
    assert world.consumer.assigned.keys() == {P}


def test_trouble_after_a_calm_time_is_met_at_once_again() -> None:
    world = World(P)
    world.plugin.openings.extend([RetriableError("away")] * 8)
    world.attempts(20.0)
    assert world.consumer.assigned.keys() == {P}
    world.opening.give_back(Reclaim("flushed", [P]))
    world.turns()
    assert world.consumer.assigned.keys() == {P}


def test_a_partition_given_back_over_and_over_is_not_opened_in_a_hot_loop() -> None:
    world = World(P)
    world.turns()
    opened = 0
    for _ in range(1000):  # ten seconds
        if world.consumer.assigned:
            opened += 1
            world.opening.give_back(Reclaim("another task has claimed it", [P]))
        world.turns()
        world.clock.advance(0.01)
    assert 5 <= opened <= 40


def test_offsets_of_the_group_that_cannot_be_read_are_asked_for_again_before_the_plugin_is() -> None:
    world = World(P)
    world.consumer.held[P] = RetriableError("no coordinator")
    world.turns()
    assert world.journal == []
    assert world.consumer.unopened == {P}
    world.consumer.held[P] = Committed(3)
    world.clock.advance(1.0)
    world.turns()
    assert world.journal[0] == ("open", {P: Committed(3)})


def test_a_start_that_failed_is_closed_and_opened_again() -> None:
    world = World(P)
    world.consumer.start_error = RetriableError("the client refused")
    world.turns(2)
    assert [kind for kind, _ in world.journal] == ["open", "start", "closed", "open", "start"]
    assert world.consumer.assigned.keys() == {P}


def test_a_partition_whose_start_failed_and_that_is_then_revoked_is_closed() -> None:
    # Else the plugin goes on speaking for a partition that is somebody else's.
    world = World(P)
    world.consumer.start_error = RetriableError("the client refused")
    world.turns()
    world.consumer.revoke(P)
    world.turns()
    assert world.plugin.has == set()


def test_a_partition_that_the_plugin_leaves_out_is_asked_about_again_with_a_pause_and_the_others_start() -> None:
    world = World(P, Q)
    tell = world.plugin.open

    def reluctant(committed: Any) -> Any:
        told = dict(tell(committed))
        told.pop(Q, None)
        world.plugin.has.discard(Q)
        return told

    world.plugin.open = reluctant  # type: ignore[method-assign]
    assert world.attempts(10.0) <= 40
    assert world.consumer.assigned.keys() == {P}
    assert world.consumer.unopened == {Q}


def test_trouble_is_told_once_in_ten_seconds_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    world = World(P, Q)
    world.plugin.openings.extend([RetriableError("redis is away")] * 1000)
    world.attempts(9.0)
    assert caplog.messages == ["Task c-0 cannot take over t-0, t-1 yet: redis is away"]
    world.attempts(9.0)
    assert len(caplog.messages) == 2


# What goes


def test_a_partition_that_is_revoked_is_closed() -> None:
    world = World(P, Q)
    world.turns()
    world.consumer.revoke(P)
    world.turns()
    assert world.journal[-1] == ("closed", [P])
    assert world.plugin.has == {Q}


def test_a_partition_revoked_right_after_it_was_opened_is_closed() -> None:
    world = World(P)
    world.turns()
    world.consumer.revoke(P)
    world.turns(2)
    assert [entry for entry in world.journal if entry[0] == "closed"] == [("closed", [P])]


def test_a_partition_revoked_and_given_again_in_one_poll_is_closed_and_then_opened_again() -> None:
    world = World(P)
    world.turns()
    world.consumer.revoke(P)
    world.consumer.offer(P)
    world.turns()
    assert [entry[0] for entry in world.journal] == ["open", "start", "revoked", "closed", "open", "start"]


def test_a_partition_revoked_before_it_was_opened_is_neither_closed_nor_opened() -> None:
    world = World(P)
    world.plugin.openings.append(RetriableError("away"))
    world.turns()
    world.consumer.revoke(P)
    world.clock.advance(5)
    world.turns()
    assert [entry[0] for entry in world.journal] == ["open", "revoked"]


def test_a_partition_given_back_is_closed_before_it_is_opened_again_and_the_others_are_left_alone() -> None:
    world = World(P, Q)
    world.turns()
    before = world.consumer.assigned
    world.opening.give_back(Reclaim("flushed", [("t", 0)]))
    assert world.consumer.assigned.keys() == {Q}
    assert world.consumer.unopened == {P}
    world.turns()
    assert world.journal[2:] == [("reopen", [P]), ("closed", [P]), ("open", {P: None}), ("start", {P: 0})]
    assert world.consumer.assigned[Q] == before[Q]
    assert world.consumer.assigned[P] > before[P]


def test_what_a_plugin_gives_back_while_it_opens_something_else_is_opened_again_too() -> None:
    world = World(P)
    world.turns()
    world.consumer.offer(Q)
    world.plugin.openings.append(Reclaim("flushed meanwhile", [P]))
    world.turns(2)
    assert world.consumer.assigned.keys() == {P, Q}
    assert world.journal[-3:] == [("closed", [P]), ("open", {P: None, Q: None}), ("start", {P: 0, Q: 0})]


def test_giving_back_what_is_not_ours_takes_nothing_and_opens_nothing() -> None:
    world = World(P)
    world.turns()
    world.opening.give_back(Reclaim("late", [Q]))
    world.clock.advance(5)
    world.turns()
    assert world.consumer.assigned.keys() == {P}
    assert not world.consumer.unopened
    assert world.asked() == 1


# What fails for good


def test_a_connect_error_of_open_is_the_reason_itself() -> None:
    world = World(P)
    world.plugin.openings.append(ConnectError("nothing says where to start"))
    with pytest.raises(ConnectError, match="nothing says where to start"):
        world.turns()


@pytest.mark.parametrize("error", [ValueError("disk on fire"), KeyError(P), NotImplementedError()])
def test_anything_else_that_open_raises_is_told_as_put_tells_it(error: Exception) -> None:
    world = World(P)
    world.plugin.openings.append(error)
    with pytest.raises(ConnectError, match="Exiting WorkerSinkTask due to unrecoverable exception") as caught:
        world.turns()
    assert caught.value.__cause__ is error
