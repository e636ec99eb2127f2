"""A task's figures: the windows as Kafka computes them, the backlog over rebalances, and what the runner counts when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from math import isnan, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import FakeClock, FakeConsumer, FakeMessage, Stage, end_of_log, records, stage, together

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.conversion import Tolerance
from heartbeat.connect.converters import JsonConverter
from heartbeat.connect.meters import Backlog, Meters, Reading, RecordErrors, Window
from heartbeat.connect.task import Pace, State
from heartbeat.errors import ConnectError, RetriableError

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)


def same(seen: float, wanted: float) -> bool:
    return (isnan(seen) and isnan(wanted)) or seen == pytest.approx(wanted)


# --- windows


@pytest.mark.parametrize(
    ("values", "now", "rate", "mean", "highest"),
    [
        ([], 0, 0.0, nan, nan),
        ([], 500, 0.0, nan, nan),
        # Younger than one sample: as if it had been idle for 30 s before.
        ([(0, 60)], 0, 60 / 30, 60.0, 60.0),
        ([(5, 60), (9, 20)], 10, 80 / 40, 40.0, 60.0),
        ([(0, 60)], 29.9, 60 / 59.9, 60.0, 60.0),
        ([(0, 60)], 30, 60 / 30, 60.0, 60.0),
        # The second sample begins with the first value after 30 s.
        ([(0, 60), (30, 30)], 45, 90 / 45, 45.0, 60.0),
        ([(0, 60), (40, 30)], 59.9, 90 / 59.9, 45.0, 60.0),
        ([(0, 60), (30, 30)], 60, 30 / 30, 30.0, 30.0),
        # A sample that began 60 s ago is forgotten as a whole.
        ([(0, 60), (29, 60), (40, 30)], 60, 30 / (20 + 30), 30.0, 30.0),
        ([(0, 60), (40, 30), (75, 10)], 75, 40 / 35, 20.0, 30.0),
        ([(0, 60)], 60, 0.0, nan, nan),
        # An idle hour: what comes after it is all there is.
        ([(0, 60), (3600, 5)], 3601, 5 / 31, 5.0, 5.0),
        ([(0, -4), (1, -2)], 2, -6 / 32, -3.0, -2.0),
    ],
)
def test_a_window_has_the_values_of_the_last_two_samples(
    values: list[tuple[float, float]], now: float, rate: float, mean: float, highest: float
) -> None:
    window = Window(0.0)
    for at, value in values:
        window.add(at, value)
    assert same(window.rate(now), rate)
    assert same(window.mean(now), mean)
    assert same(window.highest(now), highest)


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(-1000, 1000)), max_size=40), st.floats(0, 100))
def test_a_window_never_forgets_a_value_of_30_s_nor_keeps_one_of_60(steps: list[tuple[float, int]], later: float) -> None:
    window, now, added = Window(0.0), 0.0, list[tuple[float, int]]()
    for wait, value in steps:
        now += wait
        window.add(now, value)
        added.append((now, value))
    now += later
    recent = [value for at, value in added if now - at < 30]
    possible = [value for at, value in added if now - at < 60]
    highest, mean = window.highest(now), window.mean(now)
    if recent:
        assert highest >= max(recent)
    if possible and not isnan(highest):
        assert highest in possible
        assert min(possible) - 1e-9 <= mean <= highest + 1e-9
    if not possible:
        assert isnan(highest)
        assert isnan(mean)
        assert window.rate(now) == 0.0


# --- backlog


class Unread(Sequence[Any]):
    """Messages that nobody may look at."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("a record was looked at")


def begun(*partitions: TopicPartition) -> Backlog:
    backlog = Backlog()
    backlog.follow(dict.fromkeys(partitions, 1))
    return backlog


def test_a_partition_begins_at_its_first_record_and_grows_by_what_is_read() -> None:
    backlog = begun(P, Q)
    delivery = together(records("t", 0, range(100, 110)), records("t", 1, range(5)))
    backlog.read(delivery.messages, delivery.next_offsets)
    assert backlog.size == 15
    backlog.committed({P: 104})
    assert backlog.size == 11
    backlog.committed({P: 110, Q: 5})
    assert backlog.size == 0


def test_the_end_of_an_empty_log_is_no_backlog() -> None:
    backlog = begun(P)
    backlog.read([], end_of_log("t", 0, 700).next_offsets)
    assert (backlog.size, backlog.partitions) == (0, 1)


def test_records_are_looked_at_once_per_assignment_and_then_never_again() -> None:
    backlog = begun(P)
    backlog.read([FakeMessage(("t", 0, 7))], {P: 8})
    backlog.read(Unread(), {P: 1_000_008})
    assert backlog.size == 1_000_001


def test_what_is_revoked_is_nobodys_backlog_here_and_what_comes_back_begins_anew() -> None:
    backlog = begun(P, Q)
    delivery = together(records("t", 0, range(10)), records("t", 1, range(10)))
    backlog.read(delivery.messages, delivery.next_offsets)
    backlog.follow({Q: 1})
    assert (backlog.size, backlog.partitions) == (10, 1)
    backlog.follow({Q: 1, P: 2})
    assert (backlog.size, backlog.partitions) == (10, 2)
    backlog.committed({P: 10})  # of the assignment before
    backlog.read(*_parts(records("t", 0, range(4, 6))))
    assert backlog.size == 12


def test_an_assignment_that_is_made_anew_as_a_whole_forgets_everything() -> None:
    backlog = begun(P)
    backlog.read(*_parts(records("t", 0, range(10))))
    backlog.follow({P: 2})
    assert backlog.size == 0


def test_reading_back_from_before_what_is_committed_is_no_backlog_until_it_is_passed_again() -> None:
    backlog = begun(P)
    backlog.read(*_parts(records("t", 0, range(10))))
    backlog.committed({P: 10})
    backlog.read(*_parts(records("t", 0, range(3, 5))))
    assert backlog.size == 0
    backlog.read(*_parts(records("t", 0, range(5, 12))))
    assert backlog.size == 2


@given(st.lists(st.tuples(st.sampled_from(["read", "commit", "move"]), st.booleans(), st.integers(0, 30)), max_size=40))
def test_the_backlog_is_the_sum_over_its_partitions_whatever_happens(steps: list[tuple[str, bool, int]]) -> None:
    backlog, numbers = begun(P, Q), {P: 1, Q: 1}
    read, done = dict[TopicPartition, int](), dict[TopicPartition, int]()
    for what, first, offset in steps:
        partition = P if first else Q
        if what == "read":
            backlog.read(*_parts(records("t", partition.partition, [offset])))
            done.setdefault(partition, offset)
            read[partition] = offset + 1
        elif what == "commit":
            backlog.committed({partition: offset})
            if partition in read:
                done[partition] = max(done[partition], offset)
        else:
            numbers = {**numbers, partition: numbers[partition] + 1}
            backlog.follow(numbers)
            read.pop(partition, None)
            done.pop(partition, None)
        assert backlog.size == sum(max(0, read[p] - done[p]) for p in read)


def _parts(delivery: Any) -> tuple[Any, Any]:
    return delivery.messages, delivery.next_offsets


# --- meters


def test_a_reading_is_of_its_moment_and_does_not_change() -> None:
    clock = FakeClock()
    meters = Meters(clock)
    before = meters.reading()
    meters.put(0.5, 10)
    assert (before.records_sent, meters.reading().records_sent) == (0, 10)
    with pytest.raises(FrozenInstanceError):
        before.records_sent = 3  # type: ignore[misc]


def test_what_has_not_happened_is_zero_if_counted_and_not_a_number_if_measured() -> None:
    reading = Meters(FakeClock()).reading()
    counted = {field for field in Reading.__slots__ if getattr(reading, field) == 0}
    measured = {field for field in Reading.__slots__ if isnan(getattr(reading, field))}
    assert measured == {"active_max", "active_avg", "commit_success_ratio", "batch_max", "batch_avg", "put_max_ms", "put_avg_ms"}
    assert counted | measured == set(Reading.__slots__)


def test_puts_without_records_do_not_dilute_the_mean() -> None:
    clock = FakeClock()
    meters = Meters(clock)
    for seconds, count in [(0.010, 100), (0.000, 0), (0.030, 300), (0.000, 0)]:
        meters.put(seconds, count)
    reading = meters.reading()
    assert [reading.put_avg_ms, reading.put_max_ms] == pytest.approx([20, 30])
    assert (reading.batch_avg, reading.batch_max, reading.records_sent) == (200, 300, 400)
    assert reading.send_rate == pytest.approx(400 / 30)


def test_a_delivery_costs_the_same_whatever_it_holds() -> None:
    meters, assigned = Meters(FakeClock()), {P: 1}
    meters.read(*_parts(records("t", 0, range(1))), assigned)
    meters.read(Unread(), {P: 1_000_001}, assigned)
    assert meters.reading().records_read == 1_000_001


def test_the_ratios_are_of_the_whole_life_and_say_paused_and_running_apart() -> None:
    clock = FakeClock()
    meters = Meters(clock)
    for state, seconds in [("UNASSIGNED", 1.0), ("RUNNING", 2.0), ("PAUSED", 3.0), ("RUNNING", 2.0)]:
        meters.entered(state)
        meters.entered(state)
        clock.advance(seconds)
    assert [meters.reading().running_ratio, meters.reading().pause_ratio] == pytest.approx([0.5, 3 / 8])
    meters.entered("FAILED")
    clock.advance(8.0)
    assert [meters.reading().running_ratio, meters.reading().pause_ratio] == pytest.approx([0.25, 3 / 16])


@pytest.mark.parametrize(
    ("states", "started"),
    [
        ([], None),
        (["PAUSED"], None),
        (["RUNNING"], True),
        (["FAILED"], False),
        (["PAUSED", "RUNNING", "PAUSED"], True),
        (["RUNNING", "FAILED"], True),
        (["UNASSIGNED"], None),
    ],
)
def test_a_task_has_started_once_it_ran_and_failed_to_if_it_never_did(states: list[str], started: bool | None) -> None:
    meters = Meters(FakeClock())
    for state in states:
        meters.entered(state)
    assert meters.started is started


def commits(meters: Meters) -> tuple[int, int, float]:
    reading = meters.reading()
    return reading.commit_seq_no, reading.commits_completed, reading.commit_success_ratio


def test_a_commit_has_succeeded_when_all_of_it_is_acknowledged() -> None:
    meters = Meters(FakeClock())
    meters.commit_sent({P: 3, Q: 4})
    assert same(commits(meters)[2], nan)
    meters.committed({}, in_flight=True)
    assert (commits(meters)[0], commits(meters)[1]) == (1, 0)
    meters.committed({P: 3, Q: 4}, in_flight=False)
    assert commits(meters) == (1, 1, 1.0)
    meters.committed({}, in_flight=False)
    assert commits(meters) == (1, 1, 1.0)


@pytest.mark.parametrize("acknowledged", [{}, {P: 3}, {P: 3, Q: 3}])
def test_a_commit_that_ended_without_all_of_its_offsets_has_failed(acknowledged: dict[TopicPartition, int]) -> None:
    meters = Meters(FakeClock())
    meters.commit_sent({P: 3, Q: 4})
    meters.committed(acknowledged, in_flight=False)
    assert commits(meters) == (1, 0, 0.0)


def test_a_commit_that_another_one_overtook_has_failed_and_its_answer_is_nobodys() -> None:
    meters = Meters(FakeClock())
    meters.commit_sent({P: 3})
    meters.commit_sent({P: 5})
    meters.committed({P: 3}, in_flight=True)
    assert commits(meters) == (2, 0, 0.0)
    meters.committed({P: 5}, in_flight=False)
    assert commits(meters) == (2, 1, 0.5)


def test_acknowledgements_of_a_revocations_commit_are_no_commit_of_ours() -> None:
    meters = Meters(FakeClock())
    meters.committed({P: 3}, in_flight=False)
    assert commits(meters)[:2] == (0, 0)


def test_rejected_records_are_failures_and_either_skipped_or_the_end() -> None:
    errors = RecordErrors().rejected(skipped=True, now_ms=5).rejected(skipped=False, now_ms=7)
    assert errors == RecordErrors(failures=2, errors=1, skipped=1, logged=0, last_ms=7)


# --- what the runner counts


def assigned(consumer: FakeConsumer) -> None:
    consumer.assign(P)


def opened(made: Stage) -> Stage:
    made.open()
    made.turn(assigned)
    return made


def test_a_turn_counts_what_is_read_and_what_is_applied() -> None:
    made = opened(stage(value=JsonConverter(schemas_enable=False), tolerance=Tolerance(skip=True)))
    made.turn(together(records("t", 0, range(3), b"1")), records("t", 0, range(3, 5), b"{"))
    reading, errors = made.runner.meters.reading(), made.runner.spec.feed.conversion.errors
    assert (reading.records_read, reading.records_sent, reading.partitions) == (5, 3, 1)
    assert (errors.failures, errors.skipped, errors.errors) == (2, 2, 0)
    assert (reading.batch_max, reading.batch_avg) == (3, 3)


def test_a_record_that_ends_the_task_is_an_error() -> None:
    made = opened(stage(value=JsonConverter(schemas_enable=False), tolerance=Tolerance(log_failures=True)))
    with pytest.raises(ConnectError, match="Tolerance exceeded"):
        made.turn(records("t", 0, range(1), b"{"))
    errors = made.runner.spec.feed.conversion.errors
    assert (errors.failures, errors.errors, errors.skipped, errors.logged) == (1, 1, 0, 1)
    assert errors.last_ms > 1_600_000_000_000


def test_a_batch_that_is_put_again_is_a_retry_and_sent_once() -> None:
    made = opened(stage())
    made.sink.outcomes.extend([RetriableError("down", retry_after_s=1.0), RetriableError("down", retry_after_s=1.0), None])
    made.turn(records("t", 0, range(3)))
    assert (made.runner.meters.reading().records_read, made.runner.meters.reading().records_sent) == (3, 0)
    for _ in range(3):
        made.clock.advance(1.0)
        made.runner.turn()
    reading = made.runner.meters.reading()
    assert (reading.retries, reading.records_read, reading.records_sent) == (2, 3, 3)


def test_the_time_of_a_put_is_what_the_plugin_took() -> None:
    made = opened(stage())
    put = made.sink.put

    def slowly(batch: Any) -> None:
        made.clock.advance(0.25)
        put(batch)

    made.sink.put = slowly  # type: ignore[method-assign]
    made.turn(records("t", 0, range(3)))
    assert made.runner.meters.reading().put_max_ms == pytest.approx(250)


def test_what_is_read_is_active_until_its_commit_is_acknowledged() -> None:
    made = opened(stage(pace=Pace(commit_every_s=10.0, commit_timeout_s=5.0)))
    made.turn(records("t", 0, range(20, 24)))
    assert made.runner.meters.reading().active == 4
    made.clock.advance(10.0)
    made.consumer.answers_commits = False
    made.turn(end_of_log("t", 0, 24))
    assert (made.consumer.commits, made.runner.meters.reading().commit_seq_no) == ([{P: 24}], 1)
    made.consumer.answers_commits = True
    made.turn(end_of_log("t", 0, 24))
    reading = made.runner.meters.reading()
    assert 0 < reading.active_avg < 4
    assert (reading.active, reading.active_max, reading.commits_completed, reading.commit_success_ratio) == (0, 4, 1, 1.0)


def test_a_commit_that_is_not_answered_in_time_has_failed() -> None:
    made = opened(stage(pace=Pace(commit_every_s=1.0, commit_timeout_s=5.0)))
    made.consumer.answers_commits = False
    made.turn(records("t", 0, range(4)))
    made.clock.advance(1.0)
    made.turn(end_of_log("t", 0, 4))
    assert made.runner.meters.reading().commit_seq_no == 1
    made.clock.advance(5.0)
    made.turn(end_of_log("t", 0, 4))
    reading = made.runner.meters.reading()
    assert (reading.commit_seq_no, reading.commits_completed, reading.commit_success_ratio) == (2, 0, 0.0)
    assert reading.active == 4


def test_revoked_partitions_leave_the_figures() -> None:
    made = opened(stage())
    made.turn(records("t", 0, range(4)), lambda consumer: consumer.revoke(P))
    reading = made.runner.meters.reading()
    assert (reading.partitions, reading.active, reading.records_read) == (0, 0, 4)


def test_the_states_of_a_task_reach_its_figures() -> None:
    made = stage()
    assert made.runner.meters.started is None
    made.sink.start_error = ValueError("no")
    made.runner.start()
    assert made.runner.join(20)
    assert made.runner.status.state is State.FAILED
    assert made.runner.meters.started is False


def test_a_plugin_is_asked_for_figures_only_once_it_has_started() -> None:
    made = stage()

    def refuse() -> Any:
        raise AssertionError("it was asked before it had started")

    made.sink.measures = refuse  # type: ignore[method-assign]
    assert made.runner.measures() == ()
    made.open()
    with pytest.raises(AssertionError):
        made.runner.measures()
