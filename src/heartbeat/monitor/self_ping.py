"""Tells an outside dead man's switch that we work, and only while all of us does: who watches the watcher must hear silence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Final

from heartbeat import logs
from heartbeat.monitor.channels import TransportError
from heartbeat.monitor.channels.post import Poster
from heartbeat.monitor.settings import Self

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_TURN_S: Final = 1.0
_LOG_EVERY_S: Final = 60.0


class SelfPing:
    """Asks for a URL every so often, unless something is wrong."""

    def __init__(self, settings: Callable[[], Self | None], trouble: Callable[[], str], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._trouble = trouble
        self._clock = clock
        self._due_s = 0.0
        self._log = logs.Every(_LOG_EVERY_S)

    def turn(self) -> float:
        """Ping if it is due and nothing is wrong; return how long to wait."""
        settings, now_s = self._settings(), self._clock()
        if settings is None or now_s < self._due_s:
            return _TURN_S
        trouble = self._trouble()
        if trouble:
            self._say(f"The outside switch hears nothing from us: {trouble}", now_s)
            return _TURN_S
        self._due_s = now_s + settings.every_s
        try:
            with contextlib.closing(Poster("self", settings.url, _TIMEOUT_S, "GET")) as poster:
                poster.send(b"", {})
        except (TransportError, ValueError) as error:
            self._say(f"The outside switch was not reached: {error}", now_s)
        return _TURN_S

    def _say(self, text: str, now_s: float) -> None:
        if self._log.due(now_s):
            log.warning("%s", text)
