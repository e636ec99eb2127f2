"""A task whose plugin says where partitions start, turn by turn: what is put, committed, closed and opened, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from tests.fakes import FakeConsumer, OwningSink, Stage, Where, end_of_log, records, stage, together

from heartbeat.connect.api import Committed, SinkTask, TopicPartition
from heartbeat.connect.task import POLL_S, State
from heartbeat.errors import ConnectError, Reclaim, RetriableError

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)
EXIT = "org.apache.kafka.connect.errors.ConnectException: Exiting WorkerSinkTask due to unrecoverable exception."


def at(offsets: range, partition: int = 0) -> list[Where]:
    return [("t", partition, offset) for offset in offsets]


class Scene:
    """A stage whose plugin owns its offsets."""

    def __init__(self, *offered: TopicPartition, **how: Any) -> None:
        self.made: Stage = stage(plugin=OwningSink, **how)
        sink = self.made.sink
        assert isinstance(sink, OwningSink)
        self.sink, self.consumer, self.turn = sink, self.made.consumer, self.made.turn
        if offered:
            self.made.open()
            self.consumer.offer(*offered)
            self.turn(idle)

    def told(self, *kinds: str) -> list[Any]:
        return self.made.told(*kinds)

    def pass_s(self, seconds: float) -> None:
        """Let time pass, and go around once."""
        self.made.clock.advance(seconds)
        self.turn(idle)


def idle(_: FakeConsumer) -> None:
    """Poll without any event."""


def offer(*partitions: TopicPartition) -> Any:
    return lambda consumer: consumer.offer(*partitions)


def revoke(*partitions: TopicPartition) -> Any:
    return lambda consumer: consumer.revoke(*partitions)


def test_the_consumer_is_told_whether_its_plugin_opens() -> None:
    assert Scene(P).consumer.opens
    ordinary = stage()
    ordinary.open()
    assert not ordinary.consumer.opens


def test_a_partition_is_opened_in_the_turn_that_gives_it_and_before_anything_of_it_is_put() -> None:
    scene = Scene(P)
    scene.turn(records("t", 0, range(3)))
    assert [entry for entry in scene.told("open", "start", "put") if entry != ("put", [])] == [
        ("open", {P: None}),
        ("start", {P: 0}),
        ("put", at(range(3))),
    ]


def test_an_ordinary_plugin_is_not_asked_to_open_but_told_what_goes() -> None:
    made, closed = stage(), list[set[TopicPartition]]()
    made.sink.close = lambda partitions: closed.append(set(partitions))  # type: ignore[method-assign]
    made.open()
    made.consumer.assign(P, Q)
    made.turn(idle, revoke(P))
    assert closed == [{P}]
    with pytest.raises(NotImplementedError):
        SinkTask.open(made.sink, {})


# Not yet


def test_while_a_partition_cannot_be_opened_polling_and_the_others_go_on_and_nothing_of_it_is_committed() -> None:
    scene = Scene(P)
    scene.sink.openings.extend([RetriableError("away", retry_after_s=5.0)])
    scene.turn(offer(Q), records("t", 0, range(3)), records("t", 0, range(3, 6)))
    assert scene.sink.puts[-2:] == [at(range(3)), at(range(3, 6))]
    assert scene.consumer.committable() == {P: 6}
    assert not scene.consumer.is_paused()
    assert len(scene.told("open")) == 2
    scene.pass_s(5.1)
    assert scene.consumer.assigned.keys() == {P, Q}


def test_a_plugin_that_cannot_open_for_long_is_asked_with_pauses_although_empty_puts_go_well() -> None:
    scene = Scene()
    scene.made.open()
    scene.sink.openings.extend([RetriableError("away")] * 10_000)
    scene.consumer.offer(P)
    for _ in range(400):  # twenty seconds of polls
        scene.turn(idle)
        scene.made.clock.advance(0.05)
    assert 15 <= len(scene.told("open")) <= 60
    assert len(scene.sink.puts) == len(scene.consumer.polls) == 400
    assert all(timeout_s <= POLL_S for timeout_s, _ in scene.consumer.polls)
    assert scene.made.runner.status.state is State.RUNNING


def test_a_batch_that_is_kept_does_not_keep_a_new_partition_from_being_opened_nor_lets_it_fetch() -> None:
    scene = Scene(P)
    scene.sink.outcomes.append(RetriableError("away", retry_after_s=5.0))
    scene.turn(records("t", 0, range(3)), offer(Q))
    assert scene.consumer.assigned.keys() == {P, Q}
    assert scene.consumer.is_paused()
    scene.pass_s(5.1)
    assert scene.sink.puts[-1] == at(range(3))
    assert not scene.consumer.is_paused()


def test_a_paused_task_opens_what_it_is_given_and_stays_paused() -> None:
    scene = Scene(P)
    scene.made.runner.pause()
    scene.turn(idle, offer(Q), idle)
    assert scene.consumer.assigned.keys() == {P, Q}
    assert scene.consumer.is_paused()
    assert scene.made.runner.status.state is State.PAUSED


# Given back


def test_what_put_gives_back_is_opened_again_and_the_rest_of_the_batch_is_put_again() -> None:
    scene = Scene(P, Q)
    scene.sink.outcomes.append(Reclaim("flushed", [P]))
    scene.sink.starts = {P: 1}
    scene.turn(together(records("t", 0, range(3)), records("t", 1, range(2))))
    scene.turn(records("t", 1, range(2, 4)), records("t", 0, range(1, 3)))
    assert [entry for entry in scene.told("refused", "reopen", "closed", "open", "start", "put")[3:] if entry != ("put", [])] == [
        ("refused", at(range(3)) + at(range(2), 1)),
        ("reopen", [P]),
        ("closed", [P]),
        ("open", {P: None}),
        ("start", {P: 1}),
        ("put", at(range(4), 1)),
        ("put", at(range(1, 3))),
    ]
    assert scene.consumer.committable() == {P: 3, Q: 4}


def test_nothing_of_a_partition_that_was_given_back_is_committed_before_it_is_applied_anew() -> None:
    scene = Scene(P, Q)
    scene.turn(together(records("t", 0, range(9)), records("t", 1, range(2))))
    scene.sink.outcomes.append(Reclaim("flushed", [P]))
    scene.made.clock.advance(11)
    scene.turn(together(records("t", 0, range(9, 12)), records("t", 1, range(2, 3))))
    assert scene.consumer.commits == [{Q: 2}]
    scene.turn(idle)
    assert scene.consumer.committable() == {Q: 3}
    scene.turn(records("t", 0, range(5)))
    assert scene.consumer.committable() == {P: 5, Q: 3}


def test_a_partition_given_back_is_not_committed_by_its_revocation_or_a_stop_either() -> None:
    scene = Scene(P)
    scene.turn(records("t", 0, range(9)))
    scene.sink.openings.extend([RetriableError("away", retry_after_s=60)])
    scene.sink.outcomes.append(Reclaim("flushed", [P]))
    scene.turn(idle, idle, revoke(P))
    assert scene.told("revoked") == [("revoked", {})]


def test_a_reclaim_without_records_is_followed_too() -> None:
    scene = Scene(P)
    scene.sink.outcomes.append(Reclaim("the log was cut", [P]))
    scene.turn(idle, idle)
    assert [kind for kind, _ in scene.told("reopen", "closed", "open", "start")] == ["open", "start", "reopen", "closed", "open", "start"]


def test_all_of_a_batch_given_back_leaves_nothing_to_put() -> None:
    scene = Scene(P, Q)
    scene.sink.outcomes.append(Reclaim("flushed", [P, Q]))
    scene.turn(together(records("t", 0, range(3)), records("t", 1, range(2))), idle)
    assert scene.sink.puts[-1] == []
    assert scene.consumer.committable() == {}
    scene.turn(together(end_of_log("t", 0, 3), end_of_log("t", 1, 2)))
    assert scene.consumer.committable() == {P: 3, Q: 2}


def test_a_reclaim_after_retries_drops_its_part_puts_the_rest_and_lifts_the_pause() -> None:
    scene = Scene(P, Q)
    scene.sink.outcomes.extend([RetriableError("away", retry_after_s=1.0), Reclaim("back, but empty", [P])])
    scene.turn(together(records("t", 0, range(3)), records("t", 1, range(2))))
    scene.pass_s(1.1)
    scene.turn(idle)
    assert scene.sink.puts[-1] == at(range(2), 1)
    assert scene.consumer.committable() == {Q: 2}
    assert not scene.consumer.is_paused()
    assert scene.consumer.assigned.keys() == {P, Q}


def test_a_partition_reclaimed_and_revoked_in_the_next_poll_is_closed_and_not_opened() -> None:
    scene = Scene(P, Q)
    scene.sink.outcomes.append(Reclaim("flushed", [P]))
    scene.turn(together(records("t", 0, range(3)), records("t", 1, range(2))), revoke(P))
    assert scene.sink.has == {Q}
    assert len(scene.told("open")) == 1
    assert scene.sink.puts[-1] == at(range(2), 1)


# Rebalances


def test_what_goes_is_closed_before_it_is_opened_again_and_its_old_records_are_not_put() -> None:
    scene = Scene(P)
    scene.sink.outcomes.append(RetriableError("away"))
    scene.turn(records("t", 0, range(5, 9)))

    def rebalance(consumer: FakeConsumer) -> None:
        consumer.revoke(P)
        consumer.offer(P)

    scene.sink.starts = {P: 20}
    scene.turn(rebalance, records("t", 0, range(20, 22)))
    assert [kind for kind, _ in scene.told("revoked", "closed", "open", "start")][2:] == ["revoked", "closed", "open", "start"]
    assert scene.sink.puts[-1] == at(range(20, 22))
    assert scene.consumer.committable() == {P: 22}


def test_partitions_revoked_while_redis_is_away_leave_batch_and_plugin_and_are_not_committed() -> None:
    scene = Scene(P, Q)
    scene.turn(records("t", 0, range(2)))
    scene.sink.outcomes.extend([RetriableError("away", retry_after_s=1.0)] * 3)
    scene.turn(together(records("t", 0, range(2, 5)), records("t", 1, range(3))), revoke(P))
    assert scene.told("revoked") == [("revoked", {P: 2})]
    assert scene.sink.has == {Q}
    for _ in range(4):
        scene.pass_s(1.1)
    assert scene.sink.puts[-2] == at(range(3), 1)
    assert scene.consumer.commits == [] or scene.consumer.commits == [{Q: 3}]
    assert P not in scene.consumer.committable()


def test_a_partition_given_while_redis_is_away_and_revoked_again_was_never_the_plugins() -> None:
    scene = Scene(P)
    scene.sink.openings.extend([RetriableError("away")] * 100)
    scene.turn(offer(Q), idle, revoke(Q))
    asked = len(scene.told("open"))
    for _ in range(5):
        scene.pass_s(1.0)
    assert len(scene.told("open")) == asked
    assert scene.told("closed") == []
    assert scene.consumer.assigned.keys() == {P}


def test_each_commit_carries_the_plugins_text_that_of_a_revocation_too() -> None:
    scene = Scene(P, Q)
    scene.made.clock.advance(11)
    scene.turn(together(records("t", 0, range(3)), records("t", 1, range(2))))
    scene.turn(records("t", 0, range(3, 5)), revoke(P))
    assert scene.consumer.notes == [{P: "until 0", Q: "until 1"}, {P: "until 0"}]


def test_the_plugin_still_has_a_partition_while_the_commit_of_its_revocation_asks_for_the_text() -> None:
    scene, had = Scene(P), list[bool]()

    def text(partition: TopicPartition) -> str:
        had.append(partition in scene.sink.has)
        return ""

    scene.consumer.metadata = text
    scene.turn(records("t", 0, range(3)), revoke(P))
    assert had == [True]


# Ends


def given(consumer: FakeConsumer) -> None:
    consumer.offer(P)


def test_what_the_group_holds_is_what_the_plugin_is_told_of_a_partition() -> None:
    made = Scene().made
    made.consumer.held[P] = Committed(5, "until 17")
    made.run(given)
    assert ("open", {P: Committed(5, "until 17")}) in made.journal


@pytest.mark.parametrize(
    ("error", "first_line"),
    [
        (ValueError("disk on fire"), EXIT),
        (KeyError("x"), EXIT),
        (ConnectError("nothing says where to start"), "org.apache.kafka.connect.errors.ConnectException: nothing says where to start"),
        (SystemExit(1), "SystemExit: 1"),
    ],
)
def test_a_plugin_that_cannot_open_for_good_fails_the_task_which_leaves_and_commits_what_came_before(
    error: BaseException, first_line: str
) -> None:
    scene = Scene()
    scene.sink.openings.extend([None, error])
    scene.made.run(given, records("t", 0, range(3)), offer(Q))
    status = scene.made.runner.status
    assert (status.state, (status.trace or "").splitlines()[0]) == (State.FAILED, first_line)
    assert scene.consumer.commits == [{P: 3}]
    assert scene.consumer.closed == scene.sink.stopped == 1


def test_a_plugin_that_owns_offsets_and_has_no_open_fails_the_task() -> None:
    made = Scene().made
    made.sink.open = lambda committed: SinkTask.open(made.sink, committed)  # type: ignore[method-assign]
    made.run(given)
    assert made.runner.status.state is State.FAILED
    assert "NotImplementedError" in (made.runner.status.trace or "")


def test_a_close_that_raises_although_it_must_not_fails_the_task_and_says_why() -> None:
    made = Scene().made

    def broken(partitions: Collection[TopicPartition]) -> None:
        raise ValueError("no way back")

    made.sink.close = broken  # type: ignore[method-assign]
    made.run(given, idle, revoke(P))
    assert made.runner.status.state is State.FAILED
    assert "no way back" in (made.runner.status.trace or "")


def test_a_stop_while_partitions_wait_to_be_opened_leaves_without_them() -> None:
    scene = Scene()
    scene.sink.openings.extend([None, *[RetriableError("away")] * 100])
    scene.made.run(given, records("t", 0, range(3)), offer(Q))
    assert scene.consumer.commits == [{P: 3}]
    assert scene.made.runner.status.state is State.UNASSIGNED


class RecordingLogs:
    """What a task does with its view of the logs."""

    def __init__(self) -> None:
        self.topics: Collection[str] = ()
        self.closed = 0

    def ask(self, asked: Any, partitions: Collection[TopicPartition], topics: Collection[str]) -> None: ...
    def answer(self) -> None: ...
    @property
    def asking(self) -> bool:
        return False

    def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return {}

    def offsets_at(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        return {}

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("error", [None, ValueError("no start")])
def test_the_logs_know_the_subscription_and_are_closed_with_the_task_also_after_a_failed_start(error: Exception | None) -> None:
    made, logs = Scene().made, RecordingLogs()
    object.__setattr__(made.runner.spec.context, "logs", logs)
    made.sink.start_error = error
    made.run(given)
    assert logs.closed == 1
    assert logs.topics == ([] if error else ["t"]) or (error and logs.topics == ())
