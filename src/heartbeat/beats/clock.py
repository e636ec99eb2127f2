"""Our clock and Redis's. What is proven rests on both: where they disagree, the earlier one counts, and beyond a bound nothing does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

MOST_SKEW_MS: Final = 2_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Clock:
    """Our wall clock, and how far Redis's was ahead of it when it last told."""

    def __init__(self, wall_ms: Callable[[], int] = _wall_ms) -> None:
        self._wall_ms = wall_ms
        self.redis_ahead_ms = 0

    def now_ms(self) -> int:
        """Return the time by our own clock."""
        return self._wall_ms()

    def told(self, redis_ms: int) -> None:
        """Note what Redis said just now. Its answer took a while, so this makes Redis a little earlier than it is, never later."""
        self.redis_ahead_ms = redis_ms - self._wall_ms()

    def earlier_ms(self) -> int:
        """Return the time by the clock that is behind."""
        return self._wall_ms() + min(0, self.redis_ahead_ms)

    def redis_ms(self) -> int:
        """Return the time by the clock of Redis: what is dated by it can be understood by whoever reads it there."""
        return self._wall_ms() + self.redis_ahead_ms

    @property
    def agree(self) -> bool:
        """Tell whether the two clocks are close enough to conclude anything."""
        return abs(self.redis_ahead_ms) <= MOST_SKEW_MS
