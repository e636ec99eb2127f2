"""The monitor's edge towards Kafka: sends records, reads a topic to its end, tells which faults pass by themselves.

With ``cluster.py`` its only import of confluent_kafka. What is sent, and why, is known in ``canary.py`` and ``flips_topic.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import confluent_kafka as ck

from heartbeat import logs
from heartbeat.errors import ConnectError, RetriableError
from heartbeat.monitor.settings import Kafka

ANY_PARTITION: Final = -1
"""Where a record goes by its key."""

_PERMANENT: Final = {
    ck.KafkaError._AUTHENTICATION,
    ck.KafkaError._INVALID_ARG,
    ck.KafkaError._UNSUPPORTED_FEATURE,
    ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    ck.KafkaError.INVALID_CONFIG,
    ck.KafkaError.INVALID_RECORD,
    ck.KafkaError.INVALID_TIMESTAMP,
    ck.KafkaError.MSG_SIZE_TOO_LARGE,
    ck.KafkaError.POLICY_VIOLATION,
    ck.KafkaError.SASL_AUTHENTICATION_FAILED,
    ck.KafkaError.SECURITY_DISABLED,
    ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    ck.KafkaError.TOPIC_EXCEPTION,
    ck.KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    ck.KafkaError.UNSUPPORTED_SASL_MECHANISM,
    ck.KafkaError.UNSUPPORTED_VERSION,
}
"""What needs a person: everything else passes by itself."""

_MOST_RECORDS: Final = 1_000

_SENDING: Final = {
    "acks": "all",
    # A topic that somebody has deleted stays deleted, and ours is made by us: compacted.
    "allow.auto.create.topics": "false",
    # How soon new partitions are known; librdkafka's own five minutes would hold back every verdict as long.
    "topic.metadata.refresh.interval.ms": "5000",
    "linger.ms": "5",
}
_READING: Final = {
    # The client wants a group's name even to read without a group. It only asks who would coordinate it: nobody joins.
    "group.id": "heartbeat-reads-without-a-group",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",
    "allow.auto.create.topics": "false",
    "auto.offset.reset": "earliest",
    "fetch.queue.backoff.ms": "10",
    "queued.max.messages.kbytes": "8192",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record, to be sent or as it was read."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = ANY_PARTITION


@dataclass(frozen=True, slots=True)
class Fault:
    """Why Kafka did not do something. ``permanent``: it does not pass by itself; ``fatal``: this client is of no more use."""

    text: str
    permanent: bool = False
    fatal: bool = False

    def error(self, what: str) -> ConnectError:
        """Return what is to be raised: a RetriableError if this passes by itself."""
        kind = ConnectError if self.permanent else RetriableError
        return kind(f"{what}: {self.text}")


def fault_of(error: Any) -> Fault:
    """Return what a ``KafkaError`` means for whoever asked."""
    return Fault(f"{error.str()} ({error.name()})", error.code() in _PERMANENT, error.fatal())


class Sender:
    """Sends records without waiting, and says of each what became of it: in ``poll``, in the thread that calls it.

    Raises:
        ConnectError: the client does not take these properties.
    """

    def __init__(self, settings: Kafka, own: Mapping[str, str]) -> None:
        self._producer = made(ck.Producer, settings, {**_SENDING, **own})

    def send(self, record: Record, settled: Callable[[Fault | None], None]) -> bool:
        """Take a record to be sent, or return False because too many wait already; ``settled`` gets None once it is committed."""
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                headers=list(record.headers),
                on_delivery=lambda error, _: settled(None if error is None else fault_of(error)),
            )
        except BufferError:
            return False
        except ck.KafkaException as error:  # what the client knows already: no such partition, no permission
            settled(fault_of(error.args[0]))
        return True

    def poll(self, timeout_s: float) -> None:
        """Wait for something to settle, no longer than this, and tell who waits for it."""
        self._producer.poll(timeout_s)

    def drop(self) -> None:
        """Give up what has not settled: it is not sent later, or at least no later than what is sent from now on."""
        self._producer.purge()
        self._producer.poll(0)


def read_to_end(settings: Kafka, topic: str, timeout_s: float) -> Iterator[Record]:
    """Yield every record that a topic holds now, each partition in its order; none if there is no such topic.

    Raises:
        RetriableError: the end was not reached in time.
        ConnectError: the cluster refuses us.
    """
    deadline_s = time.monotonic() + timeout_s
    trouble: list[Any] = []
    consumer = made(ck.Consumer, settings, {**_READING, "error_cb": trouble.append})
    try:
        # All topics are listed, because asking for one by name may make it.
        listed = consumer.list_topics(timeout=timeout_s).topics
        numbers = sorted(listed[topic].partitions) if topic in listed else []
        ends = {}
        for number in numbers:
            left_s = max(0.001, deadline_s - time.monotonic())
            low, high = consumer.get_watermark_offsets(ck.TopicPartition(topic, number), left_s)
            if low < high:
                ends[number] = high
        if ends:
            consumer.assign([ck.TopicPartition(topic, number, ck.OFFSET_BEGINNING) for number in ends])
        while ends:
            first = consumer.poll(min(0.5, max(0.0, deadline_s - time.monotonic())))
            if first is not None:
                yield from _records([first, *consumer.consume(_MOST_RECORDS - 1, 0)], ends)
            elif time.monotonic() >= deadline_s:
                raise RetriableError(f"The end of topic {topic} was not reached in {timeout_s:.0f} s{_because(trouble)}")
    except ck.KafkaException as error:
        raise fault_of(error.args[0]).error(f"Topic {topic} could not be read") from error
    finally:
        consumer.close()


def _records(events: Sequence[Any], ends: dict[int, int]) -> Iterator[Record]:
    """Yield the records among events; partitions that have reached their end leave ``ends``."""
    for event in events:
        number, error = event.partition(), event.error()
        if error is None and event.offset() < ends.get(number, 0):
            yield Record(event.topic(), event.key(), event.value(), _headers(event), number)
        elif error is not None and error.code() != ck.KafkaError._PARTITION_EOF:
            if fault_of(error).permanent:
                raise ck.KafkaException(error)
            continue
        # The end of the log comes as an event of its own, past what compaction has taken away.
        if error is not None or event.offset() + 1 >= ends.get(number, 0):
            ends.pop(number, None)


def _headers(event: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value or b"") for name, value in event.headers() or ())


def made(kind: Callable[..., Any], settings: Kafka, own: Mapping[str, Any]) -> Any:
    """Return a client; what we rest on is not to be set otherwise.

    Raises:
        ConnectError: the client does not take these properties.
    """
    properties = {**settings.properties, "bootstrap.servers": settings.bootstrap_servers, **own}
    try:
        return kind(properties, logger=logging.getLogger(logs.KAFKA_CLIENT))
    except (ck.KafkaException, ValueError) as error:
        raise ConnectError(f"The Kafka client does not take these properties: {fault_in(error).text}") from error


def refusal(settings: Kafka) -> str:
    """Return why the client does not take these properties; empty if it does. Asks nobody."""
    try:
        made(ck.Producer, settings, _SENDING)
    except ConnectError as error:
        return str(error)
    return ""


def fault_in(error: Exception) -> Fault:
    """Return what an exception of the client says, or one about time."""
    first = error.args[0] if error.args else None
    return fault_of(first) if isinstance(first, ck.KafkaError) else Fault(str(error) or "no answer in time")


def _because(trouble: Sequence[Any]) -> str:
    return f": {trouble[-1].str()}" if trouble else ""
