"""The Kafka client, behind the few calls a sink worker makes. The only module of the worker that imports confluent_kafka."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from heartbeat import logs
from heartbeat.connect.api import Message, TopicPartition
from heartbeat.errors import ConnectError

log = logging.getLogger(__name__)

T = TypeVar("T")
Offsets = dict[TopicPartition, int]

_METADATA_TIMEOUT_S = 2.0
_ADMIN_TIMEOUT_S = 20.0  # three requests at most stay below the 90 s that a REST call may take
_CLUSTER_ID_RETRY_S = 10.0
_INTERNAL_TOPICS = {"__consumer_offsets", "__transaction_state", "__share_group_state"}
_PRODUCE_TIMEOUT_S = 10.0

# What a Java consumer raises from poll(): waiting would not help, so the task fails with the reason.
_PERMANENT = {
    ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    ck.KafkaError.GROUP_AUTHORIZATION_FAILED,
    ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    ck.KafkaError.INVALID_GROUP_ID,
    ck.KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    ck.KafkaError.UNSUPPORTED_SASL_MECHANISM,
    ck.KafkaError._AUTHENTICATION,
    ck.KafkaError._AUTO_OFFSET_RESET,
    ck.KafkaError._FATAL,
}

OWN = {
    "enable.auto.commit": "false",
    # The offset store is off: what is committed is said explicitly, from what the task has applied.
    "enable.auto.offset.store": "false",
    # An EOF event carries the position past control records and compacted gaps.
    "enable.partition.eof": "true",
    # The default of 1000 ms stalls a catch-up five- to tenfold once the local queue has been full.
    "fetch.queue.backoff.ms": "10",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one poll gave: records in order, and the position after them (records and ends of log) per partition."""

    messages: list[Message] = field(default_factory=list)
    next_offsets: Offsets = field(default_factory=dict)


class SinkConsumer:
    """One group member.

    The rebalance callbacks record what happened, send the commit that a revocation needs, and never raise: an
    exception raised in one comes out of ``consume()`` and the records being delivered are lost.

    ``assigned`` maps each partition to the number of the assignment that gave it; the mapping is replaced, never changed.
    """

    def __init__(self, properties: Mapping[str, str], committable: Callable[[], Mapping[TopicPartition, int]]) -> None:
        self.assigned: Mapping[TopicPartition, int] = {}
        self._committable = committable
        self._assignments = 0
        self._paused = False
        self._fatal: ck.KafkaError | None = None
        self._commit_started_s: float | None = None
        self._in_flight: Offsets = {}
        self._committed: Offsets = {}
        self._incremental = (
            "cooperative" in properties.get("partition.assignment.strategy", "")
            or properties.get("group.protocol", "").lower() == "consumer"
        )
        configured = {**properties, **OWN, "error_cb": self._note_error, "on_commit": self._note_commit}
        self._consumer = ck.Consumer(configured, logger=logging.getLogger(logs.KAFKA_CLIENT))

    def subscribe(self, topics: Iterable[str]) -> None:
        """Consume these topics, as a member of the group."""
        self._consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def topics_matching(self, pattern: str) -> list[str]:
        """Return the cluster's topics that match the whole pattern, internal ones left out. An unreachable cluster matches nothing.

        Matched here, because librdkafka's own regular expressions silently match nothing for ``\\d``.
        """
        try:
            metadata = self._consumer.list_topics(timeout=_METADATA_TIMEOUT_S)
        except ck.KafkaException as error:
            log.warning("Could not list the topics of the cluster: %s", error.args[0].str())
            return []
        return sorted(topic for topic in metadata.topics if re.fullmatch(pattern, topic) and topic not in _INTERNAL_TOPICS)

    def poll(self, timeout_s: float, max_records: int) -> Delivery:
        """Wait up to ``timeout_s`` for the first event, then take what is already there, up to ``max_records``.

        Raises:
            ConnectError: the cluster refuses us for good.
        """
        first = self._consumer.poll(timeout_s)
        # Taken after poll(): what it returns belongs to the assignment that stands then, even if it came in the same call.
        before = self.assigned
        events = [] if first is None else [first]
        if first is not None and max_records > 1:
            events += self._consumer.consume(max_records - 1, 0)
            if self.assigned is not before:
                events = [event for event in events if event is not first or self._is_current(event, before)]
        if self._fatal is not None:
            raise ConnectError(f"Kafka refused this consumer: {self._fatal.str()} ({self._fatal.name()})")
        return self._deliver(events)

    def _is_current(self, event: Any, before: Mapping[TopicPartition, int]) -> bool:
        """Tell whether an event taken before a rebalance belongs to an assignment that still stands, or is about none."""
        if event.error() is not None and event.error().code() != ck.KafkaError._PARTITION_EOF:
            return True
        partition = TopicPartition(event.topic(), event.partition())
        return partition in before and before[partition] == self.assigned.get(partition)

    def _deliver(self, events: list[Any]) -> Delivery:
        if any(event.error() is not None for event in events):
            return self._deliver_with_errors(events)
        assigned = self.assigned
        # Offsets rise within a partition, so its last event stands; the rest is done once a partition, not once a record.
        last = {(event.topic(), event.partition()): event for event in events}
        offsets = {TopicPartition(*partition): event.offset() + 1 for partition, event in last.items()}
        if offsets.keys() <= assigned.keys():
            return Delivery(events, offsets)
        return self._deliver_with_errors(events)

    def _deliver_with_errors(self, events: list[Any]) -> Delivery:
        delivery = Delivery()
        for event in events:
            error = event.error()
            if error is not None and error.code() != ck.KafkaError._PARTITION_EOF:
                self._note_error(error)
                continue
            partition = TopicPartition(event.topic(), event.partition())
            if partition not in self.assigned:
                continue
            if error is None:
                delivery.messages.append(event)
                delivery.next_offsets[partition] = event.offset() + 1
            else:
                delivery.next_offsets[partition] = event.offset()
        return delivery

    def _note_error(self, error: Any) -> None:
        if error.fatal() or error.code() in _PERMANENT:
            self._fatal = error
        else:
            # Beside the library's own lines, which name the broker, and as seldom.
            logging.getLogger(logs.KAFKA_CLIENT).warning("%s: %s", error.name(), error.str())

    def pause(self) -> None:
        """Stop fetching, stay a member. Partitions assigned later are paused too."""
        if not self._paused:
            self._paused = True
            self._consumer.pause(_to_kafka(self.assigned))

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            self._consumer.resume(_to_kafka(self.assigned))

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Send a commit. It never blocks: a coordinator that hangs would hold a synchronous one for a minute.

        One is in flight at a time; its outcome comes with a later poll (``take_committed``).
        """
        self._commit_started_s = time.monotonic()
        self._in_flight = dict(offsets)
        try:
            self._consumer.commit(offsets=_to_kafka(offsets), asynchronous=True)
        except ck.KafkaException as error:
            self._commit_started_s = None
            log.warning("Could not commit offsets: %s", error.args[0].str())

    def commit_in_flight_s(self) -> float | None:
        """Return for how long a commit has been under way, or None."""
        return None if self._commit_started_s is None else time.monotonic() - self._commit_started_s

    def forget_commit(self) -> None:
        """Wait no longer for the commit in flight, so that another may be sent."""
        self._commit_started_s = None

    def take_committed(self) -> Offsets:
        """Return the offsets that were acknowledged since the last call."""
        committed, self._committed = self._committed, {}
        return committed

    def wait_for_commit(self, timeout_s: float) -> None:
        """Serve events until the commit in flight is answered or the time is over; records that arrive meanwhile are dropped."""
        deadline = time.monotonic() + timeout_s
        while self._commit_started_s is not None and time.monotonic() < deadline:
            self._consumer.poll(0.02)

    def member_id(self) -> str | None:
        """Return the id the coordinator gave this member."""
        member: str | None = self._consumer.memberid()
        return member

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    # Callbacks: they run inside poll(), consume() and close().

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        self._assignments += 1
        gained = {TopicPartition(p.topic, p.partition): self._assignments for p in partitions}
        self.assigned = {**self.assigned, **gained} if self._incremental else gained
        try:
            (consumer.incremental_assign if self._incremental else consumer.assign)(partitions)
            if self._paused:
                consumer.pause(partitions)
        except ck.KafkaException as error:
            log.warning("Could not take the assignment %s: %s", sorted(gained), error.args[0].str())

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        applied = self._committable()
        lost = {TopicPartition(p.topic, p.partition) for p in partitions}
        leaving = {partition: offset for partition, offset in applied.items() if partition in lost}
        try:
            if leaving:
                # Sent before the group is left; the client waits for its answer before it joins again.
                consumer.commit(offsets=_to_kafka(leaving), asynchronous=True)
        except ck.KafkaException as error:
            log.warning("Could not commit offsets of revoked partitions: %s", error.args[0].str())
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Any, partitions: list[Any]) -> None:
        gone = {TopicPartition(p.topic, p.partition) for p in partitions}
        self.assigned = {partition: number for partition, number in self.assigned.items() if partition not in gone}
        try:
            if self._incremental:
                consumer.incremental_unassign(partitions)
            else:
                consumer.unassign()
        except ck.KafkaException as error:
            log.warning("Could not give up the assignment %s: %s", sorted(gone), error.args[0].str())

    def _note_commit(self, error: Any, partitions: list[Any]) -> None:
        if {TopicPartition(p.topic, p.partition): p.offset for p in partitions} == self._in_flight:
            self._commit_started_s = None  # and not the commit of a revocation
        if error is not None:
            log.warning("Commit of offsets failed: %s", error.str())
            return
        for p in partitions:
            if p.error is None:
                self._committed[TopicPartition(p.topic, p.partition)] = p.offset


def _to_kafka(partitions: Mapping[TopicPartition, int] | Iterable[TopicPartition]) -> list[ck.TopicPartition]:
    if isinstance(partitions, Mapping):
        return [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in partitions.items()]
    return [ck.TopicPartition(p.topic, p.partition) for p in partitions]


class Admin:
    """What the REST API asks of the cluster. The client is made on first use and kept: one that is collected fails its own requests."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = dict(properties)
        self._client: AdminClient | None = None
        self._cluster_id: str | None = None
        self._ask = logs.Every(_CLUSTER_ID_RETRY_S)

    def cluster_id(self, timeout_s: float) -> str | None:
        """Return the cluster's id, or None while no broker has answered; it is asked for once in ten seconds."""
        if self._cluster_id is None and self._ask.due(time.monotonic()):
            try:
                self._cluster_id = self._admin().list_topics(timeout=timeout_s).cluster_id
            except ck.KafkaException as error:
                log.warning("The Kafka cluster does not answer: %s", error.args[0].str())
        return self._cluster_id

    def group_offsets(self, group: str) -> Offsets:
        """Return the committed offsets of a group, empty if there is no such group.

        Raises:
            GroupError: the cluster did not answer.
        """
        request = ck.ConsumerGroupTopicPartitions(group)
        listed = _wait(self._admin().list_consumer_group_offsets([request], request_timeout=_ADMIN_TIMEOUT_S)[group])
        return {TopicPartition(p.topic, p.partition): p.offset for p in listed.topic_partitions if p.offset >= 0}

    def alter_group_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set committed offsets of a group without members.

        Raises:
            GroupError: the group has members, or the cluster did not answer.
        """
        request = ck.ConsumerGroupTopicPartitions(group, _to_kafka(offsets))
        altered = _wait(self._admin().alter_consumer_group_offsets([request], request_timeout=_ADMIN_TIMEOUT_S)[group])
        for p in altered.topic_partitions:
            if p.error is not None:
                raise GroupError(p.error)

    def delete_group(self, group: str) -> None:
        """Delete a group without members; a group that does not exist is deleted already.

        Raises:
            GroupError: the group has members, or the cluster did not answer.
        """
        try:
            _wait(self._admin().delete_consumer_groups([group], request_timeout=_ADMIN_TIMEOUT_S)[group])
        except GroupError as error:
            if not error.no_such_group:
                raise

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient({**self._properties}, logger=logging.getLogger(logs.KAFKA_CLIENT))
        return self._client


class GroupError(ConnectError):
    """The coordinator refused a request about a group; ``has_members`` and ``no_such_group`` say why."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.str())
        self.has_members = error.code() in {ck.KafkaError.NON_EMPTY_GROUP, ck.KafkaError.UNKNOWN_MEMBER_ID}
        self.no_such_group = error.code() == ck.KafkaError.GROUP_ID_NOT_FOUND


def _wait(future: Future[T]) -> T:
    try:
        return future.result(_ADMIN_TIMEOUT_S + 5)
    except ck.KafkaException as error:
        raise GroupError(error.args[0]) from error
    except TimeoutError as error:
        raise ConnectError("Timed out waiting for the Kafka cluster") from error


class Sender:
    """Sends single records and waits for each to be acknowledged: for people and demos, not for load."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._bootstrap = properties["bootstrap.servers"]
        settings = {"message.timeout.ms": str(int(_PRODUCE_TIMEOUT_S * 1000)), "linger.ms": "0", "log_level": "0", **properties}
        self._producer = ck.Producer(settings, logger=logging.getLogger(logs.KAFKA_CLIENT))

    def send(self, topic: str, key: bytes | None, value: bytes) -> tuple[int, int]:
        """Send one record and return its (partition, offset).

        Raises:
            ConnectError: it was not acknowledged in ten seconds, with the reason.
        """
        outcome: list[tuple[Any, Any]] = []
        self._producer.produce(topic, value, key, on_delivery=lambda error, message: outcome.append((error, message)))
        self._producer.flush(_PRODUCE_TIMEOUT_S + 1)
        if not outcome:
            raise ConnectError(f"No broker at {self._bootstrap} acknowledged the record in {_PRODUCE_TIMEOUT_S:.0f} s")
        error, message = outcome[0]
        if error is not None:
            raise ConnectError(f"Could not send to topic {topic} at {self._bootstrap}: {error.str()}")
        return message.partition(), message.offset()
