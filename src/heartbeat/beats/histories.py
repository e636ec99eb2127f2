"""Many sources' histories, out of records by columns, in whatever order partitions and producers bring them. Pure.

Beats wait here until what could come before them has been read, are sorted, and only then told to their source's history. What
waits is bounded: some half a million times, of ten minutes at most, of less where beats are dense. What comes later than that
is counted as late. Sources beyond ``most_sources`` are left out and counted.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final, Protocol

from heartbeat.beats import signals
from heartbeat.beats.beat import ALLOWED_SKEW_MS
from heartbeat.beats.canaries import HEADER as CANARY
from heartbeat.beats.history import BYE, History, Rule, Summary
from heartbeat.beats.records import Reading
from heartbeat.beats.template import Columns, Name, Template, Unfillable, fault
from heartbeat.errors import DataError

MOST_WAITING: Final = 500_000
"""Beat times. Half of them may stay after settling, at four times as many everything is settled."""

_LONGEST_WAIT_MS: Final = 600_000
_SHORTEST_WAIT_MS: Final = 1_000
_UNMARKED: Final[Mapping[int, int]] = {}
_MOST_REMEMBERED: Final = 10_000
_NOBODYS: Final = -2
"""The mark of a record that is nobody's beat."""
_PLACEHOLDER: Final = re.compile(r"\$\{(\w+)")

Headers = Sequence[tuple[str, bytes | None]] | None
Convert = Callable[[bytes | None], Any]


class Records(Columns, Protocol):
    """What is read: a template's columns, and others as they came."""

    def timestamps_ms(self) -> list[int]: ...
    def raw_keys(self) -> list[bytes | None]: ...
    def nulls(self) -> list[bool]: ...


@dataclass(frozen=True, slots=True)
class View:
    """How the log is looked at: what the sink would know, and from when on, seen at ``now_ms``. ``key`` converts a record's key."""

    template: Template
    key: Convert
    reading: Reading
    since_ms: int
    now_ms: int


@dataclass(slots=True)
class Skipped:
    """What was read and told no history, or not as it stood: by reason, in records (``headers``: in headers)."""

    unnamed: Counter[str] = field(default_factory=Counter)
    beyond: int = 0
    timeless: int = 0
    before: int = 0
    future: int = 0
    headers: int = 0
    canaries: int = 0


class _Source:
    __slots__ = ("history", "marks", "waiting")

    def __init__(self) -> None:
        self.history = History()
        self.waiting: list[int] = []
        self.marks: dict[int, int] | None = None

    def mark(self, stamp: int, mark: int) -> None:
        if self.marks is None:
            self.marks = {stamp: mark}
        elif self.marks.get(stamp) != BYE:
            self.marks[stamp] = mark

    def settle(self, until_ms: int | None, rule: Rule) -> int:
        """Tell the history what is not after ``until_ms``; return how many that were."""
        waiting = self.waiting
        waiting.sort()
        ready = len(waiting) if until_ms is None else bisect_right(waiting, until_ms)
        if ready:
            stamps, marks = waiting[:ready], self.marks
            del waiting[:ready]
            self.history.settle(stamps, marks or _UNMARKED, rule)
            if marks:
                self.marks = {stamp: mark for stamp, mark in marks.items() if stamp > stamps[-1]} or None
        return ready


class _Appends(dict[Any, Callable[[int], None]]):
    """Where the times of a key, or of a name, go. A dictionary, so that the hot path meets Python once per key and not once per record."""

    def __init__(self, find: Callable[[Any], _Source | None]) -> None:
        self._find = find

    def __missing__(self, token: Any) -> Callable[[int], None]:
        source = self._find(token)
        if source is None:
            return _drop  # and not remembered: nobody bounds how many of these there are
        append = self[token] = source.waiting.append
        return append


def _drop(_: int) -> None:
    pass


class Histories:
    """All sources of a log. ``add`` what is read, ``settle`` when ``full``, ``finish`` at its end."""

    def __init__(self, view: View, rule: Rule, *, most_sources: int = 1_000_000, most_waiting: int = MOST_WAITING) -> None:
        self.skipped = Skipped()
        self.waiting = 0
        self._view = view
        self._rule = rule
        self._most_sources = most_sources
        self._sources: dict[str, _Source] = {}
        self._by_key = set(_PLACEHOLDER.findall(view.template.text)) == {"key"}
        self._appends = _Appends(lambda token: self._source_of(token, self.skipped))
        self._marked: dict[Any, _Source] = {}
        self._understood: dict[tuple[tuple[str, bytes | None], ...], signals.Marks | None] = {}
        self._wait_ms = _LONGEST_WAIT_MS
        self._most_waiting = most_waiting
        self._full_at = most_waiting

    @property
    def full(self) -> bool:
        """Whether it is time to settle."""
        return self.waiting >= self._full_at

    @property
    def crowded(self) -> bool:
        """Whether more waits after settling than should: partitions are far apart in time."""
        return self.waiting > self._most_waiting // 2

    def add(self, records: Records) -> None:
        """Take records in the order of their partitions."""
        stamps = records.timestamps_ms()
        tokens: Sequence[Any]
        constant = self._view.template.constant
        if constant is not None:
            tokens = [constant] * len(stamps)
        else:
            tokens = records.raw_keys() if self._by_key else self._view.template.names(records)
        marks = self._marks(records)
        if marks and _NOBODYS in marks:
            beats = [mark != _NOBODYS for mark in marks]
            self.skipped.canaries += beats.count(False)
            tokens, stamps, marks = (list(compress(column, beats)) for column in (tokens, stamps, marks))
        if stamps and max(stamps) > self._view.now_ms + ALLOWED_SKEW_MS:
            stamps = self._clamped(stamps)
        if stamps and min(stamps) < self._view.since_ms:
            chosen = self._chosen(stamps)
            tokens, stamps = list(compress(tokens, chosen)), list(compress(stamps, chosen))
            marks = list(compress(marks, chosen)) if marks else marks
        for token, stamp, mark in zip(tokens, stamps, marks, strict=True) if marks else ():
            if mark is not None:
                self._mark(token, stamp, mark)
        for append, stamp in zip(map(self._appends.__getitem__, tokens), stamps, strict=True):
            append(stamp)
        self.waiting += len(stamps)

    def settle(self, until_ms: int) -> None:
        """Settle what lies well before ``until_ms``, the time that all partitions have reached."""
        self._settle(until_ms - self._wait_ms)
        while self.crowded and self._wait_ms:
            self._wait_ms = self._wait_ms // 2 if self._wait_ms > _SHORTEST_WAIT_MS else 0
            self._settle(until_ms - self._wait_ms)
        if self.waiting > 4 * self._most_waiting:  # times that make no sense, or partitions that cannot be held back: memory comes first
            self._settle(None)
        self._full_at = self.waiting + self._most_waiting // 2

    def finish(self, until_ms: int) -> Iterator[Summary]:
        """Settle everything and return each source that had a beat, given the moment at which the log was found to end there."""
        self._settle(None)
        for name, source in self._sources.items():
            if source.history.beats or source.history.byes:
                yield source.history.summary(name, self._rule, until_ms)

    def _settle(self, until_ms: int | None) -> None:
        self.waiting = 0
        for source in self._sources.values():
            if source.waiting:
                source.settle(until_ms, self._rule)
                self.waiting += len(source.waiting)

    def _chosen(self, stamps: list[int]) -> list[bool]:
        since = self._view.since_ms
        chosen = [stamp >= since for stamp in stamps]
        timeless = sum(stamp < 0 for stamp in stamps)
        self.skipped.timeless += timeless
        self.skipped.before += chosen.count(False) - timeless
        return chosen

    def _clamped(self, stamps: list[int]) -> list[int]:
        latest = self._view.now_ms + ALLOWED_SKEW_MS
        self.skipped.future += sum(stamp > latest for stamp in stamps)
        return [min(stamp, latest) for stamp in stamps]

    def _marks(self, records: Records) -> list[int | None] | None:
        """Return a mark or None for each record, or None if there are no marks at all, which is the usual case."""
        headers = records.headers()
        marks = [self._mark_of(given) if given else None for given in headers] if any(headers) else None
        if self._view.reading.tombstones and any(nulls := records.nulls()):
            given = marks or [None] * len(nulls)
            marks = [BYE if null and mark != _NOBODYS else mark for null, mark in zip(nulls, given, strict=True)]
        return marks

    def _mark_of(self, headers: Sequence[tuple[str, bytes | None]]) -> int | None:
        if CANARY in dict(headers):
            return _NOBODYS
        same = tuple(headers)
        if same not in self._understood:
            if len(self._understood) >= _MOST_REMEMBERED:
                self._understood.clear()
            self._understood[same] = signals.read(headers, self._view.reading.most_ttl_ms)
        marks = self._understood[same]
        if marks is None:
            return None
        self.skipped.headers += marks.garbled
        return BYE if marks.status == signals.BYE else marks.ttl_ms

    def _mark(self, token: Any, stamp: int, mark: int) -> None:
        source = self._marked.get(token)
        if source is None:
            source = self._source_of(token, Skipped())  # what has no source is counted where its time goes
            if source is None:
                return
            self._marked[token] = source
        source.mark(stamp, mark)

    def _source_of(self, token: Any, skipped: Skipped) -> _Source | None:
        name: Any = self._name_of(token) if self._by_key else token
        source = self._sources.get(name)
        if source is None:
            reason = fault(name)
            if reason is not None:
                skipped.unnamed[str(reason)] += 1
                return None
            if len(self._sources) >= self._most_sources:
                skipped.beyond += 1
                return None
            source = self._sources[name] = _Source()
        return source

    def _name_of(self, key: bytes | None) -> Name:
        try:
            return self._view.template.names(_OneKey(self._view.key(key)))[0]
        except DataError as error:
            return Unfillable(f"the key does not decode: {error}")


@dataclass(frozen=True, slots=True)
class _OneKey:
    """The columns of one record, for a template that asks for its key only."""

    key: Any

    def __len__(self) -> int:
        return 1

    def keys(self) -> list[Any]:
        return [self.key]

    def values(self) -> list[Any]:
        return [None]

    def topics(self) -> list[str]:
        return [""]

    def partitions(self) -> list[int]:
        return [0]

    def headers(self) -> list[list[tuple[str, bytes | None]] | None]:
        return [[]]
