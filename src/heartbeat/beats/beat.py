"""When a beat was, and how a batch of records becomes the few writes it is worth: the newest beat of each source. Pure.

All times are epoch ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from heartbeat.connect.api import NO_TIMESTAMP

ALLOWED_SKEW_MS: Final = 2_000
"""How far a producer's clock may be off before we believe ours instead of its."""


@dataclass(frozen=True, slots=True)
class Newest:
    """What a batch says of its sources.

    ``beats`` are the newest believable ones. ``ahead`` are the newest timestamps that lie too far in the future to be
    believed, raw: a clock in the future must not make a source immortal. ``ttls_ms`` names those sources whose newest beat
    brought a ttl of its own.
    """

    beats: dict[Any, int]
    ahead: dict[Any, int] = field(default_factory=dict)
    ttls_ms: dict[Any, int] = field(default_factory=dict)


def with_timestamps(stamps: list[int], now_ms: int) -> list[int]:
    """Return the timestamps, now where a record has none; brokers take any number, and before 1970 is as long ago as 1970."""
    return [now_ms if stamp == NO_TIMESTAMP else max(0, stamp) for stamp in stamps] if min(stamps) < 0 else stamps


def lifted(stamp_ms: int, appended_after_ms: int | None) -> int:
    """Return when a beat was that is known to have been appended after some moment: a slow clock must not make its source look dead.

    No more than the allowed skew: a record may rightly be old, and a replay, which knows no such moments, must come close.
    """
    if appended_after_ms is None or appended_after_ms <= stamp_ms:
        return stamp_ms
    return min(appended_after_ms, stamp_ms + ALLOWED_SKEW_MS)


def newest_by_source(names: Sequence[Any], stamps: Sequence[int], latest_ms: int, ttls_ms: Mapping[int, int] | None = None) -> Newest:
    """Return the newest beat of each source; ``ttls_ms`` gives the ttl of single records, by index."""
    if ttls_ms:
        return _newest_with_ttls(names, stamps, latest_ms, ttls_ms)
    ahead: dict[Any, int] = {}
    if stamps and max(stamps) > latest_ms:
        for name, stamp in zip(names, stamps, strict=True):
            if stamp > latest_ms:
                ahead[name] = max(stamp, ahead.get(name, stamp))
        believed = [i for i, stamp in enumerate(stamps) if stamp <= latest_ms]
        names, stamps = [names[i] for i in believed], [stamps[i] for i in believed]
    if stamps == sorted(stamps):  # as within one partition, nearly always
        return Newest(dict(zip(names, stamps, strict=True)), ahead)
    newest: dict[Any, int] = {}
    known = newest.get
    for name, stamp in zip(names, stamps, strict=True):
        if stamp > known(name, -1):
            newest[name] = stamp
    return Newest(newest, ahead)


def _newest_with_ttls(names: Sequence[Any], stamps: Sequence[int], latest_ms: int, ttls_ms: Mapping[int, int]) -> Newest:
    found = Newest({})
    for index, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        if stamp > latest_ms:
            found.ahead[name] = max(stamp, found.ahead.get(name, stamp))
        elif stamp >= found.beats.get(name, -1):
            found.beats[name] = stamp
        else:
            continue
        if index in ttls_ms:
            found.ttls_ms[name] = ttls_ms[index]
        else:
            found.ttls_ms.pop(name, None)
    return found


def alive_and_expired(beats: dict[str, int], ttl_ms: int, ttls_ms: Mapping[str, int], now_ms: int) -> tuple[dict[str, int], dict[str, int]]:
    """Split beats (at least one) by whether their deadline is still ahead; what is alive is ``beats`` itself if all are."""
    if not ttls_ms:
        oldest = now_ms - ttl_ms
        if min(beats.values()) > oldest:
            return beats, {}
        expired = {source: beat for source, beat in beats.items() if beat <= oldest}
        return {source: beat for source, beat in beats.items() if beat > oldest}, expired
    alive: dict[str, int] = {}
    expired = {}
    for source, beat in beats.items():
        (alive if beat + ttls_ms.get(source, ttl_ms) > now_ms else expired)[source] = beat
    return alive, expired
