"""The tasks that run in this process, by id: start, pause, stop with a deadline, snapshot."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from heartbeat.connect.task import TaskId, TaskRunner, TaskSpec, TaskStatus

log = logging.getLogger(__name__)


class Worker:
    """Called by one thread at a time (the herder's writer); ``snapshot`` may be called by any."""

    def __init__(self, graceful_timeout_s: float) -> None:
        self._graceful_timeout_s = graceful_timeout_s
        self._runners: Mapping[TaskId, TaskRunner] = {}
        self._retired: dict[str, frozenset[str]] = {}

    def start(self, spec: TaskSpec, *, paused: bool) -> None:
        """Start a task that is not running.

        Raises:
            RuntimeError: it is running already, or the system has no thread left.
        """
        if spec.id in self._runners:
            raise RuntimeError(f"Task {spec.id} is running already")
        runner = TaskRunner(spec, paused=paused)
        runner.start()
        self._runners = {**self._runners, spec.id: runner}

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
        for task, runner in stopping.items():
            self._retired[task.connector] = self._retired.get(task.connector, frozenset()) | runner.topics
        self._runners = {task: runner for task, runner in self._runners.items() if task not in stopping}
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
