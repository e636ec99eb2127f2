"""What a channel was told, held against what Redis holds: who was told that an incident is open must hear of its end, and of the next one.

A verdict may be lost with its Redis after a channel had it and before the topic did. Then nobody would ever end it, but for this; and what
has ended, but is open again in a Redis from before, would hide the next silence.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from heartbeat.beats.outbox import Outbox
from heartbeat.beats.stream_ids import order
from heartbeat.beats.verdicts import Verdicts
from heartbeat.monitor import incidents
from heartbeat.monitor.flips import BLIND, DOWN, Flip, incident_in, opens, source_of
from heartbeat.monitor.vision import Blindness

log = logging.getLogger(__name__)

_MOST: Final = 20_000
_LOOKS: Final = 10


class Sent(NamedTuple):
    """A flip that a channel has, and the id of its entry in the stream; empty where it stood in none, or the topic of flips has it."""

    flip: Flip
    id: str


class Told:
    """The newest flip that a channel has of each incident, of as many as are remembered. Its deliverer's thread's alone."""

    def __init__(self) -> None:
        self.keys: OrderedDict[str, str] = OrderedDict()
        self.inherits = 0
        """How often it is still to be looked whether a Redis that has lost its data knows what the channel knows: also if another monitor
        delivers to it now."""
        self._kept: OrderedDict[str, Sent] = OrderedDict()
        """What begins an incident, until its end was told, and what ends one, until the topic of flips has it."""
        self._tenure = ("", 0)

    def held(self, born: str, fence: int) -> None:
        """Take note of the lease, whoever has it. Who has not had it all the while does not know what is open.

        Another may have told its end. But in a Redis that has lost its data the channel is born anew, in one from before the fence goes
        back, and there nobody has told anything that does not stand in the stream.
        """
        born_before, fence_before = self._tenure
        if born != born_before or fence < fence_before:
            self.inherits = _LOOKS if self._kept else 0
        elif fence != fence_before and not self.inherits:
            self._kept.clear()
        self._tenure = (born, fence)

    def note(self, sent: Iterable[Sent]) -> None:
        """Take note of flips that the channel has taken."""
        for one in sent:
            incident = one.flip.incident
            self.keys[incident] = one.flip.key
            self.keys.move_to_end(incident)
            self._kept.pop(incident, None)
            if one.id:
                self._kept[incident] = one
        for kept in (self.keys, self._kept):
            while len(kept) > _MOST:
                kept.popitem(last=False)

    def recorded(self, outbox: Outbox, recorder: str) -> None:
        """Leave to the topic of flips what it has got: after a loss it comes back from there."""
        if not self._kept or self.inherits:
            return
        at = outbox.positions(recorder)
        passed: dict[str, list[Sent]] = {}
        for one in self._kept.values():
            if one.id and order(one.id) <= order(at.get(one.flip.connector, "0-0")):
                passed.setdefault(one.flip.connector, []).append(one)
        for connector, some in passed.items():
            if not all(outbox.index(connector).has_flips([one.id for one in some])):
                self.inherits = _LOOKS  # what the topic has came in its place: this is a Redis from before
                return
            for one in some:
                del self._kept[one.flip.incident]
            # Its end may be lost, and something newer of its source be all that the topic remembers.
            self._kept |= {one.flip.incident: Sent(one.flip, "") for one in some if one.flip.opens}

    def settle(self, outbox: Outbox, now_ms: int) -> None:
        """Bring back what is told to be open, and was lost with its flip; end what was judged anew instead.

        Raises:
            ConnectError: as ``Verdicts`` does.
        """
        by_connector: dict[str, list[Sent]] = {}
        for one in self._kept.values():
            by_connector.setdefault(one.flip.connector, []).append(one)
        there = by_connector.keys() & outbox.connectors()
        found = there == by_connector.keys()
        for connector in there:
            verdicts, sent = outbox.index(connector), by_connector[connector]
            lost = self._lost(verdicts, [one for one in sent if one.id])
            mended = _mend(verdicts, lost, now_ms) if lost else 0
            of_topic = [one for one in sent if not one.id]
            if self.inherits == 1 and of_topic and verdicts.look(now_ms, 0).remembered:
                mended += _end(verdicts, self._lost(verdicts, of_topic), now_ms)
            elif of_topic:
                found = False  # what the topic remembers comes first, and all who look have time to bring it back
            if mended:
                log.warning("%d incident(s) of %s that were told had been lost", mended, connector)
        # After a loss, no monitor may have put back the names of connectors yet. Else one that is away was deleted.
        looks_left = self.inherits - 1 if self.inherits and not found else 0
        if not looks_left:  # what was put back stands in the stream again, and the topic is to get it from there
            newest = {connector: outbox.index(connector).newest_flip() for connector in there if self.inherits}
            kept = [one for one in self._kept.values() if one.flip.connector in there]
            self._kept = OrderedDict((one.flip.incident, Sent(one.flip, one.id and newest.get(one.flip.connector, one.id))) for one in kept)
        self.inherits = looks_left

    def _lost(self, verdicts: Verdicts, sent: Sequence[Sent]) -> list[Flip]:
        """Return the flips that do not stand where they stood. In a new Redis, those that have no place there by now."""
        if self.inherits:
            here = verdicts.flip_keys()
            ended = {incident_in(key) for key in here if not opens(key)}
            return [one.flip for one in sent if one.flip.key not in here and one.flip.incident not in ended]
        opened = [one for one in sent if one.flip.opens]
        stands = verdicts.has_flips([one.id for one in opened])
        return [one.flip for one, stand in zip(opened, stands, strict=True) if not stand]


def _mend(verdicts: Verdicts, lost: Sequence[Flip], now_ms: int) -> int:
    """Put incidents back that were open, let go of those that had ended, and end those in whose place another one is open.

    Their flips stand in the stream again, for the topic: it has never had them. Return how many that were.
    """
    opened, ends = [flip for flip in lost if flip.opens], [flip for flip in lost if not flip.opens]
    judged = verdicts.judged([source_of(flip) for flip in opened if flip.to == DOWN])
    kept = verdicts.blind_kept()
    newest = {flip.source: flip for flip in opened}  # of several of a source, the others have ended
    gone = [flip for flip in newest.values() if (kept is None if flip.to == BLIND else source_of(flip) not in judged)]
    verdicts.restore(*incidents.reopened(gone))
    judged, kept = verdicts.judged([source_of(flip) for flip in opened if flip.to == DOWN]), verdicts.blind_kept()
    verdicts.let_go(incidents.ended(ends))
    said = [*gone, *ends]
    for flip in opened:
        if flip.to == BLIND and kept is not None and Blindness.parse(kept).incident != flip.incident:
            said.append(incidents.replaced(flip, now_ms))
        elif flip.to == DOWN and judged.get(source_of(flip), flip.deadline_ms) != flip.deadline_ms:
            said.append(incidents.superseded(flip, judged[source_of(flip)]))
    verdicts.say([(msgspec.json.encode(flip), flip.detected_ms or now_ms) for flip in said])
    return len(said)


def _end(verdicts: Verdicts, told: Sequence[Flip], now_ms: int) -> int:
    """End those of these incidents that are open no more: the topic has had them, and has something newer of their sources."""
    judged, kept = verdicts.judged([source_of(flip) for flip in told if flip.to == DOWN]), verdicts.blind_kept()
    said = []
    for flip in told:
        if flip.to == BLIND and (kept is None or Blindness.parse(kept).incident != flip.incident):
            said.append(incidents.replaced(flip, now_ms))
        elif flip.to == DOWN and judged.get(source_of(flip)) != flip.deadline_ms:
            said.append(incidents.superseded(flip, judged.get(source_of(flip), now_ms)))
    verdicts.say([(msgspec.json.encode(flip), now_ms) for flip in said])
    return len(said)
