"""The Kafka client, behind the few calls a sink task makes. Beside ``kafka_admin`` the only module of the worker that imports it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck

from heartbeat import logs
from heartbeat.connect.api import Committed, Message, TopicPartition
from heartbeat.errors import ConnectError, RetriableError

log = logging.getLogger(__name__)

Offsets = dict[TopicPartition, int]

# Unbound, and never compared: a KafkaError == None leaves an exception behind for whoever comes next.
_error: Callable[[Any], Any] = ck.Message.error
_topic: Callable[[Any], Any] = ck.Message.topic
_partition: Callable[[Any], Any] = ck.Message.partition
_METADATA_TIMEOUT_S = 2.0
_COMMITTED_TIMEOUT_S = 2.0
_INTERNAL_TOPICS = {"__consumer_offsets", "__transaction_state", "__share_group_state"}

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

UNLESS_SAID = {
    # Five minutes by default, as in Java: for so long would a partition that was added be read by nobody, and prove nothing.
    "topic.metadata.refresh.interval.ms": "5000",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one poll gave: records in order, and the position after them (records and ends of log) per partition."""

    messages: list[Message] = field(default_factory=list)
    next_offsets: Offsets = field(default_factory=dict)


def no_metadata(partition: TopicPartition) -> str:  # noqa: ARG001  the shape of Membership.metadata
    """Return no text for any partition."""
    return ""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a group member must know of the task it feeds.

    ``committable`` is what has been applied, ``metadata`` the text to commit with a partition's offset. Where ``opens``, a
    new partition waits in ``SinkConsumer.unopened`` until ``start_at`` says where it begins.
    """

    committable: Callable[[], Mapping[TopicPartition, int]]
    metadata: Callable[[TopicPartition], str] = no_metadata
    opens: bool = False


class SinkConsumer:
    """One group member.

    The rebalance callbacks record what happened, send the commit that a revocation needs, and never raise: an
    exception raised in one comes out of ``consume()`` and the records being delivered are lost.

    ``assigned`` maps each partition that is consumed to the number of the assignment that gave it, or of its last start;
    ``unopened`` are those that wait to be started. Both are replaced, never changed.
    """

    def __init__(self, properties: Mapping[str, str], membership: Membership) -> None:
        self.assigned: Mapping[TopicPartition, int] = {}
        self.unopened: frozenset[TopicPartition] = frozenset()
        self._membership = membership
        self._positions: Offsets = {}
        self._assignments = 0
        self._paused = False
        self._held: set[TopicPartition] = set()
        self._fatal: ck.KafkaError | None = None
        self._commit_started_s: float | None = None
        self._in_flight: Offsets = {}
        self._committed: Offsets = {}
        self._incremental = (
            "cooperative" in properties.get("partition.assignment.strategy", "")
            or properties.get("group.protocol", "").lower() == "consumer"
        )
        configured = {**UNLESS_SAID, **properties, **OWN, "error_cb": self._note_error, "on_commit": self._note_commit}
        if membership.opens:
            configured["auto.offset.reset"] = "error"  # where to go on is then the plugin's to say: never a silent jump
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
        if any(map(_error, events)):
            return self._deliver_with_errors(events)
        assigned = self.assigned
        # Offsets rise within a partition, so its last event stands; the rest is done once a partition, not once a record.
        topics = set(map(_topic, events))
        if len(topics) == 1:
            topic, ends = topics.pop(), dict(zip(map(_partition, events), events, strict=True))
            offsets = {TopicPartition(topic, partition): event.offset() + 1 for partition, event in ends.items()}
        else:
            last = {(event.topic(), event.partition()): event for event in events}
            offsets = {TopicPartition(*partition): event.offset() + 1 for partition, event in last.items()}
        if offsets.keys() <= assigned.keys():
            self._positions.update(offsets)
            return Delivery(events, offsets)
        return self._deliver_with_errors(events)

    def _deliver_with_errors(self, events: list[Any]) -> Delivery:
        gone: set[TopicPartition] = set()
        delivery = Delivery()
        for event in events:
            error = event.error()
            partition = TopicPartition(event.topic(), event.partition())
            if error is not None and error.code() != ck.KafkaError._PARTITION_EOF:
                if error.code() == ck.KafkaError._AUTO_OFFSET_RESET and self._membership.opens:
                    log.warning("The log of %s-%d does not have our position: %s", *partition, error.str())
                    gone.add(partition)
                else:
                    self._note_error(error)
                continue
            if partition not in self.assigned:
                continue
            if error is None:
                delivery.messages.append(event)
                delivery.next_offsets[partition] = event.offset() + 1
            else:
                delivery.next_offsets[partition] = event.offset()
        self._positions.update(delivery.next_offsets)
        if not gone:
            return delivery
        self.reopen(gone)  # now that positions are known; and what is delivered of them must not pass for what comes from the new start
        messages = [message for message in delivery.messages if (message.topic(), message.partition()) not in gone]
        return Delivery(messages, {partition: offset for partition, offset in delivery.next_offsets.items() if partition not in gone})

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
            self._hold(self._consumer, self.assigned)

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            self._consumer.resume(_to_kafka(self._held))  # also what is not ours now: the client would hold it when it comes back
            self._held = set()

    def _hold(self, consumer: Any, partitions: Iterable[TopicPartition]) -> None:
        self._held.update(partitions)
        consumer.pause(_to_kafka(partitions))

    def committed(self) -> dict[TopicPartition, Committed | None]:
        """Return what the group has committed of the partitions that wait to be started.

        Raises:
            RetriableError: the coordinator did not answer in time.
        """
        try:
            answers = self._consumer.committed(_to_kafka(self.unopened), timeout=_COMMITTED_TIMEOUT_S)
        except ck.KafkaException as error:
            raise RetriableError(f"The group's committed offsets could not be read: {error.args[0].str()}") from error
        failed = next((p.error for p in answers if p.error is not None), None)
        if failed is not None:
            raise RetriableError(f"The group's committed offsets could not be read: {failed.str()}")
        return {TopicPartition(p.topic, p.partition): Committed(p.offset, p.metadata or "") if p.offset >= 0 else None for p in answers}

    def start_at(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Begin to consume these partitions, of those that wait to be started, there. Each counts as assigned anew."""
        starting = {partition: offset for partition, offset in offsets.items() if partition in self.unopened}
        if not starting:
            return
        self._assignments += 1
        self._positions.update(starting)
        self.unopened -= starting.keys()
        self.assigned = {**self.assigned, **dict.fromkeys(starting, self._assignments)}
        try:
            if self._incremental:
                self._consumer.incremental_assign(_to_kafka(starting))
            else:
                # Without the incremental protocol an assignment is always whole: the others go on where they are.
                self._consumer.assign(_to_kafka({partition: self._positions[partition] for partition in self.assigned}))
            if self._paused:
                self._hold(self._consumer, starting)
        except ck.KafkaException as error:
            self.reopen(starting)
            raise RetriableError(f"Could not start {sorted(starting)}: {error.args[0].str()}") from error

    def reopen(self, partitions: Iterable[TopicPartition]) -> None:
        """Consume nothing more of these partitions until they are started again."""
        again = [partition for partition in partitions if partition in self.assigned]
        if not again:
            return
        self.assigned = {partition: number for partition, number in self.assigned.items() if partition not in again}
        self.unopened |= frozenset(again)
        try:
            if self._incremental:
                self._consumer.incremental_unassign(_to_kafka(again))
            else:
                self._consumer.assign(_to_kafka({partition: self._positions[partition] for partition in self.assigned}))
        except ck.KafkaException as error:
            log.warning("Could not stop consuming %s: %s", sorted(again), error.args[0].str())

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Send a commit. It never blocks: a coordinator that hangs would hold a synchronous one for a minute.

        One is in flight at a time; its outcome comes with a later poll (``take_committed``).
        """
        self._commit_started_s = time.monotonic()
        self._in_flight = dict(offsets)
        try:
            self._consumer.commit(offsets=self._with_metadata(offsets), asynchronous=True)
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
        gained = [TopicPartition(p.topic, p.partition) for p in partitions]
        kept = self.assigned if self._incremental else {}
        if self._membership.opens:
            self.unopened = (self.unopened if self._incremental else frozenset()) | frozenset(gained)
            self.assigned = dict(kept)
            # Not assigned and paused: a partition that was paused once starts up to a second late.
            partitions = []
        else:
            self.assigned = {**kept, **dict.fromkeys(gained, self._assignments)}
        try:
            (consumer.incremental_assign if self._incremental else consumer.assign)(partitions)
            if self._paused:
                self._hold(consumer, () if self._membership.opens else gained)
        except ck.KafkaException as error:
            log.warning("Could not take the assignment %s: %s", sorted(gained), error.args[0].str())

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        applied = self._membership.committable()
        lost = {TopicPartition(p.topic, p.partition) for p in partitions}
        leaving = {partition: offset for partition, offset in applied.items() if partition in lost}
        try:
            if leaving:
                # Sent before the group is left; the client waits for its answer before it joins again.
                consumer.commit(offsets=self._with_metadata(leaving), asynchronous=True)
        except ck.KafkaException as error:
            log.warning("Could not commit offsets of revoked partitions: %s", error.args[0].str())
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Any, partitions: list[Any]) -> None:
        gone = {TopicPartition(p.topic, p.partition) for p in partitions}
        # What was never started is not in the client's assignment: naming it would fail, and leave the rebalance unfinished for good.
        started = gone & self.assigned.keys()
        self.assigned = {partition: number for partition, number in self.assigned.items() if partition not in gone}
        self.unopened -= gone
        try:
            if self._incremental:
                consumer.incremental_unassign(_to_kafka(started))
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

    def _with_metadata(self, offsets: Mapping[TopicPartition, int]) -> list[ck.TopicPartition]:
        return [ck.TopicPartition(p.topic, p.partition, offset, self._membership.metadata(p)) for p, offset in offsets.items()]


def _to_kafka(partitions: Mapping[TopicPartition, int] | Iterable[TopicPartition]) -> list[ck.TopicPartition]:
    if isinstance(partitions, Mapping):
        return [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in partitions.items()]
    return [ck.TopicPartition(p.topic, p.partition) for p in partitions]
