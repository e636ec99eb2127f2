"""From consumed messages to what a plugin gets: converters, and what happens to a record that does not decode (``errors.*``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

from heartbeat import logs
from heartbeat.connect.api import Batch, Message, TopicPartition
from heartbeat.connect.converters import Converter
from heartbeat.connect.meters import RecordErrors
from heartbeat.errors import ConnectError, DataError

log = logging.getLogger(__name__)

_SKIP_LOG_S: Final = 10.0
_TIMESTAMP_TYPES: Final = ("NoTimestampType", "CreateTime", "LogAppendTime")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The connector's ``errors.*`` settings. ``skip`` is ``errors.tolerance=all``."""

    skip: bool = False
    log_failures: bool = False
    log_records: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """Converted messages that are not applied yet, with the offsets they stand for.

    ``keys`` and ``values`` are None where the converter cannot fail: those columns are computed when the plugin asks.
    """

    messages: Sequence[Message] = ()
    keys: Sequence[Any] | None = None
    values: Sequence[Any] | None = None
    next_offsets: Mapping[TopicPartition, int] = field(default_factory=dict)

    def joined(self, later: Pending) -> Pending:
        """Return this followed by ``later``."""
        if not self.next_offsets:
            return later
        if not later.next_offsets:
            return self
        return Pending(
            [*self.messages, *later.messages],
            None if self.keys is None or later.keys is None else [*self.keys, *later.keys],
            None if self.values is None or later.values is None else [*self.values, *later.values],
            {**self.next_offsets, **later.next_offsets},
        )

    def only(self, partitions: Set[TopicPartition]) -> Pending:
        """Return what belongs to these partitions."""
        if self.next_offsets.keys() <= partitions:
            return self
        kept = [i for i, m in enumerate(self.messages) if (m.topic(), m.partition()) in partitions]
        return Pending(
            [self.messages[i] for i in kept],
            None if self.keys is None else [self.keys[i] for i in kept],
            None if self.values is None else [self.values[i] for i in kept],
            {partition: offset for partition, offset in self.next_offsets.items() if partition in partitions},
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Conversion:
    """The converters of one task and its tolerance. ``errors`` counts the records given up; it is replaced, never changed."""

    def __init__(self, task: str, key: Converter, value: Converter, tolerance: Tolerance, *, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._task = task
        self._key = key
        self._value = value
        self._tolerance = tolerance
        self._clock_ms = clock_ms
        self.errors = RecordErrors()
        self._skip_log = logs.Every(_SKIP_LOG_S)

    @property
    def skipped(self) -> int:
        """How many records were skipped."""
        return self.errors.skipped

    def convert(self, messages: Sequence[Message], next_offsets: Mapping[TopicPartition, int]) -> Pending:
        """Run the converters that can fail, once per record.

        Raises:
            ConnectError: a record does not decode and ``errors.tolerance`` is ``none``.
        """
        if not (self._key.can_fail or self._value.can_fail):
            return Pending(messages, None, None, next_offsets)
        good: list[Message] = []
        keys: list[Any] = []
        values: list[Any] = []
        for message in messages:
            try:
                key = self._stage("KEY_CONVERTER", self._key, message, message.key())
                value = self._stage("VALUE_CONVERTER", self._value, message, message.value())
            except DataError as error:
                self.reject(message, error)
                continue
            good.append(message)
            keys.append(key)
            values.append(value)
        return Pending(good, keys, values, next_offsets)

    def reject(self, message: Message, error: Exception) -> None:
        """Give up one record.

        Raises:
            ConnectError: ``errors.tolerance`` is ``none``.
        """
        self.errors = self.errors.rejected(skipped=self._tolerance.skip, now_ms=self._clock_ms())
        if not self._tolerance.skip:
            raise ConnectError("Tolerance exceeded in error handler") from error
        if self._skip_log.due(time.monotonic()):
            log.warning(
                "Task %s has skipped %d record(s) that could not be used (errors.tolerance=all), the last in %s-%d at offset %d: %s",
                *(self._task, self.skipped, message.topic(), message.partition(), message.offset(), error),
            )

    def batch(self, pending: Pending) -> Batch:
        """Return the columns a plugin sees."""

        def keys() -> list[Any]:
            return self._key.convert_all([m.key() for m in pending.messages]) if pending.keys is None else list(pending.keys)

        def values() -> list[Any]:
            return self._value.convert_all([m.value() for m in pending.messages]) if pending.values is None else list(pending.values)

        return Batch(pending.messages, (keys, values), pending.next_offsets, self.reject)

    def _stage(self, stage: str, converter: Converter, message: Message, data: bytes | None) -> Any:
        try:
            return converter.convert(data)
        except DataError as error:
            if self._tolerance.log_failures:
                self.errors = replace(self.errors, logged=self.errors.logged + 1)
                log.error("%s", self._describe(stage, converter, message), exc_info=error)
            raise

    def _describe(self, stage: str, converter: Converter, message: Message) -> str:
        record = ""
        if self._tolerance.log_records:
            kind, stamp = message.timestamp()
            record = (
                f", where consumed record is {{topic='{message.topic()}', partition={message.partition()}, "
                f"offset={message.offset()}, timestamp={stamp}, timestampType={_TIMESTAMP_TYPES[kind]}}}"
            )
        return f"Error encountered in task {self._task}. Executing stage '{stage}' with class '{converter.java_class}'{record}."
