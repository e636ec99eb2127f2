"""What happened in a run, as values: what sources sent and Kafka acknowledged, what was broken when, what was told to whom.

All times are epoch ms of one machine's clock: that of the driver, the workers, the monitors, Redis and Kafka alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

SKEW_MS: Final = 2_000
"""By how much a record's timestamp may be off before the worker's clock is believed instead."""


class Says(Enum):
    """What a record says of its source."""

    BEAT = "beat"
    FAIL = "fail"
    BYE = "bye"


@dataclass(frozen=True, slots=True)
class Source:
    """A source: its name is its Redis key. Its ttl never changes."""

    name: str
    connector: str
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was handed to the producer. ``acked_ms`` is None where Kafka has not acknowledged it: it may be there all the same."""

    source: str
    stamp_ms: int
    sent_ms: int
    acked_ms: int | None
    says: Says = Says.BEAT

    @property
    def ahead(self) -> bool:
        """Tell whether it is stamped so far in the future that it counts as sent when it is read, and again when it is read anew."""
        return self.stamp_ms > self.sent_ms + SKEW_MS

    @property
    def earliest_ms(self) -> int:
        """Return the earliest time that the beat may count as."""
        return min(self.stamp_ms, self.sent_ms + SKEW_MS)

    def latest_ms(self, read_by_ms: int) -> int:
        """Return the latest time that it may count as, if it was not read after ``read_by_ms``."""
        if self.ahead:
            return max(self.sent_ms, read_by_ms) + SKEW_MS
        appended_ms = self.stamp_ms + SKEW_MS if self.acked_ms is None else self.acked_ms
        return max(self.stamp_ms, min(self.stamp_ms + SKEW_MS, appended_ms))


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was broken. It is over ``heals_ms`` after its end, when whoever was hit is back. ``loses``: Redis lost something."""

    name: str
    began_ms: int
    ended_ms: int
    heals_ms: int = 0
    loses: bool = False


class Verdict(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A flip as a receiver reads it: of the contract, and no more of it than is judged here."""

    key: str
    incident: str
    source: str
    connector: str
    from_: str
    to: str
    reason: str
    at_ms: int
    last_beat_ms: int | None = None
    deadline_ms: int | None = None
    proven_until_ms: int | None = None
    detected_ms: int | None = None

    @property
    def opens(self) -> bool:
        """Tell whether this opens an incident; all others close one."""
        return self.to in ("DOWN", "BLIND")

    @property
    def about_pipeline(self) -> bool:
        """Tell whether this is about a connector's sight."""
        return self.to in ("BLIND", "SIGHTED")


@dataclass(frozen=True, slots=True)
class Seen:
    """A verdict, and when it was seen: accepted by the receiver, or read from ``flips``. Sequences of them are in that order."""

    at_ms: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class History:
    """A whole run."""

    sources: Sequence[Source]
    records: Sequence[Record]
    faults: Sequence[Fault]
    told: Sequence[Seen]
    kept: Sequence[Seen]
    began_ms: int
    ended_ms: int
