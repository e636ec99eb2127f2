"""What is stored of a verdict: the flips that open and end incidents. Pure; all times are epoch ms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from heartbeat.beats.verdicts import FAILED, Ended
from heartbeat.display import utf8
from heartbeat.monitor import flips
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.rules import Policy
from heartbeat.monitor.vision import Blindness


@dataclass(frozen=True, slots=True)
class Judged:
    """A source as it is judged: by which deadline, made with which ttl.

    One that ``failed`` is judged on the time of that. ``beaten`` is False of one that is only declared.
    """

    connector: str
    source: str
    deadline_ms: int
    ttl_ms: int
    policy: Policy
    failed: bool = False
    beaten: bool = True

    @property
    def last_beat_ms(self) -> int:
        """Return when it last beat."""
        return self.deadline_ms if self.failed else self.deadline_ms - self.ttl_ms

    @property
    def incident(self) -> str:
        """Return the id of the incident that this deadline opens."""
        return flips.incident_of(self.connector, self.source, self.deadline_ms)


def silent(judged: Judged) -> Flip:
    """Return what is stored when a source has been silent past deadline and grace."""
    return _down(judged, flips.LATE, flips.SILENCE, judged.deadline_ms + judged.policy.grace_ms)


def failed(judged: Judged, message: str) -> Flip:
    """Return what is stored when a source has said that it failed."""
    return _down(judged, flips.UP, flips.FAIL, judged.deadline_ms, message)


def never_seen(judged: Judged) -> Flip:
    """Return what is stored when a declared source has not beaten within ttl and grace of its declaration."""
    found = _down(judged, flips.NEW, flips.NEVER_SEEN, judged.deadline_ms + judged.policy.grace_ms)
    return msgspec.structs.replace(found, last_beat_ms=None)


def recovered(judged: Judged, beat_ms: int) -> Flip:
    """Return what is stored when a source that was down has beaten again."""
    return _ended(judged, flips.UP, flips.RECOVERED, beat_ms)


def said_goodbye(judged: Judged, at_ms: int) -> Flip:
    """Return what is stored when a source that was down has said that it stops."""
    return _ended(judged, flips.PAUSED, flips.BYE, at_ms)


def let_go(judged: Judged, at_ms: int) -> Flip:
    """Return what is stored when a source that was down is watched no more: declared no longer, or of topics or a template of before."""
    return msgspec.structs.replace(said_goodbye(judged, at_ms), message="is watched no more", missed=None)


def went_blind(connector: str, blindness: Blindness) -> Flip:
    """Return what is stored when nothing can be concluded from silence any more."""
    text = f"{blindness.stage}: {blindness.message}"
    return _of_pipeline(connector, blindness, flips.BLIND, blindness.since_ms, text)


def sighted_again(connector: str, blindness: Blindness, now_ms: int) -> Flip:
    """Return what is stored when everything is proven freshly again."""
    return _of_pipeline(connector, blindness, flips.SIGHTED, now_ms, f"{blindness.stage}: everything is proven again")


def superseded(opened: Flip, judged_ms: int) -> Flip:
    """Return what ends an incident whose source has been judged on another deadline since: it has beaten in between."""
    beat_ms = judged_ms - ((opened.deadline_ms or 0) - (opened.last_beat_ms or opened.deadline_ms or 0))
    return msgspec.structs.replace(
        opened,
        key=flips.key_of(opened.incident, flips.UP),
        from_=flips.DOWN,
        to=flips.UP,
        reason=flips.RECOVERED,
        at_ms=beat_ms,
        last_beat_ms=beat_ms,
        detected_ms=None,
        down_ms=max(0, beat_ms - opened.at_ms),
    )


def replaced(blind: Flip, now_ms: int) -> Flip:
    """Return what ends a pipeline's incident in whose place another one has been opened."""
    return sighted_again(blind.connector, Blindness("", "", blind.at_ms, incident=blind.incident), now_ms)


def reopened(lost: Iterable[Flip]) -> tuple[dict[str, float], bytes | None]:
    """Return what makes incidents open again: who is down on which deadline or fail, and the pipeline's, as they are kept."""
    down: dict[str, float] = {}
    kept = None
    for flip in lost:
        if flip.to == flips.DOWN and flip.deadline_ms is not None:
            down[flips.source_of(flip)] = flip.deadline_ms + (FAILED if flip.reason == flips.FAIL else 0)
        elif flip.to == flips.BLIND:
            kept = msgspec.json.encode(Blindness("", flip.message, flip.at_ms, incident=flip.incident))
    return down, kept


def ended(lost: Iterable[Flip]) -> list[Ended]:
    """Return the incidents that these flips have ended."""
    return [
        Ended(flips.source_of(flip), flip.deadline_ms, flip.at_ms)
        for flip in lost
        if not flip.opens and not flip.about_pipeline and flip.deadline_ms is not None
    ]


def forgotten(connector: str, many: int, newest_flip_ms: int) -> Flip:
    """Return what is stored when Redis has lost its data, and no topic remembers who was down. Every monitor says the same."""
    text = (
        f"Redis has lost its data. {many} source(s) that were DOWN are forgotten, unless they beat within the connector's horizon: nobody "
        "will tell that they are up again. A [kafka] section in the monitor's settings would have kept them"
    )
    # An incident of its own: the loss may have blinded the connector too, and that goes on.
    own = flips.incident_of(connector, "what was forgotten", newest_flip_ms)
    return _of_pipeline(connector, Blindness("redis", text, newest_flip_ms, incident=own), flips.SIGHTED, newest_flip_ms, text)


def _down(judged: Judged, before: str, reason: str, at_ms: int, message: str = "") -> Flip:
    return Flip(
        key=flips.key_of(judged.incident, flips.DOWN),
        incident=judged.incident,
        source=utf8(judged.source),
        connector=judged.connector,
        from_=before,
        to=flips.DOWN,
        reason=reason,
        at_ms=at_ms,
        last_beat_ms=judged.last_beat_ms,
        deadline_ms=judged.deadline_ms,
        severity=judged.policy.severity,
        tags=judged.policy.tags,
        message=message,
    )


def _ended(judged: Judged, to: str, reason: str, at_ms: int) -> Flip:
    """``at_ms`` is the beat, or the goodbye. A source that failed was down from that on."""
    since_ms = judged.deadline_ms + (0 if judged.failed else judged.policy.grace_ms)
    return Flip(
        key=flips.key_of(judged.incident, to),
        incident=judged.incident,
        source=utf8(judged.source),
        connector=judged.connector,
        from_=flips.DOWN,
        to=to,
        reason=reason,
        at_ms=at_ms,
        last_beat_ms=at_ms if to == flips.UP else judged.last_beat_ms if judged.beaten else None,
        deadline_ms=judged.deadline_ms,
        severity=judged.policy.severity,
        tags=judged.policy.tags,
        down_ms=max(0, at_ms - since_ms),
        missed=max(0, at_ms - judged.last_beat_ms) // judged.ttl_ms if judged.ttl_ms else None,
    )


def _of_pipeline(connector: str, blindness: Blindness, to: str, at_ms: int, text: str) -> Flip:
    source = flips.pipeline_of(connector)
    incident = blindness.incident or flips.incident_of(connector, source, blindness.since_ms)
    opens = to == flips.BLIND
    return Flip(
        key=flips.key_of(incident, to),
        incident=incident,
        source=source,
        connector=connector,
        from_=flips.SIGHTED if opens else flips.BLIND,
        to=to,
        reason=flips.REASON_BLIND if opens else flips.REASON_SIGHTED,
        at_ms=at_ms,
        proven_until_ms=blindness.since_ms if opens else None,
        message=text,
        down_ms=None if opens else max(0, at_ms - blindness.since_ms),
    )
