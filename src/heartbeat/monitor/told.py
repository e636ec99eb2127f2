"""What stood in the streams of flips, held against Redis: who was told that an incident is open must hear of its end, and of the next one.

A verdict may be lost with its Redis after a channel had it and before the topic did. Then nobody would ever end it, but for this; and what
has ended, but is open again in a Redis from before, would hide the next silence.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from heartbeat.beats.outbox import Outbox
from heartbeat.beats.stream_ids import order
from heartbeat.beats.verdicts import Verdicts
from heartbeat.monitor import incidents, losses
from heartbeat.monitor.entries import flip_of
from heartbeat.monitor.flips import BLIND, DOWN, Flip, source_of
from heartbeat.monitor.vision import Blindness

log = logging.getLogger(__name__)

_MOST: Final = 20_000
_MOST_READ: Final = 10_000
_LOOKS: Final = 10


class Seen(NamedTuple):
    """A flip that stood in a stream, and the id of its entry; empty once the topic of flips has it."""

    flip: Flip
    id: str


class Told:
    """The newest flip of each incident, of as many as are remembered: which key the channel has, and what stood in the streams, whoever
    delivers it. Its deliverer's thread's alone."""

    def __init__(self) -> None:
        self.keys: OrderedDict[str, str] = OrderedDict()
        self.looks = 0
        """How often it is still to be looked whether a Redis that has lost its data knows what stood there before."""
        self._kept: OrderedDict[str, Seen] = OrderedDict()
        """What begins an incident, until its end was seen, and what ends one, until the topic of flips has it."""
        self._born = ""
        self._read_to: dict[str, str] = {}

    def note(self, flips: Iterable[Flip]) -> None:
        """Take note of flips that the channel has taken."""
        for flip in flips:
            self.keys[flip.incident] = flip.key
            self.keys.move_to_end(flip.incident)
        _bound(self.keys)

    def follow(self, outbox: Outbox) -> None:
        """Read on where the last look ended. Where that entry stands no more, or the channel was born anew, Redis has lost data.

        Any loss takes the newest entries: what stands behind one that is still there is all that there ever was.
        """
        if outbox.born != self._born:
            self._born = outbox.born
            self._lost()
        connectors = outbox.connectors()
        for connector in [] if self.looks else self._read_to.keys() - connectors:
            self._forget(connector)  # it was deleted: one that is made under its name later has other sources
        for connector in connectors:
            read_to = self._read_to.get(connector, "")
            entries = outbox.since(connector, read_to, _MOST_READ)
            if read_to and (not entries or entries[0].id != read_to):
                if outbox.was_cut(connector, read_to):
                    self._forget(connector)  # we slept through that, and do not know what has ended
                else:
                    self._lost()
                return
            for entry in entries:
                self._read_to[connector] = entry.id
                flip = flip_of(entry) if entry.id != read_to else None
                if flip is not None:
                    self._keep(flip, entry.id)

    def _keep(self, flip: Flip, stream_id: str) -> None:
        before = self._kept.pop(flip.incident, None)
        ended = before is not None and not before.flip.opens and flip.opens  # what has ended is not opened by a Redis from before
        self._kept[flip.incident] = before if before is not None and ended else Seen(flip, stream_id)
        _bound(self._kept)

    def _lost(self) -> None:
        self.looks = _LOOKS if self._kept else 0
        self._read_to = dict.fromkeys(self._read_to, "")

    def _forget(self, connector: str) -> None:
        self._read_to.pop(connector, None)
        self._kept = OrderedDict((incident, one) for incident, one in self._kept.items() if one.flip.connector != connector)

    def recorded(self, outbox: Outbox, recorder: str) -> None:
        """Leave to the topic of flips what it has got: after a loss it comes back from there."""
        if not self._kept or self.looks:
            return
        at = outbox.positions(recorder)
        for incident, one in list(self._kept.items()):
            if one.id and order(one.id) <= order(at.get(one.flip.connector, "0-0")):
                del self._kept[incident]
                if one.flip.opens:  # its end may be lost, and something newer of its source be all that the topic remembers
                    self._kept[incident] = Seen(one.flip, "")

    def settle(self, outbox: Outbox, now_ms: int) -> None:
        """After a loss, bring back what was open and was lost with its flip; end what was judged anew instead.

        Raises:
            ConnectError: as ``Verdicts`` does.
        """
        if not self.looks:
            return
        by_connector: dict[str, list[Seen]] = {}
        for one in self._kept.values():
            by_connector.setdefault(one.flip.connector, []).append(one)
        there = by_connector.keys() & outbox.connectors()
        found = there == by_connector.keys()
        for connector in there:
            verdicts = outbox.index(connector)
            mended = losses.bring_back(verdicts, [one.flip for one in by_connector[connector] if one.id], now_ms)
            of_topic = losses.lost_of(verdicts, [one.flip for one in by_connector[connector] if not one.id])
            if self.looks == 1 and of_topic and verdicts.look(now_ms, 0).remembered:
                mended += _end(verdicts, of_topic, now_ms)
            elif of_topic:
                found = False  # what the topic remembers comes first, and all who look have time to bring it back
            if mended:
                log.warning("Redis had lost %d change(s) of %s that the topic has not got either: brought back", mended, connector)
        # After a loss, no monitor may have put back the names of connectors yet. Else one that is away was deleted.
        self.looks = 0 if found else self.looks - 1
        self.follow(outbox)  # what was put back may be lost again at once


def _bound(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > _MOST:
        kept.popitem(last=False)


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
