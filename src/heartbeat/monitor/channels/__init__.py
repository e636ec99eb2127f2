"""Channels: ways to tell people. One contract: ``send`` returns when the other side has the message, or raises ``TransportError``."""

from __future__ import annotations

from typing import Final, Protocol

from heartbeat.errors import HeartbeatError
from heartbeat.monitor.messages import Message

LONGEST_SEND_S: Final = 8.0
"""A sending ends before the lease on the channel does, or another monitor would send the same meanwhile."""


class TransportError(HeartbeatError):
    """The message was not taken. ``permanent``: it never will be; otherwise it is worth another try, after ``retry_after_s`` if given.

    ``too_large``: the same in smaller pieces may be taken.
    """

    def __init__(self, text: str, *, permanent: bool = False, too_large: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.too_large = too_large
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    """What delivers a message. Used by one thread."""

    def send(self, message: Message) -> None:
        """Send it, and return when it was taken. Takes ``LONGEST_SEND_S`` at most.

        Raises:
            TransportError: it was not taken.
        """

    def close(self) -> None:
        """Let go of what is held."""


class Named(Protocol):
    """A channel as the settings have it."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def secret(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...


def open_channel(settings: Named) -> Channel:
    """Return the channel that the settings ask for. Imported here: whoever only logs needs no HTTP.

    Raises:
        ValueError: there is no such type, or the URL, or what the environment says of proxies and certificates, cannot be used.
    """
    timeout_s = min(settings.timeout_s, LONGEST_SEND_S)
    if settings.type == "log":
        from heartbeat.monitor.channels.log import Log

        return Log(settings.name)
    if settings.type == "slack":
        from heartbeat.monitor.channels.slack import Slack

        return Slack(settings.name, settings.url, timeout_s)
    if settings.type == "webhook":
        from heartbeat.monitor.channels.webhook import Webhook

        return Webhook(settings.name, settings.url, settings.secret, timeout_s)
    raise ValueError(f"{settings.type} is no type of channel: webhook, slack or log")
