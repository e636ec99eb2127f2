"""The tasks that run in this process, by id: start, pause, stop with a deadline, snapshot, reading."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from heartbeat.connect.api import Measure
from heartbeat.connect.meters import Reading, RecordErrors
from heartbeat.connect.task import TaskId, TaskRunner, TaskSpec, TaskStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Startups:
    """How the starts of tasks went; one that is under way is an attempt and nothing else yet."""

    attempts: int = 0
    successes: int = 0
    failures: int = 0

    def ended(self, started: bool | None) -> Startups:
        """Return this with the outcome of one attempt, if it is known."""
        return replace(self, successes=self.successes + (started is True), failures=self.failures + (started is False))


@dataclass(frozen=True, slots=True)
class TaskReading:
    """The figures of a task. ``measures`` asks the plugin for its own, and may raise whatever a plugin raises."""

    meters: Reading
    errors: RecordErrors
    measures: Callable[[], Sequence[Measure]]


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """The figures of every task, and how starts went since the worker was made."""

    tasks: Mapping[TaskId, TaskReading]
    startups: Startups


@dataclass(frozen=True, slots=True)
class _Tasks:
    """The runners, and the starts of those that are gone. One value, or a reader could count a start twice, or not at all."""

    runners: Mapping[TaskId, TaskRunner]
    startups: Startups


class Worker:
    """Called by one thread at a time (the herder's writer); ``snapshot`` and ``reading`` may be called by any."""

    def __init__(self, graceful_timeout_s: float) -> None:
        self._graceful_timeout_s = graceful_timeout_s
        self._tasks = _Tasks({}, Startups())
        self._retired: dict[str, frozenset[str]] = {}

    @property
    def _runners(self) -> Mapping[TaskId, TaskRunner]:
        return self._tasks.runners

    def start(self, spec: TaskSpec, *, paused: bool) -> None:
        """Start a task that is not running.

        Raises:
            RuntimeError: it is running already, or the system has no thread left.
        """
        if spec.id in self._runners:
            raise RuntimeError(f"Task {spec.id} is running already")
        runner = TaskRunner(spec, paused=paused)
        runner.start()
        startups = self._tasks.startups
        self._tasks = _Tasks({**self._runners, spec.id: runner}, replace(startups, attempts=startups.attempts + 1))

    def note_failed_start(self) -> None:
        """Count a task that could not even be built or given a thread."""
        startups = self._tasks.startups
        self._tasks = replace(self._tasks, startups=replace(startups, attempts=startups.attempts + 1).ended(started=False))

    def set_paused(self, task: TaskId, *, paused: bool) -> None:
        """Pause or resume a task; one that is so already, or has failed, stays as it is."""
        runner = self._runners[task]
        if paused:
            runner.pause()
        else:
            runner.resume()

    def stop(self, tasks: Iterable[TaskId], timeout_s: float | None = None) -> bool:
        """Stop these tasks together and forget them. Those that are late are abandoned: they commit nothing any more.

        Return whether all of them ended in time.
        """
        stopping = {task: self._runners[task] for task in tasks if task in self._runners}
        for runner in stopping.values():
            runner.stop()
        deadline = time.monotonic() + (self._graceful_timeout_s if timeout_s is None else timeout_s)
        late = [task for task, runner in stopping.items() if not runner.join(deadline - time.monotonic())]
        if late:
            log.warning(
                "Did not stop in time and were abandoned; what they had not committed will be applied again: %s", ", ".join(map(str, late))
            )
        startups = self._tasks.startups
        for task, runner in stopping.items():
            self._retired[task.connector] = self._retired.get(task.connector, frozenset()) | runner.topics
            startups = startups.ended(runner.meters.started)
        self._tasks = _Tasks({task: runner for task, runner in self._runners.items() if task not in stopping}, startups)
        return not late

    def running(self) -> dict[TaskId, Mapping[str, str]]:
        """Return the task config that each task was built from; a failed task counts until it is stopped."""
        return {task: runner.spec.made_from for task, runner in self._runners.items()}

    def active_topics(self, connector: str) -> frozenset[str]:
        """Return the topics that tasks of this connector have had records of."""
        live = (runner.topics for task, runner in self._runners.items() if task.connector == connector)
        return self._retired.get(connector, frozenset()).union(*live)

    def forget_topics(self, connector: str) -> None:
        """Begin the connector's record of topics anew."""
        self._retired.pop(connector, None)
        for task, runner in self._runners.items():
            if task.connector == connector:
                runner.forget_topics()

    def snapshot(self) -> dict[TaskId, TaskStatus]:
        """Return the status of every task."""
        return {task: runner.status for task, runner in self._runners.items()}

    def reading(self) -> WorkerReading:
        """Return the figures of every task; a failed one keeps its own until it is stopped."""
        tasks, readings = self._tasks, dict[TaskId, TaskReading]()
        startups = tasks.startups
        for task, runner in tasks.runners.items():
            readings[task] = TaskReading(runner.meters.reading(), runner.spec.feed.conversion.errors, runner.measures)
            startups = startups.ended(runner.meters.started)
        return WorkerReading(readings, startups)
