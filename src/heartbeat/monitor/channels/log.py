"""A channel that writes to the log: for a machine without any other, and to see what a channel would be told."""

from __future__ import annotations

import logging

from heartbeat.monitor.messages import Message


class Log:
    """One line per message: a warning while there is something wrong in it."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(f"{__name__}.{name}")

    def send(self, message: Message) -> None:
        """Write the text. What stands between its lines is ours: names cannot end one."""
        level = logging.WARNING if any(flip.opens for flip in message.flips) else logging.INFO
        self._log.log(level, "%s", message.text.replace("\n", " | "))

    def close(self) -> None:
        """Nothing is held."""
