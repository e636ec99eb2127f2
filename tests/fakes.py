"""Stand-ins for what lies outside the worker: a clock, a Kafka consumer, a plugin. Scripted, so that a test says what happens when."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heartbeat.config import ConfigDef, Key, Type
from heartbeat.connect.api import Batch, Committed, SinkTask, Subscription, TaskContext, TopicPartition
from heartbeat.connect.conversion import Conversion, Tolerance
from heartbeat.connect.converters import ByteArrayConverter, Converter
from heartbeat.connect.kafka import Delivery, Membership, no_metadata
from heartbeat.connect.store import ConnectorRecord, Store
from heartbeat.connect.task import Feed, Pace, TaskId, TaskRunner, TaskSpec
from heartbeat.errors import RetriableError

Where = tuple[str, int, int]
"""Topic, partition, offset."""

PATIENCE_S = 40.0


def eventually(check: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Return the first true result of ``check``; fail after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = check()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; last seen: {seen!r}"
        time.sleep(0.02)


class FakeClock:
    """Seconds that pass only when a test, or a fake that would wait, says so."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A consumed record, with the accessors of a client's message."""

    where: Where
    data: bytes | None = b"v"

    def topic(self) -> str:
        return self.where[0]

    def partition(self) -> int:
        return self.where[1]

    def offset(self) -> int:
        return self.where[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self.data

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None


def records(topic: str, partition: int, offsets: Iterable[int], data: bytes | None = b"v") -> Delivery:
    """Return a delivery of these offsets of one partition."""
    messages = [FakeMessage((topic, partition, offset), data) for offset in offsets]
    return Delivery(list(messages), {TopicPartition(topic, partition): messages[-1].offset() + 1})


def end_of_log(topic: str, partition: int, offset: int) -> Delivery:
    """Return what an EOF event gives: a position and no record."""
    return Delivery([], {TopicPartition(topic, partition): offset})


def together(*deliveries: Delivery) -> Delivery:
    """Return several deliveries as one."""
    messages = [message for delivery in deliveries for message in delivery.messages]
    return Delivery(messages, {p: offset for delivery in deliveries for p, offset in delivery.next_offsets.items()})


Step = Delivery | Callable[["FakeConsumer"], Delivery | None]


class FakeConsumer:
    """A group member whose polls follow a script; a step is a delivery, or a function that does something and may return one.

    ``journal`` tells in order what was asked of the consumer, and is shared with the plugin.
    """

    def __init__(self, clock: FakeClock, journal: list[Any]) -> None:
        self.assigned: Mapping[TopicPartition, int] = {}
        self.unopened: frozenset[TopicPartition] = frozenset()
        self.held: dict[TopicPartition, Committed | RetriableError | None] = {}
        self.start_error: RetriableError | None = None
        self.metadata: Callable[[TopicPartition], str] = no_metadata
        self.clock = clock
        self.journal = journal
        self.script: deque[Step] = deque()
        self.topics_known: list[str] = []
        self.answers_commits = True
        self._paused = False
        self.closed = 0
        self.polls: list[tuple[float, int]] = []
        self.commits: list[dict[TopicPartition, int]] = []
        self.notes: list[dict[TopicPartition, str]] = []
        """The text that went with each commit, of revocations too."""
        self.lookups = 0
        self.committable: Callable[[], Mapping[TopicPartition, int]] = dict
        self.opens = False
        self._assignments = 0
        self._in_flight: tuple[float, dict[TopicPartition, int]] | None = None
        self._acknowledged: dict[TopicPartition, int] = {}

    # What happens to a member

    def assign(self, *partitions: TopicPartition) -> None:
        """Give partitions, in one assignment."""
        self._assignments += 1
        self.assigned = {**self.assigned, **dict.fromkeys(partitions, self._assignments)}

    def offer(self, *partitions: TopicPartition) -> None:
        """Give partitions that the plugin must open first."""
        self.unopened |= frozenset(partitions)

    def revoke(self, *partitions: TopicPartition) -> None:
        """Take partitions away, with the commit that belongs to it."""
        leaving = {partition: offset for partition, offset in self.committable().items() if partition in partitions}
        self.journal.append(("revoked", leaving))
        self.notes.append({partition: self.metadata(partition) for partition in leaving})
        self.unopened -= frozenset(partitions)
        self.assigned = {partition: number for partition, number in self.assigned.items() if partition not in partitions}

    def acknowledge(self) -> None:
        """Answer the commit in flight."""
        if self._in_flight is not None:
            self._acknowledged |= self._in_flight[1]
            self._in_flight = None

    def is_paused(self) -> bool:
        """Tell whether fetching is held."""
        return self._paused

    # What the runner asks

    def subscribe(self, topics: Sequence[str]) -> None:
        self.journal.append(("subscribe", list(topics)))

    def topics_matching(self, pattern: str) -> list[str]:
        self.lookups += 1
        return list(self.topics_known)

    def poll(self, timeout_s: float, max_records: int) -> Delivery:
        self.polls.append((timeout_s, max_records))
        if self.answers_commits:
            self.acknowledge()
        step = self.script.popleft() if self.script else None
        if step is None:
            self.clock.advance(timeout_s)
            return Delivery()
        return step if isinstance(step, Delivery) else step(self) or Delivery()

    def committed(self) -> Mapping[TopicPartition, Committed | None]:
        answers = {partition: self.held.get(partition) for partition in self.unopened}
        for answer in answers.values():
            if isinstance(answer, RetriableError):
                raise answer
        return {partition: answer for partition, answer in answers.items() if not isinstance(answer, RetriableError)}

    def start_at(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.journal.append(("start", dict(offsets)))
        if self.start_error is not None:
            error, self.start_error = self.start_error, None
            raise error
        starting = self.unopened & offsets.keys()
        self.unopened -= starting
        self.assign(*starting)

    def reopen(self, partitions: Collection[TopicPartition]) -> None:
        self.journal.append(("reopen", sorted(partitions)))
        again = self.assigned.keys() & {*partitions}
        self.assigned = {partition: number for partition, number in self.assigned.items() if partition not in again}
        self.unopened |= again

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.journal.append(("commit", dict(offsets)))
        self.notes.append({partition: self.metadata(partition) for partition in offsets})
        self.commits.append(dict(offsets))
        self._in_flight = self.clock(), dict(offsets)

    def commit_in_flight_s(self) -> float | None:
        return None if self._in_flight is None else self.clock() - self._in_flight[0]

    def forget_commit(self) -> None:
        self.journal.append(("forgot", None))
        self._in_flight = None

    def take_committed(self) -> Mapping[TopicPartition, int]:
        taken, self._acknowledged = self._acknowledged, {}
        return taken

    def wait_for_commit(self, timeout_s: float) -> None:
        if self.answers_commits:
            self.acknowledge()
        elif self._in_flight is not None:
            self.clock.advance(timeout_s)

    def close(self) -> None:
        self.closed += 1
        self.journal.append(("close", None))


class FakeSink(SinkTask):
    """A plugin that does as it is told: each put takes the next of ``outcomes``, an exception to raise or None."""

    CONFIG: ClassVar[ConfigDef] = ConfigDef([])
    VERSION = "1.2.3"

    def __init__(self, journal: list[Any]) -> None:
        self.journal = journal
        self.outcomes: deque[BaseException | None] = deque()
        self.start_error: BaseException | None = None
        self.stop_error: BaseException | None = None
        self.puts: list[list[Where]] = []
        self.started = 0
        self.stopped = 0

    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        self.started += 1
        if self.start_error is not None:
            raise self.start_error

    def put(self, batch: Batch) -> None:
        where = [(record.topic, record.partition, record.offset) for record in batch]
        self.puts.append(where)
        outcome = self.outcomes.popleft() if self.outcomes else None
        self.journal.append(("put", where) if outcome is None else ("refused", where))
        if outcome is not None:
            raise outcome

    def stop(self) -> None:
        self.stopped += 1
        self.journal.append(("stop", None))
        if self.stop_error is not None:
            raise self.stop_error


class OwningSink(FakeSink):
    """The same, but it says where partitions start: at ``starts``, else at 0. ``openings`` are exceptions to raise, or None."""

    OWNS_OFFSETS: ClassVar[bool] = True

    def __init__(self, journal: list[Any]) -> None:
        super().__init__(journal)
        self.openings: deque[BaseException | None] = deque()
        self.starts: dict[TopicPartition, int] = {}
        self.has: set[TopicPartition] = set()
        """What it believes to have."""

    def open(self, committed: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
        outcome = self.openings.popleft() if self.openings else None
        self.journal.append(("open", dict(committed)))
        if outcome is not None:
            raise outcome
        assert not self.has & committed.keys(), "opened again without having been closed"
        self.has |= committed.keys()
        return {partition: self.starts.get(partition, 0) for partition in committed}

    def close(self, partitions: Collection[TopicPartition]) -> None:
        self.journal.append(("closed", sorted(partitions)))
        self.has -= set(partitions)

    def commit_metadata(self, partition: TopicPartition) -> str:
        return f"until {partition.partition}"

    def put(self, batch: Batch) -> None:
        strangers = batch.next_offsets.keys() - self.has
        assert not strangers, f"given records of what it does not have: {strangers}"
        super().put(batch)


@dataclass(slots=True)
class Stage:
    """A runner with everything around it faked."""

    runner: TaskRunner
    consumer: FakeConsumer
    sink: FakeSink
    clock: FakeClock
    journal: list[Any] = field(default_factory=list)

    def open(self) -> None:
        """Do what the task's thread does before its first turn, but in this thread."""
        self.runner._task = self.sink
        self.runner._join()
        self.runner.open()

    def turn(self, *steps: Step) -> None:
        """Go around once per step."""
        for step in steps:
            self.consumer.script.append(step)
            self.runner.turn()

    def told(self, *kinds: str) -> list[Any]:
        """Return the journal's entries of these kinds."""
        return [entry for entry in self.journal if entry[0] in kinds]

    def run(self, *steps: Step) -> None:
        """Run the task's own thread through these steps, then stop it and wait for its end."""
        self.consumer.script.extend(steps)
        self.consumer.script.append(lambda _: self.runner.stop())
        self.runner.start()
        assert self.runner.join(PATIENCE_S), "the task did not end"


def stage(
    *,
    subscription: Subscription | None = None,
    pace: Pace | None = None,
    value: Converter | None = None,
    tolerance: Tolerance | None = None,
    paused: bool = False,
    plugin: type[FakeSink] = FakeSink,
) -> Stage:
    """Return a task ``c-0`` that consumes topic ``t`` and commits every ten seconds."""
    clock, journal = FakeClock(), list[Any]()
    consumer, sink = FakeConsumer(clock, journal), plugin(journal)

    def member(membership: Membership) -> FakeConsumer:
        consumer.committable, consumer.metadata, consumer.opens = membership.committable, membership.metadata, membership.opens
        return consumer

    spec = TaskSpec(
        id=TaskId("c", 0),
        made_from={},
        plugin=lambda: sink,
        config={},
        context=TaskContext("c", 0),
        feed=Feed(
            subscription=subscription or Subscription(topics=("t",)),
            pace=pace or Pace(commit_every_s=10.0, commit_timeout_s=5.0, max_records=500),
            conversion=Conversion("c-0", ByteArrayConverter(), value or ByteArrayConverter(), tolerance or Tolerance()),
            consumer=member,
        ),
    )
    return Stage(TaskRunner(spec, paused=paused, clock=clock), consumer, sink, clock, journal)


class CollectingSink(SinkTask):
    """A real plugin for real workers: what it was given stands in class attributes, because the worker makes the instances."""

    CONFIG: ClassVar[ConfigDef] = ConfigDef(
        [
            Key(name="sink.mode", type=Type.STRING, default="ok", doc="ok, fail-start, fail-put, secret."),
            Key(name="redis.password", type=Type.PASSWORD, default=None, doc="A secret."),
        ]
    )
    VERSION = "9.9"
    ALIASES: ClassVar[tuple[str, ...]] = ("org.example.CollectingSinkConnector",)

    applied: ClassVar[list[Where]] = []
    started: ClassVar[list[TaskContext]] = []
    stopped: ClassVar[int] = 0
    stop_gate: ClassVar[Any] = None
    """An event that ``stop`` waits for, or None."""
    healed: ClassVar[bool] = False
    """Makes the failing modes work."""

    @classmethod
    def reset(cls) -> None:
        """Forget everything."""
        cls.applied, cls.started, cls.stopped, cls.stop_gate, cls.healed = [], [], 0, None, False

    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        self._mode = config["sink.mode"]
        self._password = config["redis.password"]
        CollectingSink.started.append(context)
        if self._mode == "fail-start" and not CollectingSink.healed:
            raise ValueError("the sink does not start")

    def put(self, batch: Batch) -> None:
        if self._mode == "secret":
            raise ValueError(f"cannot log in with password {self._password}")
        if self._mode == "fail-put" and len(batch) and not CollectingSink.healed:
            raise ValueError("the sink does not put")
        CollectingSink.applied.extend((record.topic, record.partition, record.offset) for record in batch)

    def stop(self) -> None:
        CollectingSink.stopped += 1
        gate = CollectingSink.stop_gate
        if gate is not None:
            gate.wait(PATIENCE_S)


class SlowStore(Store):
    """A store whose disk hangs while ``gate`` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def put(self, record: ConnectorRecord) -> None:
        self.begun.set()
        self.gate.wait(PATIENCE_S)
        super().put(record)
