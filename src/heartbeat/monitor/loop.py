"""A thread that takes one turn after another until it is told to stop. What a turn cannot handle is logged, and the next one comes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_AFTER_ERROR_S: Final = 1.0


class Loop:
    """Runs ``turn`` in a thread of its own; it returns how many seconds to wait for the next one."""

    def __init__(self, name: str, turn: Callable[[], float], end: Callable[[], None] | None = None) -> None:
        self._turn = turn
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after this turn."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end and return whether it came; a thread that is late does not hold up the process."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                wait_s = self._turn()
            except Exception:  # whatever one turn meets, silence must go on being watched
                log.exception("%s: a turn failed; the next one comes in %.0f s", self._thread.name, _AFTER_ERROR_S)
                wait_s = _AFTER_ERROR_S
            self._stop.wait(wait_s)
        if self._end is not None:
            self._end()
