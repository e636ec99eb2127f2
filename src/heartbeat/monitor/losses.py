"""What a Redis has lost of verdicts, and how it comes back: from the topic of flips, as far as there is one.

Every verdict is stored with a flip, so a newest flip that is older than one we, or the topic, have seen tells of a loss.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from heartbeat import logs
from heartbeat.beats.stream_ids import order
from heartbeat.beats.verdicts import Reading, Verdicts
from heartbeat.errors import ConnectError
from heartbeat.monitor import incidents
from heartbeat.monitor.flips import BLIND, DOWN, Flip, incident_in, opens, source_of
from heartbeat.monitor.vision import Blindness

log = logging.getLogger(__name__)

LATELY_MS: Final = 600_000
"""What was found so long ago at most, and lost, may not have been told: it is told again, under its key."""
_ASK_EVERY_MS: Final = 1_000
_LOG_S: Final = 30.0
_LONGEST_WAIT_MS: Final = 20_000
"""How long verdicts wait for the topic's memory: who cannot read it must not fall silent for that."""


class Beyond(Protocol):
    """What is known beside Redis: Kafka's own word, where the settings name a broker."""

    @property
    def remembers(self) -> bool:
        """Whether a topic keeps flips."""

    def canaries_required(self, connector: str) -> bool:
        """Tell whether a canary of every partition can be asked for."""

    def broker_ms(self) -> int | None:
        """Return when the broker last answered us, None if nobody asks it."""

    def remember(self, connector: str, after: str) -> Sequence[Flip] | None:
        """Return each source's newest flip, the oldest first, where it was stored after this stream id: of incidents that are open, and of
        those that ended lately; None if no topic keeps them.

        Raises:
            ConnectError: they could not be read now; ask again.
        """

    def forget(self, connector: str) -> None:
        """Forget a connector that was deleted."""


class Before(NamedTuple):
    """What was so with the last turn: the pipeline's incident, and how many were down. ``lost``: Redis has lost data since."""

    kept: bytes | None
    down: int
    lost: bool


class Losses:
    """What one connector's index has lost; its watch's alone."""

    def __init__(self, index: Verdicts, connector: str, beyond: Beyond) -> None:
        self.newest_flip_ms = 0
        self._index = index
        self._connector = connector
        self._beyond = beyond
        self._newest_flip: str | None = None
        self._lost_after: str | None = None
        self._lost_at_ms = 0
        self._ask_at_ms = 0
        self._log = logs.Every(_LOG_S)

    def waiting(self, now_ms: int) -> bool:
        """Tell whether what was open may not be open again yet: until then the same silence could open a second incident."""
        return self._lost_after is not None and 0 <= now_ms - self._lost_at_ms < _LONGEST_WAIT_MS

    def see(self, newest: str) -> None:
        """Take note of the newest flip's id."""
        self._newest_flip = newest
        self.newest_flip_ms = order(newest)[0]

    def turn(self, reading: Reading, now_ms: int, before: Before) -> None:
        """Bring back what has been lost since the last turn.

        Raises:
            ConnectError: as ``Verdicts`` does.
        """
        newest, before_ms = reading.newest_flip, self.newest_flip_ms
        first = self._newest_flip is None
        back = not first and order(newest) < order(self._newest_flip or "")
        # Where another monitor has told something since, the newest flip says nothing of a loss.
        anew = self._beyond.remembers and not reading.remembered and self._lost_after is None
        if first or back or before.lost or anew:
            self._lost_after = newest if reading.remembered and not before.lost else ""
            self._lost_at_ms, self._ask_at_ms = now_ms, 0
        if (back or before.lost) and before.kept is not None and reading.blind is None:
            self._index.restore({}, before.kept)
        self.see(newest)
        if self._lost_after is None or 0 < self._ask_at_ms - now_ms <= _ASK_EVERY_MS:
            return
        try:
            flips = self._beyond.remember(self._connector, self._lost_after)
        except ConnectError as error:
            self._ask_at_ms = now_ms + _ASK_EVERY_MS
            if self._log.due(now_ms / 1000):
                log.info("What was found of %s before is not known yet: %s", self._connector, error)
            return
        self._lost_after = None
        if flips is not None:
            lost = bring_back(self._index, flips, now_ms, now_ms - LATELY_MS)
            self._index.remembered(now_ms)
            if lost:
                log.warning("Redis had lost the last %d change(s) of %s: brought back from the topic", lost, self._connector)
        elif back and before.down:
            self._index.say([(msgspec.json.encode(incidents.forgotten(self._connector, before.down, before_ms)), now_ms)])


def lost_of(index: Verdicts, flips: Sequence[Flip]) -> list[Flip]:
    """Return those of these flips that do not stand in the stream, unless the end of their incident does."""
    here = index.flip_keys() if flips else set()
    ended = {incident_in(key) for key in here if not opens(key)}
    return [flip for flip in flips if flip.key not in here and flip.incident not in ended]


def bring_back(index: Verdicts, flips: Sequence[Flip], now_ms: int, since_ms: int = 0) -> int:
    """Bring back what was lost of these, the oldest first: let go of what has ended, open what was open, and end that in whose place
    another one is open. Return how many flips that were.

    Whether a channel had them nobody knows: they are told again, under their keys; what only began before ``since_ms`` is not.
    """
    lost = lost_of(index, flips)
    if not lost:
        return 0
    index.let_go(incidents.ended(lost))
    newest = {flip.source: flip for flip in lost if flip.opens}  # of several of a source, the others have ended
    index.restore(*incidents.reopened(newest.values()))
    judged, kept = index.judged([source_of(flip) for flip in lost]), index.blind_kept()
    blind = None if kept is None else Blindness.parse(kept).incident
    said = []
    for flip in lost:
        judged_ms = judged.get(source_of(flip))
        if flip.to == BLIND and blind not in (None, flip.incident):
            said.append(incidents.replaced(flip, now_ms))
        elif flip.to == DOWN and judged_ms not in (None, flip.deadline_ms):
            said.append(incidents.superseded(flip, judged_ms))
        elif not flip.opens or (flip.detected_ms or 0) >= since_ms:
            said.append(flip)
    index.say([(msgspec.json.encode(flip), flip.detected_ms or now_ms) for flip in said])
    return len(lost)
