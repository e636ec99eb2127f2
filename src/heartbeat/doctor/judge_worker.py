"""What a worker's and its connectors' states mean. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote as shell
from typing import Final
from urllib.parse import quote

from heartbeat.doctor.findings import Finding, fail, ok, warn
from heartbeat.doctor.worker import Connector, Worker

_START: Final = "heartbeat connect-standalone worker.properties"
_LONGEST: Final = 300
_CREATE: Final = "curl -X POST -H 'Content-Type: application/json' -d @config/redis-heartbeat-sink.json {}/connectors"
_ASLEEP: Final = "see its log; if it hangs or is stopped, kill and restart it: " + _START


def no_worker(url: str, reason: str) -> Finding:
    """Say that no worker answers."""
    silent = reason.startswith("no answer")
    text = f"{url}: {reason}. Without a worker no beat is applied, and nothing can be concluded from silence"
    return fail("connect", text, _ASLEEP if silent else f"start it: {_START}; or name another one: --rest URL")


def worker(url: str, found: Worker, version: str, cluster_id: str | None) -> Iterator[Finding]:
    """Judge the worker itself; ``version`` is our own, ``cluster_id`` that of the cluster we look at."""
    if found.version is None:
        yield warn("connect", f"{url} lists its connectors, but does not say its version in time: its brokers may be away", _ASLEEP)
        return
    told = f"{url} answers: Kafka Connect {found.version}, worker {found.commit}"
    if found.cluster_id is None:
        yield warn(
            "connect", f"{told}; no broker has answered it yet", "see bootstrap.servers in its properties, and the kafka lines below"
        )
    elif cluster_id is not None and found.cluster_id != cluster_id:
        text = f"{told}; it is on cluster {found.cluster_id}, but the one looked at here is {cluster_id}"
        yield fail("connect", text, "name the worker's brokers: --bootstrap-server HOST:PORT, or --worker worker.properties")
    else:
        yield ok("connect", told if found.commit == version else f"{told} (this doctor is {version})")


def none_there(url: str, wanted: str | None, found: Worker) -> Finding:
    """Say that there is no connector to look at."""
    if wanted is None:
        return fail("connector", "there is none: no beat is applied", _CREATE.format(url))
    there = ", ".join(found.connectors) or "none"
    return fail("connector", f"{wanted} does not exist; there is: {there}", f"name one of these, or create it: {_CREATE.format(url)}")


def connector(url: str, found: Connector) -> Iterator[Finding]:
    """Judge a connector and its tasks."""
    check = f"connector {found.name}"
    resume, restart = curl("PUT", url, found.name, "resume"), f"mend the cause, then: {restart_of(url, found.name)}"
    if found.state == "PAUSED":
        yield warn(check, "is PAUSED, as somebody asked for: no beat is applied, and once one waits, silence proves nothing", resume)
        return
    if found.state == "STOPPED":
        text = "is STOPPED, as somebody asked for: it has no tasks, no beat is applied, silence proves nothing"
        yield fail(check, text, resume)
        return
    if found.state == "FAILED":
        yield fail(check, f"is FAILED: {first_line(found.trace)}", restart)
        return
    failed = [task for task in found.tasks if task.state == "FAILED"]
    for task in failed:
        yield fail(check, f"task {task.id} is FAILED, its partitions are not read: {first_line(task.trace)}", restart)
    if not found.tasks:
        yield fail(check, f"is {found.state}, but has no tasks: no beat is applied", restart)
        return
    other = [task for task in found.tasks if task.state not in {"RUNNING", "FAILED"}]
    if other:
        states = ", ".join(f"task {task.id} is {task.state}" for task in other)
        yield warn(check, f"is {found.state}, but {states}", f"look again in some seconds, then: {restart_of(url, found.name)}")
    elif not failed:
        yield ok(check, f"is {found.state} with {len(found.tasks)} task(s) RUNNING")


def curl(method: str, url: str, name: str, verb: str) -> str:
    """Return the command that sends a verb to a connector."""
    target = f"{url}/connectors/{quote(name, safe='')}/{verb}"
    return f"curl -X {method} {shell(target)}"


def restart_of(url: str, name: str) -> str:
    """Return the command that starts a connector's failed tasks again."""
    return curl("POST", url, name, "restart?includeTasks=true&onlyFailed=true")


def first_line(trace: str) -> str:
    """Return what a trace begins with."""
    return next((line.strip()[:_LONGEST] for line in trace.splitlines() if line.strip()), "it does not say why")
