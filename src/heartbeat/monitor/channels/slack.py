"""A channel for a Slack incoming webhook. Its URL is a secret: whoever has it can post.

Nothing in a name can format, link or call anybody: the text stands in ``plain_text`` blocks, with Slack's three characters as entities.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from heartbeat.logs import secrets
from heartbeat.monitor.channels.post import Poster
from heartbeat.monitor.messages import Message

MOST_CHARACTERS: Final = 3_000
"""In one block."""
MOST_BLOCKS: Final = 50


class Slack:
    """Posts the text. What Slack answers is told apart by status alone: a revoked or unknown hook is a 4xx, and permanent."""

    def __init__(self, name: str, url: str, timeout_s: float) -> None:
        secrets.add([url])
        self._poster = Poster(name, url, timeout_s)

    def send(self, message: Message) -> None:
        """Send it."""
        self._poster.send(msgspec.json.encode(payload(message.text)), {"Content-Type": "application/json"})

    def close(self) -> None:
        """Close the client."""
        self._poster.close()


def payload(text: str) -> dict[str, Any]:
    """Return what is posted; ``text`` is what a notification shows, the blocks are what the channel does."""
    parts = list(_parts(text))
    blocks = [{"type": "section", "text": {"type": "plain_text", "text": part, "emoji": False}} for part in parts[:MOST_BLOCKS]]
    return {"text": parts[0], "mrkdwn": False, "blocks": blocks}


def _parts(text: str) -> Iterator[str]:
    """Yield the lines, escaped, in as few pieces as fit; no entity is cut in two."""
    part = ""
    for char in text:
        shown = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(char, char)
        if len(part) + len(shown) > MOST_CHARACTERS:
            yield part
            part = ""
        part += shown
    yield part or " "
