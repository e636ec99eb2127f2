"""What a channel was told, held against what Redis holds: who was told that an incident is open must hear of its end.

A verdict may be lost with its Redis after a channel had it and before the topic did. Then nobody would ever end it, but for this.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import msgspec

from heartbeat.beats.outbox import Outbox
from heartbeat.monitor import incidents
from heartbeat.monitor.flips import BLIND, DOWN, Flip, source_of

log = logging.getLogger(__name__)

_MOST: Final = 20_000


class Sent(NamedTuple):
    """A flip that a channel has, and the id of its entry in the stream; empty where it stood in none."""

    flip: Flip
    id: str


class Told:
    """The newest flip that a channel has of each incident, of as many as are remembered. Its deliverer's thread's alone."""

    def __init__(self) -> None:
        self.keys: OrderedDict[str, str] = OrderedDict()
        self._open: OrderedDict[str, Sent] = OrderedDict()
        self._born = ""
        self._tenure = ("", 0)

    def held(self, born: str, fence: int) -> None:
        """Take note of the lease. Who has not had it all the while does not know what is open: another may have told its end.

        In a Redis that has lost its data the channel is born anew, and whoever has its first lease there has followed nobody.
        """
        if (born, fence) != self._tenure and not (fence == 1 and born != self._tenure[0]):
            self._open.clear()
        self._tenure = (born, fence)

    def note(self, sent: Iterable[Sent]) -> None:
        """Take note of flips that the channel has taken."""
        for one in sent:
            incident = one.flip.incident
            self.keys[incident] = one.flip.key
            self.keys.move_to_end(incident)
            self._open.pop(incident, None)
            if one.flip.opens and one.id:
                self._open[incident] = one
        for kept in (self.keys, self._open):
            while len(kept) > _MOST:
                kept.popitem(last=False)

    def settle(self, outbox: Outbox, now_ms: int) -> None:
        """Bring back what is told to be open and is not known to Redis any more; end what Redis has let go of on purpose.

        What goes leaves its end in the stream in the same step: where nothing new stands there after the look, it was lost.

        Raises:
            ConnectError: as ``Verdicts`` does.
        """
        by_connector: dict[str, list[Sent]] = {}
        connectors = outbox.connectors()
        for one in self._open.values():
            by_connector.setdefault(one.flip.connector, []).append(one)
        self._forget(by_connector.keys() - connectors, outbox.born)
        for connector in by_connector.keys() & connectors:
            sent, verdicts = by_connector[connector], outbox.index(connector)
            judged = verdicts.judged([source_of(one.flip) for one in sent if one.flip.to == DOWN])
            kept = verdicts.blind_kept()
            gone = [one for one in sent if (kept is None if one.flip.to == BLIND else source_of(one.flip) not in judged)]
            again = [
                one.flip
                for one in sent
                if one.flip.to == DOWN and judged.get(source_of(one.flip), one.flip.deadline_ms) != one.flip.deadline_ms
            ]
            if not (gone or again) or outbox.waits():
                continue
            stands = verdicts.has_flips([one.id for one in gone])
            verdicts.restore(*incidents.reopened(one.flip for one, known in zip(gone, stands, strict=True) if not known))
            # Its flip stands, and it is not open: topics, template or the number of sources were changed, and it was dropped.
            ended = [incidents.dropped(one.flip, now_ms) for one, known in zip(gone, stands, strict=True) if known]
            ended += [incidents.superseded(flip, judged[source_of(flip)]) for flip in again]
            verdicts.say([(msgspec.json.encode(flip), now_ms) for flip in ended])
            log.warning("%d incident(s) of %s that were told were not known any more", len(gone) + len(again), connector)

    def _forget(self, away: Collection[str], born: str) -> None:
        """Forget connectors that were deleted: one of the same name may come, and knows nothing of them.

        In a Redis that has lost its data the channel was born anew. There connectors are away only until their workers are back.
        """
        self._born = self._born or born
        if born == self._born:
            self._open = OrderedDict((incident, one) for incident, one in self._open.items() if one.flip.connector not in away)
        elif not away:
            self._born = born  # all are back
