"""A Kafka cluster as a person asks about it: brokers, topics, groups, ends of logs. Reads only, joins nothing, makes no topic.

Every question has its own short time-out, and what one of them does not get an answer to is None: the others are asked all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType  # type: ignore[attr-defined]

from heartbeat import logs
from heartbeat.connect.api import TopicPartition
from heartbeat.errors import ConnectError

T = TypeVar("T")

_TIMEOUT_S: Final = 3.0
_KEPT: Final[list[AdminClient]] = []
"""Every client made here. One that is destroyed soon after a request of its own has timed out ends the process: librdkafka 2.16
asserts ``eonce->refcnt > 0``. So none is, and who has asked ends by ``os._exit``."""
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Brokers:
    """Who answered, and in which time (connecting included). ``protocol`` is what they say of their version, if anything."""

    cluster_id: str | None
    addresses: tuple[str, ...]
    answer_ms: float
    protocol: str | None = None


@dataclass(frozen=True, slots=True)
class TopicState:
    """``partitions`` by number: how many copies there are, and how many of them are in sync; none are where nobody leads.

    ``settings`` is None where the broker does not tell.
    """

    partitions: Mapping[int, tuple[int, int]]
    leaderless: tuple[int, ...] = ()
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class GroupState:
    """``state`` and ``members`` are None where the coordinator does not tell; ``committed`` is empty where there is nothing."""

    state: str | None = None
    members: int | None = None
    committed: Mapping[TopicPartition, int] | None = None


@dataclass(frozen=True, slots=True)
class Sightings:
    """What was found: topics by name (those that exist), groups by name, ends of logs."""

    brokers: Brokers
    topics: Mapping[str, TopicState]
    groups: Mapping[str, GroupState]
    ends: Mapping[TopicPartition, int]


def look(properties: Mapping[str, str], topics: Collection[str], groups: Collection[str]) -> Sightings:
    """Ask a cluster; ``properties`` are the client's own, translated.

    Raises:
        ConnectError: no broker answers.
    """
    trouble: list[Any] = []
    client = _client({**properties, "error_cb": trouble.append})
    begun_s = time.monotonic()
    try:
        # All topics are listed, because asking for one by name may make it.
        listed = client.list_topics(timeout=_TIMEOUT_S)
    except ck.KafkaException as error:
        client.poll(0)  # hands over what the client noted meanwhile: why, where the exception only says that
        raise ConnectError((trouble[0] if trouble else error.args[0]).str()) from error
    answer_ms = (time.monotonic() - begun_s) * 1000
    known = {name: listed.topics[name] for name in sorted(topics) if name in listed.topics}
    asked = _Asked(client, known, groups, min(listed.brokers, default=None))
    brokers = Brokers(
        listed.cluster_id,
        tuple(f"{broker.host}:{broker.port}" for _, broker in sorted(listed.brokers.items())),
        answer_ms,
        asked.protocol(),
    )
    return Sightings(brokers, asked.topics(), asked.groups(), asked.ends())


def topic_names(properties: Mapping[str, str]) -> list[str]:
    """Return the names of all topics; none if no broker answers.

    Raises:
        ConnectError: the client does not take these properties.
    """
    try:
        return sorted(_client(properties).list_topics(timeout=_TIMEOUT_S).topics)
    except ck.KafkaException:
        return []


def _client(properties: Mapping[str, Any]) -> AdminClient:
    try:
        client = AdminClient({**properties, "log_level": "0"}, logger=logging.getLogger(logs.KAFKA_CLIENT))
    except (ck.KafkaException, ValueError) as error:
        raise ConnectError(f"the Kafka client does not take these properties: {error}") from error
    _KEPT.append(client)
    return client


class _Asked:
    """Questions sent all at once: together they take as long as the slowest."""

    def __init__(self, client: AdminClient, topics: Mapping[str, Any], groups: Collection[str], broker: int | None) -> None:
        self._topics = topics
        self._deadline_s = time.monotonic() + _TIMEOUT_S
        wanted = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
        if broker is not None:
            wanted.append(ConfigResource(ResourceType.BROKER, str(broker)))
        # Each in a request of its own: a broker's settings are sent to that broker, and one refusal must not stand for all.
        self._settings = {(of.restype, of.name): client.describe_configs([of], request_timeout=_TIMEOUT_S)[of] for of in wanted}
        self._groups = {name: client.describe_consumer_groups([name], request_timeout=_TIMEOUT_S)[name] for name in groups}
        self._committed = {
            name: client.list_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(name)], request_timeout=_TIMEOUT_S)[name]
            for name in groups
        }
        ends = {ck.TopicPartition(name, number): _LATEST for name, topic in topics.items() for number in topic.partitions}
        self._ends = (
            client.list_offsets(ends, isolation_level=ck.IsolationLevel.READ_UNCOMMITTED, request_timeout=_TIMEOUT_S) if ends else {}
        )

    def protocol(self) -> str | None:
        """Return what a broker's settings say of its version: it is nowhere else to be had."""
        settings = next((self._found(future) for (kind, _), future in self._settings.items() if kind == ResourceType.BROKER), None) or {}
        version, groups = (settings.get(name) for name in ("inter.broker.protocol.version", "group.coordinator.rebalance.protocols"))
        if version is not None and version.value:
            return f"inter.broker.protocol.version {version.value}"
        return f"group protocols {groups.value}" if groups is not None and groups.value else None

    def topics(self) -> dict[str, TopicState]:
        """Return the topics that exist."""
        found = {}
        for name, topic in self._topics.items():
            settings = self._found(self._settings[ResourceType.TOPIC, name])
            found[name] = TopicState(
                {number: (len(known.replicas), len(known.isrs)) for number, known in sorted(topic.partitions.items())},
                tuple(number for number, known in sorted(topic.partitions.items()) if known.leader < 0),
                None if settings is None else {key: entry.value for key, entry in settings.items() if entry.value is not None},
            )
        return found

    def groups(self) -> dict[str, GroupState]:
        """Return the groups."""
        found = {}
        for name, future in self._groups.items():
            known, committed = self._found(future), self._found(self._committed[name])
            offsets = None
            if committed is not None:
                offsets = {TopicPartition(p.topic, p.partition): p.offset for p in committed.topic_partitions if p.offset >= 0}
            found[name] = GroupState(known and known.state.name, None if known is None else len(known.members), offsets)
        return found

    def ends(self) -> dict[TopicPartition, int]:
        """Return where the logs end, of those that answered."""
        found = {TopicPartition(p.topic, p.partition): self._found(future) for p, future in self._ends.items()}
        return {partition: int(end.offset) for partition, end in found.items() if end is not None}

    def _found(self, future: Future[T]) -> T | None:
        try:
            return future.result(max(0.0, self._deadline_s - time.monotonic()) + 0.5)
        except (ck.KafkaException, TimeoutError):
            return None
