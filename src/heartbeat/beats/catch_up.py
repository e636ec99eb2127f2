"""A catch-up that lasts is watched: one line a second says how far it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from heartbeat.beats.proof import Sight
from heartbeat.connect.api import TopicPartition

log = logging.getLogger(__name__)

_SILENT_FOR_S: Final = 2.0
_EVERY_S: Final = 1.0
_WORTH_SAYING: Final = 1_000


class Watched(Protocol):
    """A held partition, as far as progress needs it."""

    @property
    def sight(self) -> Sight: ...


@dataclass(frozen=True, slots=True)
class _Since:
    started_s: float
    said_s: float
    behind: int


class CatchUp:
    """Tells about a backlog of one task, from its first sight until it is gone."""

    def __init__(self) -> None:
        self._since: _Since | None = None

    def note(self, held: Mapping[TopicPartition, Watched], now_s: float) -> None:
        """Say a line if a backlog has lasted for two seconds and a second has passed since the last line."""
        behind = lag(held)
        since = self._since
        if behind < _WORTH_SAYING:
            if since is not None and since.said_s > since.started_s:
                log.info("Caught up after %.1f s", now_s - since.started_s)
            self._since = None
        elif since is None or behind > since.behind:
            self._since = _Since(now_s, now_s, behind)
        elif now_s - since.started_s >= _SILENT_FOR_S and now_s - since.said_s >= _EVERY_S:
            self._since = _Since(since.started_s, now_s, since.behind)
            log.info("%s", line(since.behind - behind, since.behind, now_s - since.started_s))


def lag(held: Mapping[TopicPartition, Watched]) -> int:
    """Return how many offsets lie between what is applied and the newest known ends."""
    newest = ((known.sight, known.sight.waiting or known.sight.held) for known in held.values())
    return sum(max(0, sample.end - sight.applied) for sight, sample in newest if sample is not None)


def line(done: int, total: int, seconds: float) -> str:
    """Return how far a catch-up is.

    >>> line(250_000, 1_000_000, 2.5)
    'Catching up: 250,000 of 1,000,000 records (25 %), 100,000/s, 8 s left'
    """
    rate = done / seconds if seconds > 0 else 0.0
    left = f"{(total - done) / rate:.0f} s left" if rate else "time left unknown"
    return f"Catching up: {done:,} of {total:,} records ({100 * done // total} %), {rate:,.0f}/s, {left}"
