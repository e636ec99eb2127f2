"""What a task was delivered and is not known to have applied: what waits to be put, and the batch that may be under way."""

from __future__ import annotations

from collections.abc import Mapping

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.conversion import Pending


class Kept:
    """Records between their delivery and the moment they count as applied, in the order of their delivery.

    ``busy`` tells that the plugin has a batch under way: also one of which nothing is kept any more, because it was revoked.
    """

    def __init__(self) -> None:
        self.waiting = Pending()
        self.under_way = Pending()
        self.busy = False
        self._assigned: Mapping[TopicPartition, int] = {}

    def __len__(self) -> int:
        return len(self.waiting.messages) + len(self.under_way.messages)

    def follow(self, assigned: Mapping[TopicPartition, int]) -> bool:
        """Drop what belongs to assignments that no longer stand. Return whether everything that was kept went with them.

        What was revoked is somebody else's now, and comes to them, or again to us, from the last commit.
        """
        before, self._assigned = self._assigned, assigned
        if assigned is before or not (self.waiting.next_offsets or self.under_way.next_offsets):
            return False
        standing = {partition for partition, number in assigned.items() if before.get(partition) == number}
        self.waiting, self.under_way = self.waiting.only(standing), self.under_way.only(standing)
        return not (self.waiting.next_offsets or self.under_way.next_offsets)

    def add(self, later: Pending) -> None:
        """Keep what was delivered now."""
        self.waiting = self.waiting.joined(later)

    def put(self, *, under_way: bool) -> dict[TopicPartition, int]:
        """Note that what waited was put, and perhaps is under way. Return the offsets below which all is applied now."""
        applied = dict(self.under_way.next_offsets)
        if not under_way:
            applied |= self.waiting.next_offsets
        self.under_way, self.waiting, self.busy = (self.waiting if under_way else Pending()), Pending(), under_way
        return applied

    def ended(self) -> Mapping[TopicPartition, int]:
        """Note that what was under way is applied, whatever waits behind it. Return its offsets."""
        applied, self.under_way, self.busy = self.under_way.next_offsets, Pending(), False
        return applied

    def failed(self) -> None:
        """Note that a put failed: what was under way is to be put again, before what waits."""
        self.waiting, self.under_way, self.busy = self.under_way.joined(self.waiting), Pending(), False
