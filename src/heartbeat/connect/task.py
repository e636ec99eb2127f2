"""One sink task: one thread, one consumer, one plugin instance. ``turn()`` is the whole data path, once around."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from heartbeat import logs
from heartbeat.connect.api import Measure, SinkTask, Subscription, TaskContext, TopicPartition
from heartbeat.connect.conversion import Conversion, Pending
from heartbeat.connect.kafka import Membership
from heartbeat.connect.kept import Kept
from heartbeat.connect.meters import Meters
from heartbeat.connect.offsets import Progress
from heartbeat.connect.opening import Consumer as OpeningConsumer
from heartbeat.connect.opening import Opening, backoff_s
from heartbeat.errors import ConnectError, Reclaim, RetriableError

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How long a turn waits for a first record: also how late a pause or a stop is noticed."""
_JOINING_POLL_S = 0.05
"""The same without a partition: a poll in which one is assigned goes on waiting for its first record."""
_STOP_COMMIT_S = 1.5
_RETRY_LOG_S = 10.0


class State(Enum):
    """What Connect's API calls the state of a connector or task."""

    UNASSIGNED = "UNASSIGNED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    RESTARTING = "RESTARTING"


class TaskId(NamedTuple):
    """Names a task as Connect does: ``connector-number``."""

    connector: str
    number: int

    def __str__(self) -> str:
        return f"{self.connector}-{self.number}"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What is known of a task. Replaced as a whole by the task's own thread; whoever asks reads it."""

    state: State
    trace: str | None = None
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to commit, how long a commit may take, how many records a batch may have."""

    commit_every_s: float = 60.0
    commit_timeout_s: float = 5.0
    max_records: int = 10_000


class Consumer(OpeningConsumer, Protocol):
    """What the runner needs of ``kafka.SinkConsumer``."""

    assigned: Mapping[TopicPartition, int]

    def subscribe(self, topics: Sequence[str]) -> None: ...
    def topics_matching(self, pattern: str) -> list[str]: ...
    def poll(self, timeout_s: float, max_records: int) -> Any: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    def commit_in_flight_s(self) -> float | None: ...
    def forget_commit(self) -> None: ...
    def take_committed(self) -> Mapping[TopicPartition, int]: ...
    def wait_for_commit(self, timeout_s: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Feed:
    """Where a task's batches come from. The consumer is built in the task's own thread."""

    subscription: Subscription
    pace: Pace
    conversion: Conversion
    consumer: Callable[[Membership], Consumer]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Everything a task is made of.

    ``made_from`` is the task config it was built from, word for word; ``config`` is what the plugin's own keys parsed to.
    """

    id: TaskId
    made_from: Mapping[str, str]
    plugin: Callable[[], SinkTask]
    config: Mapping[str, Any]
    context: TaskContext
    feed: Feed


class TaskRunner:
    """Runs one task. Others set its target (``pause``, ``resume``, ``stop``) and read ``status``; everything else is its thread's."""

    def __init__(self, spec: TaskSpec, *, paused: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.status = TaskStatus(State.UNASSIGNED)
        self.meters = Meters(clock)
        self._spec = spec
        self._clock = clock
        self._paused = paused
        self._forget_topics = False
        self._wake = threading.Event()
        self._stopping = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=f"task-{spec.id}", daemon=True)
        # Made in the task's thread, and touched by no other.
        self._task: SinkTask
        self._consumer: Consumer
        self._opening: Opening
        self._progress = Progress()
        self._kept = Kept()
        self._failures = 0
        self._retry_at_s = 0.0
        self._next_commit_s = 0.0
        self._next_lookup_s = 0.0
        self._topics: list[str] = []
        self._retry_log = logs.Every(_RETRY_LOG_S)

    @property
    def topics(self) -> frozenset[str]:
        """The topics this task has had records of."""
        return frozenset() if self._forget_topics else self.status.topics

    @property
    def spec(self) -> TaskSpec:
        """What this task was built from."""
        return self._spec

    def measures(self) -> Sequence[Measure]:
        """Return the plugin's own figures: none before it has started."""
        return self._task.measures() if self.meters.started else ()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def pause(self) -> None:
        """Ask the task to stop fetching and stay in the group."""
        self._paused = True

    def resume(self) -> None:
        """Ask the task to fetch again."""
        self._paused = False
        self._wake.set()

    def forget_topics(self) -> None:
        """Ask the task to begin its record of topics anew."""
        self._forget_topics = True

    def stop(self) -> None:
        """Ask the task to commit, leave the group and end."""
        self._stopping = True
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end and return whether it came; a task that is late is abandoned, and commits nothing any more."""
        self._thread.join(max(0.0, timeout_s))
        self._abandoned = self._thread.is_alive()
        return not self._abandoned

    def _run(self) -> None:
        try:
            self._wait_while_paused()
            if not self._stopping:
                self._live()
        except BaseException as error:  # noqa: BLE001  also a plugin's sys.exit(): nobody else would tell that the task is gone
            self._fail(error)
            return
        self._set_status(State.UNASSIGNED)

    def _fail(self, error: BaseException) -> None:
        if self.status.state is not State.FAILED:
            log.error("Task %s failed and will not recover until it is restarted", self._spec.id, exc_info=error)
            self._set_status(State.FAILED, logs.format_trace(error))

    def _wait_while_paused(self) -> None:
        while self._paused and not self._stopping:
            self._set_status(State.PAUSED)
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _live(self) -> None:
        self._task = self._spec.plugin()
        try:
            self._task.start(self._spec.config, self._spec.context)
            self._join()
            try:
                self.open()
                while not self._stopping:
                    self.turn()
            except BaseException as error:
                self._fail(error)  # now, because leaving may take as long as the broker does not answer
                raise
            finally:
                self._leave()
        finally:
            self._stop_plugin()

    def _join(self) -> None:
        membership = Membership(self._committable, self._task.commit_metadata, type(self._task).OWNS_OFFSETS)
        self._consumer = self._spec.feed.consumer(membership)
        self._opening = Opening(str(self._spec.id), self._consumer, self._task, self._clock)

    def _stop_plugin(self) -> None:
        try:
            self._task.stop()
        except Exception as error:  # as in Connect: why the task ended matters, not that its stop failed as well
            log.error("Task %s: the plugin failed to stop", self._spec.id, exc_info=error)
        if self._spec.context.logs is not None:
            self._spec.context.logs.close()

    def _committable(self) -> Mapping[TopicPartition, int]:
        """Return what may be committed: of this very assignment, also if it came within the poll that is under way.

        Nothing, if this task was abandoned: its partitions are somebody else's, who may have gone on.
        """
        self._progress.follow(self._consumer.assigned)
        return {} if self._abandoned else self._progress.committable()

    def open(self) -> None:
        """Subscribe. Apart from ``turn`` so that tests can drive both."""
        now = self._clock()
        self._next_commit_s = now + self._spec.feed.pace.commit_every_s
        self._subscribe_if_due(now)
        self._follow_target()

    def turn(self) -> None:
        """Go around once: poll, convert, open what is new, put, commit if it is time.

        Raises:
            Exception: the task has failed.
        """
        now = self._clock()
        self._follow_target()
        self._subscribe_if_due(now)
        longest_s = POLL_S if self._consumer.assigned else _JOINING_POLL_S
        retry_in_s = self._retry_at_s - now if self._failures else longest_s
        delivery = self._consumer.poll(min(longest_s, max(0.0, retry_in_s)), 1 if self._failures else self._spec.feed.pace.max_records)
        self.meters.read(delivery.messages, delivery.next_offsets, self._consumer.assigned)
        self._note_committed()
        self._drop_what_went()
        self._progress.follow(self._consumer.assigned)
        self._kept.add(self._spec.feed.conversion.convert(delivery.messages, delivery.next_offsets))
        now = self._clock()
        if self._opening.due() and self._kept.busy:  # also with a batch that is not ours any more: its replies would pass for a claim's
            self._put(now, Pending())
        if not self._kept.busy:
            self._opening.turn()
            self._drop_what_went()  # also within this turn: put behind its new start, it would pass for what comes from there
        if now >= self._retry_at_s:
            self._put(now, self._kept.waiting)
        self._commit_if_due(now)

    def _drop_what_went(self) -> None:
        if self._kept.follow(self._consumer.assigned):
            self._failures, self._retry_at_s = 0, 0.0  # nothing is left to wait for

    def _put(self, now: float, batch: Pending) -> None:
        """Put what waits, or nothing, which brings a batch under way to its end."""
        try:
            under_way = self._put_in_words(self._spec.feed.conversion.batch(batch))
        except Reclaim as error:
            self._kept.failed()
            self._opening.give_back(error)
            return  # with the next turn what is kept of the batch is put again
        except RetriableError as error:
            self._kept.failed()
            self._failures += 1
            self.meters.retried()
            wait_s = error.retry_after_s or backoff_s(self._failures, random.random())
            self._retry_at_s = self._clock() + wait_s
            self._consumer.pause()
            if self._retry_log.due(now):
                log.warning("Task %s keeps %d records and tries again: %s", self._spec.id, len(self._kept), error)
            return
        if self._failures:
            log.info("Task %s applied the %d records it had kept", self._spec.id, len(batch.messages))
            self._failures = 0
            self._retry_at_s = 0.0
            self._follow_target()
        self.meters.put(self._clock() - now, len(batch.messages))
        self._note_topics(batch)
        self._progress.apply(self._kept.put(under_way=under_way) if batch is self._kept.waiting else self._kept.ended())

    def _put_in_words(self, batch: Any) -> bool:
        try:
            return bool(self._task.put(batch))
        except (RetriableError, Reclaim):
            raise
        except Exception as error:
            raise ConnectError("Exiting WorkerSinkTask due to unrecoverable exception.") from error

    def _note_topics(self, batch: Pending) -> None:
        known = frozenset[str]() if self._forget_topics else self.status.topics
        # The end of a log has an offset too, but no record: the messages are asked, once per topic that is new.
        new = {topic for topic, _ in batch.next_offsets} - known if batch.messages else set()
        topics = known.union(message.topic() for message in batch.messages) if new else known
        if topics != self.status.topics:
            self.status = TaskStatus(self.status.state, topics=topics)
        self._forget_topics = False

    def _follow_target(self) -> None:
        """Make the consumer and the reported state what the operator wants; a kept batch holds the consumer still either way."""
        if self._paused or self._failures:
            self._consumer.pause()
        else:
            self._consumer.resume()
        wanted = State.PAUSED if self._paused else State.RUNNING
        if self.status.state is not wanted:
            if wanted is State.PAUSED:
                self._next_commit_s = 0.0  # Connect commits when a task is paused
            self._set_status(wanted)
        self._task.on_pause(paused=wanted is State.PAUSED)

    def _subscribe_if_due(self, now: float) -> None:
        wanted = self._spec.feed.subscription
        if now < self._next_lookup_s:
            return
        if wanted.pattern is None:
            self._next_lookup_s = float("inf")
            topics = list(wanted.topics)
        else:
            topics = self._consumer.topics_matching(wanted.pattern)
            self._next_lookup_s = self._clock() + (wanted.refresh_s if topics else min(5.0, wanted.refresh_s))
        if topics and topics != self._topics:
            log.info("Task %s subscribes to %s", self._spec.id, ", ".join(topics))
            self._consumer.subscribe(topics)
            self._topics = topics
            if self._spec.context.logs is not None:
                self._spec.context.logs.topics = topics

    def _commit_if_due(self, now: float) -> None:
        in_flight_s = self._consumer.commit_in_flight_s()
        if in_flight_s is not None:
            if in_flight_s < self._spec.feed.pace.commit_timeout_s:
                return
            log.warning("Task %s: a commit was not answered in %.1f s", self._spec.id, in_flight_s)
            self._consumer.forget_commit()
        if now < self._next_commit_s:
            return
        self._next_commit_s = now + self._spec.feed.pace.commit_every_s
        offsets = self._committable()
        if offsets:
            self._consumer.commit(offsets)
            self.meters.commit_sent(offsets)

    def _note_committed(self) -> None:
        committed = self._consumer.take_committed()
        self._progress.committed(committed)
        self.meters.committed(committed, in_flight=self._consumer.commit_in_flight_s() is not None)

    def _leave(self) -> None:
        """Commit what is applied, then leave the group: in this order, or the next owner applies it again."""
        if self._kept.under_way.next_offsets and self.status.state is not State.FAILED:
            self._put(self._clock(), Pending())
        for _ in range(2):  # the commit that may be in flight, then the rest
            self._consumer.wait_for_commit(_STOP_COMMIT_S)
            self._note_committed()
            offsets = self._committable()
            if not offsets:
                break
            self._consumer.commit(offsets)
            self.meters.commit_sent(offsets)
        # Whatever is still not acknowledged, close() sends once more: leaving revokes, and a revocation commits.
        self._consumer.close()

    def _set_status(self, state: State, trace: str | None = None) -> None:
        self.status = TaskStatus(state, trace, self.status.topics)
        self.meters.entered(state.value)
