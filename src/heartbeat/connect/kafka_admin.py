"""What is asked of the Kafka cluster beside a task's own consumption: groups for the REST API, logs for plugins."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from heartbeat import logs
from heartbeat.connect.api import LogEnd, Survey, Topic, TopicPartition
from heartbeat.errors import ConnectError, RetriableError

log = logging.getLogger(__name__)

T = TypeVar("T")
Offsets = dict[TopicPartition, int]

_TIMEOUT_S: Final = 20.0  # three requests at most stay below the 90 s that a REST call may take
_CLUSTER_ID_RETRY_S: Final = 10.0
_SURVEY_TIMEOUT_S: Final = 1.5
_LOOKUP_TIMEOUT_S: Final = 3.0
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # Kafka's zero id, from brokers before 2.8
_EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]


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
        listed = _wait(self._admin().list_consumer_group_offsets([request], request_timeout=_TIMEOUT_S)[group])
        return {TopicPartition(p.topic, p.partition): p.offset for p in listed.topic_partitions if p.offset >= 0}

    def alter_group_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set committed offsets of a group without members.

        Raises:
            GroupError: the group has members, or the cluster did not answer.
        """
        request = ck.ConsumerGroupTopicPartitions(group, [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in offsets.items()])
        altered = _wait(self._admin().alter_consumer_group_offsets([request], request_timeout=_TIMEOUT_S)[group])
        for p in altered.topic_partitions:
            if p.error is not None:
                raise GroupError(p.error)

    def delete_group(self, group: str) -> None:
        """Delete a group without members; a group that does not exist is deleted already.

        Raises:
            GroupError: the group has members, or the cluster did not answer.
        """
        try:
            _wait(self._admin().delete_consumer_groups([group], request_timeout=_TIMEOUT_S)[group])
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
        return future.result(_TIMEOUT_S + 5)
    except ck.KafkaException as error:
        raise GroupError(error.args[0]) from error
    except TimeoutError as error:
        raise ConnectError("Timed out waiting for the Kafka cluster") from error


class PartitionLogs:
    """The logs of partitions, for the thread of one task (``api.Logs``)."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self.topics: Collection[str] = ()
        self._properties = dict(properties)
        self._asked: Any = None
        self._asked_at_s = 0.0
        self._ends: dict[TopicPartition, Future[Any]] = {}
        self._topics: dict[str, Future[Any]] = {}

    @property
    def asking(self) -> bool:
        """Tell whether a question is under way."""
        return self._asked is not None

    def ask(self, asked: Any, partitions: Collection[TopicPartition], topics: Collection[str]) -> None:
        """Send the question where partitions end and how many a topic has; the client sends one request to each broker."""
        self._asked, self._asked_at_s = asked, time.monotonic()
        self._ends = self._offsets(dict.fromkeys(partitions, _LATEST), _SURVEY_TIMEOUT_S)
        known = list(topics)
        self._topics = self._admin().describe_topics(ck.TopicCollection(known), request_timeout=_SURVEY_TIMEOUT_S) if known else {}

    def answer(self) -> Survey | None:
        """Return the answer if it has come, once; after a second and a half it is what has come until then."""
        if self._asked is None:
            return None
        in_time = time.monotonic() - self._asked_at_s < _SURVEY_TIMEOUT_S
        if in_time and not all(future.done() for future in (*self._ends.values(), *self._topics.values())):
            return None
        ends = {partition: found for partition, future in self._ends.items() if (found := _done(future)) is not None}
        topics = {topic: future for topic, future in self._topics.items() if _done(future) is not None or _no_such_topic(future)}
        survey = Survey(
            self._asked,
            {p: LogEnd(found.offset, -1 if found.leader_epoch is None else found.leader_epoch) for p, found in ends.items()},
            {topic: None if _no_such_topic(future) else _topic(future.result()) for topic, future in topics.items()},
        )
        self._asked, self._ends, self._topics = None, {}, {}
        return survey

    def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return first and end offset of each log.

        Raises:
            RetriableError: a leader did not answer in time.
        """
        first = self._offsets(dict.fromkeys(partitions, _EARLIEST), _LOOKUP_TIMEOUT_S)
        end = self._offsets(dict.fromkeys(partitions, _LATEST), _LOOKUP_TIMEOUT_S)
        return {partition: (_found(first[partition]), _found(end[partition])) for partition in partitions}

    def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Return the ids of topics; those without one are left out.

        Raises:
            RetriableError: no broker answered in time, or there is no such topic.
        """
        answers = self._admin().describe_topics(ck.TopicCollection(list(topics)), request_timeout=_LOOKUP_TIMEOUT_S)
        ids = {topic: _topic(_answered(future)).id for topic, future in answers.items()}
        return {topic: known for topic, known in ids.items() if known}

    def offsets_at(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Return the offset of the first record that is as new as that, None if there is none.

        Raises:
            RetriableError: a leader did not answer in time.
        """
        # A time before 1970 would be another question: in the protocol -1 is the end of the log.
        wanted = {partition: OffsetSpec.for_timestamp(max(0, at_ms)) for partition, at_ms in times_ms.items()}
        answers = {partition: _found(future) for partition, future in self._offsets(wanted, _LOOKUP_TIMEOUT_S).items()}
        return {partition: offset if offset >= 0 else None for partition, offset in answers.items()}

    def close(self) -> None:
        """Wait for no answer any more."""
        self._asked, self._ends, self._topics = None, {}, {}

    def _offsets(self, wanted: Mapping[TopicPartition, OffsetSpec], timeout_s: float) -> dict[TopicPartition, Future[Any]]:
        if not wanted:
            return {}
        request = {ck.TopicPartition(p.topic, p.partition): spec for p, spec in wanted.items()}
        answers = self._admin().list_offsets(request, isolation_level=ck.IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s)
        return {TopicPartition(p.topic, p.partition): future for p, future in answers.items()}

    def _admin(self) -> AdminClient:
        return _shared(self._properties)


_clients: dict[frozenset[tuple[str, str]], AdminClient] = {}
_making = threading.Lock()


def _shared(properties: Mapping[str, str]) -> AdminClient:
    """Return the process's one client for these properties, made when first asked for and never destroyed.

    Destroying one whose requests have just timed out can abort the process (an assertion of librdkafka 2.16).
    """
    key = frozenset(properties.items())
    with _making:
        if key not in _clients:
            # What it knows of leaders must not be older than a verdict may wait: a partition that came was "without a leader" for minutes.
            fresh: dict[str, str | int | float | bool] = {
                "topic.metadata.refresh.interval.ms": "5000",
                "metadata.max.age.ms": "15000",
                **properties,
            }
            _clients[key] = AdminClient(fresh, logger=logging.getLogger(logs.KAFKA_CLIENT))
        return _clients[key]


def _done(future: Future[T]) -> T | None:
    return future.result() if future.done() and future.exception() is None else None


def _no_such_topic(future: Future[Any]) -> bool:
    error = future.exception() if future.done() else None
    return isinstance(error, ck.KafkaException) and error.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART


def _topic(description: Any) -> Topic:
    known = description.topic_id
    return Topic(len(description.partitions), "" if known is None or str(known) == _NO_ID else str(known))


def _found(future: Future[Any]) -> int:
    return int(_answered(future).offset)


def _answered(future: Future[T]) -> T:
    try:
        return future.result(_LOOKUP_TIMEOUT_S + 1)
    except ck.KafkaException as error:
        raise RetriableError(f"Kafka did not answer about a log: {error.args[0].str()}") from error
    except TimeoutError as error:
        raise RetriableError("Kafka did not answer about a log in time") from error
