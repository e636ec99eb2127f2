"""The sources one task knows, and how a batch's beats reach Redis: only what is newer, the index with it, never backwards."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from heartbeat import logs
from heartbeat.beats.beat import ALLOWED_SKEW_MS, Newest, alive_and_expired
from heartbeat.beats.keyspace import Beats, Info, Keyspace, Packed, Sent
from heartbeat.beats.partitions import Advanced
from heartbeat.beats.settings import Limits
from heartbeat.beats.signals import BYE, MOST_RUNS, OK, Signal

log = logging.getLogger(__name__)

_PRUNE_EVERY_MS: Final = 60_000
_WARN_EVERY_S: Final = 60.0


@dataclass(slots=True)
class Counts:
    """What became of beats since the task started."""

    applied: int = 0
    coalesced: int = 0
    stale: int = 0
    expired: int = 0
    clamped: int = 0
    refused: int = 0
    occupied: int = 0
    goodbyes: int = 0
    garbled: int = 0


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long things took."""

    count: int = 0
    total: float = 0.0
    longest: float = 0.0

    def and_(self, seconds: float) -> Seconds:
        """Return this with one more."""
        return Seconds(self.count + 1, self.total + seconds, max(self.longest, seconds))


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch before it is sent: what is newer than what was written, and of whom nothing is known.

    It is packed already where nothing that Redis would have to be asked can change it.
    """

    newest: Newest
    fresh: dict[str, int]
    unknown: Collection[str]
    beats: Beats | None = None
    packed: Packed | None = None


@dataclass(frozen=True, slots=True)
class _UnderWay:
    beats: Beats
    count: int
    sent: Sent
    at_s: float


class Sources:
    """What this task has written, so that live traffic asks Redis nothing; forgotten whenever a partition is claimed.

    ``known`` is the newest beat written of each source, ``ttls_ms`` and ``raws_ms`` name the few that differ.
    """

    def __init__(self, keyspace: Keyspace, limits: Limits) -> None:
        self.counts = Counts()
        self.redis_s = Seconds()
        self.indexed: int | None = None
        self._keyspace = keyspace
        self._limits = limits
        self._gone = 1
        self._known: dict[str, int] = {}
        self._ttls_ms: dict[str, int] = {}
        self._raws_ms: dict[str, int] = {}
        self._quiet: set[str] = set()
        self._strangers: list[str] = []
        self._previous_ttl_ms = limits.ttl_ms
        self._next_prune_ms = 0
        self._under_way: _UnderWay | None = None
        self._doubtful: list[str] = []
        self._refused: set[str] = set()
        self._raws_believed: dict[str, int] = {}
        self._warnings = {field.name: logs.Every(_WARN_EVERY_S) for field in fields(Counts)}

    @property
    def known(self) -> int:
        """Return how many sources this task remembers."""
        return len(self._known)

    def forget(self, previous_ttl_ms: int) -> None:
        """Trust nothing that was written before: this may be another Redis than it was.

        ``previous_ttl_ms`` is what deadlines were made with of which nothing else is known.
        """
        self._known, self._ttls_ms, self._raws_ms, self._quiet, self._strangers = {}, {}, {}, set(), []
        self._under_way, self._raws_believed = None, {}
        self._previous_ttl_ms = previous_ttl_ms
        self.indexed, self._gone = None, 1

    def advanced(self, reply: Advanced) -> None:
        """Note how many sources the index holds, and how many have said goodbye."""
        self.indexed, self._gone = reply.sources, reply.gone

    def prepare(self, newest: Newest, now_ms: int) -> Ready:
        """Do what can be done without asking Redis, which may still be at work on the last batch."""
        fresh = newest.beats
        unknown: Collection[str] = fresh.keys()
        if not self._known.keys().isdisjoint(fresh):
            known = self._known.get
            fresh = {source: beat for source, beat in fresh.items() if beat > known(source, -1)}
            unknown = [source for source in fresh if source not in self._known]
        if not fresh or newest.ahead or newest.ttls_ms or self._ttls_ms or self._gone:
            return Ready(newest, fresh, unknown)
        beats = self._split(fresh, {}, unknown, now_ms)
        return Ready(newest, fresh, unknown, beats, self._keyspace.pack(beats))

    def send(self, ready: Ready, now_ms: int) -> None:
        """Send what is newer than what was written; ``settle`` ends it. Doing it again after an error changes nothing more.

        Raises:
            RetriableError, ConnectError: as ``Keyspace`` does.
        """
        self._refused = set()
        newest, fresh, unknown = ready.newest, ready.fresh, ready.unknown
        raws = self._believe(newest, now_ms) if newest.ahead else {}
        if raws:  # they count as beats now
            fresh = {source: beat for source, beat in newest.beats.items() if beat > self._known.get(source, -1)}
            unknown = [source for source in fresh if source not in self._known]
        if fresh and self._gone:
            fresh = self._not_gone(fresh)
            unknown = [source for source in unknown if source in fresh]
        if fresh is not ready.fresh:
            ready = Ready(newest, fresh, unknown)
        if fresh:
            self._write(ready, now_ms)
        self._raws_believed = raws
        if now_ms >= self._next_prune_ms:
            self._prune(now_ms)

    def settle(self, now_ms: int) -> None:
        """Return when everything sent is acknowledged, and right.

        Raises:
            RetriableError, ConnectError: as ``Keyspace`` does.
        """
        if self._under_way is not None:
            self._end(self._under_way, now_ms)
            self._under_way = None
        elif self._doubtful:
            self._restore(self._doubtful, now_ms)
        self._doubtful = []
        raws, self._raws_believed = self._raws_believed, {}
        if raws:
            self._remember_raws(raws)

    def introduce(self, most: int) -> None:
        """Keep when sources were first seen, some at a time: nobody waits for it."""
        some = self._strangers[-most:]
        del self._strangers[-most:]
        if some:
            self._keyspace.add_infos({source: self._info(source, self._raws_ms.get(source)) for source in some if source in self._known})

    def signal(self, signals: Iterable[Signal], now_ms: int) -> None:
        """Keep what producers say beyond being alive."""
        worth: list[Signal] = []
        for signal in sorted(signals, key=lambda signal: signal.order):
            if (signal.status == OK and not signal.run and signal.source in self._quiet) or self._has_no_room(signal):
                continue
            worth.append(signal)
            if signal.status == OK:
                self._quiet.add(signal.source)
            else:
                self._quiet.discard(signal.source)
        kept = self._keyspace.signal([(s.source, s.order, s.status, s.run, s.packed()) for s in worth], MOST_RUNS)
        for signal, outcome in zip(worth, kept, strict=True):
            if outcome == 2:
                self._warn("refused", f"more than {MOST_RUNS:,} runs are open: the run {signal.run!r} of {signal.source!r} is not followed")
        byes = {signal.source: signal for signal in worth if signal.status == BYE}  # the newest of each: they are in order
        if byes:
            self._goodbye(list(byes.values()), now_ms)

    def _has_no_room(self, signal: Signal) -> bool:
        """Tell whether to keep nothing of a source that was refused, or says goodbye unknown: names that producers make up are bounded."""
        if signal.status != BYE:
            return signal.source in self._refused
        return signal.source not in self._known and self._gone >= self._limits.most

    def _goodbye(self, byes: Sequence[Signal], now_ms: int) -> None:
        ttl_ms = self._limits.ttl_ms
        rows = [(bye.source, bye.order.at_ms, self._ttls_ms.get(bye.source, ttl_ms)) for bye in byes]
        gone = self._keyspace.bye(rows, now_ms - self._limits.horizon_ms)
        self.counts.goodbyes += len(gone)
        self._gone += len(gone)
        for source in gone:
            self._known.pop(source, None)
            self._ttls_ms.pop(source, None)

    def _believe(self, newest: Newest, now_ms: int) -> dict[str, int]:
        """Count sources whose clock is ahead as having beaten now, once for each timestamp. Return the timestamps to remember."""
        unasked = [source for source in newest.ahead if source not in self._raws_ms]
        for source, info in self._keyspace.read_infos(unasked).items():
            self._raws_ms[source] = info.raw_ms or -1
        later = {source: raw for source, raw in newest.ahead.items() if raw > self._raws_ms.get(source, -1)}
        for source in later:
            newest.beats[source] = max(newest.beats.get(source, -1), now_ms + ALLOWED_SKEW_MS)
        if later:
            self.counts.clamped += len(later)
            source, raw = next(iter(later.items()))
            self._warn(
                "clamped",
                f"{len(later)} source(s) send timestamps from the future, {source!r} by {(raw - now_ms) / 1000:.1f} s: taken as now",
            )
        return later

    def _remember_raws(self, raws: Mapping[str, int]) -> None:
        """Keep believed timestamps from the future: a replay must not extend a life with them."""
        infos = {source: self._info(source) for source in raws if source in self._known}  # of whom nothing is kept yet
        infos |= self._keyspace.read_infos(raws)
        self._keyspace.write_infos({source: info._replace(raw_ms=raws[source]) for source, info in infos.items()})
        self._raws_ms |= {source: raws[source] for source in infos}  # not of those that were refused: nobody would forget them

    def _info(self, source: str, raw_ms: int | None = None) -> Info:
        return Info(self._known[source], self._ttls_ms.get(source, self._limits.ttl_ms), raw_ms if raw_ms != -1 else None)

    def _not_gone(self, beats: Mapping[str, int]) -> dict[str, int]:
        gone = self._keyspace.read_gone(beats)
        if not gone:
            return dict(beats)
        back = [source for source, at_ms in gone.items() if beats[source] > at_ms]
        self._keyspace.come_back(back)
        self.counts.stale += len(gone) - len(back)
        return {source: beat for source, beat in beats.items() if beat > gone.get(source, -1)}

    def _write(self, ready: Ready, now_ms: int) -> None:
        fresh, unknown, ttls_ms = ready.fresh, ready.unknown, ready.newest.ttls_ms
        first_seen = self._look_up(unknown)
        if first_seen and (self.indexed or 0) + len(first_seen) > self._limits.most:
            first_seen, fresh = self._fit(list(first_seen), fresh, now_ms)
        if first_seen and ttls_ms:
            first_seen = self._keep_own_ttls(first_seen, fresh, ttls_ms)
        retimed = self._changed_ttls(fresh, ttls_ms, first_seen) if self._ttls_ms or ttls_ms else {}
        plain = {source: beat for source, beat in fresh.items() if source not in retimed} if retimed else fresh
        own_ttls = {source: ttl for source, ttl in ttls_ms.items() if source in plain} if ttls_ms else {}
        if retimed:
            self._retime(fresh, retimed, now_ms)
        if first_seen:
            self._strangers.extend(first_seen)
        if plain:
            if ready.packed is None or ready.beats is None or plain is not ready.fresh or self._ttls_ms:
                beats = self._split(plain, own_ttls, unknown, now_ms)
                self._send_plain(plain, beats, self._keyspace.pack(beats), now_ms)
            else:
                self._send_plain(plain, ready.beats, ready.packed, now_ms)
        self.counts.applied += len(fresh)

    def _keep_own_ttls(self, first_seen: Collection[str], fresh: Mapping[str, int], ttls_ms: Mapping[str, int]) -> Collection[str]:
        """Keep the ttls of those that bring one; return who is new all the same, without those of whom one was kept already."""
        default, strangers = self._limits.ttl_ms, set(first_seen)
        own = {source: ttl for source, ttl in ttls_ms.items() if ttl != default and source in strangers}
        kept = self._keyspace.add_infos({source: Info(fresh[source], ttl) for source, ttl in own.items()})
        infos = self._keyspace.read_infos(kept)
        self._ttls_ms |= own | {source: infos[source].ttl_ms if source in infos else default for source in kept}
        return [source for source in first_seen if source not in infos] if infos else first_seen

    def _look_up(self, unknown: Collection[str]) -> Collection[str]:
        """Return which of these sources nobody has seen before, having learnt what is kept of the others."""
        if not unknown or (not self._gone and len(self._known) == self.indexed):
            return unknown  # the index holds nothing that we do not know; of those that are gone it keeps when they were first seen
        infos, default = self._keyspace.read_infos(unknown), self._limits.ttl_ms
        self._ttls_ms |= {source: info.ttl_ms for source, info in infos.items() if info.ttl_ms != default}
        strangers = [source for source in unknown if source not in infos]
        if self._previous_ttl_ms != default:
            # Of whom nothing is kept the deadline, if there is one, was made with the ttl of before.
            self._ttls_ms |= dict.fromkeys(strangers, self._previous_ttl_ms)
            return ()
        return strangers

    def _fit(self, first_seen: list[str], fresh: dict[str, int], now_ms: int) -> tuple[Collection[str], dict[str, int]]:
        """Make room for new sources at the bound: the longest dead go; those that still find none are refused, the known live on."""
        over = (self.indexed or 0) + len(first_seen) - self._limits.most
        made = self._keyspace.make_room(over, now_ms)
        self.indexed = (self.indexed or 0) - made
        refused = set(first_seen[len(first_seen) - max(0, over - made) :]) if over > made else set[str]()
        self._refused = refused
        if refused:
            self.counts.refused += len(refused)
            self._warn("refused", f"{len(refused)} new source(s) refused: there are {self._limits.most:,} already (heartbeat.sources.max)")
        return [source for source in first_seen if source not in refused], {s: beat for s, beat in fresh.items() if s not in refused}

    def _changed_ttls(self, fresh: Mapping[str, int], ttls_ms: Mapping[str, int], first_seen: Collection[str]) -> dict[str, int]:
        """Return the new ttl of those sources that have one, other than the one their deadline was made with."""
        default, had = self._limits.ttl_ms, self._ttls_ms
        candidates = (fresh.keys() & (had.keys() | ttls_ms.keys())) - set(first_seen)
        return {s: ttls_ms.get(s, default) for s in candidates if ttls_ms.get(s, default) != had.get(s, default)}

    def _split(self, beats: dict[str, int], ttls_ms: Mapping[str, int], unknown: Collection[str], now_ms: int) -> Beats:
        every_ttl = {**self._ttls_ms, **ttls_ms} if self._ttls_ms else ttls_ms
        alive, expired = alive_and_expired(beats, self._limits.ttl_ms, every_ttl, now_ms)
        new: dict[str, int] = {}
        if len(unknown) == len(beats):
            alive, new = {}, alive
        elif unknown:
            strange = set(unknown)
            new = {source: beat for source, beat in alive.items() if source in strange}
            alive = {source: beat for source, beat in alive.items() if source not in strange}
        return Beats(self._limits.ttl_ms, alive, new, expired, every_ttl)

    def _send_plain(self, beats: dict[str, int], sending: Beats, packed: Packed, now_ms: int) -> None:
        self._doubtful = [*sending.alive, *sending.new]  # until it has ended: after an error this batch may be somebody else's to put
        self._under_way = _UnderWay(sending, len(beats), self._keyspace.send(packed), time.perf_counter())
        self._known.update(beats)
        if sending.expired:
            self._warn_of_expired(sending.expired, sending.ttls_ms, now_ms)

    def _end(self, under_way: _UnderWay, now_ms: int) -> None:
        sent, ttl_ms = under_way.beats, self._limits.ttl_ms
        written = self._keyspace.receive(under_way.sent)
        self.redis_s = self.redis_s.and_(time.perf_counter() - under_way.at_s)
        if written.moved < under_way.count:
            # Somebody has written something newer: a replay, or another task was ahead. The index knows; make the keys say so.
            self.counts.stale += under_way.count - written.moved
            self._known.update(self._keyspace.restore([*sent.alive, *sent.new], sent.ttls_ms, ttl_ms, now_ms))
        if written.occupied:
            self.counts.occupied += len(written.occupied)
            for source in written.occupied:
                self._known.pop(source, None)  # to be asked again: it may be free by then
            self._warn("occupied", f"{len(written.occupied)} key(s) hold another type of value, such as {min(written.occupied)!r}: kept")

    def _restore(self, sources: Collection[str], now_ms: int) -> None:
        """Make public keys right that were sent and never settled: by now somebody else may have written newer ones."""
        ttls_ms = {source: info.ttl_ms for source, info in self._keyspace.read_infos(sources).items()}
        self._keyspace.restore(list(sources), ttls_ms, self._limits.ttl_ms, now_ms)

    def _retime(self, fresh: Mapping[str, int], retimed: Mapping[str, int], now_ms: int) -> None:
        default = self._limits.ttl_ms
        # First the keys of whom a shorter ttl has ended already: once the index says so, nothing would come back to them.
        self._keyspace.end([source for source, ttl_ms in retimed.items() if fresh[source] + ttl_ms <= now_ms])
        stands = self._keyspace.retime({source: fresh[source] for source in retimed}, retimed, Info(now_ms, self._previous_ttl_ms))
        for source, (deadline, ttl_ms) in stands.items():
            self._known[source] = deadline - ttl_ms
            if ttl_ms == default:
                self._ttls_ms.pop(source, None)
            else:
                self._ttls_ms[source] = ttl_ms
        self._keyspace.restore(list(stands), {source: ttl_ms for source, (_, ttl_ms) in stands.items()}, default, now_ms)

    def _warn_of_expired(self, expired: Mapping[str, int], ttls_ms: Mapping[str, int], now_ms: int) -> None:
        self.counts.expired += len(expired)
        late_ms = min(now_ms - beat - ttls_ms.get(source, self._limits.ttl_ms) for source, beat in expired.items())
        self._warn(
            "expired",
            f"{len(expired)} source(s) sent beats that were past their deadline when they arrived, by {late_ms / 1000:.1f} s at least, and "
            "revived nobody. If this goes on, the producer's clock is behind ours: correct it, or set heartbeat.time=processing",
        )

    def _prune(self, now_ms: int) -> None:
        """Forget the dead: memory is for those who beat."""
        self._next_prune_ms = now_ms + _PRUNE_EVERY_MS
        ttl_ms, ttls_ms = self._limits.ttl_ms, self._ttls_ms
        dead = [source for source, beat in self._known.items() if beat + ttls_ms.get(source, ttl_ms) <= now_ms]
        if dead:
            self._known = {source: beat for source, beat in self._known.items() if beat + ttls_ms.get(source, ttl_ms) > now_ms}
            for source in dead:
                self._ttls_ms.pop(source, None)
                self._raws_ms.pop(source, None)
                self._quiet.discard(source)
            self._strangers = [source for source in self._strangers if source in self._known]

    def _warn(self, kind: str, text: str) -> None:
        if self._warnings[kind].due(time.monotonic()):
            log.warning("%s", text)
