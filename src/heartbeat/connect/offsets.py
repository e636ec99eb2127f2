"""How far each assigned partition has come: applied by the task, committed to the group. Pure.

Entries are replaced when a partition is assigned anew, never carried over: what an earlier assignment applied says
nothing about where this one starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heartbeat.connect.api import TopicPartition


@dataclass(slots=True)
class _Partition:
    assignment: int
    applied: int | None = None
    committed: int | None = None


class Progress:
    """Offsets per assigned partition. An offset is always the *next* one, as Kafka commits it."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}

    def follow(self, assigned: Mapping[TopicPartition, int]) -> None:
        """Forget what is no longer assigned; start afresh what was assigned again (``assigned`` numbers each assignment)."""
        self._partitions = {
            partition: known if (known := self._partitions.get(partition)) and known.assignment == number else _Partition(number)
            for partition, number in assigned.items()
        }

    def apply(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Note that the task has applied everything below these offsets; partitions not assigned are ignored."""
        for partition, offset in next_offsets.items():
            known = self._partitions.get(partition)
            if known is not None:
                known.applied = offset

    def committable(self) -> dict[TopicPartition, int]:
        """Return what is applied and not yet committed."""
        return {
            partition: known.applied
            for partition, known in self._partitions.items()
            if known.applied is not None and known.applied != known.committed
        }

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note that the group holds these offsets now."""
        for partition, offset in offsets.items():
            known = self._partitions.get(partition)
            if known is not None:
                known.committed = offset
