"""What is said of a worker, a connector and its tasks, state by state."""

from __future__ import annotations

import pytest

from heartbeat.doctor import judge_worker
from heartbeat.doctor.findings import Level
from heartbeat.doctor.worker import Connector, TaskState, Worker

URL = "http://127.0.0.1:8083"
RUNNING, FAILED = TaskState(0, "RUNNING"), TaskState(1, "FAILED", "a.B: it broke\n\tat somewhere")
RESTART = f"curl -X POST '{URL}/connectors/c/restart?includeTasks=true&onlyFailed=true'"
RESUME = f"curl -X PUT {URL}/connectors/c/resume"


def connector(state: str, *tasks: TaskState, trace: str = "", name: str = "c") -> Connector:
    return Connector(name, state, trace, tasks, {})


@pytest.mark.parametrize(
    ("found", "level", "words", "fix"),
    [
        (connector("RUNNING", RUNNING), Level.OK, "1 task(s) RUNNING", None),
        (connector("PAUSED", RUNNING), Level.WARN, "PAUSED, as somebody asked", RESUME),
        (connector("STOPPED"), Level.FAIL, "STOPPED, as somebody asked", RESUME),
        (connector("FAILED", trace="x.Y: no\n"), Level.FAIL, "is FAILED: x.Y: no", RESTART),
        (connector("RUNNING", RUNNING, FAILED), Level.FAIL, "task 1 is FAILED, its partitions are not read: a.B: it broke", RESTART),
        (connector("RUNNING", TaskState(0, "FAILED")), Level.FAIL, "it does not say why", RESTART),
        (connector("RUNNING"), Level.FAIL, "has no tasks", RESTART),
        (connector("RUNNING", TaskState(0, "UNASSIGNED")), Level.WARN, "task 0 is UNASSIGNED", RESTART),
    ],
    ids=lambda value: value.state if isinstance(value, Connector) else "",
)
def test_a_state_is_told_with_what_to_type(found: Connector, level: Level, words: str, fix: str | None) -> None:
    (told,) = judge_worker.connector(URL, found)
    assert (told.level, told.check) == (level, "connector c")
    assert words in told.text
    assert (told.fix is None) if fix is None else (fix in (told.fix or ""))


def test_every_failed_task_is_told_and_only_the_first_line_of_its_trace() -> None:
    told = list(judge_worker.connector(URL, connector("RUNNING", FAILED, TaskState(2, "FAILED", "z" * 1000))))
    assert [finding.level for finding in told] == [Level.FAIL, Level.FAIL]
    assert "at somewhere" not in told[0].text
    assert len(told[1].text) < 400


def test_a_name_that_a_shell_would_take_apart_is_quoted() -> None:
    (told,) = judge_worker.connector(URL, connector("PAUSED", name="a b'; rm"))
    assert told.fix == f"curl -X PUT {URL}/connectors/a%20b%27%3B%20rm/resume"


@pytest.mark.parametrize(
    ("found", "cluster", "level", "words"),
    [
        (Worker("4.1.0", "0.1.0", "one", {}), "one", Level.OK, "worker 0.1.0"),
        (Worker("4.1.0", "0.1.0", "one", {}), None, Level.OK, "worker 0.1.0"),
        (Worker("4.1.0", "0.2.0", "one", {}), "one", Level.OK, "worker 0.2.0 (this doctor is 0.1.0)"),
        (Worker("4.1.0", "0.1.0", "one", {}), "two", Level.FAIL, "it is on cluster one, but the one looked at here is two"),
        (Worker("4.1.0", "0.1.0", None, {}), "one", Level.WARN, "no broker has answered it yet"),
        (Worker(None, None, None, {}), "one", Level.WARN, "does not say its version in time"),
    ],
)
def test_a_worker_is_told_by_its_version_and_cluster(found: Worker, cluster: str | None, level: Level, words: str) -> None:
    (told,) = judge_worker.worker(URL, found, "0.1.0", cluster)
    assert told.level is level
    assert words in told.text


def test_no_connector_is_a_failure_that_says_how_to_make_one() -> None:
    nothing, other = Worker("4.1.0", "0", "one", {}), Worker("4.1.0", "0", "one", {"c": connector("RUNNING")})
    assert "curl -X POST" in (judge_worker.none_there(URL, None, nothing).fix or "")
    assert "there is: c" in judge_worker.none_there(URL, "d", other).text


@pytest.mark.parametrize(("reason", "fix"), [("Connection refused", "start it: heartbeat connect-"), ("no answer in 4 s", "if it hangs")])
def test_a_worker_that_is_not_there_is_told_from_one_that_is_silent(reason: str, fix: str) -> None:
    told = judge_worker.no_worker(URL, reason)
    assert told.level is Level.FAIL
    assert fix in (told.fix or "")
