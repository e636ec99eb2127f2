"""The running tasks of a process: started, stopped within a deadline, and told as they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from tests.fakes import FakeConsumer, Stage, eventually, records, stage

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.task import State, TaskId
from heartbeat.connect.worker import Worker
from heartbeat.errors import RetriableError

TASK = TaskId("c", 0)
P = TopicPartition("t", 0)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(graceful_timeout_s=10.0)
    yield made
    made.stop(made.snapshot(), 10.0)


def assigned(consumer: FakeConsumer) -> None:
    consumer.assign(P)


def running(worker: Worker, *, paused: bool = False) -> Stage:
    """Start a scripted task, slowed down so that its empty polls do not spin."""
    made = stage()
    poll = made.consumer.poll

    def slowly(timeout_s: float, max_records: int) -> object:
        time.sleep(0.005)
        return poll(timeout_s, max_records)

    made.consumer.poll = slowly  # type: ignore[method-assign,assignment]
    made.consumer.script.extend([assigned, records("t", 0, range(3))])
    worker.start(made.runner.spec, paused=paused)
    return made


def test_a_started_task_runs_and_a_stopped_one_is_forgotten(worker: Worker) -> None:
    made = running(worker)
    eventually(lambda: made.sink.puts and worker.snapshot()[TASK].state is State.RUNNING, "the task runs")
    assert worker.running() == {TASK: {}}
    assert worker.stop([TASK])
    assert (worker.running(), worker.snapshot()) == ({}, {})
    assert made.sink.stopped == made.consumer.closed == 1


def test_stopping_what_does_not_run_is_done_already(worker: Worker) -> None:
    assert worker.stop([TASK])


def test_a_task_that_hangs_is_left_behind_in_time_and_the_caller_is_told(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    made, gate = running(worker), threading.Event()
    stop = made.sink.stop

    def hang() -> None:
        gate.wait(20)
        stop()

    made.sink.stop = hang  # type: ignore[method-assign]
    eventually(lambda: made.sink.puts, "the task runs")
    started = time.monotonic()
    assert not worker.stop([TASK], timeout_s=0.2)
    assert time.monotonic() - started < 10
    assert "were abandoned; what they had not committed will be applied again: c-0" in caplog.text
    assert worker.snapshot() == {}
    gate.set()
    eventually(lambda: made.sink.stopped, "its late end")
    assert worker.snapshot() == {}


def test_tasks_are_stopped_together_not_one_after_the_other(worker: Worker) -> None:
    first, second = running(worker), stage()
    both = threading.Barrier(2, timeout=15)
    object.__setattr__(second.runner.spec, "id", TaskId("c", 1))
    second.consumer.script.append(assigned)
    worker.start(second.runner.spec, paused=False)

    def meet() -> None:
        both.wait()

    for made in (first, second):
        made.sink.stop = meet  # type: ignore[method-assign]
    eventually(lambda: all(status.state is State.RUNNING for status in worker.snapshot().values()), "both run")
    # Each waits in its stop for the other: one after the other would never end.
    assert worker.stop([TASK, TaskId("c", 1)], timeout_s=15)


def test_a_failed_task_is_told_until_it_is_stopped_and_ignores_pause(worker: Worker) -> None:
    made = stage()
    made.sink.start_error = ValueError("no")
    worker.start(made.runner.spec, paused=False)
    eventually(lambda: worker.snapshot()[TASK].state is State.FAILED, "the failure")
    worker.set_paused(TASK, paused=True)
    worker.set_paused(TASK, paused=False)
    assert worker.snapshot()[TASK].state is State.FAILED
    assert TASK in worker.running()
    assert worker.stop([TASK])


def test_pause_and_resume_reach_the_task(worker: Worker) -> None:
    running(worker)
    worker.set_paused(TASK, paused=True)
    eventually(lambda: worker.snapshot()[TASK].state is State.PAUSED, "PAUSED")
    worker.set_paused(TASK, paused=False)
    eventually(lambda: worker.snapshot()[TASK].state is State.RUNNING, "RUNNING")


def test_a_task_that_keeps_a_batch_stops_at_once(worker: Worker) -> None:
    made = running(worker)
    made.sink.outcomes.extend([None, *[RetriableError("down", retry_after_s=3600.0)] * 3])
    eventually(lambda: len(made.sink.puts) >= 2, "the refused put")
    assert worker.stop([TASK], timeout_s=10)


def test_topics_of_stopped_tasks_are_remembered_until_they_are_forgotten(worker: Worker) -> None:
    made = running(worker)
    eventually(lambda: worker.active_topics("c") == {"t"}, "the topic")
    assert worker.active_topics("other") == frozenset()
    worker.stop([TASK])
    assert worker.active_topics("c") == {"t"}
    worker.forget_topics("c")
    assert worker.active_topics("c") == frozenset()
    assert made.sink.stopped == 1


def test_forgetting_topics_is_seen_at_once_and_a_live_task_tells_of_new_records_only(worker: Worker) -> None:
    made = running(worker)
    eventually(lambda: worker.active_topics("c") == {"t"}, "the topic")
    worker.forget_topics("c")
    assert worker.active_topics("c") == frozenset()
    made.consumer.script.append(records("t", 0, range(3, 4)))
    eventually(lambda: worker.active_topics("c") == {"t"}, "the topic again")


def test_a_task_that_runs_is_not_started_a_second_time(worker: Worker) -> None:
    made, again = running(worker), stage()
    with pytest.raises(RuntimeError, match="Task c-0 is running already"):
        worker.start(again.runner.spec, paused=False)
    assert worker.stop([TASK])
    assert (again.sink.started, made.sink.stopped) == (0, 1)


def test_a_task_whose_thread_cannot_start_is_no_task(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            worker.start(stage().runner.spec, paused=False)
    assert (worker.running(), worker.snapshot()) == ({}, {})
    assert worker.stop([TASK])
    running(worker)
    eventually(lambda: worker.snapshot()[TASK].state is State.RUNNING, "it runs when there is a thread again")


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_task_left_behind_commits_nothing_when_it_comes_back(worker: Worker) -> None:
    made, gate = running(worker), threading.Event()
    wait = made.consumer.wait_for_commit

    def hang(timeout_s: float) -> None:
        gate.wait(20)
        wait(timeout_s)

    made.consumer.wait_for_commit = hang  # type: ignore[method-assign]
    eventually(lambda: len(made.sink.puts) > 2, "the records are applied")
    assert not worker.stop([TASK], timeout_s=0.2)
    before = len(made.consumer.commits)
    gate.set()
    eventually(lambda: made.sink.stopped, "its late end")
    assert len(made.consumer.commits) == before
