"""One task, turn by turn, with a scripted consumer, plugin and clock: what is lost, what is told, and what hangs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from tests.fakes import PATIENCE_S, FakeConsumer, FakeSink, Stage, Where, end_of_log, eventually, records, stage, together

from heartbeat.connect.api import Subscription, TopicPartition
from heartbeat.connect.conversion import Tolerance
from heartbeat.connect.converters import JsonConverter
from heartbeat.connect.opening import backoff_s
from heartbeat.connect.task import POLL_S, Pace, State
from heartbeat.errors import ConnectError, RetriableError

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)
CONNECT = "org.apache.kafka.connect.errors.ConnectException: "


def at(offsets: range, partition: int = 0) -> list[Where]:
    return [("t", partition, offset) for offset in offsets]


def opened(*partitions: TopicPartition, **how: Any) -> Stage:
    """Return a stage whose task is open and whose consumer has these partitions."""
    made = stage(**how)
    made.open()
    made.consumer.assign(*partitions)
    return made


def later(made: Stage) -> None:
    """Let the time of the next commit come."""
    made.clock.advance(11)


def idle(_: FakeConsumer) -> None:
    """Poll without any event."""


# Order: put, progress, commit


def test_offsets_are_committed_after_the_put_that_applied_them_and_not_before() -> None:
    made = opened(P)
    later(made)
    made.turn(records("t", 0, range(3)))
    assert made.told("put", "commit") == [("put", at(range(3))), ("commit", {P: 3})]


def test_nothing_is_committable_while_put_is_under_way() -> None:
    made = opened(P)
    seen: list[Mapping[TopicPartition, int]] = []
    put = made.sink.put

    def watching(batch: Any) -> None:
        seen.append(dict(made.consumer.committable()))
        put(batch)

    made.sink.put = watching  # type: ignore[method-assign]
    made.turn(records("t", 0, range(3)))
    assert seen == [{}]
    assert made.consumer.committable() == {P: 3}


def test_commits_wait_for_their_time_and_are_not_repeated_when_nothing_is_new() -> None:
    made = opened(P)
    made.turn(records("t", 0, range(3)))
    assert made.consumer.commits == []
    later(made)
    made.turn(end_of_log("t", 0, 3))
    later(made)
    made.turn(end_of_log("t", 0, 3), end_of_log("t", 0, 3))
    assert made.consumer.commits == [{P: 3}]


def test_the_plugin_is_put_to_every_turn_also_without_records() -> None:
    made = opened(P)
    made.turn(idle, idle)
    assert made.sink.puts == [[], []]


def test_a_commit_under_way_is_not_joined_by_another() -> None:
    made = opened(P, pace=Pace(commit_every_s=1.0, commit_timeout_s=5.0))
    made.consumer.answers_commits = False
    made.clock.advance(2)
    made.turn(records("t", 0, range(3)))
    made.clock.advance(2)
    made.turn(records("t", 0, range(3, 6)))
    assert made.consumer.commits == [{P: 3}]


def test_a_commit_that_is_not_answered_in_time_is_given_up_and_another_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    made = opened(P, pace=Pace(commit_every_s=1.0, commit_timeout_s=5.0))
    made.consumer.answers_commits = False
    made.clock.advance(2)
    made.turn(records("t", 0, range(3)))
    made.clock.advance(6)
    made.turn(records("t", 0, range(3, 6)))
    assert made.told("commit", "forgot") == [("commit", {P: 3}), ("forgot", None), ("commit", {P: 6})]
    assert "was not answered" in caplog.text


def test_an_unanswered_commit_is_sent_again_even_when_nothing_new_arrives() -> None:
    made = opened(P, pace=Pace(commit_every_s=1.0, commit_timeout_s=5.0))
    made.consumer.answers_commits = False
    made.clock.advance(2)
    made.turn(records("t", 0, range(3)))
    made.clock.advance(6)
    made.turn(idle)
    assert made.consumer.commits == [{P: 3}, {P: 3}]


# The end of the log


def test_the_end_of_the_log_carries_the_offset_past_what_holds_no_records() -> None:
    made = opened(P)
    made.turn(records("t", 0, range(5)), end_of_log("t", 0, 10))
    assert made.consumer.committable() == {P: 10}


def test_the_end_of_an_empty_partition_is_committed_so_that_a_reset_to_latest_later_skips_nothing() -> None:
    made = opened(P)
    made.turn(end_of_log("t", 0, 7))
    assert made.consumer.committable() == {P: 7}


def test_the_end_of_the_log_does_not_pass_for_applied_while_the_records_before_it_are_kept() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(records("t", 0, range(5)), end_of_log("t", 0, 5))
    assert made.consumer.committable() == {}
    made.clock.advance(5)
    made.turn(idle)
    assert made.sink.puts[-1] == at(range(5))
    assert made.consumer.committable() == {P: 5}


def test_a_batch_of_skipped_records_only_still_moves_the_offset() -> None:
    made = opened(P, value=JsonConverter(schemas_enable=False), tolerance=Tolerance(skip=True))
    later(made)
    made.turn(records("t", 0, range(4), b"{no json"))
    assert made.sink.puts == [[]]
    assert made.consumer.commits == [{P: 4}]


def test_a_skipped_record_costs_its_neighbours_nothing() -> None:
    made = opened(P, value=JsonConverter(schemas_enable=False), tolerance=Tolerance(skip=True))
    made.turn(together(records("t", 0, [0], b"1"), records("t", 0, [1], b"{"), records("t", 0, [2], b"3")))
    assert made.sink.puts == [[("t", 0, 0), ("t", 0, 2)]]
    assert made.runner.spec.feed.conversion.skipped == 1
    assert made.consumer.committable() == {P: 3}


# Retries


def test_a_retriable_error_keeps_the_records_pauses_and_puts_the_same_again() -> None:
    made = opened(P)
    made.sink.outcomes.extend([RetriableError("down"), RetriableError("down")])
    made.turn(records("t", 0, range(3)))
    assert made.consumer.is_paused()
    later(made)
    made.turn(idle)
    later(made)
    made.turn(idle)
    assert made.sink.puts == [at(range(3))] * 3
    assert made.told("commit") == [("commit", {P: 3})]
    assert not made.consumer.is_paused()
    assert made.runner.status.state is State.RUNNING


def test_polling_goes_on_while_a_batch_is_kept_and_is_never_longer_than_the_wait() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down", retry_after_s=1.0))
    made.turn(records("t", 0, range(3)))
    before, polls = made.clock(), len(made.consumer.polls)
    while len(made.sink.puts) == 1:
        made.runner.turn()
    assert made.clock() - before == pytest.approx(1.0)
    waits = made.consumer.polls[polls:]
    assert len(waits) >= 5
    assert all(timeout_s <= POLL_S and records_wanted == 1 for timeout_s, records_wanted in waits)


def test_the_wait_that_the_plugin_asks_for_is_honoured() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("busy", retry_after_s=30.0))
    made.turn(records("t", 0, range(3)))
    made.clock.advance(29.9)
    made.turn(idle)
    assert len(made.sink.puts) == 1
    made.clock.advance(0.2)
    made.turn(idle)
    assert len(made.sink.puts) == 2


@pytest.mark.parametrize("spread", [0.0, 0.5, 0.999])
def test_the_back_off_grows_is_spread_and_bounded(spread: float) -> None:
    delays = [backoff_s(failures, spread) for failures in range(1, 40)]
    assert delays == sorted(delays)
    assert 0.04 <= delays[0] <= 0.11
    assert 0.5 <= delays[-1] <= 1.0
    assert backoff_s(5, 0.0) < backoff_s(5, 0.9)


def test_without_a_wish_of_the_plugin_the_second_try_comes_within_the_back_off() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(records("t", 0, range(3)))
    before = made.clock()
    while len(made.sink.puts) == 1:
        made.runner.turn()
    assert 0 < made.clock() - before <= backoff_s(1, 1.0)


def test_records_that_slip_through_while_a_batch_is_kept_join_it_in_order() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(records("t", 0, range(3)), records("t", 0, range(3, 5)))
    later(made)
    made.turn(idle)
    assert made.sink.puts[-1] == at(range(5))
    assert made.consumer.committable() == {} or made.consumer.commits[-1] == {P: 5}


def test_earlier_offsets_are_committed_while_a_later_batch_is_kept() -> None:
    made = opened(P)
    made.sink.outcomes.extend([None, RetriableError("down", retry_after_s=60.0)])
    made.turn(records("t", 0, range(3)), records("t", 0, range(3, 6)))
    later(made)
    made.turn(idle)
    assert made.consumer.commits == [{P: 3}]


def test_a_first_failure_after_a_recovery_waits_as_short_as_the_very_first() -> None:
    made = opened(P)
    made.sink.outcomes.extend([RetriableError("down")] * 8)
    made.turn(records("t", 0, range(3)))
    while made.sink.outcomes:
        made.runner.turn()
    made.clock.advance(2)
    made.turn(idle)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(records("t", 0, range(3, 6)))
    before, puts = made.clock(), len(made.sink.puts)
    while len(made.sink.puts) == puts:
        made.runner.turn()
    assert made.clock() - before <= backoff_s(1, 1.0)


# Rebalances


def test_revoked_records_leave_the_kept_batch_and_the_others_stay() -> None:
    made = opened(P, Q)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(together(records("t", 0, range(3)), records("t", 1, range(2))))
    made.turn(lambda consumer: consumer.revoke(P))
    later(made)
    made.turn(idle)
    assert made.sink.puts[-1] == at(range(2), 1)
    assert made.consumer.commits == [{Q: 2}]


def test_a_partition_revoked_and_given_back_in_one_poll_does_not_keep_its_old_records() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(records("t", 0, range(5, 9)))

    def rebalance(consumer: FakeConsumer) -> None:
        consumer.revoke(P)
        consumer.assign(P)

    made.turn(rebalance)
    made.clock.advance(2)
    # Somebody else had the partition and went on to 20; what we kept must not take the group back to 9.
    made.turn(records("t", 0, range(20, 22)))
    assert made.sink.puts[-1] == at(range(20, 22))
    later(made)
    made.turn(idle)
    assert made.consumer.commits == [{P: 22}]


def test_a_kept_batch_whose_partitions_are_all_gone_lifts_the_pause_at_once() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down", retry_after_s=60))
    made.turn(records("t", 0, range(3)), lambda consumer: consumer.revoke(P))
    made.turn(idle)
    assert made.sink.puts[-1] == []
    assert not made.consumer.is_paused()


def test_a_revocation_commits_what_is_applied_and_nothing_of_the_kept_batch() -> None:
    made = opened(P)
    made.sink.outcomes.extend([None, RetriableError("down")])
    made.turn(records("t", 0, range(3)), records("t", 0, range(3, 6)), lambda consumer: consumer.revoke(P))
    assert made.told("revoked") == [("revoked", {P: 3})]


def test_a_second_revocation_within_one_poll_does_not_commit_what_the_first_assignment_applied() -> None:
    made = opened(P)
    made.turn(records("t", 0, range(3)))

    def twice(consumer: FakeConsumer) -> None:
        consumer.revoke(P)
        consumer.assign(P)
        consumer.revoke(P)

    made.turn(twice)
    assert made.told("revoked") == [("revoked", {P: 3}), ("revoked", {})]


def test_records_delivered_again_after_a_rebalance_are_put_again_and_offsets_follow_them() -> None:
    made = opened(P)
    made.turn(records("t", 0, range(6)))
    made.turn(lambda consumer: consumer.revoke(P))
    made.turn(lambda consumer: consumer.assign(P))
    made.turn(records("t", 0, range(2, 4)))
    assert made.consumer.committable() == {P: 4}


def test_no_commit_names_a_partition_that_is_not_assigned() -> None:
    made = opened(P, Q)
    made.turn(together(records("t", 0, range(3)), records("t", 1, range(3))))
    made.turn(lambda consumer: consumer.revoke(Q))
    later(made)
    made.turn(idle)
    assert made.consumer.commits == [{P: 3}]


# Pause and resume


def test_a_pause_commits_at_once_stops_fetching_and_goes_on_polling() -> None:
    made = opened(P)
    made.turn(records("t", 0, range(3)))
    made.runner.pause()
    made.turn(idle, idle)
    assert made.runner.status.state is State.PAUSED
    assert made.consumer.is_paused()
    assert made.consumer.commits == [{P: 3}]
    assert made.consumer.assigned.keys() == {P}
    assert len(made.consumer.polls) == 3


def test_a_pause_commits_what_it_has_also_when_a_commit_is_under_way() -> None:
    made = opened(P)
    made.consumer.answers_commits = False
    later(made)
    made.turn(records("t", 0, range(3)), records("t", 0, range(3, 6)))
    made.runner.pause()
    made.turn(idle)
    made.consumer.answers_commits = True
    made.turn(idle)
    assert made.consumer.commits == [{P: 3}, {P: 6}]


def test_the_plugin_knows_before_each_put_whether_an_operator_holds_it_and_a_kept_batch_is_no_such_hold() -> None:
    class Knowing(FakeSink):
        def on_pause(self, *, paused: bool) -> None:
            self.journal.append(("paused", paused))

    made = opened(P, plugin=Knowing)
    made.sink.outcomes.append(RetriableError("not now"))
    made.turn(records("t", 0, [1]))
    assert made.consumer.is_paused()
    made.turn(idle)
    made.runner.pause()
    made.turn(idle)
    made.runner.resume()
    made.turn(idle)
    told = [paused for _, paused in made.told("paused")]
    assert told[0] is False
    assert [paused for before, paused in zip([None, *told], told, strict=False) if paused != before] == [False, True, False]


def test_a_resume_fetches_again_and_says_so() -> None:
    made = opened(P)
    made.runner.pause()
    made.turn(idle)
    made.runner.resume()
    made.turn(records("t", 0, range(2)))
    assert made.runner.status.state is State.RUNNING
    assert not made.consumer.is_paused()
    assert made.sink.puts[-1] == at(range(2))


def test_a_resume_does_not_lift_the_pause_of_a_kept_batch() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down", retry_after_s=60.0))
    made.turn(records("t", 0, range(3)))
    made.runner.pause()
    made.turn(idle)
    made.runner.resume()
    made.turn(idle)
    assert made.consumer.is_paused()
    assert made.runner.status.state is State.RUNNING


def test_a_recovery_does_not_lift_an_operators_pause() -> None:
    made = opened(P)
    made.sink.outcomes.append(RetriableError("down"))
    made.turn(records("t", 0, range(3)))
    made.runner.pause()
    made.clock.advance(2)
    made.turn(idle, idle)
    assert made.sink.puts[1] == at(range(3))
    assert made.consumer.is_paused()
    assert made.runner.status.state is State.PAUSED


def test_a_task_started_paused_waits_before_it_starts_the_plugin() -> None:
    made = stage(paused=True)
    made.consumer.script.append(lambda _: made.runner.stop())
    made.runner.start()
    eventually(lambda: made.runner.status.state is State.PAUSED, "the task is PAUSED")
    assert made.sink.started == 0
    made.runner.resume()
    assert made.runner.join(10)
    assert made.sink.started == 1


def test_a_task_stopped_before_it_ever_ran_ends_without_touching_the_plugin() -> None:
    made = stage(paused=True)
    made.runner.start()
    eventually(lambda: made.runner.status.state is State.PAUSED, "the task is PAUSED")
    made.runner.stop()
    assert made.runner.join(10)
    assert (made.sink.started, made.sink.stopped, made.runner.status.state) == (0, 0, State.UNASSIGNED)


# Subscriptions


def test_a_list_of_topics_is_subscribed_once_and_never_looked_up() -> None:
    made = opened(P, subscription=Subscription(topics=("a", "b")))
    made.clock.advance(100_000)
    made.turn(idle)
    assert made.told("subscribe") == [("subscribe", ["a", "b"])]
    assert made.consumer.lookups == 0


def test_a_pattern_is_looked_up_anew_when_its_time_comes_and_subscribed_when_it_matches_more() -> None:
    made = stage(subscription=Subscription(pattern="t.*", refresh_s=60.0))
    made.consumer.topics_known = ["t1"]
    made.open()
    made.turn(idle)
    assert made.consumer.lookups == 1
    made.clock.advance(61)
    made.turn(idle)
    made.consumer.topics_known = ["t1", "t2"]
    made.clock.advance(61)
    made.turn(idle)
    assert made.consumer.lookups == 3
    assert made.told("subscribe") == [("subscribe", ["t1"]), ("subscribe", ["t1", "t2"])]


def test_a_pattern_that_matches_nothing_is_tried_again_soon_and_the_task_runs_meanwhile() -> None:
    made = stage(subscription=Subscription(pattern="t.*", refresh_s=300.0))
    made.open()
    made.clock.advance(6)
    made.turn(idle)
    assert made.consumer.lookups == 2
    assert made.told("subscribe") == []
    assert made.runner.status.state is State.RUNNING


def test_a_cluster_that_does_not_answer_a_lookup_takes_no_subscription_away() -> None:
    made = stage(subscription=Subscription(pattern="t.*", refresh_s=60.0))
    made.consumer.topics_known = ["t1"]
    made.open()
    made.consumer.topics_known = []
    made.clock.advance(61)
    made.turn(idle)
    assert made.told("subscribe") == [("subscribe", ["t1"])]


# What is told of topics


def test_a_topic_is_active_when_it_had_a_record_not_when_its_end_was_seen() -> None:
    made = opened(P, TopicPartition("empty", 0), subscription=Subscription(topics=("t", "empty")))
    made.turn(together(records("t", 0, range(3)), end_of_log("empty", 0, 0)))
    assert made.runner.status.topics == {"t"}


def test_forgotten_topics_come_back_with_their_next_record() -> None:
    made = opened(P)
    made.turn(records("t", 0, range(3)))
    made.runner.forget_topics()
    made.turn(idle)
    assert made.runner.status.topics == frozenset()
    made.turn(records("t", 0, range(3, 4)))
    assert made.runner.status.topics == {"t"}


# Ends


def assigned(consumer: FakeConsumer) -> None:
    consumer.assign(P, Q)


def test_a_stop_commits_what_is_applied_then_leaves_then_stops_the_plugin() -> None:
    made = stage()
    made.run(assigned, records("t", 0, range(3)))
    assert made.told("put", "commit", "close", "stop")[-3:] == [("commit", {P: 3}), ("close", None), ("stop", None)]
    assert made.runner.status.state is State.UNASSIGNED
    assert made.sink.stopped == made.consumer.closed == 1


def test_a_stop_while_a_batch_is_kept_commits_only_what_came_before_it() -> None:
    made = stage()
    made.sink.outcomes.extend([None, None, RetriableError("down", retry_after_s=600.0)])
    made.run(assigned, records("t", 0, range(3)), records("t", 0, range(3, 6)))
    assert made.consumer.commits == [{P: 3}]


def test_a_stop_waits_for_the_commit_under_way_and_then_commits_the_rest() -> None:
    made = stage(pace=Pace(commit_every_s=0.0, commit_timeout_s=5.0))
    made.consumer.answers_commits = False
    made.run(assigned, records("t", 0, range(3)), records("t", 0, range(3, 6)), answer)
    assert made.consumer.commits == [{P: 3}, {P: 6}]


def answer(consumer: FakeConsumer) -> None:
    consumer.answers_commits = True


def test_a_stop_ends_when_no_commit_is_ever_answered() -> None:
    made = stage()
    made.consumer.answers_commits = False
    made.run(assigned, records("t", 0, range(3)))
    assert made.consumer.closed == made.sink.stopped == 1


def test_a_permanent_error_of_put_fails_the_task_with_connects_words_and_commits_what_came_before() -> None:
    made = stage()
    made.sink.outcomes.extend([None, None, ValueError("disk on fire")])
    made.run(assigned, records("t", 0, range(3)), records("t", 0, range(3, 6)))
    assert made.runner.status.state is State.FAILED
    trace = made.runner.status.trace or ""
    assert trace.splitlines()[0] == CONNECT + "Exiting WorkerSinkTask due to unrecoverable exception."
    assert "Caused by: ValueError: disk on fire" in trace
    assert made.consumer.commits == [{P: 3}]
    assert made.consumer.closed == made.sink.stopped == 1


def test_an_undecodable_record_fails_the_task_with_connects_words_and_commits_what_came_before() -> None:
    made = stage(value=JsonConverter(schemas_enable=False))
    made.run(assigned, records("t", 0, range(3), b"1"), records("t", 0, range(3, 6), b"{"))
    assert made.runner.status.state is State.FAILED
    assert (made.runner.status.trace or "").splitlines()[0] == CONNECT + "Tolerance exceeded in error handler"
    assert "Caused by: org.apache.kafka.connect.errors.DataException" in (made.runner.status.trace or "")
    assert made.consumer.commits == [{P: 3}]


def fail(error: BaseException) -> Any:
    def step(_: FakeConsumer) -> None:
        raise error

    return step


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "first_line"),
    [
        (ConnectError("Kafka refused this consumer"), CONNECT + "Kafka refused this consumer"),
        (ValueError("x"), "ValueError: x"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
    ],
)
def test_whatever_is_raised_in_the_thread_the_task_is_failed_and_says_why(error: BaseException, first_line: str) -> None:
    made = stage()
    made.run(assigned, fail(error))
    assert made.runner.status.state is State.FAILED
    assert (made.runner.status.trace or "").splitlines()[0] == first_line
    assert made.consumer.closed == made.sink.stopped == 1


def test_a_plugin_that_calls_exit_in_put_has_failed() -> None:
    made = stage()
    made.sink.outcomes.extend([None, SystemExit(1)])
    made.run(assigned, records("t", 0, range(3)))
    assert made.runner.status.state is State.FAILED
    assert made.consumer.commits == []


def test_a_plugin_whose_start_fails_is_stopped_once_and_no_consumer_is_made() -> None:
    made = stage()
    made.sink.start_error = ValueError("no such database")
    made.run()
    assert made.runner.status.state is State.FAILED
    assert (made.runner.status.trace or "").startswith("ValueError: no such database")
    assert (made.sink.stopped, made.consumer.closed, made.told("subscribe")) == (1, 0, [])


def test_a_plugin_that_cannot_even_be_made_fails_the_task() -> None:
    made = stage()
    object.__setattr__(made.runner.spec, "plugin", fail_to_make)
    made.run()
    assert made.runner.status.state is State.FAILED
    assert (made.runner.status.trace or "").startswith("TypeError: cannot be made")


def fail_to_make() -> Any:
    raise TypeError("cannot be made")


def test_a_failing_stop_hides_neither_a_clean_end_nor_why_the_task_failed() -> None:
    clean, failed = stage(), stage()
    clean.sink.stop_error = failed.sink.stop_error = ValueError("stop failed")
    clean.run(assigned)
    assert clean.runner.status.state is State.UNASSIGNED
    failed.sink.outcomes.extend([None, ValueError("put failed")])
    failed.run(assigned, records("t", 0, range(3)))
    trace = failed.runner.status.trace or ""
    assert trace.splitlines()[0] == CONNECT + "Exiting WorkerSinkTask due to unrecoverable exception."
    assert "put failed" in trace


def test_a_failed_task_obeys_nobody() -> None:
    made = stage()
    made.sink.start_error = ValueError("x")
    made.run()
    made.runner.pause()
    made.runner.resume()
    made.runner.stop()
    assert made.runner.join(1)
    assert made.runner.status.state is State.FAILED


def test_a_task_is_not_running_before_its_plugin_has_started() -> None:
    made, gate = stage(), threading.Event()
    start = made.sink.start

    def slow(config: Any, context: Any) -> None:
        gate.wait(10)
        start(config, context)

    made.sink.start = slow  # type: ignore[method-assign]
    seen: list[State] = []
    made.consumer.script.extend([lambda _: seen.append(made.runner.status.state), lambda _: made.runner.stop()])
    made.runner.start()
    assert made.runner.status.state is State.UNASSIGNED
    gate.set()
    assert made.runner.join(10)
    assert seen == [State.RUNNING]


def test_a_task_whose_put_raised_is_failed_at_once_also_while_leaving_its_group_hangs() -> None:
    made, gate, leaving = stage(), threading.Event(), threading.Event()

    def hang() -> None:
        leaving.set()
        gate.wait(PATIENCE_S)

    made.consumer.close = hang  # type: ignore[method-assign]
    made.sink.outcomes.extend([None, ValueError("disk on fire")])
    made.consumer.script.extend([assigned, records("t", 0, range(3))])
    made.runner.start()
    try:
        assert leaving.wait(PATIENCE_S)
        assert made.runner.status.state is State.FAILED
        assert "Caused by: ValueError: disk on fire" in (made.runner.status.trace or "")
    finally:
        gate.set()
    assert made.runner.join(PATIENCE_S)
    assert made.runner.status.state is State.FAILED


def test_why_a_task_failed_is_not_hidden_by_a_leaving_that_fails_too(caplog: pytest.LogCaptureFixture) -> None:
    made = stage()

    def fail_to_leave() -> None:
        raise OSError("no way out")

    made.consumer.close = fail_to_leave  # type: ignore[method-assign]
    made.sink.outcomes.extend([None, ValueError("disk on fire")])
    made.run(assigned, records("t", 0, range(3)))
    assert "disk on fire" in (made.runner.status.trace or "")
    assert caplog.text.count("failed and will not recover until it is restarted") == 1


def hanging_put(made: Stage) -> tuple[threading.Event, threading.Event]:
    """Make the put of the first records hang; return the events that it has begun, and that it may end."""
    begun, gate = threading.Event(), threading.Event()
    put = made.sink.put

    def slowly(batch: Any) -> None:
        if len(batch):
            begun.set()
            gate.wait(PATIENCE_S)
        put(batch)

    made.sink.put = slowly  # type: ignore[method-assign]
    return begun, gate


def test_a_task_abandoned_while_put_hangs_commits_nothing_later_neither_in_its_turn_nor_by_leaving() -> None:
    made = stage(pace=Pace(commit_every_s=0.0))
    begun, gate = hanging_put(made)
    made.consumer.script.extend([assigned, records("t", 0, range(3))])
    made.runner.start()
    assert begun.wait(PATIENCE_S)
    made.runner.stop()
    assert not made.runner.join(0.01)
    gate.set()
    # Its successor has these partitions by now: what this one would commit could take the group back.
    eventually(lambda: made.sink.stopped, "its late end")
    assert made.told("put")[-1] == ("put", at(range(3)))
    assert made.consumer.commits == []
    assert made.consumer.committable() == {}
    assert made.consumer.closed == 1


def test_a_task_that_is_late_but_still_waited_for_commits_what_it_applied() -> None:
    made = stage()
    begun, gate = hanging_put(made)
    made.consumer.script.extend([assigned, records("t", 0, range(3))])
    made.runner.start()
    assert begun.wait(PATIENCE_S)
    made.runner.stop()
    gate.set()
    assert made.runner.join(PATIENCE_S)
    assert made.consumer.commits == [{P: 3}]
