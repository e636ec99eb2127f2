"""One source's beats: their gaps, the DOWNs that a ttl and a grace would have raised, the smallest ttl without a false one. Pure.

Memory is bounded whatever the number of beats. Kept per source: a histogram of gaps (exact up to 256 different gaps, then on
a grid of 64 steps per power of two, so that a quantile is wrong by less than 1 % of itself; some 2,000 steps at most, a few
dozen in practice), the 50 longest silences that were DOWNs, and a handful of numbers.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Final, NamedTuple

BYE: Final = -1
"""The mark of a planned goodbye: silence after it is no DOWN. Any other mark is the beat's own ttl in ms."""
MOST_DOWNS: Final = 50
"""DOWNs remembered per source, the longest silences; all of them are counted."""

_EXACT_GAPS: Final = 256
_GRID_BITS: Final = 7
_FEW: Final = 8
_SHARES: Final = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is tried: a beat without a ttl of its own counts ``ttl_ms``, and DOWN comes ``grace_ms`` after its deadline."""

    ttl_ms: int
    grace_ms: int

    @property
    def allowed_ms(self) -> int:
        """The longest silence that is no DOWN."""
        return self.ttl_ms + self.grace_ms

    def smallest_ttl_s(self, gap_ms: int) -> int:
        """Return the least whole seconds of ttl that cover a gap of this length, with this grace."""
        return max(1, -((self.grace_ms - gap_ms) // 1000))


class Down(NamedTuple):
    """One DOWN. ``ended_ms`` is the beat or goodbye that ended it, None if nothing did before the log was read to its end.

    The silence comes first, because the longest are kept.
    """

    silence_ms: int
    last_beat_ms: int
    allowed_ms: int
    ended_ms: int | None
    by_bye: bool

    @property
    def down_at_ms(self) -> int:
        """When it would have been raised."""
        return self.last_beat_ms + self.allowed_ms

    @property
    def lasted_ms(self) -> int:
        """For how long, up to the end of the log where it was open then."""
        return self.silence_ms - self.allowed_ms


@dataclass(frozen=True, slots=True)
class Gaps:
    """Quantiles of the times between consecutive beats, in ms. ``longest`` is exact unless late beats fell into it."""

    p50: int
    p90: int
    p99: int
    longest: int


@dataclass(frozen=True, slots=True)
class Summary:
    """One source. ``downs`` are the kept ones by time, an open one last; ``down_count`` counts all, the open one too.

    ``gaps`` and ``smallest_ttl_s`` are None where no gap ended in a beat. ``late`` beats came after later ones were settled.
    """

    source: str
    beats: int
    byes: int
    late: int
    first_ms: int | None
    last_ms: int | None
    gaps: Gaps | None
    smallest_ttl_s: int | None
    downs: tuple[Down, ...]
    down_count: int

    @property
    def open(self) -> bool:
        """Whether the last DOWN was still open at the end of the log."""
        return bool(self.downs) and self.downs[-1].ended_ms is None


class History:
    """One source, told its beats in sorted portions. A portion that reaches behind an earlier one is counted as late.

    A gap ends in a beat. The silence after a goodbye is none, and neither is that before one, but it can be a DOWN.
    """

    __slots__ = (
        "_allowed_ms",
        "_down_count",
        "_downs",
        "_gaps",
        "_gone",
        "_grid_at",
        "_longest_ms",
        "beats",
        "byes",
        "first_ms",
        "last_ms",
        "late",
    )

    def __init__(self) -> None:
        self.beats = self.byes = self.late = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._gone = False
        self._allowed_ms = -1  # of the last beat; below zero: the rule's
        self._gaps: dict[int, int] = {}
        self._grid_at = _EXACT_GAPS
        self._longest_ms = -1
        self._downs: list[Down] = []
        self._down_count = 0

    def settle(self, stamps: Sequence[int], marks: Mapping[int, int], rule: Rule) -> None:
        """Take sorted beat times in ms. ``marks`` holds, by time, ``BYE`` or a ttl in ms; of one time's records, the marked ones count."""
        if self.last_ms is not None and stamps and stamps[0] < self.last_ms:
            late = bisect_left(stamps, self.last_ms)
            self._settle_late([stamp for stamp in stamps[:late] if marks.get(stamp) != BYE], rule)
            stamps = stamps[late:]
        if not stamps:
            return
        if self.first_ms is None:
            self.first_ms = stamps[0]
        if marks:
            self._settle_marked(stamps, marks, rule)
            return
        self.beats += len(stamps)
        chain = stamps if self.last_ms is None or self._gone else [self.last_ms, *stamps]
        if self._allowed_ms >= 0 and len(chain) > len(stamps):  # the last beat had a ttl of its own
            self._end_silence(chain[0], chain[1], self._allowed_ms)
            self._count([chain[1] - chain[0]])
            chain = stamps
        self._allowed_ms, self._gone = -1, False
        self.last_ms = stamps[-1]
        gaps = list(map(sub, chain[1:], chain))
        if gaps and self._count(gaps) > rule.allowed_ms:
            for start, gap in zip(chain, gaps, strict=False):
                if gap > rule.allowed_ms:
                    self._end_silence(start, start + gap, rule.allowed_ms)

    def summary(self, source: str, rule: Rule, until_ms: int) -> Summary:
        """Return what there is to say, if everything up to ``until_ms`` has been seen: a silence then is judged at that moment."""
        downs = sorted(self._downs, key=lambda down: down.last_beat_ms)
        count = self._down_count
        if self.last_ms is not None and not self._gone:
            allowed, silence = self._allowed(rule), until_ms - self.last_ms
            if silence > allowed:
                downs.append(Down(silence, self.last_ms, allowed, None, False))
                count += 1
        return Summary(
            source=source,
            beats=self.beats,
            byes=self.byes,
            late=self.late,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            gaps=self._quantiles(),
            smallest_ttl_s=rule.smallest_ttl_s(self._longest_ms) if self._gaps else None,
            downs=tuple(downs),
            down_count=count,
        )

    def _allowed(self, rule: Rule) -> int:
        return rule.allowed_ms if self._allowed_ms < 0 else self._allowed_ms

    def _settle_marked(self, stamps: Sequence[int], marks: Mapping[int, int], rule: Rule) -> None:
        gaps: list[int] = []
        for stamp in stamps:
            mark = marks.get(stamp)
            alive_since = None if self._gone else self.last_ms
            if alive_since is not None:
                self._end_silence(alive_since, stamp, self._allowed(rule), by_bye=mark == BYE)
            self.last_ms, self._gone = stamp, mark == BYE
            self._allowed_ms = -1 if mark is None or mark == BYE else mark + rule.grace_ms
            if mark == BYE:
                self.byes += 1
                continue
            self.beats += 1
            if alive_since is not None:
                gaps.append(stamp - alive_since)
        if gaps:
            self._count(gaps)

    def _settle_late(self, stamps: Iterable[int], rule: Rule) -> None:
        """Correct what late beats prove wrong: DOWNs that are remembered, and what came before the first beat."""
        for stamp in stamps:
            self.beats += 1
            self.late += 1
            if self.first_ms is not None and stamp < self.first_ms:
                self._count([self.first_ms - stamp])
                self._end_silence(stamp, self.first_ms, rule.allowed_ms)
                self.first_ms = stamp
                continue
            broken = next((down for down in self._downs if down.ended_ms and down.last_beat_ms < stamp < down.ended_ms), None)
            if broken is not None and broken.ended_ms is not None:
                self._undo(broken)
                self._end_silence(broken.last_beat_ms, stamp, broken.allowed_ms)
                self._end_silence(stamp, broken.ended_ms, rule.allowed_ms, by_bye=broken.by_bye)
                self._count([stamp - broken.last_beat_ms] + ([] if broken.by_bye else [broken.ended_ms - stamp]))

    def _undo(self, down: Down) -> None:
        self._downs.remove(down)
        heapq.heapify(self._downs)
        self._down_count -= 1
        gap = down.silence_ms if down.silence_ms in self._gaps else on_grid(down.silence_ms)
        if not down.by_bye and gap in self._gaps:
            self._gaps[gap] -= 1
            if not self._gaps[gap]:
                del self._gaps[gap]
            if down.silence_ms == self._longest_ms:
                self._longest_ms = max(self._gaps, default=-1)

    def _end_silence(self, start_ms: int, end_ms: int, allowed_ms: int, *, by_bye: bool = False) -> None:
        if end_ms - start_ms <= allowed_ms:
            return
        self._down_count += 1
        keep = heapq.heappush if len(self._downs) < MOST_DOWNS else heapq.heappushpop
        keep(self._downs, Down(end_ms - start_ms, start_ms, allowed_ms, end_ms, by_bye))

    def _count(self, gaps: list[int]) -> int:
        """Put gaps (at least one) into the histogram and return the longest of them."""
        longest = max(gaps)
        self._longest_ms = max(self._longest_ms, longest)
        counts = self._gaps
        # Counting is worth its own dictionary where there is much to count.
        for gap, times in Counter(gaps).items() if len(gaps) > _FEW else ((gap, 1) for gap in gaps):
            counts[gap] = counts.get(gap, 0) + times
        if len(counts) > self._grid_at:
            coarse: Counter[int] = Counter()
            for gap, times in counts.items():
                coarse[on_grid(gap)] += times
            self._gaps = dict(coarse)
            self._grid_at = len(coarse) + _EXACT_GAPS
        return longest

    def _quantiles(self) -> Gaps | None:
        total = sum(self._gaps.values())
        if not total:
            return None
        found: list[int] = []
        seen = 0
        for gap, times in sorted(self._gaps.items()):
            seen += times
            while len(found) < len(_SHARES) and seen >= _SHARES[len(found)] * total:
                found.append(min(gap, self._longest_ms))
        p50, p90, p99 = found
        return Gaps(p50, p90, p99, self._longest_ms)


def on_grid(gap_ms: int) -> int:
    """Return the middle of the grid's step that a gap falls into; it differs from the gap by less than 1 %. The grid maps to itself."""
    shift = gap_ms.bit_length() - _GRID_BITS
    return gap_ms if shift <= 0 else (gap_ms >> shift << shift) + (1 << shift >> 1)
