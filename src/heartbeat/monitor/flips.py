"""A flip: the persisted change of a source's state. What an alert delivers, what the topic records, what history shows. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

NEW: Final = "NEW"
UP: Final = "UP"
LATE: Final = "LATE"
DOWN: Final = "DOWN"
UNKNOWN: Final = "UNKNOWN"
PAUSED: Final = "PAUSED"
STATES: Final = (NEW, UP, LATE, DOWN, UNKNOWN, PAUSED)
BLIND: Final = "BLIND"
SIGHTED: Final = "SIGHTED"
"""These two are states of a pipeline, the way of beats through broker, worker and Redis; all others are a source's."""

OPENING: Final = frozenset({DOWN, BLIND})
"""What opens an incident; every other flip ends one."""

SILENCE: Final = "silence"
FAIL: Final = "fail"
NEVER_SEEN: Final = "never_seen"
RECOVERED: Final = "recovered"
BYE: Final = "bye"
REASON_BLIND: Final = "blind"
REASON_SIGHTED: Final = "sighted"

_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")
_PIPELINE: Final = "pipeline:"


class Flip(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """One change of state; times are epoch ms, None where there is none.

    ``at_ms`` is the true moment: deadline and grace, or the beat that recovered it; ``detected_ms`` is when we knew.
    ``proven_until_ms`` is until when everything committed by Kafka had been applied when this was concluded. ``message`` is for
    people: what a failing source said, or which stage is blind. ``down_ms`` and ``missed`` stand in what ends an incident: how
    long it lasted, and how many beats were missed at least (one is due per ttl).
    """

    key: str
    incident: str
    source: str
    connector: str
    from_: str
    to: str
    reason: str
    at_ms: int
    last_beat_ms: int | None = None
    deadline_ms: int | None = None
    proven_until_ms: int | None = None
    detected_ms: int | None = None
    severity: str = "critical"
    tags: tuple[str, ...] = ()
    message: str = ""
    down_ms: int | None = None
    missed: int | None = None

    @property
    def opens(self) -> bool:
        """Tell whether this opens an incident; otherwise it ends one."""
        return self.to in OPENING

    @property
    def about_pipeline(self) -> bool:
        """Tell whether this speaks of a connector's sight, not of a source."""
        return self.to in (BLIND, SIGHTED)


def incident_of(connector: str, source: str, judged_ms: int) -> str:
    """Return an incident's id: the same on every monitor, and after every loss."""
    text = f"{connector}\0{source}\0{judged_ms}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def source_of(flip: Flip) -> str:
    """Return the name of a flip's source as it stands in Redis: ``utf8`` undone, where the incident says that it was done."""
    raw = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), flip.source.encode()).decode("utf-8", "surrogateescape")
    done = flip.deadline_ms is not None and incident_of(flip.connector, raw, flip.deadline_ms) == flip.incident
    return raw if done else flip.source


def key_of(incident: str, to: str) -> str:
    """Return a flip's key, which never changes between attempts, monitors or losses."""
    return f"{incident}:{to}"


def incident_in(key: str) -> str:
    """Return the incident of a flip's key."""
    return key.partition(":")[0]


def opens(key: str) -> bool:
    """Tell whether the flip of this key opens its incident."""
    return key.partition(":")[2] in OPENING


def pipeline_of(connector: str) -> str:
    """Return the source under which a connector's pipeline is spoken of."""
    return _PIPELINE + connector
