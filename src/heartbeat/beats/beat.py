"""What a beat is, and how a batch of records becomes the few writes it is worth: the newest beat of each source. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from heartbeat.connect.api import NO_TIMESTAMP

ALLOWED_SKEW_MS: Final = 2_000
"""How far a producer's clock may run ahead before its beats count as sent now: a clock in the future must not make a source immortal."""


@dataclass(frozen=True, slots=True)
class Coalesced:
    """The newest beat per source, in ms, split by whether its deadline is still ahead. ``late_by_ms`` is the least a late beat is late."""

    alive: Mapping[str, int]
    expired: int
    late_by_ms: int


def newest_of(timestamps_ms: Iterable[int], now_ms: int) -> int:
    """Return the newest beat among record timestamps (at least one): none means now, and nothing is later than now plus the skew."""
    stamps = list(timestamps_ms)
    newest = max(stamps)
    if NO_TIMESTAMP in stamps:
        newest = max(newest, now_ms)
    return min(newest, now_ms + ALLOWED_SKEW_MS)


def newest_by_source(stamped: Iterable[tuple[str, int]], now_ms: int) -> dict[str, int]:
    """Return the newest beat of each source, given source and record timestamp of every record of a batch."""
    latest = now_ms + ALLOWED_SKEW_MS
    newest: dict[str, int] = {}
    for source, stamp in stamped:
        beat = now_ms if stamp == NO_TIMESTAMP else min(stamp, latest)
        if beat > newest.get(source, -1):
            newest[source] = beat
    return newest


def coalesce(newest: Mapping[str, int], known: Mapping[str, int], ttl_ms: int, now_ms: int) -> Coalesced:
    """Keep what is newer than the beats written before (``known``) and not past its deadline.

    A known beat from the future does not count: it was written before the clock was set back.
    """
    latest = now_ms + ALLOWED_SKEW_MS
    alive: dict[str, int] = {}
    expired, late_by_ms = 0, 0
    for source, beat in newest.items():
        late = now_ms - beat - ttl_ms
        if late >= 0:
            late_by_ms = late if not expired else min(late, late_by_ms)
            expired += 1
        elif beat >= known.get(source, -1) or known[source] > latest:
            alive[source] = beat
    return Coalesced(alive, expired, late_by_ms)
