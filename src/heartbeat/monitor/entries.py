"""An entry of the outbox -> the flip that it holds. Streams stand in a Redis where others may write: what is no flip is passed over."""

from __future__ import annotations

import logging

import msgspec

from heartbeat.beats.outbox import Entry
from heartbeat.display import visible
from heartbeat.monitor.flips import Flip

log = logging.getLogger(__name__)


def flip_of(entry: Entry) -> Flip | None:
    """Return the flip that an entry holds, with what the judging script knew; None, and a line in the log, if it is none."""
    try:
        flip = msgspec.json.decode(entry.flip, type=Flip)
        if not (flip.key.isascii() and flip.key.isprintable()):
            raise ValueError("its key is none")  # it goes into a header
    except (ValueError, RecursionError) as error:
        log.warning(
            "Entry %s of the flips of %s is no flip, and is passed over: %s", entry.id, visible(entry.connector), visible(str(error))
        )
        return None
    return msgspec.structs.replace(
        flip,
        proven_until_ms=flip.proven_until_ms if entry.proven_until_ms is None else entry.proven_until_ms,
        detected_ms=flip.detected_ms if entry.detected_ms is None else entry.detected_ms,
    )
