"""Reads retained records and leaves no trace: no group is joined, nothing is committed, no topic is made. For whoever looks back.

A sink's consumer (``kafka.py``) lives in a group and never ends; this one is told where to begin and where to end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import confluent_kafka as ck

from heartbeat import logs
from heartbeat.connect.api import TopicPartition
from heartbeat.errors import ConnectError, DataError

_ANSWER_TIMEOUT_S: Final = 10.0
_SILENCE_TIMEOUT_S: Final = 30.0
_MOST_RECORDS: Final = 20_000
_WORTH_LOOKING: Final = 100_000
"""Records. Where a broker knows no offset for a time, so few are looked through: one kind of broker (the demo's) never knows."""

_OWN: Final = {
    # The client wants a group's name even to read without a group. It only asks who would coordinate it: nobody joins.
    "group.id": "heartbeat-reads-without-a-group",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",
    "allow.auto.create.topics": "false",
    "auto.offset.reset": "earliest",  # what retention takes away while we read is gone; what follows it is read
    "fetch.queue.backoff.ms": "10",
    "log_level": "0",  # what goes wrong is said once, by us
}
_NOT_OURS: Final = {"group.protocol", "group.instance.id", "group.remote.assignor", "partition.assignment.strategy"}
_PERMANENT: Final = {
    ck.KafkaError._AUTHENTICATION,
    ck.KafkaError._FATAL,
    ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    ck.KafkaError._UNKNOWN_PARTITION,
    ck.KafkaError._UNKNOWN_TOPIC,
    ck.KafkaError.UNSUPPORTED_SASL_MECHANISM,
}

Convert = Callable[[bytes | None], Any]
_MESSAGE: Final[Any] = ck.Message
"""Its methods, applied by map(), run without a step of Python's per record."""


class Span(NamedTuple):
    """Offsets to read: from ``start`` up to, not including, ``end``."""

    start: int
    end: int


class Records:
    """What one turn read, by columns. ``keys`` and ``values`` are converted; what does not decode is its DataError."""

    def __init__(self, messages: Sequence[Any], key: Convert, value: Convert) -> None:
        self._messages = messages
        self._key = key
        self._value = value

    def __len__(self) -> int:
        return len(self._messages)

    def keys(self) -> list[Any]:
        """Return the converted keys."""
        return [_converted(self._key, key) for key in self.raw_keys()]

    def values(self) -> list[Any]:
        """Return the converted values."""
        return [_converted(self._value, message.value()) for message in self._messages]

    def topics(self) -> list[str]:
        """Return the topic names."""
        return [message.topic() for message in self._messages]

    def partitions(self) -> list[int]:
        """Return the partition numbers."""
        return [message.partition() for message in self._messages]

    def timestamps_ms(self) -> list[int]:
        """Return epoch milliseconds, below zero where a record has none."""
        return list(map(itemgetter(1), map(_MESSAGE.timestamp, self._messages)))

    def raw_keys(self) -> list[bytes | None]:
        """Return the keys' bytes."""
        return list(map(_MESSAGE.key, self._messages))

    def headers(self) -> list[list[tuple[str, bytes | None]] | None]:
        """Return the headers, None where a record has none."""
        return list(map(_MESSAGE.headers, self._messages))

    def nulls(self) -> list[bool]:
        """Return whether each value is null."""
        return [value is None for value in map(_MESSAGE.value, self._messages)]


def _converted(convert: Convert, data: bytes | None) -> Any:
    try:
        return convert(data)
    except DataError as error:
        return error


class LogReader:
    """One pass over some topics. ``properties`` are the client's own, translated; ``key`` and ``value`` convert."""

    def __init__(self, properties: Mapping[str, str], key: Convert, value: Convert) -> None:
        self._key = key
        self._value = value
        self._bootstrap = properties.get("bootstrap.servers", "")
        self._trouble: Any = None
        self._spans: dict[TopicPartition, Span] = {}
        self._next: dict[TopicPartition, int] = {}
        self._times_ms: dict[TopicPartition, int] = {}
        self._held: frozenset[TopicPartition] = frozenset()
        given = {name: text for name, text in properties.items() if name not in _NOT_OURS}
        try:
            self._consumer = ck.Consumer({**given, **_OWN, "error_cb": self._note}, logger=logging.getLogger(logs.KAFKA_CLIENT))
        except (ck.KafkaException, ValueError) as error:
            raise ConnectError(f"The Kafka client does not take these properties: {_reason(error)}") from error

    def spans(self, topics: Sequence[str], since_ms: int | None = None) -> dict[TopicPartition, Span]:
        """Return what these topics hold now, from the first record that is not before ``since_ms``; partitions that hold nothing too.

        Raises:
            ConnectError: no broker answers, or there is no such topic.
        """
        # All topics are listed, because asking for one by name may make it.
        listed = self._asked(lambda: self._consumer.list_topics(timeout=_ANSWER_TIMEOUT_S)).topics
        unknown = [topic for topic in topics if topic not in listed]
        if unknown:
            raise ConnectError(f"There is no topic {', '.join(unknown)} at {self._bootstrap}")
        spans = {}
        for partition in (TopicPartition(topic, number) for topic in topics for number in sorted(listed[topic].partitions)):
            asked = ck.TopicPartition(*partition)
            low, high = self._asked(lambda asked=asked: self._consumer.get_watermark_offsets(asked, _ANSWER_TIMEOUT_S))  # type: ignore[misc]
            spans[partition] = Span(low, high)
        return spans if since_ms is None else self._since(spans, since_ms)

    def _since(self, spans: Mapping[TopicPartition, Span], since_ms: int) -> dict[TopicPartition, Span]:
        asked = [ck.TopicPartition(*partition, since_ms) for partition in spans]
        found = self._asked(lambda: self._consumer.offsets_for_times(asked, _ANSWER_TIMEOUT_S))
        offsets = {TopicPartition(p.topic, p.partition): p.offset for p in found}
        return {partition: _from(span, offsets[partition]) for partition, span in spans.items()}

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[Records]:
        """Yield every record of the spans, each partition in its order.

        Raises:
            ConnectError: the cluster refuses us, or sends nothing for half a minute.
        """
        self._spans = {partition: span for partition, span in spans.items() if span.start < span.end}
        self._next = {partition: span.start for partition, span in self._spans.items()}
        if self._spans:
            self._consumer.assign([ck.TopicPartition(*partition, span.start) for partition, span in self._spans.items()])
        heard_s = time.monotonic()
        while self._spans:
            first = self._consumer.poll(1.0)
            if first is None:
                self._check()
                if time.monotonic() - heard_s > _SILENCE_TIMEOUT_S:
                    raise ConnectError(f"Kafka at {self._bootstrap} has sent nothing for {_SILENCE_TIMEOUT_S:.0f} s{self._because()}")
                continue
            heard_s = time.monotonic()
            messages = self._taken([first, *self._consumer.consume(_MOST_RECORDS - 1, 0)])
            if messages:
                yield Records(messages, self._key, self._value)

    def remaining(self) -> int:
        """Return how many offsets are still to be read."""
        return sum(span.end - self._next[partition] for partition, span in self._spans.items())

    def reached_ms(self) -> int | None:
        """Return the time that every unfinished partition has come to, None if all are finished."""
        return min((self._times_ms.get(partition, 0) for partition in self._spans), default=None)

    def wait_for_slowest(self, wait: bool) -> None:
        """Fetch only from the partition that is furthest back in time, until told otherwise."""
        if wait and len(self._spans) > 1:
            slowest = min(self._spans, key=lambda partition: self._times_ms.get(partition, 0))
            held = frozenset(self._spans.keys() - {slowest})
        else:
            held = frozenset()
        freed = [partition for partition in self._held - held if partition in self._spans]
        if freed:
            self._consumer.resume([ck.TopicPartition(*partition) for partition in freed])
        if held - self._held:
            self._consumer.pause([ck.TopicPartition(*partition) for partition in held - self._held])
        self._held = held

    def close(self) -> None:
        """Let go of the brokers."""
        self._consumer.close()

    def _taken(self, events: list[Any]) -> list[Any]:
        """Return the records among events that are to be read, and note how far each partition has got."""
        if any(map(_MESSAGE.error, events)):
            events = [event for event in events if self._is_record(event)]
        # Offsets and, nearly, times rise within a partition: its last record stands for all, and is found without a step per record.
        last = dict(zip(zip(map(_MESSAGE.topic, events), map(_MESSAGE.partition, events), strict=True), events, strict=True))
        over = False
        for (topic, number), message in last.items():
            partition = TopicPartition(topic, number)
            span = self._spans.get(partition)
            over = over or span is None or message.offset() >= span.end
            self._times_ms[partition] = message.timestamp()[1]
            # An end of the log that came with these records may stand beyond them.
            self._next[partition] = max(self._next[partition], message.offset() + 1)
        if over:
            ends = {partition: span.end for partition, span in self._spans.items()}
            events = [event for event in events if event.offset() < ends.get(TopicPartition(event.topic(), event.partition()), 0)]
        self._finish([partition for partition, span in self._spans.items() if self._next[partition] >= span.end])
        return events

    def _is_record(self, event: Any) -> bool:
        error = event.error()
        if error is None:
            return True
        if error.code() == ck.KafkaError._PARTITION_EOF:
            # The end of the log, past control records and compacted gaps; or, for read_committed, an open transaction.
            partition = TopicPartition(event.topic(), event.partition())
            if partition in self._spans:
                self._next[partition] = self._spans[partition].end
        else:
            self._note(error)
            self._check()
        return False

    def _finish(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            del self._spans[partition]
        if partitions:
            self._consumer.pause([ck.TopicPartition(*partition) for partition in partitions])
            if self._spans and self._held >= self._spans.keys():
                self.wait_for_slowest(True)  # the one that was waited for has ended: the next in its place, or nothing comes any more

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ck.KafkaException as error:
            self._check()
            raise ConnectError(f"No broker at {self._bootstrap} answered in {_ANSWER_TIMEOUT_S:.0f} s: {_reason(error)}") from error

    def _note(self, error: Any) -> None:
        if self._trouble is None or self._trouble.code() not in _PERMANENT:
            self._trouble = error

    def _check(self) -> None:
        if self._trouble is not None and (self._trouble.fatal() or self._trouble.code() in _PERMANENT):
            raise ConnectError(f"Kafka at {self._bootstrap} refuses to be read: {self._trouble.str()} ({self._trouble.name()})")

    def _because(self) -> str:
        return "" if self._trouble is None else f": {self._trouble.str()}"


def _from(span: Span, found: int) -> Span:
    if found >= 0:
        return Span(min(max(found, span.start), span.end), span.end)
    # At the end: no record is that young. Or the broker cannot tell: then a look is cheap, and the reader of times leaves out the rest.
    return span if span.end - span.start <= _WORTH_LOOKING else Span(span.end, span.end)


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return str(first.str()) if isinstance(first, ck.KafkaError) else str(first)
