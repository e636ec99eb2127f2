"""Sources as people ask for them and are shown them: state at this moment, since when, incident. Pure; all times are epoch ms."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from heartbeat.beats.listing import Cursor, Found, Room, Span
from heartbeat.beats.verdicts import NEVER_MS
from heartbeat.display import utf8
from heartbeat.errors import BadRequest
from heartbeat.monitor.flips import DOWN, LATE, NEW, PAUSED, STATES, UNKNOWN, UP, incident_of
from heartbeat.monitor.rules import Policy, Rules

DEFAULT_LIMIT: Final = 100
MOST_AT_ONCE: Final = 1_000
_LONGEST_Q: Final = 256


class Source(msgspec.Struct, frozen=True):
    """A row of ``GET /api/v1/sources``; None where something is not known, or there is none."""

    name: str
    connector: str
    state: str
    last_beat_ms: int | None
    deadline_ms: int | None
    ttl_s: float
    grace_s: float
    since_ms: int | None
    tags: tuple[str, ...] = ()
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The query of ``GET /api/v1/sources``."""

    states: frozenset[str] = frozenset(STATES)
    q: str = ""
    connector: str | None = None
    limit: int = DEFAULT_LIMIT
    cursor: Cursor | None = None

    @classmethod
    def parse(cls, parameters: Iterable[tuple[str, str]]) -> Asked:
        """Read the parameters.

        Raises:
            BadRequest: one is unknown, stands there twice, or has a value that means nothing.
        """
        readers: dict[str, Callable[[str], Any]] = {"q": _q, "connector": str, "limit": _limit, "cursor": Cursor.parse, "state": _states}
        values: dict[str, Any] = {}
        for name, text in parameters:
            if name not in readers:
                raise BadRequest(f"{name}: no such parameter; there are {', '.join(sorted(readers))}")
            field = "states" if name == "state" else name
            if field in values:
                raise BadRequest(f"{name}: given twice")
            values[field] = readers[name](text)
        return cls(**values)

    def named(self) -> Callable[[str], bool]:
        """Return what tells whether a name is asked for: by a glob if ``q`` is one, else by a part of the name."""
        if not any(character in self.q for character in "*?["):
            return lambda name: self.q in name
        pattern = re.compile(fnmatch.translate(self.q))
        return lambda name: pattern.match(name) is not None


def spans(states: Collection[str], rules: Rules, *, paused: bool, now_ms: int) -> list[Span]:
    """Return where in a connector's index sources in these states are; others may be there too."""
    silent = PAUSED if paused else UNKNOWN
    found = [Span(Room.DOWN)] if DOWN in states else []
    bounds = {
        silent: (None, now_ms - rules.shortest_grace_ms),
        LATE: (now_ms - rules.longest_grace_ms, now_ms + rules.longest_warn_ms),
        UP: (now_ms, None),
    }
    wanted = [bounds[state] for state in bounds if state in states]
    if wanted:
        lows, highs = zip(*wanted, strict=True)
        found.append(Span(Room.DEADLINES, None if None in lows else min(lows), None if None in highs else max(highs)))
    return [*found, Span(Room.EXPECTED)] if NEW in states or PAUSED in states else found


def source_of(found: Found, policy: Policy, *, paused: bool, now_ms: int) -> Source:
    """Return a source as it is now. One that is silent past its grace and not judged is UNKNOWN, whatever may come of it."""
    state, since_ms = _state(found, policy, paused=paused, now_ms=now_ms)
    return Source(
        utf8(found.source),
        utf8(found.connector),
        state,
        found.last_beat_ms,
        None if found.room is Room.EXPECTED else found.at_ms,
        found.ttl_ms / 1000,
        policy.grace_ms / 1000,
        since_ms,
        policy.tags,
        incident_of(found.connector, found.source, found.at_ms) if state == DOWN else None,
    )


def _state(found: Found, policy: Policy, *, paused: bool, now_ms: int) -> tuple[str, int | None]:
    """Return the state, and since when."""
    if found.room is Room.EXPECTED:
        return (NEW, found.at_ms) if found.at_ms < NEVER_MS else (PAUSED, None)  # it has said goodbye
    silent_from_ms, late_from_ms = found.at_ms + policy.grace_ms, found.at_ms - policy.warn_ms
    if found.room is Room.DOWN:
        return DOWN, found.at_ms if found.failed else silent_from_ms
    if late_from_ms > now_ms:
        return UP, None
    if silent_from_ms > now_ms:  # a beat began this wait: where the warning is longer than the ttl, that was later
        return LATE, max(late_from_ms, found.last_beat_ms or late_from_ms)
    return PAUSED if paused else UNKNOWN, silent_from_ms


def _states(text: str) -> frozenset[str]:
    states = text.upper().split(",")
    for state in states:
        if state not in STATES:
            raise BadRequest(f"state: {state or 'nothing'} is none of {', '.join(STATES)}")
    return frozenset(states)


def _limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_AT_ONCE:
        raise BadRequest(f"limit: a number from 1 to {MOST_AT_ONCE} is needed")
    return int(text)


def _q(text: str) -> str:
    if len(text) > _LONGEST_Q:
        raise BadRequest(f"q: more than {_LONGEST_Q} characters")
    return text
