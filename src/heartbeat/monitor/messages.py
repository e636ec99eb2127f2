"""Flips -> messages: each incident as it is now, as many flips together as belong together, and a text that is read at a glance. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from heartbeat.display import utf8, visible
from heartbeat.monitor.flips import BLIND, BYE, DOWN, FAIL, NEVER_SEEN, PAUSED, SIGHTED, UP, Flip

MOST_FLIPS: Final = 10_000
"""Flips in one message."""
_NAMED: Final = 20
_MOST_NAME: Final = 120
_MOST_SAID: Final = 300
_FIRST: Final = (BLIND, DOWN, UP, PAUSED, SIGHTED)
"""In this order a message speaks of them: what is wrong first."""

_JSON_FIELDS: Final = {name.rstrip("_"): name for name in Flip.__struct_fields__ if name not in {"message", "down_ms", "missed"}}
"""What a webhook gets of a flip is a contract. What is not in it stands in the text."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel sends in one piece."""

    key: str
    channel: str
    text: str
    flips: tuple[Flip, ...] = ()

    def json(self) -> bytes:
        """Return the message as a webhook gets it."""
        flips = [{shown: _plain(getattr(flip, name)) for shown, name in _JSON_FIELDS.items()} for flip in self.flips]
        return msgspec.json.encode({"key": self.key, "channel": _plain(self.channel), "text": self.text, "flips": flips})


def compose(channel: str, flips: Iterable[Flip], sent: Mapping[str, str], most: int = MOST_FLIPS) -> list[Message]:
    """Return the messages that say what is new: one, unless there are more than ``most``.

    ``sent`` has the key of the last flip that the channel got of an incident, for as many incidents as somebody remembers.
    """
    now, never_told = collapse(flips, sent)
    parts = [now[begin : begin + most] for begin in range(0, len(now), most)]
    return [Message(_key_of(part), channel, text_of(part, never_told), tuple(part)) for part in parts]


def collapse(flips: Iterable[Flip], sent: Mapping[str, str]) -> tuple[list[Flip], frozenset[str]]:
    """Return each incident's latest flip, in the order in which they came, and the incidents that are over before anybody was told.

    What has ended does not open again: a flip that comes once more, after a restore, changes nothing. What opens comes after the end of
    whatever else was open of the same source: monitors may have named one blindness by two incidents.
    """
    latest: dict[str, Flip] = {}
    opened: set[str] = set()
    for flip in flips:
        if flip.opens:
            opened.add(flip.incident)
        known = latest.get(flip.incident)
        if known is None or known.opens:
            latest.pop(flip.incident, None)  # the place of the newer one counts
            latest[flip.incident] = flip
    news = [flip for flip in latest.values() if flip.incident not in sent or (sent[flip.incident] != flip.key and not flip.opens)]
    last_end = {(flip.connector, flip.source): index for index, flip in enumerate(news) if not flip.opens}
    places = {
        flip.key: max(index, last_end.get((flip.connector, flip.source), 0)) if flip.opens else index for index, flip in enumerate(news)
    }
    news.sort(key=lambda flip: (places[flip.key], flip.opens))
    return news, frozenset(flip.incident for flip in news if not flip.opens and flip.incident in opened - sent.keys())


def text_of(flips: Sequence[Flip], never_told: Collection[str] = frozenset()) -> str:
    """Return the text: a sentence for one flip; for several the counts, then the first names. Its lines contain no control characters."""
    if len(flips) == 1:
        return _sentence(flips[0], flips[0].incident in never_told)
    states = dict.fromkeys((*_FIRST, *(flip.to for flip in flips)))
    by_state = {_name(state): [flip for flip in flips if flip.to == state] for state in states}
    connectors = {flip.connector for flip in flips}
    lines = [", ".join(f"{len(found)} {state}" for state, found in by_state.items() if found)]
    if len(connectors) == 1:
        lines[0] += f". Connector {_name(flips[0].connector)}."
    room = _NAMED
    for state, found in by_state.items():
        named = [_named(flip, len(connectors) > 1) for flip in found[:room]]
        room -= len(named)
        more = f" and {len(found) - len(named):,} more" if len(found) > len(named) else ""
        if named:
            lines.append(f"{state}: {', '.join(named)}{more}")
    if by_state[BLIND]:
        lines.append(_BLIND_MEANS)
    return "\n".join(lines)


def text_of_loss(connector: str, lost: int, down: int, names: Sequence[str]) -> str:
    """Return what a channel is told that has not got everything: how much it missed, and how things are now."""
    head = f"LOST {lost:,} changes of {_name(connector)}: they were cut before this channel could be reached."
    if not down:
        return f"{head} At present nothing of it is DOWN."
    named = ", ".join(_name(name) for name in names[:_NAMED])
    more = f" and {down - len(names[:_NAMED]):,} more" if down > len(names[:_NAMED]) else ""
    return f"{head} At present DOWN ({down:,}): {named}{more}."


def text_of_test(channel: str) -> str:
    """Return the text of the message by which a person tries a channel."""
    return f"TEST of channel {_name(channel)}: nothing has happened. Alerts of heartbeat monitor arrive here."


def duration(ms: int) -> str:
    """Return a duration in its two largest units.

    >>> duration(192_000), duration(7_500_000), duration(800)
    ('3 min 12 s', '2 h 5 min', '1 s')
    """
    seconds = max(1, round(ms / 1000))
    for large, small, factor in ((86_400, 3_600, ("d", "h")), (3_600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if seconds >= large:
            rest = seconds % large // small
            return f"{seconds // large} {factor[0]}" + (f" {rest} {factor[1]}" if rest else "")
    return f"{seconds} s"


_BLIND_MEANS: Final = "Nothing can be concluded from silence until sight returns; sources that are due are UNKNOWN, not DOWN."


def _name(text: str) -> str:
    return visible(text, _MOST_NAME)


def _sentence(flip: Flip, never_told: bool) -> str:
    who = _name(flip.connector if flip.about_pipeline else flip.source)
    lasted = duration(flip.down_ms) if flip.down_ms else ""
    said = visible(flip.message, _MOST_SAID)
    if flip.to == BLIND:
        return f"BLIND {who}: {said.rstrip('.') or 'no sight'}. {_BLIND_MEANS}"
    if flip.to == SIGHTED:
        if never_told:
            return f"{who} was blind{f' for {lasted}' if lasted else ''} and sees again."
        return f"SIGHTED {who}: {said.rstrip('.') or 'sees again'}{f'; was blind for {lasted}' if lasted else ''}."
    tail = f" Connector {_name(flip.connector)}."
    if flip.to == DOWN:
        return f"DOWN {who}: {_why_down(flip, said)}.{tail}"
    missed = f", at least {flip.missed:,} {'beat' if flip.missed == 1 else 'beats'} missed" if flip.missed else ""
    ending = (said or "said goodbye") if flip.reason == BYE else "is up again"
    if never_told:
        return f"{who} was down{f' for {lasted}' if lasted else ''} and {ending}{missed}.{tail}"
    was = f"; was down {lasted}{missed}" if lasted else ""
    since = (f"{said} since" if said else "said goodbye at") if flip.reason == BYE else "beats again since"
    return f"{_name(flip.to)} {who}: {since} {_time(flip.at_ms, flip)}{was}.{tail}"


def _why_down(flip: Flip, said: str) -> str:
    if flip.reason == FAIL:
        return f"failed at {_time(flip.at_ms, flip)}" + (f": {said.rstrip('.')}" if said else "")
    due = f", due by {_time(flip.deadline_ms, flip)}" if flip.deadline_ms is not None else ""
    proven = f"; proven by Kafka until {_time(flip.proven_until_ms, flip)}" if flip.proven_until_ms is not None else ""
    if flip.reason == NEVER_SEEN:
        return f"never seen{due}{proven}"
    since = f"silent since {_time(flip.last_beat_ms, flip)} (last beat)" if flip.last_beat_ms is not None else "silent"
    return since + due + proven


def _named(flip: Flip, with_connector: bool) -> str:
    name = _name(flip.connector if flip.about_pipeline else flip.source)
    if with_connector and not flip.about_pipeline:
        name = f"{_name(flip.connector)}/{name}"
    if flip.message and (flip.about_pipeline or flip.reason == FAIL):
        return f"{name} ({visible(flip.message, _MOST_SAID if flip.about_pipeline else _MOST_NAME)})"
    return name if flip.opens or flip.down_ms is None else f"{name} (after {duration(flip.down_ms)})"


def _time(ms: int, flip: Flip) -> str:
    """Return a time of day; with its date if that is another day than the one on which it was noticed."""
    try:
        then = datetime.fromtimestamp(ms / 1000, UTC)
        today = datetime.fromtimestamp((flip.detected_ms or flip.at_ms) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"  # no year that a calendar has
    return f"{then:%H:%M:%S} UTC" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M:%S} UTC"


def _key_of(flips: Sequence[Flip]) -> str:
    if len(flips) == 1:
        return flips[0].key
    joined = "\n".join(flip.key for flip in flips).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(joined, digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return utf8(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
