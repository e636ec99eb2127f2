"""The Kafka cluster as the monitor asks it: does anybody answer, and is there a topic that keeps the newest record of each key."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from heartbeat import logs
from heartbeat.monitor.kafka import fault_in, made
from heartbeat.monitor.settings import Kafka

log = logging.getLogger(__name__)

_ASK_EVERY_S: Final = 1.0
_ANSWER_TIMEOUT_S: Final = 2.0
_ADMIN_TIMEOUT_S: Final = 3.0
_MOST_REPLICAS: Final = 3


class Cluster:
    """What is asked of the cluster itself. ``clock`` counts seconds and never goes back.

    Raises:
        ConnectError: the client does not take these properties.
    """

    def __init__(self, settings: Kafka, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = _shared(settings)
        self._clock = clock
        self._due = logs.Every(_ASK_EVERY_S)
        self._asked: Future[Any] | None = None
        self._asked_ms = 0
        self._answered_ms: int | None = None
        self._looked_at: set[str] = set()

    def reachable(self, now_ms: int) -> int | None:
        """Return when a broker last answered us: the time at which it was asked. None if none ever did. Never waits.

        It is asked anew with these calls, once a second.
        """
        self._client.poll(0)  # what the client has to say goes to its log with this
        if self._asked is not None and self._asked.done():
            if self._asked.exception() is None:
                self._answered_ms = self._asked_ms
            self._asked = None
        if self._asked is None and self._due.due(self._clock()):
            self._asked, self._asked_ms = self._client.describe_cluster(request_timeout=_ANSWER_TIMEOUT_S), now_ms
        return self._answered_ms

    def ensure_compacted(self, topic: str) -> None:
        """Make a topic whose newest record per key is kept, if there is none of this name; warn once of one that is not compacted.

        It has one partition, so that it has one order, and a copy on up to three brokers.

        Raises:
            RetriableError: the cluster does not answer.
            ConnectError: it refuses.
        """
        self._client.poll(0)
        try:
            # All topics are listed, because asking for one by name may make it.
            listed = self._client.list_topics(timeout=_ADMIN_TIMEOUT_S)
            if topic not in listed.topics:
                self._create_compacted(topic, min(_MOST_REPLICAS, len(listed.brokers)))
            elif topic not in self._looked_at:
                self._check_compacted(topic)
                self._looked_at.add(topic)
        except (ck.KafkaException, TimeoutError) as error:
            raise fault_in(error).error(f"Topic {topic} could not be made sure of") from error

    def _create_compacted(self, topic: str, replicas: int) -> None:
        wanted = NewTopic(topic, 1, replicas, config={"cleanup.policy": "compact"})
        asked = self._client.create_topics([wanted], request_timeout=_ADMIN_TIMEOUT_S, operation_timeout=_ADMIN_TIMEOUT_S)
        try:
            asked[topic].result(_ADMIN_TIMEOUT_S + 1)
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:  # another monitor was faster
                raise
        else:
            log.info("Made topic %s: compacted, %d replicas", topic, replicas)

    def _check_compacted(self, topic: str) -> None:
        asked = ConfigResource(ResourceType.TOPIC, topic)
        try:
            settings = self._client.describe_configs([asked], request_timeout=_ADMIN_TIMEOUT_S)[asked].result(_ADMIN_TIMEOUT_S + 1)
        except (ck.KafkaException, TimeoutError) as error:
            log.info("Whether topic %s is compacted could not be seen: %s", topic, fault_in(error).text)
            return
        policy = settings["cleanup.policy"].value if "cleanup.policy" in settings else ""
        if "compact" not in policy.split(","):
            log.warning(
                "Topic %s is not compacted (cleanup.policy %s): it grows, or forgets who is down. "
                "Set it: kafka-configs --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact",
                topic,
                policy,
                topic,
            )


_clients: dict[frozenset[tuple[str, str]], Any] = {}
_making: Final = threading.Lock()


def _shared(settings: Kafka) -> Any:
    """Return the process's one admin client for these properties, made when first asked for and never destroyed.

    Destroying one whose requests have just timed out can abort the process (an assertion of librdkafka 2.16).
    """
    key = frozenset({**settings.properties, "bootstrap.servers": settings.bootstrap_servers}.items())
    with _making:
        if key not in _clients:
            _clients[key] = made(AdminClient, settings, {})
        return _clients[key]
