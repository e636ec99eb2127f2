"""Connect's verbs on a real store, a real worker and the real client: the state machine, restarts, races, and what is never told."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import PATIENCE_S, CollectingSink, SlowStore, eventually

from heartbeat import logs
from heartbeat.connect.api import same_address
from heartbeat.connect.assembly import Assembly
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_sender import Sender
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.requests import CreateRequest
from heartbeat.connect.store import ConnectorRecord, FileStore, Store, TargetState
from heartbeat.connect.task import State, TaskId, TaskSpec
from heartbeat.connect.worker import Worker
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.errors import AlreadyExists, BadRequest, ConnectError, NotFound

STRING = "org.apache.kafka.connect.storage.StringConverter"
CONFIG = {"connector.class": "CollectingSink", "topics": "t", "tasks.max": "2"}
FIRST, SECOND = TaskId("c", 0), TaskId("c", 1)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"t": 2}) as embedded:
        yield embedded


class World:
    """A worker without its REST API."""

    def __init__(
        self,
        broker: EmbeddedBroker,
        store: Store | None = None,
        worker: Mapping[str, str] | None = None,
        assembly: type[Assembly] = Assembly,
    ) -> None:
        self.given = {
            "bootstrap.servers": broker.bootstrap,
            "key.converter": STRING,
            "value.converter": STRING,
            "consumer.fetch.max.wait.ms": "10",
            # The mock broker ends a rebalance only session.timeout.ms - 1 s after its first join, however many have joined.
            "consumer.session.timeout.ms": "1500",
            "consumer.heartbeat.interval.ms": "100",
            # Who was joining when his session ended, as on a machine that stands still, it never answers: 3 s after this he asks again.
            "consumer.max.poll.interval.ms": "5000",
            "offset.flush.interval.ms": "200",
            **(worker or {}),
        }
        self.plugins = Plugins([Plugin("tests.fakes.CollectingSink", CollectingSink)])
        config = WorkerConfig(self.given, WORKER_KEYS.load(self.given))
        self.store = store or Store()
        self.worker = Worker(graceful_timeout_s=10.0)
        self.herder = Herder(self.store, self.worker, self.plugins, assembly(self.plugins, config, same_address), self.given)

    def create(self, name: str = "c", target: TargetState = TargetState.STARTED, **changes: str) -> ConnectorRecord:
        config = {**CONFIG, **{key.replace("_", "."): value for key, value in changes.items()}}
        return self.herder.create(CreateRequest(name, config, target))

    def state(self, name: str = "c") -> tuple[State, list[State]]:
        """The connector's state and its tasks'."""
        status = self.herder.status(name)
        return status.state, [task.state for task in status.tasks.values()]

    def becomes(self, connector: State, *tasks: State, name: str = "c") -> None:
        """Wait for these states."""
        eventually(lambda: self.state(name) == (connector, [*tasks]), f"{connector} with {tasks}, now {self.state(name)}")

    def instances(self) -> list[int]:
        """Numbers of the tasks that were started so far, in order."""
        return sorted(context.task for context in CollectingSink.started)


@pytest.fixture
def world(broker: EmbeddedBroker) -> Iterator[World]:
    CollectingSink.reset()
    made = World(broker)
    yield made
    if CollectingSink.stop_gate is not None:
        CollectingSink.stop_gate.set()
    assert made.herder.shut_down(PATIENCE_S)


R, P, S, F, U = State.RUNNING, State.PAUSED, State.STOPPED, State.FAILED, State.UNASSIGNED


# The state machine


def test_a_created_connector_runs_its_tasks(world: World) -> None:
    record = world.create()
    assert record.config["name"] == "c"
    assert len(record.task_configs) == 2
    world.becomes(R, R, R)


@pytest.mark.parametrize(("target", "state"), [(TargetState.PAUSED, P), (TargetState.STOPPED, S)])
def test_a_connector_created_paused_or_stopped_has_no_tasks_and_starts_nothing(world: World, target: TargetState, state: State) -> None:
    record = world.create(target=target)
    assert (record.task_configs, world.state(), CollectingSink.started) == ((), (state, []), [])
    assert world.worker.running() == {}


@pytest.mark.parametrize("target", [TargetState.PAUSED, TargetState.STOPPED])
def test_a_resume_makes_tasks_where_there_were_none(world: World, target: TargetState) -> None:
    world.create(target=target)
    world.herder.set_target("c", TargetState.STARTED)
    world.becomes(R, R, R)


def test_a_pause_and_a_resume_keep_the_same_instances(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.set_target("c", TargetState.PAUSED)
    world.becomes(P, P, P)
    world.herder.set_target("c", TargetState.STARTED)
    world.becomes(R, R, R)
    assert (world.instances(), CollectingSink.stopped) == ([0, 1], 0)


def test_a_stop_empties_the_task_set_and_ends_every_task(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.set_target("c", TargetState.STOPPED)
    assert (world.state(), world.worker.running(), CollectingSink.stopped) == ((S, []), {}, 2)
    assert world.herder.record("c").task_configs == ()


def test_pausing_a_stopped_connector_is_paused_without_tasks(world: World) -> None:
    world.create(target=TargetState.STOPPED)
    world.herder.set_target("c", TargetState.PAUSED)
    assert (world.state(), world.worker.running()) == ((P, []), {})


def test_a_paused_connector_that_is_stopped_and_resumed_runs(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    for target in (TargetState.PAUSED, TargetState.STOPPED, TargetState.STARTED):
        world.herder.set_target("c", target)
    world.becomes(R, R, R)


@pytest.mark.parametrize("target", list(TargetState))
def test_saying_it_twice_changes_nothing(world: World, target: TargetState) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.set_target("c", target)
    before = world.herder.record("c"), world.worker.running()
    world.herder.set_target("c", target)
    assert (world.herder.record("c"), world.worker.running()) == before
    assert world.instances() == [0, 1]


def test_a_task_that_fails_leaves_the_connector_and_the_others_running(world: World, broker: EmbeddedBroker) -> None:
    world.create(sink_mode="fail-put")
    world.becomes(R, R, R)
    Sender({"bootstrap.servers": broker.bootstrap}).send("t", b"k", b"v")
    eventually(lambda: F in world.state()[1], "a failed task")
    assert world.herder.status("c").state is R


def test_failed_tasks_stay_failed_over_pause_and_resume(world: World) -> None:
    world.create(sink_mode="fail-start")
    world.becomes(R, F, F)
    world.herder.set_target("c", TargetState.PAUSED)
    assert world.state() == (P, [F, F])
    world.herder.set_target("c", TargetState.STARTED)
    assert world.state() == (R, [F, F])
    assert world.instances() == [0, 1]
    assert "the sink does not start" in (world.herder.task_status(FIRST).trace or "")


def test_a_failed_task_is_gone_after_a_stop_and_new_after_a_resume(world: World) -> None:
    world.create(sink_mode="fail-start")
    world.becomes(R, F, F)
    world.herder.set_target("c", TargetState.STOPPED)
    assert world.state() == (S, [])
    CollectingSink.healed = True
    world.herder.set_target("c", TargetState.STARTED)
    world.becomes(R, R, R)


def test_a_task_restarted_while_paused_comes_up_paused_and_does_not_start_its_plugin(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.set_target("c", TargetState.PAUSED)
    world.becomes(P, P, P)
    world.herder.restart_task(FIRST)
    world.becomes(P, P, P)
    assert world.instances() == [0, 1]
    world.herder.set_target("c", TargetState.STARTED)
    world.becomes(R, R, R)
    assert world.instances() == [0, 0, 1]


def test_a_shut_down_leaves_no_task_running(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    assert world.herder.shut_down(PATIENCE_S)
    assert world.state() == (R, [U, U])
    assert CollectingSink.stopped == 2


# Configs


def test_an_unchanged_config_restarts_nothing(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    record, created = world.herder.put_config("c", CONFIG)
    assert (created, record, world.instances()) == (False, world.herder.record("c"), [0, 1])
    assert CollectingSink.stopped == 0


def test_a_changed_config_restarts_the_tasks_with_it(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.put_config("c", {**CONFIG, "sink.mode": "other"})
    world.becomes(R, R, R)
    assert (world.instances(), CollectingSink.stopped) == ([0, 0, 1, 1], 2)


@pytest.mark.parametrize(("before", "after"), [("1", 3), ("3", 1)])
def test_another_number_of_tasks_is_followed(world: World, before: str, after: int) -> None:
    world.create(tasks_max=before)
    world.becomes(R, *[R] * int(before))
    world.herder.put_config("c", {**CONFIG, "tasks.max": str(after)})
    world.becomes(R, *[R] * after)
    assert len(world.worker.running()) == after


@pytest.mark.parametrize(("target", "state"), [(TargetState.PAUSED, P), (TargetState.STOPPED, S)])
def test_a_put_keeps_the_target_state(world: World, target: TargetState, state: State) -> None:
    world.create(target=target)
    record, _ = world.herder.put_config("c", {**CONFIG, "sink.mode": "other"})
    assert (record.target, world.state(), CollectingSink.started) == (target, (state, []), [])


def test_a_put_of_an_unknown_name_creates_and_says_so(world: World) -> None:
    record, created = world.herder.put_config("c", CONFIG)
    assert (created, record.name) == (True, "c")
    world.becomes(R, R, R)


def test_a_refused_config_changes_nothing(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    before = world.herder.record("c")
    with pytest.raises(BadRequest):
        world.herder.put_config("c", {**CONFIG, "tasks.max": "0"})
    with pytest.raises(BadRequest):
        world.herder.patch_config("c", {"topics": None})
    with pytest.raises(BadRequest):
        world.create(name="other", tasks_max="x")
    assert world.herder.record("c") == before
    assert (world.herder.connectors(), world.instances()) == (["c"], [0, 1])


def test_an_invalid_config_for_a_name_that_exists_is_a_bad_request(world: World) -> None:
    world.create(target=TargetState.STOPPED)
    with pytest.raises(BadRequest):
        world.create(tasks_max="0")
    with pytest.raises(AlreadyExists, match="Connector c already exists"):
        world.create()


def test_a_patch_merges_and_null_removes(world: World) -> None:
    world.create(target=TargetState.STOPPED)
    record = world.herder.patch_config("c", {"sink.mode": "other", "tasks.max": None})
    assert record.config == {"name": "c", "connector.class": "CollectingSink", "topics": "t", "sink.mode": "other"}
    with pytest.raises(BadRequest, match='Missing required configuration "name"'):
        world.herder.patch_config("c", {"name": None})
    with pytest.raises(BadRequest, match="doesn't match connector name in the URL"):
        world.herder.patch_config("c", {"name": "d"})


def test_a_config_put_while_paused_takes_effect_with_the_resume(world: World) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.set_target("c", TargetState.PAUSED)
    world.herder.put_config("c", {**CONFIG, "tasks.max": "1"})
    assert world.herder.status("c").state is P
    world.herder.set_target("c", TargetState.STARTED)
    world.becomes(R, R)


# Delete


def test_a_deleted_connector_is_gone_with_tasks_and_topics_and_its_name_is_free(world: World, broker: EmbeddedBroker) -> None:
    world.create()
    world.becomes(R, R, R)
    Sender({"bootstrap.servers": broker.bootstrap}).send("t", b"k", b"v")
    eventually(lambda: world.herder.active_topics("c") == ["t"], "the topic")
    world.herder.delete("c")
    assert (world.herder.connectors(), world.worker.running(), world.herder.active_topics("c")) == ([], {}, [])
    for gone in (lambda: world.herder.status("c"), lambda: world.herder.record("c"), lambda: world.herder.delete("c")):
        with pytest.raises(NotFound):
            gone()
    world.create()
    world.becomes(R, R, R)


def test_unknown_names_are_told_in_each_verbs_own_words(world: World) -> None:
    herder = world.herder
    world.create(target=TargetState.STOPPED)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: herder.record("x"), "Connector x not found"),
        (lambda: herder.delete("x"), "Connector x not found"),
        (lambda: herder.patch_config("x", {}), "Connector x not found"),
        (lambda: herder.status("x"), "No status found for connector x"),
        (lambda: herder.task_status(TaskId("x", 0)), "No status found for task x-0"),
        (lambda: herder.task_status(FIRST), "No status found for task c-0"),
        (lambda: herder.set_target("x", TargetState.PAUSED), "Unknown connector x"),
        (lambda: herder.restart("x"), "Unknown connector: x"),
        (lambda: herder.restart_task(TaskId("x", 0)), "Unknown connector: x"),
        (lambda: herder.restart_task(FIRST), "Unknown task: c-0"),
    ]
    for verb, words in cases:
        with pytest.raises(NotFound) as caught:
            verb()
        assert str(caught.value) == words
    assert world.state() == (S, [])


# Restarts


def failed(world: World, *, connector: bool) -> None:
    """Bring a connector with failed tasks; a failed connector is one whose stored config this worker cannot run."""
    if connector:
        record = ConnectorRecord("c", {**CONFIG, "name": "c", "tasks.max": "0"}, task_configs=({**CONFIG, "tasks.max": "0"},))
        world.store.put(record)
        world.herder.reconcile()
        assert world.state() == (F, [U])
    else:
        world.create(sink_mode="fail-start")
        world.becomes(R, F, F)


RESTARTING = State.RESTARTING


@pytest.mark.parametrize(
    ("include_tasks", "only_failed", "connector", "tasks"),
    [
        (False, False, RESTARTING, [F, F]),
        (True, False, RESTARTING, [RESTARTING, RESTARTING]),
        (False, True, R, [F, F]),
        (True, True, R, [RESTARTING, RESTARTING]),
    ],
)
def test_a_restart_of_failed_tasks_touches_what_it_says_and_no_more(
    world: World, include_tasks: bool, only_failed: bool, connector: State, tasks: list[State]
) -> None:
    failed(world, connector=False)
    CollectingSink.healed = True
    told = world.herder.restart("c", include_tasks=include_tasks, only_failed=only_failed)
    assert (told.state, [task.state for task in told.tasks.values()]) == (connector, tasks)
    assert all("does not start" in (task.trace or "") for task in told.tasks.values())
    if include_tasks:
        world.becomes(R, R, R)
        assert world.herder.task_status(FIRST).trace is None
    else:
        assert world.state() == (R, [F, F])


@pytest.mark.parametrize(
    ("include_tasks", "only_failed", "restarted"), [(False, False, []), (True, False, [0, 1]), (False, True, []), (True, True, [])]
)
def test_a_restart_of_what_is_healthy(world: World, include_tasks: bool, only_failed: bool, restarted: list[int]) -> None:
    world.create()
    world.becomes(R, R, R)
    world.herder.restart("c", include_tasks=include_tasks, only_failed=only_failed)
    world.becomes(R, R, R)
    assert world.instances() == sorted([0, 1, *restarted])


def test_only_the_failed_task_is_restarted(world: World) -> None:
    failed(world, connector=False)
    CollectingSink.healed = True
    world.herder.restart_task(FIRST)
    eventually(lambda: world.state() == (R, [R, F]), "one of two runs")
    told = world.herder.restart("c", include_tasks=True, only_failed=True)
    assert [task.state for task in told.tasks.values()] == [R, RESTARTING]
    world.becomes(R, R, R)
    assert world.instances() == [0, 0, 1, 1]


@pytest.mark.parametrize("include_tasks", [False, True])
def test_a_restart_of_a_stopped_connector_starts_no_task(world: World, include_tasks: bool) -> None:
    world.create(target=TargetState.STOPPED)
    world.herder.restart("c", include_tasks=include_tasks)
    assert (world.state(), world.worker.running()) == ((S, []), {})


def test_a_failed_connector_says_why_and_a_restart_tries_again(world: World) -> None:
    failed(world, connector=True)
    assert (world.herder.status("c").trace or "").startswith("org.apache.kafka.connect.runtime.rest.errors.BadRequestException: ")
    told = world.herder.restart("c", only_failed=True)
    assert told.state is RESTARTING
    assert world.herder.status("c").state is F
    world.herder.put_config("c", CONFIG)
    world.becomes(R, R, R)
    assert world.herder.status("c").trace is None


def test_a_connector_that_cannot_run_does_not_keep_the_others_from_it(broker: EmbeddedBroker) -> None:
    CollectingSink.reset()
    store = Store()
    broken: dict[str, dict[str, str]] = {
        "class-gone": {**CONFIG, "connector.class": "gone.Sink"},
        "no-class": {"topics": "t"},
        "bad-override": {**CONFIG, "consumer.override.security.protocol": "MAGIC"},
    }
    for name, config in broken.items():
        store.put(ConnectorRecord(name, {**config, "name": name}, task_configs=({**config, "name": name},)))
    store.put(ConnectorRecord("c", {**CONFIG, "name": "c"}, task_configs=({**CONFIG, "name": "c"},)))
    world = World(broker, store)
    try:
        world.herder.reconcile()
        world.becomes(R, R)
        assert {name: world.herder.status(name).state for name in broken} == dict.fromkeys(broken, F)
        assert all(world.herder.status(name).trace for name in broken)
    finally:
        assert world.herder.shut_down(PATIENCE_S)


def test_settings_of_the_worker_that_a_converter_refuses_fail_that_connector_only(broker: EmbeddedBroker) -> None:
    CollectingSink.reset()
    json = "org.apache.kafka.connect.json.JsonConverter"
    world = World(broker, worker={"value.converter": json, "value.converter.schemas.enable": "maybe"})
    try:
        world.create("uses-the-workers")
        status = world.herder.status("uses-the-workers")
        assert status.state is F
        assert "Invalid value maybe for configuration schemas.enable" in (status.trace or "")
        world.create("c", value_converter=STRING)
        world.becomes(R, R, R)
    finally:
        assert world.herder.shut_down(PATIENCE_S)


# Persistence


def test_what_was_desired_runs_again_after_a_restart_of_the_worker(broker: EmbeddedBroker, tmp_path: Path) -> None:
    CollectingSink.reset()
    path = tmp_path / "connectors.json"
    world = World(broker, FileStore(path))
    world.create()
    world.create("paused", TargetState.PAUSED)
    world.create("stopped", TargetState.STOPPED)
    world.create("paused-later")
    world.herder.set_target("paused-later", TargetState.PAUSED)
    world.becomes(R, R, R)
    assert world.herder.shut_down(PATIENCE_S)
    again = World(broker, FileStore(path))
    try:
        again.herder.reconcile()
        again.becomes(R, R, R)
        assert again.state("paused") == (P, [])
        assert again.state("stopped") == (S, [])
        again.becomes(P, P, P, name="paused-later")
    finally:
        assert again.herder.shut_down(PATIENCE_S)


def test_a_file_given_on_the_command_line_wins_over_what_was_stored(world: World) -> None:
    world.create(target=TargetState.STOPPED)
    world.herder.start_from_file(CreateRequest("c", {**CONFIG, "tasks.max": "1"}, TargetState.STARTED))
    world.becomes(R, R)


def test_a_store_that_cannot_write_changes_nothing_that_is_told_or_runs(broker: EmbeddedBroker, tmp_path: Path) -> None:
    CollectingSink.reset()
    path = tmp_path / "connectors.json"
    world = World(broker, FileStore(path))
    path.with_name("connectors.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        world.create()
    assert (world.herder.connectors(), world.worker.running(), CollectingSink.started) == ([], {}, [])


# Records


def test_no_record_is_lost_over_pause_restart_and_config_change(world: World, broker: EmbeddedBroker) -> None:
    sender = Sender({"bootstrap.servers": broker.bootstrap})
    sent: list[Any] = []

    def send(count: int) -> None:
        sent.extend(("t", *sender.send("t", str(len(sent) + n).encode(), b"v")) for n in range(count))

    def complete() -> bool:
        return {*CollectingSink.applied} >= {*sent}

    world.create()
    world.becomes(R, R, R)
    send(20)
    world.herder.set_target("c", TargetState.PAUSED)
    send(20)
    world.herder.set_target("c", TargetState.STARTED)
    eventually(complete, "records of a pause")
    world.herder.restart("c", include_tasks=True)
    send(20)
    eventually(complete, "records of a restart")
    world.herder.put_config("c", {**CONFIG, "sink.mode": "other"})
    send(20)
    world.herder.set_target("c", TargetState.STOPPED)
    send(20)
    world.herder.set_target("c", TargetState.STARTED)
    eventually(complete, "records of a stop")


# Races


def test_two_that_create_one_name_at_once_get_one_connector_and_one_refusal(world: World) -> None:
    for turn in range(20):
        outcomes = race([lambda: world.create("c", TargetState.STOPPED)] * 2)
        assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [AlreadyExists], turn
        world.herder.delete("c")


def race(verbs: list[Callable[[], object]]) -> list[object]:
    """Run verbs at the same time; return what each returned or raised."""
    ready, outcomes = threading.Barrier(len(verbs), timeout=PATIENCE_S), list[object]()

    def run(verb: Callable[[], object]) -> None:
        ready.wait()
        try:
            outcomes.append(verb())
        except Exception as error:  # noqa: BLE001  whatever it is, it is the outcome
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(verb,), daemon=True) for verb in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    return outcomes


def test_racing_verbs_leave_what_runs_equal_to_what_is_desired(world: World) -> None:
    world.create()
    verbs: list[Callable[[], object]] = [
        lambda: world.herder.set_target("c", TargetState.PAUSED),
        lambda: world.herder.put_config("c", {**CONFIG, "tasks.max": "3"}),
        lambda: world.herder.restart("c", include_tasks=True),
        lambda: world.herder.restart_task(FIRST),
        lambda: world.herder.set_target("c", TargetState.STARTED),
    ]
    outcomes = race(verbs)
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    record = world.herder.record("c")
    assert world.worker.running() == {TaskId("c", n): config for n, config in enumerate(record.task_configs)}
    eventually(lambda: {*world.state()[1]} == {world.state()[0]}, "all tasks follow the connector")


def test_readers_do_not_wait_while_a_writer_waits_for_a_slow_stop(world: World) -> None:
    world.create()
    world.create("other", TargetState.STOPPED)
    world.becomes(R, R, R)
    CollectingSink.stop_gate = threading.Event()
    writer = threading.Thread(target=world.herder.set_target, args=("c", TargetState.STOPPED), daemon=True)
    writer.start()
    eventually(lambda: CollectingSink.stopped, "a plugin in its stop")
    seen: list[object] = []

    def read() -> None:
        herder = world.herder
        seen.extend([herder.connectors(), herder.status("c"), herder.status("other"), herder.record("c"), herder.active_topics("c")])
        seen.append(herder.validate("CollectingSink", {**CONFIG, "name": "c"}))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert (len(seen), writer.is_alive()) == (6, True)
    CollectingSink.stop_gate.set()
    writer.join(PATIENCE_S)
    assert not writer.is_alive()


def test_a_stop_that_hangs_holds_nobody_longer_than_its_time(broker: EmbeddedBroker) -> None:
    CollectingSink.reset()
    world = World(broker)
    world.worker = Worker(graceful_timeout_s=0.3)
    config = WorkerConfig(world.given, WORKER_KEYS.load(world.given))
    world.herder = Herder(world.store, world.worker, world.plugins, Assembly(world.plugins, config, same_address), world.given)
    world.create()
    world.becomes(R, R, R)
    CollectingSink.stop_gate = threading.Event()
    deleting = threading.Thread(target=world.herder.delete, args=("c",), daemon=True)
    deleting.start()
    deleting.join(10)
    hung = deleting.is_alive()
    CollectingSink.stop_gate.set()
    assert not hung
    assert world.herder.connectors() == []


# Secrets


def test_no_secret_of_a_connector_is_in_a_trace_or_a_log_line(world: World) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.ConnectFormatter())
    handler.setLevel(logging.DEBUG)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="kafka-geheim";'
    try:
        world.create(tasks_max="1", sink_mode="secret", redis_password="redis-geheim")
        world.becomes(R, F)
        world.create(
            "sasl",
            tasks_max="1",
            redis_password="redis-geheim",
            consumer_override_security_protocol="SASL_PLAINTEXT",
            consumer_override_sasl_mechanism="PLAIN",
            consumer_override_sasl_jaas_config=jaas,
        )
        world.becomes(R, R, name="sasl")
        with pytest.raises(BadRequest) as refused:
            world.create("bad", redis_password="redis-geheim", consumer_override_sasl_jaas_config=jaas + " password=", tasks_max="0")
        logging.getLogger("x").error("config %s", world.herder.record("sasl").config)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    trace = world.herder.task_status(FIRST).trace or ""
    assert "cannot log in with password [hidden]" in trace
    for told in (trace, stream.getvalue(), str(refused.value), logs.format_trace(refused.value)):
        assert "geheim" not in told
    assert "[hidden]" in stream.getvalue()


def test_the_stored_config_keeps_the_secret_that_was_posted(world: World) -> None:
    world.create(target=TargetState.STOPPED, redis_password="redis-geheim")
    assert world.herder.record("c").config["redis.password"] == "redis-geheim"
    assert replace(world.herder.record("c"), name="d").config["redis.password"] == "redis-geheim"


# One writer, also at start and stop


class SlowAssembly(Assembly):
    """Builds nothing until it may, so that verbs meet a worker that is starting."""

    begun = threading.Event()
    gate = threading.Event()

    def build(self, task: TaskId, config: Mapping[str, str]) -> TaskSpec:
        SlowAssembly.begun.set()
        SlowAssembly.gate.wait(PATIENCE_S)
        return super().build(task, config)


def test_posts_while_stored_connectors_start_start_no_task_twice(broker: EmbeddedBroker) -> None:
    CollectingSink.reset()
    SlowAssembly.begun.clear()
    SlowAssembly.gate.clear()
    store, names = Store(), [f"stored-{number}" for number in range(8)]
    for name in names:
        config = {**CONFIG, "name": name, "tasks.max": "1"}
        store.put(ConnectorRecord(name, config, task_configs=(config,)))
    world = World(broker, store, assembly=SlowAssembly)
    try:
        with ThreadPoolExecutor(4) as pool:
            start = pool.submit(world.herder.reconcile)
            assert SlowAssembly.begun.wait(PATIENCE_S)
            posts = [pool.submit(world.create, f"posted-{number}", tasks_max="1") for number in range(3)]
            wait(posts, 0.3)  # time for a post that does not wait for its turn
            SlowAssembly.gate.set()
            every: list[Future[Any]] = [start, *posts]
            for done in every:
                done.result(PATIENCE_S)
        names += [f"posted-{number}" for number in range(3)]
        for name in names:
            world.becomes(R, R, name=name)
        assert sorted(context.connector for context in CollectingSink.started) == sorted(names)
    finally:
        SlowAssembly.gate.set()
        assert world.herder.shut_down(PATIENCE_S)


@pytest.fixture
def slow(broker: EmbeddedBroker) -> Iterator[tuple[World, SlowStore]]:
    """A worker with a connector ``c``, and its store, whose gate is closed."""
    CollectingSink.reset()
    store = SlowStore()
    made = World(broker, store)
    made.create()
    store.begun.clear()
    store.gate.clear()
    yield made, store
    store.gate.set()
    made.herder.shut_down(PATIENCE_S)


def test_a_shut_down_waits_for_the_verb_under_way_and_stops_what_it_started(slow: tuple[World, SlowStore]) -> None:
    world, store = slow
    with ThreadPoolExecutor(2) as pool:
        verb = pool.submit(world.create, "late")
        assert store.begun.wait(PATIENCE_S)
        stop = pool.submit(world.herder.shut_down, 2 * PATIENCE_S)
        wait([stop], 0.3)  # time for a shut-down that does not wait for the verb
        store.gate.set()
        assert stop.result(3 * PATIENCE_S)
        verb.result(PATIENCE_S)
    assert world.worker.running() == {}


def test_a_verb_that_hangs_is_not_waited_for_and_starts_nothing_when_it_comes_back(slow: tuple[World, SlowStore]) -> None:
    world, store = slow
    with ThreadPoolExecutor(1) as pool:
        verb = pool.submit(world.create, "late")
        assert store.begun.wait(PATIENCE_S)
        started = time.monotonic()
        assert not world.herder.shut_down(3.0)
        assert time.monotonic() - started < PATIENCE_S
        assert world.worker.running() == {}
        store.gate.set()
        verb.exception(PATIENCE_S)
    assert world.worker.running() == {}


def test_verbs_are_refused_from_the_shut_down_on_and_readers_answer(world: World) -> None:
    world.create()
    assert world.herder.shut_down(PATIENCE_S)
    verbs: list[Callable[[], object]] = [
        lambda: world.create("d"),
        lambda: world.herder.put_config("c", CONFIG),
        lambda: world.herder.patch_config("c", {"tasks.max": "1"}),
        lambda: world.herder.set_target("c", TargetState.STARTED),
        lambda: world.herder.restart("c", include_tasks=True),
        lambda: world.herder.restart_task(FIRST),
        lambda: world.herder.delete("c"),
        world.herder.reconcile,
    ]
    for verb in verbs:
        with pytest.raises(ConnectError, match=r"^Worker is shutting down$") as caught:
            verb()
        assert caught.value.status == 500
    assert world.herder.connectors() == ["c"]
    assert world.state() == (R, [U, U])
    assert world.worker.running() == {}


def test_a_thread_that_cannot_start_fails_that_connector_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if thread.name == "task-c-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    world.create("other", tasks_max="1")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_some)
        world.create()
        assert world.state()[0] is F
        assert "can't start new thread" in (world.herder.status("c").trace or "")
        world.create("third", tasks_max="1")
        world.herder.set_target("other", TargetState.PAUSED)
        world.becomes(P, P, name="other")
        world.becomes(R, R, name="third")
        world.herder.set_target("c", TargetState.PAUSED)
        world.herder.set_target("c", TargetState.STOPPED)
        world.herder.delete("third")
        world.herder.set_target("c", TargetState.STARTED)
        assert world.state()[0] is F
    world.herder.restart("c")
    world.becomes(R, R, R)


def test_a_restart_of_a_task_that_could_not_be_started_tries_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        world.create(tasks_max="1")
    assert world.state() == (F, [U])
    world.herder.restart_task(FIRST)
    world.becomes(R, R)
    assert world.herder.status("c").trace is None


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
