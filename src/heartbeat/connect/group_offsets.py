"""The offsets of a connector's consumer group, read and changed over REST (KIP-875), for a connector that is stopped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.connector_config import consumer_properties
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_admin import Admin, GroupError
from heartbeat.errors import BadRequest, ConnectError

_DONE: Final = "The offsets for this connector have been {} successfully"
_DONE_WITHOUT_PLUGIN: Final = (
    "The Connect framework-managed offsets for this connector have been {} successfully. However, if this connector manages offsets "
    "externally, they will need to be manually {} in the system that the connector uses."
)
_MEMBERS: Final = (
    "Failed to {0} consumer group offsets for connector {1} either because its tasks haven't stopped completely yet or the connector was "
    "resumed before the request to {0} its offsets could be successfully completed. If the connector is in a stopped state, this operation "
    "can be safely retried. If it doesn't eventually succeed, the Connect cluster may need to be restarted to get rid of the zombie sink "
    "tasks."
)


class GroupOffsets:
    """Offsets by connector name. The group is the one the connector's consumers use, overrides included."""

    def __init__(self, herder: Herder, admin: Admin, worker_properties: Mapping[str, str]) -> None:
        self._herder = herder
        self._admin = admin
        self._properties = worker_properties

    def read(self, name: str) -> dict[TopicPartition, int]:
        """Return the committed offsets.

        Raises:
            NotFound: there is no such connector.
            ConnectError: the cluster did not answer.
        """
        group = self._group(self._herder.record(name).config)
        try:
            return self._admin.group_offsets(group)
        except ConnectError as error:
            raise ConnectError(f"Failed to retrieve consumer group offsets for sink connector {name}") from error

    def alter(self, name: str, body: Any) -> str:
        """Set or (null) delete committed offsets. Return Connect's message.

        Raises:
            NotFound, BadRequest: no such connector, not stopped, or the body is wrong.
            ConnectError: the group has members, or the cluster did not answer.
        """
        if not body:
            raise BadRequest("Partitions / offsets need to be provided for an alter offsets request")
        with self._herder.stopped(name) as record:
            wanted = dict(_parse(entry) for entry in body)
            group = self._group(record.config)
            followed = self._herder.alter_plugin_offsets(record, wanted)
            try:
                self._alter(group, wanted)
            except GroupError as error:
                raise _refusal("alter", name, error) from error
        return _done("altered", followed=followed)

    def _alter(self, group: str, wanted: Mapping[TopicPartition, int | None]) -> None:
        removed = {partition for partition, offset in wanted.items() if offset is None}
        changed = {partition: offset for partition, offset in wanted.items() if offset is not None}
        if removed:
            # The client cannot delete single offsets: delete the group, then write back what stays.
            known = self._admin.group_offsets(group)
            changed = {**{partition: offset for partition, offset in known.items() if partition not in removed}, **changed}
            self._admin.delete_group(group)
        try:
            if changed:
                self._admin.alter_group_offsets(group, changed)
        except ConnectError as error:
            if not removed:
                raise
            rest = ", ".join(f"{partition.topic}-{partition.partition}={offset}" for partition, offset in sorted(changed.items()))
            raise ConnectError(
                f"The group's offsets were deleted, but these could not be written back: {rest}. Set them again: {error}"
            ) from error

    def reset(self, name: str) -> str:
        """Delete all committed offsets. Return Connect's message.

        Raises:
            NotFound, BadRequest: no such connector, or it is not stopped.
            ConnectError: the group has members, or the cluster did not answer.
        """
        with self._herder.stopped(name) as record:
            followed = self._herder.alter_plugin_offsets(record, None)
            try:
                self._admin.delete_group(self._group(record.config))
            except GroupError as error:
                raise _refusal("reset", name, error) from error
        return _done("reset", followed=followed)

    def _group(self, config: Mapping[str, str]) -> str:
        return consumer_properties(config, self._properties)["group.id"]


def _done(done: str, *, followed: bool) -> str:
    return _DONE.format(done) if followed else _DONE_WITHOUT_PLUGIN.format(done, done)


def _refusal(verb: str, name: str, error: GroupError) -> ConnectError:
    if error.has_members:
        return ConnectError(_MEMBERS.format(verb, name))
    return ConnectError(f"Failed to {verb} consumer group offsets for connector {name}: {error}")


def _parse(entry: Mapping[str, Any]) -> tuple[TopicPartition, int | None]:
    partition = entry.get("partition")
    if partition is None:
        raise BadRequest("The partition for a sink connector offset cannot be null or missing")
    if "kafka_topic" not in partition or "kafka_partition" not in partition:
        raise BadRequest("The partition for a sink connector offset must contain the keys 'kafka_topic' and 'kafka_partition'")
    if partition["kafka_topic"] is None:
        raise BadRequest("Kafka topic names must be valid strings and may not be null")
    if partition["kafka_partition"] is None:
        raise BadRequest("Kafka partitions must be valid numbers and may not be null")
    number = _integer(
        partition["kafka_partition"],
        32,
        "Failed to parse the following Kafka partition value in the provided offsets: '{}'. "
        "Partition values for sink connectors need to be integers.",
    )
    return TopicPartition(str(partition["kafka_topic"]), number), _parse_offset(entry.get("offset"))


def _parse_offset(offset: Mapping[str, Any] | None) -> int | None:
    if offset is None:
        return None
    if "kafka_offset" not in offset:
        raise BadRequest("The offset for a sink connector should either be null or contain the key 'kafka_offset'")
    value = _integer(
        offset["kafka_offset"],
        64,
        "Failed to parse the following Kafka offset value in the provided offsets: '{}'. "
        "Offset values for sink connectors need to be integers.",
    )
    if value < 0:
        raise ConnectError(f"Kafka offsets may not be negative: {value}")
    return value


def _integer(value: Any, bits: int, refusal: str) -> int:
    """Read what Java's ``parseInt`` and ``parseLong`` read; Python's ``int`` also takes blanks, underscores and any size."""
    text = str(value)
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text) and -(1 << bits - 1) <= int(text) < 1 << bits - 1:
        return int(text)
    raise BadRequest(refusal.format("null" if value is None else value))
