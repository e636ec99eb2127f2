"""Connect's verbs. Each one changes the desired state, then makes the worker follow it.

``plan`` is pure: from what is desired and what runs to what must stop, start, pause. ``Herder.reconcile`` acts on it.
Calls go down (REST -> herder -> worker -> task) and state is read up: no verb waits for a callback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from heartbeat import logs
from heartbeat.connect.api import TopicPartition
from heartbeat.connect.assembly import Assembly
from heartbeat.connect.connector_config import Validation, validate
from heartbeat.connect.plugins import Plugins
from heartbeat.connect.requests import Config, CreateRequest
from heartbeat.connect.store import ConnectorRecord, Store, TargetState
from heartbeat.connect.task import State, TaskId, TaskStatus
from heartbeat.connect.telling import Telling
from heartbeat.connect.worker import Worker, WorkerReading
from heartbeat.errors import AlreadyExists, BadRequest, Conflict, ConnectError, HeartbeatError, NotFound, RequestTimeout

log = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S: Final = 90.0
_STATE_OF = {TargetState.STARTED: State.RUNNING, TargetState.PAUSED: State.PAUSED, TargetState.STOPPED: State.STOPPED}


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen for the worker to run what is desired."""

    stop: tuple[TaskId, ...]
    start: tuple[TaskId, ...]
    paused: Mapping[TaskId, bool]


def plan(desired: Mapping[str, ConnectorRecord], running: Mapping[TaskId, Mapping[str, str]]) -> Plan:
    """Compare desired task sets with the task configs that running tasks were built from."""
    wanted = {TaskId(record.name, i): config for record in desired.values() for i, config in enumerate(record.task_configs)}
    return Plan(
        stop=tuple(task for task, config in running.items() if wanted.get(task) != config),
        start=tuple(task for task, config in wanted.items() if running.get(task) != config),
        paused={task: desired[task.connector].target is TargetState.PAUSED for task in wanted},
    )


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """A connector and its tasks, as they are now."""

    state: State
    trace: str | None
    tasks: Mapping[TaskId, TaskStatus]
    version: str | None


class Herder:
    """The connectors of this worker. Verbs that change something run one at a time; readers never wait."""

    def __init__(self, store: Store, worker: Worker, plugins: Plugins, assembly: Assembly, worker_properties: Mapping[str, str]) -> None:
        self.plugins = plugins
        self._store = store
        self._worker = worker
        self._assembly = assembly
        self._properties = worker_properties
        self._writing = threading.RLock()
        self._writing_since_s: float | None = None
        self._closing = False
        self._held: set[str] = set()
        self._failures: dict[str, str] = {}
        self._telling = Telling(lambda: store.records, assembly.tell_target)

    # Readers

    def connectors(self) -> list[str]:
        """Return the names of all connectors."""
        return list(self._store.records)

    def record(self, name: str) -> ConnectorRecord:
        """Return a connector as it was asked for.

        Raises:
            NotFound: there is no such connector.
        """
        record = self._store.records.get(name)
        if record is None:
            raise NotFound(f"Connector {name} not found")
        return record

    def status(self, name: str) -> ConnectorStatus:
        """Return the state of a connector and its tasks.

        Raises:
            NotFound: there is no such connector.
        """
        record = self._store.records.get(name)
        if record is None:
            raise NotFound(f"No status found for connector {name}")
        snapshot = self._worker.snapshot()
        tasks = [TaskId(name, i) for i in range(len(record.task_configs))]
        trace = self._failures.get(name)
        plugin = self.plugins.find(record.config.get("connector.class", ""))
        return ConnectorStatus(
            state=State.FAILED if trace else _STATE_OF[record.target],
            trace=trace,
            tasks={task: snapshot.get(task, TaskStatus(State.UNASSIGNED)) for task in tasks},
            version=plugin.task.VERSION if plugin else None,
        )

    def task_status(self, task: TaskId) -> TaskStatus:
        """Return the state of one task.

        Raises:
            NotFound: there is no such task.
        """
        try:
            return self.status(task.connector).tasks[task]
        except (NotFound, KeyError):
            raise NotFound(f"No status found for task {task}") from None

    def reading(self) -> WorkerReading:
        """Return what the tasks of this worker have done, in figures."""
        return self._worker.reading()

    def active_topics(self, name: str) -> list[str]:
        """Return the topics a connector has had records of; none for an unknown connector."""
        return sorted(self._worker.active_topics(name))

    def validate(self, plugin_name: str, config: Config) -> Validation:
        """Check a config without storing it.

        Raises:
            BadRequest: it names a connector of another kind than the request.
            ConnectError: it names no connector, or one that is not known (Connect answers 500 to both here).
        """
        named = config.get("connector.class")
        if named is None:
            raise ConnectError(f"{BadRequest.java_name}: Connector config {{{', '.join(config)}}} contains no connector type")
        try:
            plugin = self.plugins.get(named)
        except BadRequest as error:
            raise ConnectError(f"{BadRequest.java_name}: {ConnectError.java_name}: {error}") from error
        if not named.removesuffix("Connector").endswith(plugin_name.removesuffix("Connector")):
            raise BadRequest(f"Included connector type {named} does not match request type {plugin_name}")
        return validate(config, plugin, self._properties)

    # Writers

    def create(self, request: CreateRequest) -> ConnectorRecord:
        """Create a connector.

        Raises:
            BadRequest: the config is wrong; everything wrong with it is named.
            AlreadyExists: there is a connector of this name.
        """
        valid = self._check(request.name, request.config)
        with self._one_writer():
            if request.name in self._store.records:
                raise AlreadyExists(f"Connector {request.name} already exists")
            return self._apply(ConnectorRecord(request.name, valid, request.target))

    def start_from_file(self, request: CreateRequest) -> None:
        """Create or replace a connector named on the command line; it is started as the file says, whatever was stored.

        Raises:
            BadRequest: the config is wrong.
        """
        valid = self._check(request.name, request.config)
        with self._one_writer():
            known = self._store.records.get(request.name, ConnectorRecord(request.name, valid))
            self._apply(replace(known, config=valid, target=request.target))

    def put_config(self, name: str, config: Config) -> tuple[ConnectorRecord, bool]:
        """Create a connector or replace its config, keeping its target state. Return the record and whether it is new.

        Raises:
            BadRequest: the config is wrong; everything wrong with it is named.
        """
        valid = self._check(name, config)
        with self._one_writer():
            known = self._store.records.get(name)
            record = replace(known, config=valid) if known else ConnectorRecord(name, valid)
            return self._apply(record), known is None

    def patch_config(self, name: str, changes: Config) -> ConnectorRecord:
        """Merge changes into a connector's config; null removes a key.

        Raises:
            NotFound: there is no such connector.
            BadRequest: the merged config is wrong.
        """
        with self._one_writer():
            record = self.record(name)
            merged = {key: value for key, value in {**record.config, **changes}.items() if value is not None}
            return self._apply(replace(record, config=self._check(name, merged, insert_name=False)))

    def set_target(self, name: str, target: TargetState) -> None:
        """Pause, resume or stop a connector.

        Raises:
            NotFound: there is no such connector.
        """
        with self._one_writer():
            if name not in self._store.records:
                raise NotFound(f"Unknown connector {name}")
            self._apply(replace(self._store.records[name], target=target))

    def delete(self, name: str) -> None:
        """Stop a connector and forget it.

        Raises:
            NotFound: there is no such connector.
        """
        with self._one_writer():
            record = self.record(name)
            self._refuse_if_held(name)
            self._store.delete(name)
            self._failures.pop(name, None)
            self._reconcile()
            self._worker.forget_topics(name)
            try:
                with self._telling.silence():
                    self._assembly.forget(name, record.config)
            except HeartbeatError as error:  # the connector is gone all the same: a store that is away must not keep it
                log.warning("Connector %s was deleted, but its plugin could not forget it: %s", name, error)

    def restart(self, name: str, *, include_tasks: bool = False, only_failed: bool = False) -> ConnectorStatus:
        """Restart a connector and, if asked, its tasks (KIP-745). Return the plan: what restarts shows RESTARTING.

        Raises:
            NotFound: there is no such connector.
        """
        with self._one_writer():
            if name not in self._store.records:
                raise NotFound(f"Unknown connector: {name}")
            before = self.status(name)
            connector = not only_failed or before.state is State.FAILED
            tasks = [task for task, status in before.tasks.items() if include_tasks and (not only_failed or status.state is State.FAILED)]
            if connector:
                self._failures.pop(name, None)
            self._worker.stop(tasks)
            self._reconcile()
            restarting = {task: replace(before.tasks[task], state=State.RESTARTING) for task in tasks}
            return replace(before, state=State.RESTARTING if connector else before.state, tasks={**before.tasks, **restarting})

    def restart_task(self, task: TaskId) -> None:
        """Restart one task.

        Raises:
            NotFound: there is no such connector or task.
        """
        with self._one_writer():
            if task.connector not in self._store.records:
                raise NotFound(f"Unknown connector: {task.connector}")
            if task not in self.status(task.connector).tasks:
                raise NotFound(f"Unknown task: {task}")
            self._failures.pop(task.connector, None)
            self._worker.stop([task])
            self._reconcile()

    def reset_topics(self, name: str) -> None:
        """Begin a connector's record of topics anew."""
        with self._one_writer():
            self._worker.forget_topics(name)

    @contextmanager
    def stopped(self, name: str) -> Iterator[ConnectorRecord]:
        """Hold a stopped connector still while its offsets are changed. Verbs on other connectors do not wait for Kafka.

        Raises:
            NotFound: there is no such connector.
            BadRequest: it is not stopped.
            Conflict: its offsets are being changed already.
        """
        with self._one_writer():
            record = self.record(name)
            self._refuse_if_held(name)
            if record.target is not TargetState.STOPPED or record.task_configs:
                raise BadRequest(
                    "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the specified "
                    f"connector by issuing a 'PUT' request to the '/connectors/{name}/stop' endpoint"
                )
            self._held.add(name)
        try:
            yield record
        finally:
            self._held.discard(name)

    def alter_plugin_offsets(self, record: ConnectorRecord, offsets: Mapping[TopicPartition, int | None] | None) -> bool:
        """Let the plugin of a connector that is held still follow a change of its offsets; None resets all. Return whether it keeps any.

        Raises:
            ConnectError: it could not; nothing else is to be changed then.
        """
        return self._assembly.alter_offsets(record.name, record.config, offsets)

    def _refuse_if_held(self, name: str) -> None:
        if name in self._held:
            raise Conflict("Cannot complete request because of a conflicting operation (its offsets are being changed)")

    def reconcile(self) -> None:
        """Make the worker run what is desired."""
        with self._one_writer():
            self._reconcile()
            for name in self._store.records:
                self._telling.note(name)

    def _reconcile(self) -> None:
        todo = plan(self._store.records, self._worker.running())
        self._worker.stop(todo.stop)
        for task in todo.start:
            # A verb may come back from a hang when the worker was shut down without waiting for it.
            if task.connector not in self._failures and not self._closing:
                self._start(task, paused=todo.paused[task])
        running = self._worker.running()
        for task, paused in todo.paused.items():
            if task in running:
                self._worker.set_paused(task, paused=paused)

    def shut_down(self, timeout_s: float) -> bool:
        """Stop every task: they commit and leave their groups; verbs are refused from now on.

        Return whether all of them did in time.
        """
        deadline = time.monotonic() + timeout_s
        self._closing = True
        self._telling.close()
        # A verb that is under way ends first, or it would start tasks that nobody stops. One that hangs is not waited for.
        waited = self._writing.acquire(timeout=timeout_s / 2)
        try:
            return self._worker.stop(self._worker.snapshot(), deadline - time.monotonic()) and waited
        finally:
            if waited:
                self._writing.release()

    def busy_s(self) -> float:
        """Return for how long the verb under way has held the others up."""
        since_s = self._writing_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def _start(self, task: TaskId, *, paused: bool) -> None:
        try:
            spec = self._assembly.build(task, self._store.records[task.connector].task_configs[task.number])
            self._worker.start(spec, paused=paused)
        except (HeartbeatError, RuntimeError) as error:  # wrong settings of the worker for a converter; no thread left
            log.error("Connector %s cannot start", task.connector, exc_info=error)
            self._worker.note_failed_start()
            self._failures[task.connector] = logs.format_trace(error)

    def _apply(self, record: ConnectorRecord) -> ConnectorRecord:
        """Publish the record with the task set that follows from it, and make the worker follow."""
        self._refuse_if_held(record.name)
        if record.target is TargetState.STOPPED:
            record = replace(record, task_configs=())
        elif record.target is TargetState.STARTED:
            record = replace(record, task_configs=self._assembly.task_configs(record.config))
        self._store.put(record)
        self._failures.pop(record.name, None)
        self._reconcile()
        self._telling.note(record.name)
        return record

    def _check(self, name: str, config: Config, *, insert_name: bool = True) -> dict[str, str]:
        if config.get("name") not in (None, name):
            raise BadRequest(f"Connector name configuration ({config['name']}) doesn't match connector name in the URL ({name})")
        if insert_name:
            config = {**config, "name": name}
        plugin_name = config.get("connector.class")
        if plugin_name is None:
            # Key names only: Connect prints the values here, secrets among them.
            raise BadRequest(f"Connector config {{{', '.join(config)}}} contains no connector type")
        validate(config, self.plugins.get(plugin_name), self._properties).check()
        return {key: value for key, value in config.items() if value is not None}

    @contextmanager
    def _one_writer(self) -> Iterator[Any]:
        if not self._writing.acquire(timeout=_REQUEST_TIMEOUT_S):
            raise RequestTimeout("Request timed out")
        outermost = self._writing_since_s is None
        try:
            if self._closing:
                raise ConnectError("Worker is shutting down")
            if outermost:
                self._writing_since_s = time.monotonic()
            yield
        finally:
            if outermost:
                self._writing_since_s = None
            self._writing.release()
