"""What a producer may say by headers: ``hb-ttl``, ``hb-status``, ``hb-run``, ``hb-message``. Pure.

All are optional: a producer that knows nothing of them loses nothing. What cannot be understood is left out and counted;
the record stays a beat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

OK: Final = "ok"
BYE: Final = "bye"
STATUSES: Final = frozenset({OK, "start", "fail", BYE})
MOST_RUNS: Final = 100_000
"""Open runs kept for one connector."""

_LONGEST_RUN: Final = 200
_LONGEST_MESSAGE: Final = 1_000
_SECONDS: Final = re.compile(rb"\d{1,9}(\.\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Marks:
    """What a record's headers say; ``garbled`` counts those that could not be understood."""

    ttl_ms: int | None = None
    status: str | None = None
    run: str = ""
    message: str = ""
    garbled: int = 0


class Order(NamedTuple):
    """Which of two signals of a source is newer: a replay must find the same one."""

    at_ms: int
    partition: str
    offset: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A record that says more than "alive"."""

    source: str
    order: Order
    status: str
    run: str = ""
    message: str = ""

    def packed(self) -> bytes:
        """Return it as it stands in Redis."""
        at_ms, partition, offset = self.order
        return msgspec.json.encode(
            {"at_ms": at_ms, "partition": partition, "offset": offset, "status": self.status, "run": self.run, "message": self.message}
        )


def read(headers: Iterable[tuple[str, bytes | None]], most_ttl_ms: int) -> Marks | None:
    """Return what the headers say, or None if they say nothing to us. The last of a name counts, as in Kafka's ``lastHeader``."""
    ours = {name: value or b"" for name, value in headers if name.startswith("hb-")}
    if not ours:
        return None
    ttl_ms = status = None
    garbled = 0
    if "hb-ttl" in ours:
        ttl_ms = _ttl_ms(ours["hb-ttl"], most_ttl_ms)
        garbled += ttl_ms is None
    if "hb-status" in ours:
        text = _text(ours["hb-status"]).strip().lower()
        status = text if text in STATUSES else None
        garbled += status is None
    run = _text(ours.get("hb-run", b""))[:_LONGEST_RUN]
    return Marks(ttl_ms, status, run, _text(ours.get("hb-message", b""))[:_LONGEST_MESSAGE], garbled)


def _ttl_ms(value: bytes, most_ms: int) -> int | None:
    if not _SECONDS.fullmatch(value.strip()):
        return None
    ttl_ms = int(float(value) * 1000)
    return min(ttl_ms, most_ms) if ttl_ms > 0 else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").replace("\0", "\ufffd")  # NUL separates source and run
