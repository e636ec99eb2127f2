"""What a plugin sees of the worker: SinkTask, Batch, Record, TaskContext. No Kafka client types cross this line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from heartbeat.config import ConfigDef

NO_TIMESTAMP = -1


class TopicPartition(NamedTuple):
    """A partition of a topic. A tuple, because hot loops use it as a dictionary key."""

    topic: str
    partition: int


class Message(Protocol):
    """The accessors of a consumed message; a Kafka client's own message object satisfies it."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One record, converted. ``timestamp_ms`` is epoch ms, or None if the record has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key: Any
    value: Any
    headers: Sequence[tuple[str, bytes | None]]


Column = Callable[[], list[Any]]
Headers = list[tuple[str, bytes | None]]
Reject = Callable[[Message, Exception], None]


class Batch:
    """What one turn delivers, by columns; every column has one entry per record, in delivery order.

    Columns are computed when asked for: a plugin that never asks for values never pays for them.
    ``next_offsets`` maps each partition to the offset after everything this batch stands for, including records that
    were skipped and positions past the last record; a batch may have no records and still move offsets.
    """

    __slots__ = ("_columns", "_messages", "_reject", "_with_headers", "next_offsets")

    def __init__(
        self, messages: Sequence[Message], columns: tuple[Column, Column], next_offsets: Mapping[TopicPartition, int], reject: Reject
    ) -> None:
        self._messages = messages
        self._columns = columns
        self._reject = reject
        self._with_headers: Mapping[int, Headers] | None = None
        self.next_offsets = next_offsets

    def __len__(self) -> int:
        return len(self._messages)

    def keys(self) -> list[Any]:
        """Return the converted keys."""
        return self._columns[0]()

    def values(self) -> list[Any]:
        """Return the converted values."""
        return self._columns[1]()

    def timestamps_ms(self) -> list[int]:
        """Return epoch milliseconds, ``NO_TIMESTAMP`` where a record has none."""
        return [message.timestamp()[1] for message in self._messages]

    def topics(self) -> list[str]:
        """Return the topic names."""
        return [message.topic() for message in self._messages]

    def partitions(self) -> list[int]:
        """Return the partition numbers."""
        return [message.partition() for message in self._messages]

    def offsets(self) -> list[int]:
        """Return the offsets."""
        return [message.offset() for message in self._messages]

    def reject(self, index: int, error: Exception) -> None:
        """Give up one record: ``errors.tolerance`` decides whether it is skipped and counted.

        Raises:
            ConnectError: nothing is tolerated; the task is to fail.
        """
        self._reject(self._messages[index], error)

    def headers(self) -> list[Headers | None]:
        """Return the raw headers, None where a record has none."""
        return [message.headers() for message in self._messages]

    def with_headers(self) -> Mapping[int, Headers]:
        """Return the headers of those records that have any, by index. They are looked for once, however often this is asked."""
        if self._with_headers is None:
            headers = self.headers()
            self._with_headers = {index: given for index, given in enumerate(headers) if given} if any(headers) else {}
        return self._with_headers

    def only(self, indexes: Sequence[int]) -> Batch:
        """Return these records alone. It moves offsets as the whole does."""
        keys, values = self._columns
        columns = _picked(keys, indexes), _picked(values, indexes)
        return Batch([self._messages[index] for index in indexes], columns, self.next_offsets, self._reject)

    def __iter__(self) -> Iterator[Record]:
        for message, key, value in zip(self._messages, self.keys(), self.values(), strict=True):
            stamp = message.timestamp()[1]
            yield Record(
                topic=message.topic(),
                partition=message.partition(),
                offset=message.offset(),
                timestamp_ms=None if stamp == NO_TIMESTAMP else stamp,
                key=key,
                value=value,
                headers=message.headers() or [],
            )


def _picked(column: Column, indexes: Sequence[int]) -> Column:
    def pick() -> list[Any]:
        whole = column()
        return [whole[index] for index in indexes]

    return pick


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group holds for a partition: the next offset, and whatever text was committed with it."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a partition ended (high watermark, read_uncommitted) and the epoch of its leader, -1 if the broker did not say."""

    offset: int
    epoch: int = -1


@dataclass(frozen=True, slots=True)
class Topic:
    """How many partitions a topic has, and its id: another one, if it is made anew under the same name ("" from an old broker)."""

    partitions: int
    id: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """The answer to one question about the logs. A partition or topic about which nobody answered is left out.

    A topic is None if there is none of that name; ``asked`` is what the asker gave to know the question by.
    """

    asked: Any
    ends: Mapping[TopicPartition, LogEnd]
    topics: Mapping[str, Topic | None]


class Logs(Protocol):
    """The partitions' logs in Kafka, as a plugin may ask about them. Never used from another thread than the task's."""

    topics: Collection[str]
    """What the task is subscribed to."""

    def ask(self, asked: Any, partitions: Collection[TopicPartition], topics: Collection[str]) -> None:
        """Send the question where partitions end and how many a topic has. At once; one question is under way at a time."""

    def answer(self) -> Survey | None:
        """Return the answer if it has come, once. A question without an answer in its time is answered with nothing."""

    @property
    def asking(self) -> bool:
        """Tell whether a question is under way."""

    def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return first and end offset of each log.

        Raises:
            RetriableError: a leader did not answer in time.
        """

    def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Return the ids of topics; those without one are left out.

        Raises:
            RetriableError: no broker answered in time, or there is no such topic.
        """

    def offsets_at(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return the offset of the first record that is as new as that, None if there is none.

        Raises:
            RetriableError: a leader did not answer in time.
        """

    def close(self) -> None:
        """Ask nothing more."""


def same_address(host: str, port: int) -> tuple[str, int]:
    """Resolve an address to itself."""
    return host, port


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to consume: a list of topics, or a pattern looked up anew every ``refresh_s``."""

    topics: tuple[str, ...] = ()
    pattern: str | None = None
    refresh_s: float = 300.0


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a task may know of its surroundings.

    ``resolve`` maps a configured network address to the one to connect to; only the demo maps anything. ``offset_reset`` is
    ``auto.offset.reset`` where somebody has set it (earliest, latest, none), else None. ``logs`` is for a task that runs.
    """

    connector: str
    task: int = 0
    resolve: Callable[[str, int], tuple[str, int]] = field(default=same_address)
    subscription: Subscription = field(default=Subscription())
    offset_reset: str | None = None
    logs: Logs | None = None


class Measure(NamedTuple):
    """One figure of a plugin, as Prometheus knows them; ``kind`` is counter or gauge."""

    name: str
    kind: str
    help: str
    labels: Mapping[str, str]
    value: float


class SinkTask(ABC):
    """A sink: started with its parsed configuration, given partitions, fed batches, stopped. One instance per task, one thread."""

    CONFIG: ClassVar[ConfigDef]
    VERSION: ClassVar[str]
    ALIASES: ClassVar[tuple[str, ...]] = ()
    """Other names under which ``connector.class`` may name this plugin, Java class names among them."""
    OWNS_OFFSETS: ClassVar[bool] = False
    """Whether ``open`` decides where partitions start. Nothing is then consumed of a partition before it has."""

    @abstractmethod
    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        """Prepare. Any exception makes the task FAILED; what passes by itself (a server that is down) is no reason to raise."""

    def open(self, committed: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
        """Take partitions over, given what the group has committed of each, and return the offset where each one starts.

        Called for new partitions, and again for those that ``put`` or ``open`` gave back (``Reclaim``) or whose position
        the log does not have. Only where ``OWNS_OFFSETS``.

        Raises:
            RetriableError: not now; the worker asks again.
            Exception: anything else makes the task FAILED.
        """
        raise NotImplementedError

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Let go of partitions that are no longer ours; they may be somebody else's already. It must neither block nor raise."""

    @abstractmethod
    def put(self, batch: Batch) -> bool | None:
        """Apply the batch. Called every turn, also with an empty batch. Return whether it is still under way.

        Then everything put before it is applied, and the next call brings it to its end too: the worker polls meanwhile. It
        calls neither ``open`` nor ``close`` before that. After an error, what was under way is put again, with what came later.

        Raises:
            Reclaim: these partitions are to be opened again; what the batch has of them is dropped, the rest is put again.
            RetriableError: the worker keeps the batch and puts it again.
            Exception: anything else makes the task FAILED.
        """

    def commit_metadata(self, partition: TopicPartition) -> str:  # noqa: ARG002  a default
        """Return the text to commit with this partition's offset. Called within rebalances: it must neither block nor raise."""
        return ""

    def on_pause(self, *, paused: bool) -> None:
        """Note whether an operator wants nothing new to be delivered. Called every turn: it must neither block nor raise."""

    def measures(self) -> Sequence[Measure]:
        """Return the plugin's own figures. Called by any thread: it must not block."""
        return ()

    @abstractmethod
    def stop(self) -> None:
        """Release everything. Called once, also after a failed ``start``."""

    @classmethod
    def alter_offsets(cls, config: Mapping[str, Any], context: TaskContext, offsets: Mapping[TopicPartition, int | None] | None) -> bool:
        """Follow an operator's change of the offsets of a stopped connector, before the group's own are changed.

        A partition with None is reset; ``offsets`` of None resets all. Return whether the plugin keeps offsets of its own,
        as Kafka Connect's ``SinkConnector.alterOffsets``.

        Raises:
            ConnectError: it could not be followed; the group's offsets stay as they are.
        """
        return False

    @classmethod
    def on_target(cls, config: Mapping[str, Any], context: TaskContext, state: str) -> None:
        """Note what an operator wants of a connector: STARTED, PAUSED or STOPPED. Its tasks need not have followed yet.

        Called some time after each verb that stores a connector, and when a worker begins to run it; again if it failed by
        ``RetriableError``. The last state always comes last.

        Raises:
            ConnectError: it could not be noted; nobody but the log is told.
        """

    @classmethod
    def on_delete(cls, config: Mapping[str, Any], context: TaskContext) -> None:
        """Forget what is stored for a connector that was deleted. Its tasks have stopped.

        Raises:
            ConnectError: something is left; the connector is gone all the same.
        """
