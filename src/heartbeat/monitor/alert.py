"""One attempt to deliver a message, as the log has it; and the attempt that a person makes to see whether a channel works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from heartbeat.monitor.channels import Channel, TransportError
from heartbeat.monitor.messages import Message, text_of_test

DELIVERED: Final = "delivered"
FAILED: Final = "failed"
LOST: Final = "lost"
"""The other side will never take it: another attempt is not made."""


class Delivery(msgspec.Struct, frozen=True):
    """What is kept of an attempt. ``flips`` is how many the message has; ``attempt`` counts from 1."""

    at_ms: int
    key: str
    flips: int
    attempt: int
    status: str
    duration_ms: int
    error: str = ""

    def line(self) -> str:
        """Return it in one line."""
        end = ", not tried again" if self.status == LOST else ""
        return f"attempt {self.attempt}: {self.status} after {self.duration_ms} ms{end}" + (f": {self.error}" if self.error else "")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, and what the other side wishes: to be left alone for a while, or to get less at once."""

    delivery: Delivery
    retry_after_s: float | None = None
    too_large: bool = False


def attempt(channel: Channel, message: Message, number: int, at_ms: int, clock_s: Callable[[], float] = time.monotonic) -> Attempt:
    """Send a message, and say what came of it."""
    begun_s = clock_s()
    status, error, retry_after_s, too_large = DELIVERED, "", None, False
    try:
        channel.send(message)
    except TransportError as refusal:
        too_large = refusal.too_large and len(message.flips) > 1
        status, error, retry_after_s = LOST if refusal.permanent and not too_large else FAILED, str(refusal), refusal.retry_after_s
    took_ms = round(1000 * (clock_s() - begun_s))
    return Attempt(Delivery(at_ms, message.key, len(message.flips), number, status, took_ms, error), retry_after_s, too_large)


def test(name: str, channel: Channel, now_ms: int) -> Delivery:
    """Send a message that says it is a test, once."""
    return attempt(channel, Message(f"test:{now_ms}", name, text_of_test(name)), 1, now_ms).delivery
