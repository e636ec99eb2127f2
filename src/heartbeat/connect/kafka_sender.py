"""A producer for people and demos: one record at a time, and each one waited for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import confluent_kafka as ck

from heartbeat import logs
from heartbeat.errors import ConnectError

_TIMEOUT_S: Final = 10.0


class Sender:
    """Sends single records and waits for each to be acknowledged: for people and demos, not for load."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._bootstrap = properties["bootstrap.servers"]
        settings = {"message.timeout.ms": str(int(_TIMEOUT_S * 1000)), "linger.ms": "0", "log_level": "0", **properties}
        self._producer = ck.Producer(settings, logger=logging.getLogger(logs.KAFKA_CLIENT))

    def send(self, topic: str, key: bytes | None, value: bytes) -> tuple[int, int]:
        """Send one record and return its (partition, offset).

        Raises:
            ConnectError: it was not acknowledged in ten seconds, with the reason.
        """
        outcome: list[tuple[Any, Any]] = []
        self._producer.produce(topic, value, key, on_delivery=lambda error, message: outcome.append((error, message)))
        self._producer.flush(_TIMEOUT_S + 1)
        if not outcome:
            raise ConnectError(f"No broker at {self._bootstrap} acknowledged the record in {_TIMEOUT_S:.0f} s")
        error, message = outcome[0]
        if error is not None:
            raise ConnectError(f"Could not send to topic {topic} at {self._bootstrap}: {error.str()}")
        return message.partition(), message.offset()
