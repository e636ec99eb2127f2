"""What is true of a source, from the records alone: until when Kafka had proof of its life, and since when it is silent. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate

from .history import Record, Says, Source


class Life:
    """The records of one source. A clock that is ahead of its time is so for all its life."""

    def __init__(self, source: Source, records: Iterable[Record]) -> None:
        self.source = source
        self.records = sorted(records, key=lambda record: record.sent_ms)
        self._sent = [record.sent_ms for record in self.records]
        self._fails = [record for record in self.records if record.says is Says.FAIL]
        self._beats = [record for record in self.records if record.says is not Says.BYE]
        self._sent_beats = [record.sent_ms for record in self._beats]
        self._silent_from = list(accumulate((record.latest_ms(0) for record in self._beats), max))
        self._ahead = any(record.ahead for record in self.records)
        acked = [(r.acked_ms, r.earliest_ms + source.ttl_ms) for r in self._beats if r.acked_ms is not None]
        self._acked = sorted(acked)
        self._alive_until = list(accumulate((deadline for _, deadline in self._acked), max))

    def deadline_known_by(self, before_ms: int) -> int | None:
        """Return the earliest that the deadline may be by what Kafka had acknowledged before a moment; None without any."""
        count = bisect_right(self._acked, (before_ms - 1, 1 << 62))
        return self._alive_until[count - 1] if count else None

    def alive_throughout(self, from_ms: int, to_ms: int) -> bool:
        """Tell whether at every moment of this time a beat had been acknowledged whose deadline was ahead."""
        deadline = self.deadline_known_by(from_ms)
        if deadline is None or deadline <= from_ms:
            return False
        first = bisect_right(self._acked, (from_ms - 1, 1 << 62))
        for acked, its_deadline in self._acked[first:]:
            if acked > to_ms:
                break
            if acked >= deadline:
                return False
            deadline = max(deadline, its_deadline)
        return deadline > to_ms

    def silent_since(self, at_ms: int, read_by_ms: int) -> int | None:
        """Return the latest that the deadline may be at a moment, also by records of which Kafka has said nothing; None without any.

        ``read_by_ms`` is when everything before was read for the last time: a timestamp far ahead counts as of then.
        """
        beats = self._beats[: bisect_right(self._sent_beats, at_ms)]
        ends = self._silent_from[len(beats) - 1 : len(beats)] if beats else []
        if beats and self._ahead:
            ends = [max(*ends, beats[-1].latest_ms(read_by_ms))]
        return ends[0] + self.source.ttl_ms if ends else None

    def last_word(self, at_ms: int) -> Record | None:
        """Return the record that was sent last."""
        count = bisect_right(self._sent, at_ms)
        return self.records[count - 1] if count else None

    def fails(self, from_ms: int, to_ms: int) -> list[Record]:
        """Return the fails that were sent within a time."""
        return [record for record in self._fails if from_ms <= record.sent_ms <= to_ms]
