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
_PATIENCE_S: Final = 5.0
"""Trouble that is over sooner is not worth a line: at a start nothing has been looked at yet."""


class SelfPing:
    """Asks for a URL every so often, unless something is wrong."""

    def __init__(self, settings: Callable[[], Self | None], trouble: Callable[[], str], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._trouble = trouble
        self._clock = clock
        self._due_s = 0.0
        self._troubled_s: float | None = None
        self._silent = logs.Every(_LOG_EVERY_S)
        self._unreached = logs.Every(_LOG_EVERY_S)

    def turn(self) -> float:
        """Ping if it is due and nothing is wrong; return how long to wait."""
        settings, now_s = self._settings(), self._clock()
        if settings is None or now_s < self._due_s:
            return _TURN_S
        trouble = self._trouble()
        if trouble:
            self._troubled_s = now_s if self._troubled_s is None else self._troubled_s
            if now_s - self._troubled_s >= _PATIENCE_S and self._silent.due(now_s):
                log.warning("The outside switch hears nothing from us: %s", trouble)
            return _TURN_S
        self._troubled_s = None
        self._due_s = now_s + settings.every_s
        try:
            with contextlib.closing(Poster("self", settings.url, _TIMEOUT_S, "GET")) as poster:
                poster.send(b"", {})
        except (TransportError, ValueError) as error:
            if self._unreached.due(now_s):
                log.warning("The outside switch was not reached: %s", error)
        return _TURN_S
