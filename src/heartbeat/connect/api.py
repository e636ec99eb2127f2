"""What a plugin sees of the worker: SinkTask, Batch, Record, TaskContext. No Kafka client types cross this line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
Reject = Callable[[Message, Exception], None]


class Batch:
    """What one turn delivers, by columns; every column has one entry per record, in delivery order.

    Columns are computed when asked for: a plugin that never asks for values never pays for them.
    ``next_offsets`` maps each partition to the offset after everything this batch stands for, including records that
    were skipped and positions past the last record; a batch may have no records and still move offsets.
    """

    __slots__ = ("_columns", "_messages", "_reject", "next_offsets")

    def __init__(
        self, messages: Sequence[Message], columns: tuple[Column, Column], next_offsets: Mapping[TopicPartition, int], reject: Reject
    ) -> None:
        self._messages = messages
        self._columns = columns
        self._reject = reject
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

    def reject(self, index: int, error: Exception) -> None:
        """Give up one record: ``errors.tolerance`` decides whether it is skipped and counted.

        Raises:
            ConnectError: nothing is tolerated; the task is to fail.
        """
        self._reject(self._messages[index], error)

    def headers(self) -> list[list[tuple[str, bytes | None]]]:
        """Return the raw headers, an empty list where a record has none."""
        return [message.headers() or [] for message in self._messages]

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


def same_address(host: str, port: int) -> tuple[str, int]:
    """Resolve an address to itself."""
    return host, port


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a task may know of its surroundings.

    ``resolve`` maps a configured network address to the one to connect to; only the demo maps anything.
    """

    connector: str
    task: int
    resolve: Callable[[str, int], tuple[str, int]] = field(default=same_address)


class SinkTask(ABC):
    """A sink: started with its parsed configuration, fed batches, stopped. One instance per task, one thread."""

    CONFIG: ClassVar[ConfigDef]
    VERSION: ClassVar[str]
    ALIASES: ClassVar[tuple[str, ...]] = ()
    """Other names under which ``connector.class`` may name this plugin, Java class names among them."""

    @abstractmethod
    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        """Prepare. Any exception makes the task FAILED; what passes by itself (a server that is down) is no reason to raise."""

    @abstractmethod
    def put(self, batch: Batch) -> None:
        """Apply the batch and return only when it is applied. Called every turn, also with an empty batch.

        Raises:
            RetriableError: the worker keeps the batch and puts it again.
            Exception: anything else makes the task FAILED.
        """

    @abstractmethod
    def stop(self) -> None:
        """Release everything. Called once, also after a failed ``start``."""
