"""What a task has done, in figures: counters, and Connect's rates, averages and maxima over two samples of 30 s.

Written by the task's thread only, at a cost per batch that grows with its partitions and not with its records; anyone may
take a ``Reading``. Pure: the clock is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from math import inf, nan
from operator import sub
from typing import Final, NamedTuple

from heartbeat.connect.api import Message, TopicPartition

SAMPLE_S: Final = 30.0
_KEPT_S: Final = 2 * SAMPLE_S
_RUNNING: Final = "RUNNING"
_PAUSED: Final = "PAUSED"
_FAILED: Final = "FAILED"


_Sample = tuple[float, int, float, float]
"""When it began, how many values, their sum, the highest. A plain tuple: a turn with one record makes four of them."""
_NEVER: Final[_Sample] = (-inf, 0, 0.0, -inf)


class Window:
    """The values of the last two samples of 30 s (Kafka's ``SampledStat``).

    The samples are replaced as a whole, so that whoever reads has the count and the sum of one moment.
    """

    __slots__ = ("_samples",)

    def __init__(self, now_s: float) -> None:
        self._samples: tuple[_Sample, _Sample] = (_NEVER, (now_s, 0, 0.0, -inf))

    def add(self, now_s: float, value: float) -> None:
        """Note a value."""
        before, last = self._samples
        start_s, count, total, highest = last
        if now_s - start_s >= SAMPLE_S:
            self._samples = (last, (now_s, 1, value, value))
        else:
            self._samples = (before, (start_s, count + 1, total + value, value if value > highest else highest))

    def rate(self, now_s: float) -> float:
        """Return the sum of the values per second; younger than one sample, as if it had been idle for one before (Kafka's ``Rate``)."""
        kept = self._kept(now_s)
        elapsed_s = now_s - kept[0][0] if kept else 0.0
        return sum(total for _, _, total, _ in kept) / (elapsed_s if elapsed_s >= SAMPLE_S else elapsed_s + SAMPLE_S)

    def mean(self, now_s: float) -> float:
        """Return the mean value, NaN without any."""
        kept = self._kept(now_s)
        count = sum(count for _, count, _, _ in kept)
        return sum(total for _, _, total, _ in kept) / count if count else nan

    def highest(self, now_s: float) -> float:
        """Return the highest value, NaN without any."""
        highest = max((highest for _, _, _, highest in self._kept(now_s)), default=-inf)
        return nan if highest == -inf else highest

    def _kept(self, now_s: float) -> list[_Sample]:
        return [sample for sample in self._samples if now_s - sample[0] < _KEPT_S]


class Backlog:
    """How many offsets have been read and not yet committed, over the partitions of an assignment.

    ``_read`` and ``_done`` have the same partitions in the same order, so that their difference is one pass without a lookup.
    """

    def __init__(self) -> None:
        self.size = 0
        self.partitions = 0
        self._assigned: Mapping[TopicPartition, int] = {}
        self._read: dict[TopicPartition, int] = {}
        self._done: dict[TopicPartition, int] = {}

    def follow(self, assigned: Mapping[TopicPartition, int]) -> None:
        """Forget what is no longer assigned, or assigned anew. The mapping numbers each assignment, and is replaced when it changes."""
        if assigned is self._assigned:
            return
        kept = {partition for partition, number in assigned.items() if self._assigned.get(partition) == number}
        self._read = {partition: offset for partition, offset in self._read.items() if partition in kept}
        self._done = {partition: offset for partition, offset in self._done.items() if partition in kept}
        self._assigned = assigned
        self.partitions = len(assigned)
        self._weigh()

    def read(self, messages: Sequence[Message], next_offsets: Mapping[TopicPartition, int]) -> None:
        """Note what was delivered."""
        if not next_offsets.keys() <= self._read.keys():
            self._begin(next_offsets.keys() - self._read.keys(), messages, next_offsets)
        self._read.update(next_offsets)
        self._weigh()

    def _begin(self, unknown: set[TopicPartition], messages: Sequence[Message], next_offsets: Mapping[TopicPartition, int]) -> None:
        """Find where partitions begin: at their first record. Once per assignment, because it looks at records."""
        for message in messages:
            partition = TopicPartition(message.topic(), message.partition())
            if partition in unknown:
                self._read[partition] = self._done[partition] = message.offset()
                unknown.discard(partition)
                if not unknown:
                    return
        for partition in unknown:  # the end of a log, and no record of it
            self._read[partition] = self._done[partition] = next_offsets[partition]

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note what the group holds now."""
        for partition, offset in offsets.items():
            if partition in self._done:
                self._done[partition] = max(self._done[partition], offset)
        self._weigh()

    def _weigh(self) -> None:
        # A partition that is read again from before what is committed owes nothing, and pays for no other.
        self.size = sum(map(max, map(sub, self._read.values(), self._done.values()), repeat(0)))


class _Life(NamedTuple):
    state: str
    since_s: float
    spent_s: Mapping[str, float]

    def seconds(self, state: str, now_s: float) -> float:
        return self.spent_s.get(state, 0.0) + (now_s - self.since_s if state == self.state else 0.0)


@dataclass(frozen=True, slots=True)
class RecordErrors:
    """What became of records that could not be used. ``failures`` counts attempts, ``errors`` records that ended the task."""

    failures: int = 0
    errors: int = 0
    skipped: int = 0
    logged: int = 0
    last_ms: int = 0

    def rejected(self, *, skipped: bool, now_ms: int) -> RecordErrors:
        """Return this with one record more."""
        return replace(self, failures=self.failures + 1, errors=self.errors + (not skipped), skipped=self.skipped + skipped, last_ms=now_ms)


@dataclass(frozen=True, slots=True)
class Reading:
    """A task's figures at one moment; what has no value within the window is NaN. The words are those of Connect's metrics."""

    records_read: int
    read_rate: float
    records_sent: int
    send_rate: float
    active: int
    active_max: float
    active_avg: float
    partitions: int
    commit_seq_no: int
    commits_completed: int
    commit_completion_rate: float
    commit_success_ratio: float
    batch_max: float
    batch_avg: float
    put_max_ms: float
    put_avg_ms: float
    retries: int
    running_ratio: float
    pause_ratio: float


class Meters:
    """The figures of one task, from its making on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._born_s = now = clock()
        self._life = _Life("", now, {})
        self._records_read = 0
        self._records_sent = 0
        self._retries = 0
        self._commit_seq_no = 0
        self._commits_completed = 0
        self._in_flight: Mapping[TopicPartition, int] | None = None
        self._backlog = Backlog()
        self._reads, self._batches, self._puts, self._active, self._outcomes = (Window(now) for _ in range(5))

    @property
    def started(self) -> bool | None:
        """Tell whether the task has run at all: True, once it has, False if it failed before, None while that is open."""
        life = self._life
        if life.state == _RUNNING or _RUNNING in life.spent_s:
            return True
        return False if life.state == _FAILED else None

    # The task's thread

    def entered(self, state: str) -> None:
        """Note the state the task is in from now on; the one it is in already changes nothing."""
        life, now = self._life, self._clock()
        if state != life.state:
            self._life = _Life(state, now, {**life.spent_s, life.state: life.seconds(life.state, now)})

    def read(self, messages: Sequence[Message], next_offsets: Mapping[TopicPartition, int], assigned: Mapping[TopicPartition, int]) -> None:
        """Note a delivery, and the assignment it belongs to; one without anything costs next to nothing."""
        self._backlog.follow(assigned)
        if not next_offsets:
            return
        now = self._clock()
        self._backlog.read(messages, next_offsets)
        self._active.add(now, self._backlog.size)
        self._records_read += len(messages)
        self._reads.add(now, len(messages))

    def put(self, seconds: float, records: int) -> None:
        """Note a put that the plugin has applied. Those without records are left out: we put every turn, Connect once a poll."""
        if records:
            now = self._clock()
            self._batches.add(now, records)
            self._puts.add(now, seconds * 1000)
            self._records_sent += records

    def retried(self) -> None:
        """Note a put that is to be tried again."""
        self._retries += 1

    def commit_sent(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note a commit; the one before, if it was never answered, has failed."""
        if self._in_flight is not None:
            self._outcomes.add(self._clock(), 0.0)
        self._in_flight = offsets
        self._commit_seq_no += 1

    def committed(self, offsets: Mapping[TopicPartition, int], *, in_flight: bool) -> None:
        """Note what was acknowledged since the last call, and whether the commit sent last is still under way.

        If it is not, it was acknowledged in full, or it has failed. Acknowledgements of other commits (those that a
        revocation sends) move the backlog only.
        """
        if offsets:
            self._backlog.committed(offsets)
            self._active.add(self._clock(), self._backlog.size)
        if self._in_flight is not None and not in_flight:
            done = all(offsets.get(partition, -1) >= offset for partition, offset in self._in_flight.items())
            self._in_flight = None
            self._commits_completed += done
            self._outcomes.add(self._clock(), float(done))

    # Any thread

    def reading(self) -> Reading:
        """Return the figures as they are now."""
        now, life = self._clock(), self._life
        age_s = now - self._born_s
        sent = self._records_sent  # before what was read, or more could seem to be sent than was read
        return Reading(
            records_read=self._records_read,
            read_rate=self._reads.rate(now),
            records_sent=sent,
            send_rate=self._batches.rate(now),
            active=self._backlog.size,
            active_max=self._active.highest(now),
            active_avg=self._active.mean(now),
            partitions=self._backlog.partitions,
            commit_seq_no=self._commit_seq_no,
            commits_completed=self._commits_completed,
            commit_completion_rate=self._outcomes.rate(now),
            commit_success_ratio=self._outcomes.mean(now),
            batch_max=self._batches.highest(now),
            batch_avg=self._batches.mean(now),
            put_max_ms=self._puts.highest(now),
            put_avg_ms=self._puts.mean(now),
            retries=self._retries,
            running_ratio=life.seconds(_RUNNING, now) / age_s if age_s > 0 else 0.0,
            pause_ratio=life.seconds(_PAUSED, now) / age_s if age_s > 0 else 0.0,
        )
