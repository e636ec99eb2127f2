"""One connector, watched: what is due is judged, what came back is closed, and blindness is told once.

Deadlines, verdicts and the open incident stand in Redis, so a restart changes nothing. Kept here is what Redis may lose or cannot take
just now: what was seen there last, and a blindness that was told while it was away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from heartbeat.beats.keyspace import Info
from heartbeat.beats.verdicts import BYE, RECOVERED, UNPROVEN, Case, Closing, Known, Reading, Returned, Terms, Verdicts
from heartbeat.beats.verdicts import DOWN as DOWNED
from heartbeat.monitor import incidents, vision
from heartbeat.monitor.flips import FAIL, NEVER_SEEN, SILENCE, Flip, incident_of, pipeline_of
from heartbeat.monitor.incidents import Judged
from heartbeat.monitor.losses import Before, Beyond, Losses
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Monitor
from heartbeat.monitor.vision import Blindness, Moment, Part, Vision

log = logging.getLogger(__name__)

_AT_ONCE: Final = 500
"""Sources in one script: it holds everybody up while it runs."""
_MOST_DUE: Final = 20_000
_MOST_DOWN: Final = 20_000
"""Looked at in one tick; the rest with the next one."""
_DOWN_AT_ONCE: Final = 2_000
_FAIL_FRESH_MS: Final = 30_000
"""For so long a fail is told although beats have followed it."""
_EXPECT_EVERY_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Look:
    """What the last tick saw of a connector.

    ``unknown`` are the sources past their deadline and the longest grace and not proven to be down, ``late`` the others past their
    deadline. ``paused`` is ``PAUSED`` or ``STOPPED`` where an operator wants that. ``ahead_ms`` is how far Redis's clock
    is ahead of ours, ``busy`` tells that more is due than one tick takes on, ``error`` why the index could not be looked at.
    """

    sources: int = 0
    late: int = 0
    unknown: int = 0
    down: int = 0
    partitions: tuple[Part, ...] = ()
    proven_until_ms: int | None = None
    blind: Blindness | None = None
    paused: str = ""
    takes_canaries: bool = False
    ahead_ms: int = 0
    busy: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one turn goes by."""

    settings: Monitor
    rules: Rules
    reading: Reading
    seen: Vision
    canaries: bool
    proven_ms: int | None


class Watch:
    """Watches one connector; its detector's thread's alone."""

    def __init__(self, index: Verdicts, connector: str, beyond: Beyond, clock: Callable[[], int]) -> None:
        self.look = Look()
        self._index = index
        self._connector = connector
        self._beyond = beyond
        self._clock = clock
        self._proven_at_ms: int | None = None
        self._canaries_since_ms: int | None = None
        self._stored = False
        self._before_flips_ms = 0
        self._losses = Losses(index, connector, beyond)
        self._kept: bytes | None = None
        self._unwritten: Blindness | None = None
        self._outvoted = False
        self._expect_at_ms = 0
        self._first_due = 0
        self._first_down = 0

    @property
    def newest_flip_ms(self) -> int:
        """Return when the newest flip was stored that has been seen here; where there is none, when the index was made, or lost."""
        return self._losses.newest_flip_ms or self._before_flips_ms

    # One turn

    def turn(self, settings: Monitor, rules: Rules, known: Known, *, lost: bool) -> Look:
        """Look once, and ask for what verdicts there may be. ``lost`` tells that Redis has lost data since the last turn.

        Raises:
            ConnectError: Redis does not answer, or refuses.
        """
        now_ms = self._clock()
        reading = self._index.look(now_ms, rules.longest_grace_ms)
        self._before_flips_ms = reading.made_ms or known.born_ms
        ahead_ms = reading.redis_ms - self._clock()
        seen = vision.read(reading.proof)
        canaries = seen.takes_canaries and self._beyond.canaries_required(self._connector)
        turn = _Turn(settings, rules, reading, seen, canaries, seen.proven_ms(reading.redis_ms, now_ms, canaries=canaries))
        # Times of before are no later than now: a clock that was set back would else have us wait until it is again where it was.
        self._canaries_since_ms = min(now_ms, self._canaries_since_ms or now_ms) if canaries else None
        both_ms = min(now_ms, reading.redis_ms)  # by the clock that is behind: the other may be in the future
        self._proven_at_ms = both_ms if turn.proven_ms is not None else min(both_ms, self._proven_at_ms or both_ms)
        self._losses.turn(reading, now_ms, Before(self._kept, self.look.down, lost))
        # What was open before a loss must be open again first, or the same silence could open a second incident.
        waiting = self._losses.waiting(now_ms)
        blind = self._see(turn, now_ms, waiting=waiting)
        busy = False if waiting else self._judge_all(turn, known.connectors, now_ms)
        if self._stored:
            self._stored = False
            self._losses.see(self._index.newest_flip())
        self.look = Look(
            reading.sources,
            reading.due - reading.overdue,
            reading.overdue,
            reading.down,
            seen.parts,
            turn.proven_ms,
            blind,
            seen.paused,
            seen.takes_canaries,
            ahead_ms,
            busy,
        )
        return self.look

    def _terms(self, turn: _Turn) -> Terms:
        """Return what a verdict is bound to now: a turn may take long, and clocks that seem to disagree prove nothing."""
        return Terms(self._clock(), round(turn.settings.slack_s * 1000), round(turn.settings.settle_s * 1000), turn.canaries)

    # Sight

    def _see(self, turn: _Turn, now_ms: int, *, waiting: bool) -> Blindness | None:
        """Open the pipeline's incident when sight is lost, end it when everything is proven again."""
        after_ms = round(turn.settings.blind_after_s * 1000)
        # An old canary is a canary missed only if they have been sent for so long: while no monitor ran there were none.
        canaries = self._canaries_since_ms is not None and now_ms - self._canaries_since_ms > after_ms
        moment = Moment(turn.reading.redis_ms, now_ms, after_ms, self._proven_at_ms or 0, canaries, self._beyond.broker_ms())
        found = vision.blindness(turn.seen, moment)
        kept = turn.reading.blind
        # A monitor with a good clock has ended it: with ours alone it would begin again with every tick.
        self._outvoted = not moment.clocks_agree and (self._outvoted or (self._kept is not None and kept is None))
        if self._unwritten is not None:
            found = self._unwritten
            kept = self._open(turn, after_ms, found, kept, believed=True)
            if kept is not None:  # else another monitor has opened one since we looked: the next turn sees under what name
                if Blindness.parse(kept).incident != found.incident:  # another monitor's word is kept: end what ours told
                    self._index.say([(_json(incidents.sighted_again(self._connector, found, now_ms)), now_ms)])
                self._unwritten = None
        elif found is not None and kept is None and not waiting and not self._outvoted:
            # Named by the newest flip, which all monitors have seen, as is what is told while Redis is away (``unwritten``).
            named = incident_of(self._connector, pipeline_of(self._connector), self.newest_flip_ms)
            kept = self._open(turn, after_ms, msgspec.structs.replace(found, incident=named), kept, believed=False)
        elif found is None and kept is not None:
            before = Blindness.parse(kept)
            flip = incidents.sighted_again(self._connector, before, min(now_ms, turn.reading.redis_ms))
            # Whoever is the most impatient opens it: by another's patience it would end, and be opened again, with every tick.
            if self._index.sighted(self._terms(turn), min(after_ms, _after_ms(kept) or after_ms), kept, _json(flip)):
                log.warning("Sight of %s has returned after %.1f s", self._connector, (now_ms - before.since_ms) / 1000)
                kept, self._stored = None, True
        self._kept = kept
        if found is not None and kept is not None:
            return msgspec.structs.replace(found, incident=Blindness.parse(kept).incident)
        return Blindness.parse(kept) if kept is not None else found

    def _open(self, turn: _Turn, after_ms: int, found: Blindness, kept: bytes | None, *, believed: bool) -> bytes | None:
        flip = incidents.went_blind(self._connector, found)
        new = _json(Kept(**{**msgspec.structs.asdict(found), "incident": flip.incident}, after_ms=after_ms))
        if self._index.blind(self._terms(turn), after_ms, new, _json(flip), believed=believed):
            log.warning("Blind: nothing can be concluded from silence in %s: %s", self._connector, flip.message)
            self._stored = True
            return new
        return kept

    def unwritten(self, blindness: Blindness) -> Flip | None:
        """Remember a blindness that Redis cannot take now; return what is to be told of it, None if an incident is open already."""
        if self._kept is not None or self._unwritten is not None:
            return None
        self._unwritten = blindness
        self.look = replace(self.look, blind=blindness)
        return incidents.went_blind(self._connector, blindness)

    def closing(self, now_ms: int) -> Flip | None:
        """Return what is to be told when the connector is deleted: its incident goes with it, and those who were told of it wait."""
        told = self._unwritten if self._kept is None else Blindness.parse(self._kept)
        return None if told is None else incidents.sighted_again(self._connector, told, now_ms)

    # Verdicts

    def _judge_all(self, turn: _Turn, connectors: Collection[str], now_ms: int) -> bool:
        self._judge_fails(turn)
        self._close_returned(turn)
        busy = self._judge_silence(turn)
        self._judge_expected(turn, connectors, now_ms)
        return busy

    def _judge(self, turn: _Turn, cases: Sequence[Case]) -> list[str]:
        outcomes = self._index.judge(self._terms(turn), cases)
        self._stored = self._stored or DOWNED in outcomes
        return outcomes

    def _judge_silence(self, turn: _Turn) -> bool:
        """Judge who is due and provable, the longest silent first. Return whether more is left, and going on at once is worth it."""
        slack_ms = round(turn.settings.slack_s * 1000)
        if turn.proven_ms is None:
            return False
        now_ms = min(self._clock(), turn.reading.redis_ms)
        until_ms = min(now_ms - turn.rules.shortest_grace_ms, turn.proven_ms - slack_ms)
        moved = False  # after a gap in our looking nobody may be, for minutes
        for _ in range(_MOST_DUE // _AT_ONCE):
            due = self._index.due(until_ms, self._first_due, _AT_ONCE)
            waiting = self._judge_due(turn, due, now_ms)
            moved = moved or waiting < len(due)
            self._first_due += waiting
            if len(due) < _AT_ONCE:
                self._first_due = 0
                return False
        return moved

    def _judge_due(self, turn: _Turn, due: Mapping[str, int], now_ms: int) -> int:
        """Judge those past their grace. Return how many stay where they are."""
        over = {source: at for source, at in due.items() if at + turn.rules.of(self._connector, source).grace_ms <= now_ms}
        if not over:
            return len(due)
        infos = self._index.infos(list(over))
        cases = []
        for source, deadline_ms in over.items():
            watched = self._watched(turn, source, deadline_ms, infos)
            cases.append(Case(SILENCE, source, deadline_ms, deadline_ms, watched.policy.grace_ms, _json(incidents.silent(watched))))
        outcomes = self._judge(turn, cases)
        return len(due) - len(over) + outcomes.count(UNPROVEN)

    def _judge_fails(self, turn: _Turn) -> None:
        fails = list(turn.reading.fails.items())
        for first in range(0, len(fails), _AT_ONCE):
            part = dict(fails[first : first + _AT_ONCE])
            names = list(part)
            infos, statuses = self._index.infos(names), self._index.statuses(names)
            cases = []
            for source, at_ms in part.items():
                watched = replace(self._watched(turn, source, at_ms, infos), failed=True)
                flip = incidents.failed(watched, _said(statuses.get(source)).message)
                cases.append(Case(FAIL, source, at_ms, at_ms, _FAIL_FRESH_MS, _json(flip)))
            self._judge(turn, cases)

    def _judge_expected(self, turn: _Turn, connectors: Collection[str], now_ms: int) -> None:
        """Judge declared sources that have never beaten."""
        if 0 < self._expect_at_ms - now_ms <= _EXPECT_EVERY_MS or not turn.seen.parts:
            return
        self._expect_at_ms = now_ms + _EXPECT_EVERY_MS
        expected = self._index.expect(turn.rules.expected(self._connector, connectors), now_ms)
        cases = []
        for source in self._index.unseen(list(expected)):
            watched = self._watched(turn, source, expected[source] + turn.reading.ttl_ms, {})
            flip = incidents.never_seen(watched)
            cases.append(Case(NEVER_SEEN, source, expected[source], watched.deadline_ms, watched.policy.grace_ms, _json(flip)))
        for first in range(0, len(cases), _AT_ONCE):
            self._judge(turn, cases[first : first + _AT_ONCE])

    def _close_returned(self, turn: _Turn) -> None:
        """End the incidents of those that are down and were heard of again."""
        for _ in range(_MOST_DOWN // _DOWN_AT_ONCE):
            if self._first_down >= max(1, turn.reading.down):
                self._first_down = 0
                return
            found = self._index.returned(self._first_down, self._first_down + _DOWN_AT_ONCE - 1)
            self._first_down += _DOWN_AT_ONCE
            for first in range(0, len(found), _AT_ONCE):
                self._close(turn, found[first : first + _AT_ONCE])

    def _close(self, turn: _Turn, returned: Sequence[Returned]) -> None:
        infos = self._index.infos([one.source for one in returned])
        statuses = self._index.statuses([one.source for one in returned if one.gone_ms is not None])
        closings = []
        for one in returned:
            watched = self._watched(turn, one.source, one.judged_ms, infos)
            watched = replace(watched, failed=one.failed, beaten=one.failed or one.source in infos)
            beat_ms = watched.last_beat_ms if one.deadline_ms is None else one.deadline_ms - watched.ttl_ms
            # Who leaves without a word was taken out of the index by others.
            left = incidents.said_goodbye if _said(statuses.get(one.source)).status == BYE else incidents.let_go
            bye = left(watched, one.gone_ms or beat_ms)
            closings.append(Closing(one, _json(incidents.recovered(watched, beat_ms)), _json(bye)))
        outcomes = self._index.recover(self._terms(turn), closings)
        self._stored = self._stored or RECOVERED in outcomes or BYE in outcomes

    def _watched(self, turn: _Turn, source: str, deadline_ms: int, infos: Mapping[str, Info]) -> Judged:
        policy = turn.rules.of(self._connector, source)
        return Judged(self._connector, source, deadline_ms, _ttl_ms(infos, source, turn.reading), policy)


def _ttl_ms(infos: Mapping[str, Info], source: str, reading: Reading) -> int:
    return infos[source].ttl_ms if source in infos else reading.ttl_ms


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value)


class Kept(Blindness, frozen=True):
    """A blindness as it is kept while its incident is open. ``after_ms`` is how old proof may be for whoever opened it, 0 if unknown."""

    after_ms: int = 0


def _after_ms(kept: bytes) -> int:
    try:
        return msgspec.json.decode(kept, type=Kept).after_ms
    except msgspec.MsgspecError:
        return 0


class _Said(msgspec.Struct):
    """What is read of a source's newest signal."""

    status: str = ""
    message: str = ""


def _said(status: bytes | None) -> _Said:
    try:
        return msgspec.json.decode(status or b"{}", type=_Said)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Said()
