"""The plan from what is desired and what runs to what must stop and start: applied, it gives what is desired, and then nothing more."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from heartbeat.connect.herder import plan
from heartbeat.connect.store import ConnectorRecord, TargetState
from heartbeat.connect.task import TaskId

NAMES = st.sampled_from(["a", "b", "c", "a-1"])
CONFIG = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"]))
DESIRED = st.dictionaries(NAMES, st.tuples(st.sampled_from(TargetState), st.lists(CONFIG, max_size=3))).map(
    lambda made: {name: ConnectorRecord(name, {}, target, tuple(configs)) for name, (target, configs) in made.items()}
)
RUNNING = st.dictionaries(st.builds(TaskId, NAMES, st.integers(0, 4)), CONFIG)


def wanted(desired: Mapping[str, ConnectorRecord]) -> dict[TaskId, Mapping[str, str]]:
    return {TaskId(name, number): config for name, record in desired.items() for number, config in enumerate(record.task_configs)}


def apply(desired: Mapping[str, ConnectorRecord], running: dict[TaskId, Mapping[str, str]]) -> dict[TaskId, Mapping[str, str]]:
    todo = plan(desired, running)
    left = {task: config for task, config in running.items() if task not in todo.stop}
    assert not left.keys() & set(todo.start), "a task is started that still runs"
    return left | {task: desired[task.connector].task_configs[task.number] for task in todo.start}


@given(DESIRED, RUNNING)
def test_the_applied_plan_gives_exactly_what_is_desired(
    desired: dict[str, ConnectorRecord], running: dict[TaskId, Mapping[str, str]]
) -> None:
    assert apply(desired, running) == wanted(desired)


@given(DESIRED, RUNNING)
def test_a_second_plan_has_nothing_to_do(desired: dict[str, ConnectorRecord], running: dict[TaskId, Mapping[str, str]]) -> None:
    again = plan(desired, apply(desired, running))
    assert (again.stop, again.start) == ((), ())


@given(DESIRED, RUNNING)
def test_only_what_differs_is_touched(desired: dict[str, ConnectorRecord], running: dict[TaskId, Mapping[str, str]]) -> None:
    todo = plan(desired, running)
    same = {task for task, config in wanted(desired).items() if running.get(task) == config}
    assert not same & {*todo.stop, *todo.start}
    assert set(todo.stop) <= running.keys()
    assert len(set(todo.start)) == len(todo.start)


@given(DESIRED, RUNNING)
def test_every_desired_task_is_told_whether_it_is_paused(
    desired: dict[str, ConnectorRecord], running: dict[TaskId, Mapping[str, str]]
) -> None:
    todo = plan(desired, running)
    assert todo.paused == {task: desired[task.connector].target is TargetState.PAUSED for task in wanted(desired)}


def test_a_changed_config_of_one_connector_leaves_the_others_alone() -> None:
    desired = {name: ConnectorRecord(name, {}, task_configs=({"k": "new"},)) for name in ("a", "b")}
    todo = plan(desired, {TaskId("a", 0): {"k": "old"}, TaskId("b", 0): {"k": "new"}})
    assert (todo.stop, todo.start) == ((TaskId("a", 0),), (TaskId("a", 0),))


def test_fewer_tasks_stop_only_the_surplus() -> None:
    desired = {"a": ConnectorRecord("a", {}, task_configs=({},))}
    todo = plan(desired, {TaskId("a", 0): {}, TaskId("a", 1): {}})
    assert (todo.stop, todo.start) == ((TaskId("a", 1),), ())


def test_names_that_look_like_task_names_are_not_mixed_up() -> None:
    desired = {"a-1": ConnectorRecord("a-1", {}, task_configs=({},))}
    todo = plan(desired, {TaskId("a", 1): {}})
    assert (todo.stop, todo.start) == ((TaskId("a", 1),), (TaskId("a-1", 0),))
