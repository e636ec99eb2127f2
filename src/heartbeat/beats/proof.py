"""Sight: what we can prove to have seen of a partition, as an interval [since, until], in ms. Pure.

Each second T := now is noted, *then* the partition's end offset is asked for. Whatever Kafka had committed by T lies below
that end. Once everything below it has been applied, everything committed by T has been applied: ``until`` becomes T. A
sample is held until it is met, because under lag a newer one never would be; the newest other waits behind it. ``since``
says how far back our looking had no gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

LONGEST_GAP_MS: Final = 2_000
"""With no sample taken for longer than this, our looking had a gap."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything committed by ``time_ms`` lies below ``end``."""

    time_ms: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An end offset (high watermark, read_uncommitted), with what was known when it was asked for.

    ``time_ms`` was taken before the question was sent; ``applied`` is how far the log was known to reach by then: what had
    been applied, delivered, or seen as its end (``Sight.reached``); ``epoch`` is the leader's, -1 where the broker does not say.
    """

    time_ms: int
    applied: int
    end: int
    epoch: int = -1


@dataclass(frozen=True, slots=True)
class Sight:
    """What is proven of one partition. Everything below ``applied`` has had its effect in Redis."""

    applied: int
    since_ms: int | None = None
    until_ms: int | None = None
    epoch: int | None = None
    taken_ms: int | None = None
    met: Sample | None = None
    held: Sample | None = None
    waiting: Sample | None = None

    @classmethod
    def resumed(cls, applied: int, since_ms: int, until_ms: int, epoch: int) -> Sight:
        """Go on where a stored sight ended; if the next sample comes too late for that, it shows as a gap."""
        return cls(applied, since_ms, until_ms, epoch, taken_ms=until_ms)

    @property
    def reached(self) -> int:
        """How far the log is known to reach: under lag, what was applied alone would not show that it was made anew."""
        newest = self.waiting or self.held
        return self.applied if newest is None else max(self.applied, newest.end)

    def answered(self, answer: Answer) -> Sight:
        """Take a sample. Answers may come late and out of order: one to a question older than the last one taken says nothing new."""
        if self.taken_ms is not None and answer.time_ms <= self.taken_ms:
            return self
        sample = Sample(answer.time_ms, answer.end)
        taken = replace(self, taken_ms=answer.time_ms, epoch=answer.epoch)
        # Compared with what had been applied when we asked: by the time of the answer more may have been, rightly.
        if answer.end < answer.applied:
            # The log was made anew or cut: what we applied is of another one. Nothing is proven until the partition is claimed again.
            return replace(taken, applied=0, since_ms=None, met=None, held=sample, waiting=None)._settled()
        if self._had_a_gap(answer):
            return replace(taken, since_ms=None, met=None, held=sample, waiting=None)._settled()
        if self.held is None:
            return replace(taken, held=sample)._settled()
        return replace(taken, waiting=sample)

    def advanced(self, applied: int) -> Sight:
        """Note how far everything has had its effect in Redis."""
        return replace(self, applied=applied)._settled()

    def interrupted(self) -> Sight:
        """Note that our looking is worth nothing for now (clocks disagree): the next sample begins anew."""
        return replace(self, since_ms=None, met=None, held=None, waiting=None)

    def appended_after_ms(self, offset: int) -> int | None:
        """Return the latest moment after which the record at this offset is known to have been appended."""
        for sample in (self.waiting, self.held, self.met):
            if sample is not None and offset >= sample.end:
                return sample.time_ms
        return None

    def _had_a_gap(self, answer: Answer) -> bool:
        if self.taken_ms is None or answer.time_ms - self.taken_ms > LONGEST_GAP_MS:
            return True
        return answer.epoch != self.epoch  # another leader: while it took over, producers could not write

    def _settled(self) -> Sight:
        if self.held is None or self.applied < self.held.end:
            return self
        met = self.held.time_ms
        since_ms = met if self.since_ms is None else self.since_ms
        return replace(self, since_ms=since_ms, until_ms=met, met=self.held, held=self.waiting, waiting=None)._settled()
