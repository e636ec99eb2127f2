"""Several looks at once, each of which may hang or fail without taking the others along."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """A look that came to nothing, and why."""

    reason: str


class _Look(threading.Thread, Generic[T]):
    def __init__(self, call: Callable[[], T], limit_s: float) -> None:
        super().__init__(daemon=True)  # one that hangs does not hold up the end of the program
        self.result: T | Failed = Failed(f"no answer in {limit_s:.0f} s")
        self._call = call

    def run(self) -> None:
        """Look once."""
        try:
            self.result = self._call()
        except Exception as error:  # noqa: BLE001  the top of a thread: whatever goes wrong with one look is that look's finding
            self.result = Failed(str(error) or type(error).__name__)


def at_once(calls: Mapping[K, Callable[[], T]], limit_s: float) -> dict[K, T | Failed]:
    """Return what each call gave, or why it gave nothing within ``limit_s`` seconds."""
    looks = {name: _Look(call, limit_s) for name, call in calls.items()}
    for look in looks.values():
        look.start()
    deadline_s = time.monotonic() + limit_s
    for look in looks.values():
        look.join(max(0.0, deadline_s - time.monotonic()))
    return {name: look.result for name, look in looks.items()}
