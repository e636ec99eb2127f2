"""A channel for programs: JSON by POST, signed, under a key by which the receiver knows what it has got already."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final

from heartbeat.logs import secrets
from heartbeat.monitor.channels.post import Poster
from heartbeat.monitor.messages import Message

_CONTENT_TYPE: Final = "application/json"


class Webhook:
    """Sends the message's JSON. With a secret it carries a signature, which covers the time: an old message cannot be sent again."""

    def __init__(self, name: str, url: str, secret: str, timeout_s: float, now_s: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode()
        self._now_s = now_s
        secrets.add([secret])
        self._poster = Poster(name, url, timeout_s)

    def send(self, message: Message) -> None:
        """Send it. Each attempt is signed anew, with its own time."""
        body = message.json()
        timestamp = str(int(self._now_s()))
        headers = {"Content-Type": _CONTENT_TYPE, "Idempotency-Key": message.key, "X-Heartbeat-Timestamp": timestamp}
        if self._secret:
            headers["X-Heartbeat-Signature"] = signature(self._secret, timestamp, body)
        self._poster.send(body, headers)

    def close(self) -> None:
        """Close the client."""
        self._poster.close()


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return what ``X-Heartbeat-Signature`` says: a receiver computes the same, and refuses a timestamp that is too old."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
