"""A small world for properties: partitions with records, tasks that crash and are taken over, and a Redis connection that fails.

The tasks are real sinks on a real Redis. What a worker does around them (poll, keep a batch, open again, commit) is done
here, step by step, so that a generated plan can say what goes wrong where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pytest
import redis
from tests.beats.parts import FakeLogs, Message, batch_of
from tests.patience import PATIENT_SINK

from heartbeat.beats import connection as connections
from heartbeat.beats import sink as sink_module
from heartbeat.beats.connection import Connection, Server
from heartbeat.beats.sink import HeartbeatSink
from heartbeat.connect.api import Committed, Subscription, TaskContext, TopicPartition
from heartbeat.errors import Reclaim, RetriableError

DEFAULT_TTL_S: Final = 120
_TURNS_TO_HEAL: Final = 60


class Crash(Exception):
    """The process is gone."""


@dataclass(slots=True)
class Faults:
    """What goes wrong at which command, counted over all connections: crash, refuse (not sent), lose (the reply), flush."""

    plan: Mapping[int, str] = field(default_factory=dict)
    commands: int = 0
    crashes: bool = True

    def next(self) -> str:
        self.commands += 1
        kind = self.plan.get(self.commands, "")
        return "refuse" if kind == "crash" and not self.crashes else kind


class Breaking(Connection):
    """A connection whose commands go out one by one, so that something can go wrong between any two of them."""

    def __init__(self, server: Server, faults: Faults) -> None:
        super().__init__(server)
        self._faults = faults
        self._own = server
        self._unread = 0
        self._kept: list[Any] = []

    def send(self, commands: bytes) -> None:
        for command in split(commands):
            kind = self._faults.next()
            if kind == "flush":
                admin = Connection(self._own)
                self._drain()
                admin.call("FLUSHALL")
                admin.close()
            if kind not in ("crash", "refuse"):
                super().send(command)
                self._unread += 1
            if kind in ("crash", "refuse", "lose"):
                self._drain()
                self._kept.clear()
                raise Crash if kind == "crash" else redis.ConnectionError(kind)

    def replies(self, count: int) -> list[Any]:
        found = [self._kept.pop(0) for _ in range(min(count, len(self._kept)))]
        self._unread -= count - len(found)
        return found + super().replies(count - len(found))

    def _drain(self) -> None:
        """Let the server do what it was sent: nothing of it may happen later than what the test does next."""
        self._kept.extend(super().replies(self._unread))
        self._unread = 0

    def close(self) -> None:
        self._kept.clear()
        self._unread = 0
        super().close()


def split(commands: bytes) -> Iterator[bytes]:
    """Cut a buffer into the commands it is made of."""
    start = 0
    while start < len(commands):
        end = commands.index(b"\r\n", start) + 2
        for _ in range(int(commands[start + 1 : end - 2])):
            head = commands.index(b"\r\n", end)
            end = head + 2 + int(commands[end + 1 : head]) + 2
        yield commands[start:end]
        start = end


@dataclass(slots=True)
class Task:
    """One sink, and what the worker around it knows."""

    sink: HeartbeatSink
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    unopened: set[TopicPartition] = field(default_factory=set)
    kept: dict[TopicPartition, int] | None = None
    under_way: dict[TopicPartition, int] = field(default_factory=dict)


class World:
    """Partitions, their owners, and tasks that may think they own what they have lost."""

    def __init__(self, server: Server, logs: Mapping[TopicPartition, Sequence[Message]], tasks: int, faults: Faults) -> None:
        self._server = server
        self._faults = faults
        self._logs = {p: list(messages) for p, messages in logs.items()}
        self._committed: dict[TopicPartition, Committed] = {}
        self.tasks = [Task(self._start()) for _ in range(tasks)]
        self._owner = {p: index % tasks for index, p in enumerate(sorted(logs))}
        for p, index in self._owner.items():
            self.tasks[index].unopened.add(p)

    def _start(self) -> HeartbeatSink:
        sink = HeartbeatSink()
        given = {"redis.key": "s:${key}", "redis.ttl": str(DEFAULT_TTL_S), "heartbeat.ttl.max": "600"}
        config = sink.CONFIG.load({**given, **PATIENT_SINK})
        ends = {p: len(messages) for p, messages in self._logs.items()}
        times: dict[TopicPartition, Sequence[int]] = {p: [message.stamp for message in messages] for p, messages in self._logs.items()}
        logs = FakeLogs(ends=ends, times=times)
        here = self._server.host, self._server.port
        context = TaskContext("c", 0, lambda *_: here, Subscription(("t",)), logs=logs)
        while True:
            try:
                sink.start(config, context)
            except Crash:
                continue
            return sink

    def _zombie(self, index: int) -> bool:
        return any(self._owner[p] != index for p in self.tasks[index].positions)

    def turn(self, index: int, most: int) -> None:
        """Let a task do what its worker would do next, with at most so many records of each partition."""
        task = self.tasks[index]
        # A zombie that dies in the middle is the one thing nobody repairs at once: see test_heals.
        self._faults.crashes = not self._zombie(index)
        try:
            self._put(task, most)
        except Reclaim as error:
            task.kept, task.under_way = None, {}
            for p in map(TopicPartition._make, error.partitions):
                task.positions.pop(p, None)
                if self._owner[p] == index:
                    task.unopened.add(p)
                else:
                    task.sink.close([p])
        except RetriableError:
            task.under_way = {}  # it is put again, with what came later
        except Crash:
            task.sink.stop()
            task.sink, task.kept, task.under_way, task.positions = self._start(), None, {}, {}
            task.unopened = {p for p, owner in self._owner.items() if owner == index}

    def _put(self, task: Task, most: int) -> None:
        if task.unopened and not task.under_way:
            task.positions |= task.sink.open({p: self._committed.get(p) for p in task.unopened})
            task.unopened.clear()
        delivered = task.positions | task.under_way
        if task.kept is None or task.kept.keys() != delivered.keys():
            more = 0 if task.unopened else most
            task.kept = {p: min(len(self._logs[p]), offset + more) for p, offset in delivered.items()}
        messages = [message for p, end in sorted(task.kept.items()) for message in self._logs[p][delivered[p] : end]]
        under_way = task.sink.put(batch_of(messages, dict(task.kept)))
        task.positions, task.under_way = (delivered, task.kept) if under_way else (dict(task.kept), {})
        task.kept = None

    def move(self, p: TopicPartition, *, told: bool) -> None:
        """Give a partition to the next task. Whoever had it is told, or goes on as a zombie until Redis refuses it."""
        before = self.tasks[self._owner[p]]
        before.unopened.discard(p)
        if told and before.under_way:
            self.turn(self.tasks.index(before), 0)
        if told:
            before.positions.pop(p, None)
            before.sink.close([p])
            before.kept = None
        self._owner[p] = (self._owner[p] + 1) % len(self.tasks)
        after = self.tasks[self._owner[p]]
        if p not in after.positions:
            after.unopened.add(p)

    def commit(self, index: int) -> None:
        """Commit as the worker of a group's member would."""
        task = self.tasks[index]
        for p, offset in task.positions.items():
            if self._owner[p] == index:
                self._committed[p] = Committed(offset, task.sink.commit_metadata(p))

    def heal(self) -> None:
        """Let all go well from now on, until everything has been read."""
        self._faults.plan = {}
        for _ in range(_TURNS_TO_HEAL):
            for index in range(len(self.tasks)):
                self.turn(index, 100)
            read = all(self.tasks[owner].positions.get(p) == len(self._logs[p]) for p, owner in self._owner.items())
            if read and not any(task.under_way for task in self.tasks):
                return
        raise AssertionError("not healed")

    def stop(self) -> None:
        for task in self.tasks:
            task.sink.stop()

    def append(self, p: TopicPartition, message: Message) -> None:
        self._logs[p].append(message)


@contextmanager
def world(
    server: Server, logs: Mapping[TopicPartition, Sequence[Message]], tasks: int = 1, faults: Faults | None = None
) -> Iterator[World]:
    """A world over an empty Redis."""
    faults = faults or Faults()
    admin = Connection(server)
    admin.call("FLUSHALL")
    admin.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink_module, "_LARGE", 3)  # so many records are left under way
        patch.setattr(connections, "Connection", lambda server: Breaking(server, faults))
        made = World(server, logs, tasks, faults)
        try:
            yield made
        finally:
            made.stop()


def expected(logs: Mapping[TopicPartition, Sequence[Message]], now: int) -> dict[str, Any]:
    """Return what all of these records say, by the definition of it and without any of our code."""
    said: dict[str, list[Message]] = {}
    for message in sorted((message for messages in logs.values() for message in messages), key=lambda message: message.stamp):
        said.setdefault(f"s:{message.name!s}", []).append(message)
    found: dict[str, Any] = {"deadlines": [], "gone": [], "status": {}, "runs": {}, "keys": {}}
    for source, messages in said.items():
        newest = messages[-1]
        marks = dict(newest.marks)
        beats = [message for message in messages if dict(message.marks).get("hb-status") != b"bye"]
        if marks.get("hb-status") == b"bye":
            found["gone"].append((source.encode(), float(newest.stamp)))
        elif beats:
            deadline = newest.stamp + 1000 * int(marks.get("hb-ttl") or DEFAULT_TTL_S)
            found["deadlines"].append((source.encode(), float(deadline)))
            if deadline > now:
                found["keys"][source] = (newest.stamp, deadline)
        _signals(source, messages, found)
    return {**found, "deadlines": sorted(found["deadlines"]), "gone": sorted(found["gone"])}


def _signals(source: str, messages: Sequence[Message], found: dict[str, Any]) -> None:
    said = b"ok"
    for message in messages:
        marks = dict(message.marks)
        status, run = marks.get("hb-status"), marks.get("hb-run") or b""
        if status is None:
            continue
        if (said, status) != (b"ok", b"ok"):
            said = status
            words = {"at_ms": message.stamp, "partition": f"t/{message.number}", "offset": message.at, "status": status.decode()}
            found["status"][source.encode()] = msgspec.json.encode({**words, "run": run.decode(), "message": ""})
        if run and status == b"start":
            found["runs"][source.encode() + b"\0" + run] = str(message.stamp).encode()
        elif run:
            found["runs"].pop(source.encode() + b"\0" + run, None)
